"""Codes are the choices that a network makes, written out; regions are counted by them."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_templates import Unrolled, network
from topologies import PIECEWISE_AFFINE, Recurrent, build
from torch import nn
from torch.nn import functional

from birdinv.spline import Code, blocks, codes, count_regions, separations, templates
from birdinv.spline.kinks import kinks

DOUBLE = torch.float64


class Between(nn.Module):
    """A dense layer, what is done to its output, and a dense layer."""

    def __init__(self, bend, inputs=3, width=7):
        super().__init__()
        self.first, self.head = nn.Linear(inputs, width).double(), nn.Linear(width, 2).double()
        self.bend = bend

    def forward(self, x):
        return self.head(self.bend(self.first(x)))


class Pooled(nn.Module):
    """The pooling alone, its output as logits."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        return self.pool(x).flatten(1)


def between(bend, count=20):
    """(network, batch, what is bent)."""
    torch.manual_seed(0)
    model, x = Between(bend), 3 * torch.randn(count, 3, dtype=DOUBLE)
    return model, x, model.first(x).detach()


def only(found):
    (code,) = found.values()
    return code


def signs(choices, slopes):
    return Code("a", "sign", choices, torch.tensor(slopes, dtype=DOUBLE), len(slopes))


def maxima(choices, ways):
    return Code("a", "maximum", choices, None, ways)


# Codes.


RELUS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "functional": functional.relu,
    "functional in place": functional.relu_,
    "torch": torch.relu,
    "torch in place": torch.relu_,
    "method": lambda z: z.relu(),
    "method in place": lambda z: z.relu_(),
    "clamp": lambda z: z.clamp(min=0),
    "clamp by place": lambda z: torch.clamp(z, 0.0),
    "clamp in place": lambda z: z.clamp_(min=0),
    "clamp_min": lambda z: torch.clamp_min(z, 0.0),
    "keyword": lambda z: functional.relu(input=z),
}


@pytest.mark.parametrize("name", RELUS)
def test_the_code_of_a_relu_says_what_is_above_zero(name):
    model, x, z = between(RELUS[name])
    code = only(codes(model, x))
    assert torch.equal(code.choices, z > 0)
    assert (code.kind, code.ways, code.bits) == ("sign", 2, 1)
    assert code.slopes.tolist() == [0, 1]


@pytest.mark.parametrize("name", RELUS)
def test_looking_at_codes_leaves_the_logits_as_they_are(name):
    model, x, z = between(RELUS[name])
    seen = []
    model.register_forward_hook(lambda _m, _a, out: seen.append(out))
    codes(model, x)
    torch.testing.assert_close(seen[0], model.head(z.clamp(min=0)), rtol=0, atol=1e-15)


LEAKY = {
    "module": nn.LeakyReLU(0.1),
    "module in place": nn.LeakyReLU(0.1, inplace=True),
    "functional": lambda z: functional.leaky_relu(z, 0.1),
    "functional in place": lambda z: functional.leaky_relu_(z, negative_slope=0.1),
}


@pytest.mark.parametrize("name", LEAKY)
def test_the_code_of_a_leaky_relu_says_what_is_above_zero(name):
    model, x, z = between(LEAKY[name])
    code = only(codes(model, x))
    assert torch.equal(code.choices, z > 0)
    assert code.slopes.tolist() == [0.1, 1]


THREE_WAYS = {
    "relu6": (nn.ReLU6(), 0, 6),
    "functional relu6": (functional.relu6, 0, 6),
    "hardtanh": (nn.Hardtanh(-0.5, 2.0), -0.5, 2),
    "functional hardtanh": (functional.hardtanh, -1, 1),
    "clamp": (lambda z: z.clamp(-0.5, 2.0), -0.5, 2),
    "clamp by name": (lambda z: torch.clamp(z, min=-0.5, max=2.0), -0.5, 2),
}


@pytest.mark.parametrize("name", THREE_WAYS)
def test_what_is_bounded_on_both_sides_chooses_between_three_ways(name):
    bend, low, high = THREE_WAYS[name]
    model, x, z = between(bend, 600)
    code = only(codes(model, x))
    assert torch.equal(code.choices, torch.where(z > high, 2, torch.where(z > low, 1, 0)))
    assert set(code.choices.unique().tolist()) == {0, 1, 2}
    assert (code.ways, code.bits) == (3, 2)
    assert code.slopes.tolist() == [0, 1, 0]


@pytest.mark.parametrize("bend", [torch.abs, lambda z: z.abs(), lambda z: z.abs_(), abs])
def test_the_code_of_an_absolute_value_is_the_sign(bend):
    model, x, z = between(bend)
    code = only(codes(model, x))
    assert torch.equal(code.choices, z > 0)
    assert code.slopes.tolist() == [-1, 1]


@pytest.mark.parametrize("bend", [lambda z: z.clamp(max=0.5), lambda z: z.clamp_max(0.5)])
def test_what_is_bounded_above_is_passed_on_below(bend):
    model, x, z = between(bend)
    code = only(codes(model, x))
    assert torch.equal(code.choices, z > 0.5)
    assert code.slopes.tolist() == [1, 0]


def poolings(dims):
    """Every combination that torch takes: kernels, strides, paddings, dilations, ends."""
    for kernel, stride, dilation in itertools.product((1, 2, 3), (1, 2, 3), (1, 2)):
        for padding, ceil in itertools.product(range(kernel // 2 + 1), (False, True)):
            yield {
                "kernel_size": (kernel, 2)[:dims],
                "stride": (stride, 3)[:dims],
                "padding": (padding, 1)[:dims],
                "dilation": (dilation, 1)[:dims],
                "ceil_mode": ceil,
            }


def one(option):
    """As a number, which in one dimension torch's layers also take."""
    return {key: value[0] if isinstance(value, tuple) else value for key, value in option.items()}


POOLS = [
    *((nn.MaxPool1d, one(option), (7,)) for option in poolings(1)),
    *((nn.MaxPool1d, one(option), (8,)) for option in poolings(1)),
    *((nn.MaxPool2d, option, (6, 5)) for option in poolings(2)),
    *((nn.MaxPool2d, one(option), (7, 8)) for option in poolings(1)),
]


def test_the_windows_of_every_max_pooling_hold_what_torch_takes_the_maximum_of():
    torch.manual_seed(0)
    for kind, options, size in POOLS:
        pool, x = kind(**options), torch.randn(2, 3, *size, dtype=DOUBLE)
        kept = []
        model = Pooled(pool)
        with kinks(model, kept.append, len(x)):
            expected = model(x.requires_grad_())
        (maximum,) = kept
        assert torch.equal(maximum._windows().amax(dim=-1).flatten(1), expected), (kind, options)


def places(pool, x):
    """The places of the winners in their windows, from torch's indices into the input."""
    kind = functional.max_pool1d if x.ndim == 3 else functional.max_pool2d
    out, indices = kind(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, True
    )
    dims = x.ndim - 2
    kernel, stride, padding, dilation = (
        (each,) * dims if isinstance(each, int) else each
        for each in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    found = torch.zeros_like(indices)
    for n, c, *window in itertools.product(*map(range, out.shape)):
        at = np.unravel_index(int(indices[n, c][tuple(window)]), x.shape[2:])
        place = [(at[d] - window[d] * stride[d] + padding[d]) // dilation[d] for d in range(dims)]
        found[n, c][tuple(window)] = int(np.ravel_multi_index(place, kernel))
    return found.flatten(1)


def test_the_code_of_every_max_pooling_is_the_place_of_the_winner_in_its_window():
    torch.manual_seed(0)
    for kind, options, size in POOLS:
        pool, x = kind(**options), torch.randn(1, 2, *size, dtype=DOUBLE)
        code = only(codes(Pooled(pool), x))
        assert torch.equal(code.choices, places(pool, x)), (kind, options)
        kernel = options["kernel_size"]
        windows = kernel if isinstance(kernel, tuple) else (kernel,) * len(size)
        assert (code.kind, code.ways, code.slopes) == ("maximum", math.prod(windows), None)


def test_of_equal_places_the_first_wins():
    code = only(codes(Pooled(nn.MaxPool1d(3)), torch.tensor([[[1.0, 2, 2, 5, 5, 5]]])))
    assert code.choices.tolist() == [[1, 0]]


MAXIMA = {
    "functional": lambda x: functional.max_pool2d(x, 2),
    "torch": lambda x: torch.max_pool2d(x, 2),
    "with indices": lambda x: functional.max_pool2d(x, 2, return_indices=True)[0],
    "adaptive": lambda x: functional.adaptive_max_pool2d(x, (3, 2)),
    "adaptive module": nn.AdaptiveMaxPool2d((None, 2)),
}


@pytest.mark.parametrize("name", [name for name in MAXIMA if name != "adaptive module"])
def test_a_max_pooling_is_seen_however_it_is_called(name):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 4, dtype=DOUBLE)
    code = only(codes(Pooled(MAXIMA[name]), x))
    assert torch.equal(code.choices, places(nn.MaxPool2d(2), x))


def test_an_adaptive_max_pooling_may_keep_a_side():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 4, dtype=DOUBLE)
    code = only(codes(Pooled(MAXIMA["adaptive module"]), x))
    assert torch.equal(code.choices, places(nn.MaxPool2d((1, 2)), x))


def test_smooth_nonlinearities_have_no_code():
    model, x, _ = between(nn.Tanh())
    assert codes(model, x) == {}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_without_kinks_have_no_code(kind):
    assert codes(Recurrent(kind), torch.randn(2, 5, 2)) == {}


# Their names.


def test_codes_are_named_after_the_layers_in_the_order_of_their_calls():
    model, x = build("resnet")
    assert list(codes(model, x)) == ["1", "2.relu", "2.relu#2", "3.relu", "3.relu#2"]


def test_calls_in_the_networks_own_forward_are_numbered():
    class Twice(nn.Module):
        def forward(self, x):
            return functional.relu(functional.relu(x) - 1)

    x = torch.tensor([[-1.0, 0.5, 2.0]])
    found = codes(Twice(), x)
    assert {name: code.choices.int().tolist() for name, code in found.items()} == {
        "forward": [[0, 1, 1]],
        "forward#2": [[0, 0, 1]],
    }
    assert [code.layer for code in found.values()] == list(found)


def test_the_steps_of_a_loop_are_numbered():
    torch.manual_seed(0)
    model, x = Unrolled().double(), torch.randn(4, 3, 2, dtype=DOUBLE)
    found = codes(model, x)
    assert list(found) == ["forward", "forward#2", "forward#3"]
    assert torch.equal(found["forward"].choices, model.into(x[:, 0]) + model.over.bias > 0)


def test_a_call_belongs_to_the_innermost_layer_that_makes_it():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU()), Between(functional.relu, 4))
    assert list(codes(model.double(), torch.randn(2, 3, dtype=DOUBLE))) == ["1.0", "2"]


@pytest.mark.parametrize(
    ("name", "options", "kinds"),
    [
        ("bird10", {}, ["maximum", "sign", "sign", "sign"]),
        ("smallcnn", {"pooling": "mean"}, ["sign"] * 4),
        ("smallcnn", {"pooling": "max"}, ["maximum", "sign", "sign", "maximum", "sign", "sign"]),
        ("swwae:(4)3c-2p-(4)3c-2p-5fc", {}, ["sign", "maximum"] * 2),
    ],
)
def test_every_nonlinearity_and_maximum_of_the_projects_networks_has_a_code(name, options, kinds):
    model, x = network(name, **options)
    assert [code.kind for code in codes(model, x).values()] == kinds


def test_of_a_network_in_training_mode_they_are_those_of_eval_mode():
    torch.manual_seed(0)
    layers = nn.Linear(3, 9), nn.BatchNorm1d(9), nn.Dropout(0.5), nn.ReLU(), nn.Linear(9, 2)
    model, x = nn.Sequential(*layers).double(), torch.randn(5, 3, dtype=DOUBLE)
    found = only(codes(model, x))
    assert model.training and model[1].num_batches_tracked == 0
    assert torch.equal(found.choices, model.eval()[1](model[0](x)) > 0)


# Bits.


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 20), st.integers(2, 20), st.integers(0, 99))
def test_packed_bits_unpack_to_the_choices(count, units, ways, seed):
    generator = torch.Generator().manual_seed(seed)
    choices = torch.randint(0, ways, (count, units), generator=generator)
    code = maxima(choices, ways)
    assert 2 ** (code.bits - 1) < ways <= 2**code.bits
    assert code.packed.shape == (count, -(-units * code.bits // 8))
    bits = np.unpackbits(code.packed, axis=1, count=units * code.bits)
    values = bits.reshape(count, units, code.bits) @ (1 << np.arange(code.bits))
    assert np.array_equal(values, choices.numpy())


def test_a_code_of_signs_takes_a_bit_a_unit():
    choices = torch.tensor([[True, False, False, True, True, True, True, True, False, True]])
    code = signs(choices, [0, 1])
    assert code.packed.tolist() == [[0b10011111, 0b01000000]]


# Overlap (SPL 136) and distances.


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 9), st.sampled_from([(0, 1), (0.1, 1), (-1, 1), (0, 1, 0)])
)
def test_the_overlap_of_units_with_slopes_is_the_norm_of_the_product_of_their_matrices(
    count, units, slopes
):
    torch.manual_seed(0)
    choices = torch.randint(0, len(slopes), (count, units))
    code = signs(choices, slopes)
    matrices = [torch.diag(code.slopes[row]) for row in choices]
    for n, m in itertools.product(range(count), repeat=2):
        expected = (matrices[n].T @ matrices[m]).norm()
        torch.testing.assert_close(code.overlap()[n, m], expected, rtol=0, atol=1e-13)


def selection(choices, ways):
    """What a maximum over windows side by side does, a 1 in each row."""
    matrix = torch.zeros(len(choices), len(choices) * ways, dtype=DOUBLE)
    for window, place in enumerate(choices.tolist()):
        matrix[window, window * ways + place] = 1
    return matrix


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(2, 5))
def test_the_overlap_of_maxima_is_the_norm_of_what_two_selections_both_take(count, windows, ways):
    torch.manual_seed(0)
    choices = torch.randint(0, ways, (count, windows))
    overlap = maxima(choices, ways).overlap()
    matrices = [selection(row, ways) for row in choices]
    for n, m in itertools.product(range(count), repeat=2):
        expected = (matrices[n] @ matrices[m].T).norm()
        torch.testing.assert_close(overlap[n, m], expected, rtol=0, atol=1e-13)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(2, 5))
def test_of_maxima_the_papers_product_does_not_depend_on_whether_they_agree(windows, ways):
    """`‖A₁ᵀA₂‖ = √windows` always, which is why the other product is taken."""
    torch.manual_seed(0)
    one, other = torch.randint(0, ways, (2, windows))
    first, second = selection(one, ways), selection(other, ways)
    assert (first.T @ second).norm().item() == pytest.approx(windows**0.5)
    assert (first.T @ first).norm().item() == pytest.approx(windows**0.5)


def test_distances_are_those_of_the_documentation_by_hand():
    code = signs(torch.tensor([[1, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 1]]).bool(), [0, 1])
    # m² of each: 3, 2, 1; together 1, 0 and 1.
    expected = torch.tensor(
        [[0, 1 - 1 / 6**0.5, 1], [1 - 1 / 6**0.5, 0, 1 - 1 / 2**0.5], [1, 1 - 1 / 2**0.5, 0]]
    )
    torch.testing.assert_close(code.distances(), expected.double(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", [*PIECEWISE_AFFINE, "1-d cnn", "squeeze and excite"])
def test_distances_are_symmetric_and_from_zero_to_one(name):
    model, x = build(name)
    for code in codes(model, torch.cat([x, -x, 3 * x])).values():
        found = code.distances()
        assert torch.equal(found, found.T)
        assert found.diagonal().abs().max() == 0
        assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("slopes", [(0, 1), (0.1, 1), (-1, 1)])
def test_inputs_of_one_region_are_at_distance_zero(slopes):
    choices = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 0, 1]]).bool()
    found = signs(choices, slopes).distances()
    assert found[0, 2] <= 1e-15


def test_inputs_where_every_unit_is_off_are_in_one_region_and_at_distance_zero():
    choices = torch.tensor([[0, 0, 0], [0, 1, 1], [0, 0, 0]]).bool()
    found = signs(choices, (0, 1)).distances()
    assert found.tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


def test_maxima_that_nowhere_agree_are_at_distance_one():
    found = maxima(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3).distances()
    assert found.tolist() == [[0, 1], [1, 0]]


def test_the_distance_of_maxima_is_the_share_of_windows_that_disagree():
    found = maxima(torch.tensor([[0, 1, 2, 0], [0, 2, 2, 1]]), 3).distances()
    assert found[0, 1].item() == pytest.approx(0.5)


# What a region is.


def crowded():
    """A little network on the plane and many inputs, so that many share a region."""
    torch.manual_seed(0)
    layers = nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.LeakyReLU(0.1), nn.Linear(3, 2)
    model = nn.Sequential(*layers).double()
    model[0].bias.data += 0.3
    x = 2 * torch.randn(300, 2, dtype=DOUBLE)
    whole = torch.cat([code.choices for code in codes(model, x).values()], dim=1)
    return model, x, whole.unique(dim=0, return_inverse=True)[1]


def test_inputs_of_the_same_codes_have_the_same_templates_and_biases():
    model, x, region = crowded()
    found = templates(model, x)
    assert region.max() < 100  # regions are shared
    for each in region.unique():
        for part in (found.A[region == each], found.b[region == each]):
            torch.testing.assert_close(part, part[:1].expand_as(part), rtol=0, atol=1e-14)


def test_inputs_of_different_codes_have_different_templates():
    model, x, region = crowded()
    found = templates(model, x)
    firsts = [int((region == each).nonzero()[0]) for each in region.unique()]
    maps = torch.cat([found.A.flatten(1), found.b], dim=1)[firsts]
    apart = torch.cdist(maps, maps) + torch.eye(len(maps))
    assert len(firsts) > 5
    assert apart.min() > 1e-6


# Counting.


def grid(side):
    axis = torch.linspace(-4, 4, side, dtype=DOUBLE)
    return torch.cartesian_prod(axis, axis)


def lines(count):
    """One layer whose units are zero on lines in general position: touching a circle."""
    model = nn.Sequential(nn.Linear(2, count), nn.ReLU(), nn.Linear(count, 2)).double()
    angles = math.pi * torch.arange(count, dtype=DOUBLE) / count + 0.1
    model[0].weight.data = torch.stack([angles.cos(), angles.sin()], dim=1)
    model[0].bias.data = torch.full((count,), 0.7, dtype=DOUBLE)
    return model


@pytest.mark.parametrize("count", [1, 2, 3])
def test_lines_in_general_position_cut_the_plane_into_the_regions_that_are_counted(count):
    found = count_regions(lines(count), grid(150).split(7000))
    assert found.layers == {"1": 1 + count + math.comb(count, 2)}
    assert found.so_far == found.layers
    assert found.inputs == 150**2


def test_the_number_of_regions_does_not_depend_on_the_batches():
    model, x, _ = crowded()
    expected = count_regions(model, [x])
    for size in (1, 7, 299):
        assert count_regions(model, x.split(size)) == expected


def test_regions_are_as_many_as_there_are_different_codes():
    model, x, region = crowded()
    found = count_regions(model, [x])
    assert found.so_far["3"] == len(region.unique())
    for name, code in codes(model, x).items():
        assert found.layers[name] == len(code.choices.unique(dim=0))


@pytest.mark.parametrize("name", ["resnet", "u-net", "bird10"])
def test_the_number_of_regions_grows_from_layer_to_layer(name):
    model, x = build(name)
    x = torch.cat([x, -x, 3 * x, x / 2])
    found = count_regions(model, x.split(3))
    counts = list(found.so_far.values())
    assert counts == sorted(counts) and counts[-1] <= found.inputs
    assert all(found.layers[key] <= found.so_far[key] for key in found.layers)
    first = next(iter(found.layers))
    assert found.layers[first] == found.so_far[first]


def test_inputs_that_are_seen_again_lie_in_no_new_regions():
    model, x, _ = crowded()
    once, twice = count_regions(model, [x]), count_regions(model, [x, x])
    assert (twice.layers, twice.so_far) == (once.layers, once.so_far)
    assert twice.inputs == 2 * once.inputs


def test_a_linear_network_has_no_layers_to_count():
    found = count_regions(nn.Linear(2, 3), [torch.randn(4, 2)])
    assert (found.inputs, found.layers, found.so_far) == (4, {}, {})


# Separations (SPL 130) and blocks.


@pytest.mark.parametrize("layer", ["0", "1", "2"])
def test_separations_are_the_distances_of_what_a_layer_gives(layer):
    model, x = build("flatten first")
    model.append(nn.LeakyReLU())
    model.insert(1, nn.Tanh())
    z = model[: int(layer) + 1](x).detach()
    found = separations(model, x, [layer])[layer]
    for n, m in itertools.product(range(len(x)), repeat=2):
        expected = (z[n] - z[m]).norm()
        torch.testing.assert_close(found[n, m], expected, rtol=0, atol=1e-13)


def test_separations_of_several_layers_are_in_the_order_of_their_names():
    model, x = build("flatten first")
    assert list(separations(model, x, ["1", "0"])) == ["1", "0"]


def test_separations_are_those_of_eval_mode():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Dropout(0.5), nn.Linear(9, 2)), torch.randn(4, 9)
    found = separations(model, x, ["0"])["0"]
    assert model.training
    torch.testing.assert_close(found, torch.cdist(x, x).double(), rtol=0, atol=1e-5)


def test_separations_of_near_points_are_not_lost_in_rounding():
    x = torch.tensor([[1e6], [1e6 + 1e-4]], dtype=DOUBLE)
    model = nn.Sequential(nn.Identity(), nn.Linear(1, 2).double())
    found = separations(model, x, ["0"])["0"]
    assert found[0, 1].item() == pytest.approx(1e-4, rel=1e-5)


def test_a_layer_that_is_not_there_has_no_separations():
    with pytest.raises(ValueError, match=r"the model has no layers \['nope'\]"):
        separations(nn.Linear(2, 3), torch.randn(4, 2), ["nope"])


def test_blocks_are_the_means_within_and_between_classes():
    distances = torch.tensor([[0.0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]])
    within, between = blocks(distances, torch.tensor([0, 0, 1, 1]))
    assert (within, between) == ((1 + 6) / 2, (2 + 3 + 4 + 5) / 4)


@pytest.mark.parametrize(
    ("y", "nan"), [([0, 0, 0], (False, True)), ([0, 1, 2], (True, False)), ([5], (True, True))]
)
def test_blocks_without_such_pairs_are_not_a_number(y, nan):
    distances = torch.ones(len(y), len(y)).fill_diagonal_(0)
    assert tuple(map(math.isnan, blocks(distances, torch.tensor(y)))) == nan


# Refusals.


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(3, 2, nonlinearity="relu")

    def forward(self, x):
        return self.cell(x)


@pytest.mark.parametrize(
    ("make", "shape", "sentence"),
    [
        (
            lambda: Recurrent(lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k)),
            (2, 5, 2),
            "rnn_relu in layer 'rnn' chooses .*: write it as a loop over nn.Linear and relu",
        ),
        (Cell, (2, 3), "rnn_relu_cell in layer 'cell' chooses .*: write it as a loop"),
        (lambda: Pooled(lambda x: x.amax(2)), (2, 3, 4), "amax in layer 'forward'.*max_pool"),
        (lambda: Pooled(lambda x: x.max(2)[0]), (2, 3, 4), "max in layer 'forward'.*max_pool"),
        (lambda: Pooled(lambda x: torch.maximum(x, -x)), (2, 3), "maximum in layer 'forward'"),
        (lambda: Pooled(lambda x: x.topk(1)[0]), (2, 3), "topk in layer 'forward'"),
        (lambda: Pooled(nn.PReLU()), (2, 3), "prelu in layer 'pool'.*write it as leaky_relu"),
        (
            lambda: Pooled(nn.AdaptiveMaxPool1d(2)),
            (2, 3, 5),
            r"adaptive_max_pool in layer 'pool' makes \[2\] of \[5\], by windows of different",
        ),
    ],
)
def test_what_chooses_and_cannot_be_looked_into_is_refused(make, shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        codes(make(), torch.randn(shape))


BENDS = {
    "threshold": nn.Threshold(0.1, 0.0),
    "clip": lambda z: torch.clip(z, min=0),
    "absolute": torch.absolute,
    "clamp to a tensor": lambda z: z.clamp(min=torch.zeros(7, dtype=DOUBLE)),
    "softshrink": nn.Softshrink(),
    "hardshrink": nn.Hardshrink(),
    "hardsigmoid": nn.Hardsigmoid(),
    "median": lambda z: z - z.median(dim=1, keepdim=True).values,
    "kthvalue": lambda z: z - z.kthvalue(2, dim=1, keepdim=True).values,
    "cummax": lambda z: z.cummax(dim=1).values,
    "aminmax": lambda z: z - z.aminmax(dim=1, keepdim=True).max,
}


@pytest.mark.parametrize("name", BENDS)
def test_what_chooses_has_a_code_or_is_refused(name):
    model, x, _ = between(BENDS[name])
    try:
        assert codes(model, x)
    except ValueError as error:
        assert "chooses in a way that cannot be looked into" in str(error)


class Gated(nn.Module):
    """What is computed of parameters alone bends nothing in the input."""

    def __init__(self, gate):
        super().__init__()
        self.first, self.head = nn.Linear(3, 7).double(), nn.Linear(7, 2).double()
        self.weight, self.gate = nn.Parameter(torch.rand(7, dtype=DOUBLE)), gate

    def forward(self, x):
        return self.head(functional.relu(self.first(x)) * self.gate(self.weight))


@pytest.mark.parametrize(
    "gate", [functional.relu, lambda w: w.clamp(min=0.01), lambda w: 1 / w.abs().max()]
)
def test_what_bends_parameters_alone_has_no_code(gate):
    torch.manual_seed(0)
    model, x = Gated(gate), torch.randn(5, 3, dtype=DOUBLE)
    assert torch.equal(only(codes(model, x)).choices, model.first(x) > 0)


def test_outputs_that_are_no_logits_are_refused():
    with pytest.raises(ValueError, match=r"the model gave \(2, 3, 4\); expected logits \[N, K\]"):
        codes(nn.Identity(), torch.randn(2, 3, 4))


def test_modes_and_hooks_are_put_back_where_a_network_is_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.PReLU(), nn.Linear(4, 2))
    model[1].eval()
    with pytest.raises(ValueError, match="prelu"):
        codes(model, torch.randn(2, 3))
    modes = [module.training for module in model.modules()]
    assert modes == [True, True, False, True, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
