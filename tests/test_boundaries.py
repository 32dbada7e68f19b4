"""No step shorter than the distance leaves a region, and the right one that is longer does."""

import importlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_templates import Unrolled, network, two_layers
from topologies import PIECEWISE_AFFINE, build
from torch import nn

from birdinv.spline import boundary_distance, codes
from birdinv.spline.templates import jacobian_rows

DOUBLE = torch.float64
LINEAR = ["linear", "reflect padding"]
BENT = [name for name in PIECEWISE_AFFINE if name not in LINEAR]


def deep():
    """Three layers of LeakyReLUs and ReLUs, and a batch."""
    torch.manual_seed(0)
    layers = nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.LeakyReLU(0.1), nn.Linear(6, 5)
    model = nn.Sequential(*layers, nn.ReLU(), nn.Linear(5, 2)).double()
    return model, torch.randn(6, 3, dtype=DOUBLE)


def sides(model, x):
    """Of a chain of layers each unit's argument and its gradient, sample by sample."""
    for sample in x:
        arguments, slopes = [], []
        for number, layer in enumerate(model):
            if isinstance(layer, nn.ReLU | nn.LeakyReLU):
                before = model[:number]
                arguments.append(before(sample).detach())
                slopes.append(torch.autograd.functional.jacobian(before, sample))
        yield torch.cat(arguments), torch.cat(slopes)


def joint(model, x):
    """All codes of each input in a row."""
    return torch.cat([code.choices.long() for code in codes(model, x).values()], dim=1)


def ways(x, count):
    """Random directions of length 1, `[N · count, …]`, and the inputs that they start from."""
    start = x.repeat_interleave(count, dim=0)
    way = torch.randn_like(start).flatten(1)
    return start, (way / way.norm(dim=1, keepdim=True)).view_as(start)


def along(way, size):
    return way * size.view(-1, *[1] * (way.ndim - 1))


# Closed forms.


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 40), st.booleans())
def test_the_distance_of_one_layer_is_that_to_the_nearest_of_its_planes(
    count, inputs, width, every
):
    """`min_i |⟨w_i, x⟩ + b_i| / ‖w_i‖`."""
    torch.manual_seed(0)
    model, x = two_layers(inputs, width), torch.randn(count, inputs, dtype=DOUBLE)
    expected = (model[0](x).abs() / model[0].weight.norm(dim=1)).amin(dim=1)
    found = boundary_distance(model, x, every=every)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("every", [False, True])
def test_the_distance_of_maxima_is_that_to_where_two_places_are_equal(every):
    """`min_j (x_i − x_j) / √2` for the winner i of each window."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.MaxPool1d(3), nn.Flatten(), nn.Linear(8, 2)).double()
    x = torch.randn(5, 2, 12, dtype=DOUBLE)
    first, second = x.view(5, 2, 4, 3).topk(2, dim=3).values.unbind(dim=3)
    expected = ((first - second) / 2**0.5).flatten(1).amin(dim=1)
    found = boundary_distance(model, x, every=every)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_places_of_the_padding_are_no_sides():
    model = nn.Sequential(nn.MaxPool1d(3, 3, 1), nn.Flatten(), nn.Linear(1, 2)).double()
    x = torch.tensor([[[-5.0, -1.0]]], dtype=DOUBLE)
    assert boundary_distance(model, x).item() == pytest.approx(4 / 2**0.5, rel=1e-12)


def test_what_is_bounded_on_both_sides_has_a_side_at_each():
    """At −1 and 1, and twice as near in the input."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Hardtanh()).double()
    model[0].weight.data.fill_(2)
    x = torch.tensor([[-0.9], [-0.4], [0.1], [0.3], [0.8]], dtype=DOUBLE)
    expected = torch.tensor([0.4, 0.1, 0.4, 0.2, 0.3], dtype=DOUBLE)
    torch.testing.assert_close(boundary_distance(model, x), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("every", [False, True])
def test_the_distance_of_several_layers_is_the_least_of_all_their_units(every):
    model, x = deep()
    expected = []
    for argument, slope in sides(model, x):
        norm = slope.norm(dim=1)
        expected.append((argument.abs() / norm)[norm > 0].min())
    found = boundary_distance(model, x, every=every)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_network_has_no_sides(name):
    model, x = build(name)
    assert boundary_distance(model, x).tolist() == [math.inf] * len(x)


@pytest.mark.parametrize("every", [False, True])
def test_on_a_side_the_distance_is_zero(every):
    model = two_layers(2, 3)
    model[0].bias.data.zero_()
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=DOUBLE)
    found = boundary_distance(model, x, every=every)
    assert found[0] == 0 and found[1] > 0


@pytest.mark.parametrize("every", [False, True])
def test_where_two_places_of_a_maximum_are_equal_the_distance_is_zero(every):
    model = nn.Sequential(nn.MaxPool1d(3), nn.Flatten(), nn.Linear(1, 2)).double()
    x = torch.tensor([[[2.0, 1, 2]], [[2, 1, 0]]], dtype=DOUBLE)
    found = boundary_distance(model, x, every=every)
    assert found[0] == 0 and found[1] > 0


def test_units_that_the_input_does_not_reach_are_no_sides():
    """The second layer sees nothing but biases, where the first one is off."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU()).double()
    for layer, weight, bias in ((model[0], 1.0, 0.0), (model[2], 1.0, 0.01)):
        layer.weight.data.fill_(weight)
        layer.bias.data.fill_(bias)
    x = torch.tensor([[-3.0]], dtype=DOUBLE)
    assert boundary_distance(model, x).item() == pytest.approx(3)


# Steps.


@pytest.mark.parametrize("name", BENT)
def test_no_step_a_little_shorter_than_the_distance_changes_the_code(name):
    model, x = build(name)
    distance = boundary_distance(model, x)
    start, way = ways(x, 100)
    size = 0.999 * distance.repeat_interleave(100)
    assert size.min() > 0
    assert torch.equal(joint(model, start + along(way, size)), joint(model, start))


def test_a_step_across_the_nearest_plane_of_one_layer_changes_the_code():
    torch.manual_seed(0)
    model, x = two_layers(4, 20), torch.randn(10, 4, dtype=DOUBLE)
    weight = model[0].weight.detach()
    away = model[0](x).detach() / weight.norm(dim=1)
    nearest = away.abs().argmin(dim=1)
    normal = weight[nearest] / weight[nearest].norm(dim=1, keepdim=True)
    towards = -normal * away.gather(1, nearest[:, None]).sign()
    distance = boundary_distance(model, x)
    inside = x + 0.999 * along(towards, distance)
    outside = x + 1.001 * along(towards, distance)
    assert torch.equal(joint(model, inside), joint(model, x))
    changed = joint(model, outside) != joint(model, x)
    assert changed.any(dim=1).all()
    assert changed.gather(1, nearest[:, None]).all()


def test_a_step_across_the_nearest_side_of_several_layers_changes_the_code():
    model, x = deep()
    distance = boundary_distance(model, x)
    for n, (argument, slope) in enumerate(sides(model, x)):
        norm = slope.norm(dim=1)
        nearest = torch.where(norm > 0, argument.abs() / norm, torch.inf).argmin()
        towards = -slope[nearest] / norm[nearest] * argument[nearest].sign()
        here = joint(model, x[n : n + 1])
        for share, same in ((0.999, True), (1.001, False)):
            there = joint(model, (x[n] + share * distance[n] * towards)[None])
            assert torch.equal(there, here) is same


@pytest.mark.parametrize("name", ["deep", "bird10", "u-net", "resnet", "unrolled"])
def test_in_no_direction_another_code_is_reached_before_the_distance(name):
    """The first change along many ways, closed in on by halving, lies at the distance or beyond."""
    torch.manual_seed(0)
    if name == "deep":
        model, x = deep()
    elif name == "unrolled":
        model, x = Unrolled().double(), torch.randn(4, 3, 2, dtype=DOUBLE)
    else:
        model, x = build(name)
    distance = boundary_distance(model, x).repeat_interleave(60)
    start, way = ways(x, 60)
    here = joint(model, start)

    def changed(size):
        return (joint(model, start + along(way, size)) != here).any(dim=1)

    high = distance.clone()
    for _ in range(14):
        high = torch.where(changed(high), high, 1.5 * high)
    reached = changed(high)
    low = torch.zeros_like(high)
    for _ in range(45):
        middle = (low + high) / 2
        beyond = changed(middle)
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    assert reached.double().mean() > 0.9
    assert (high[reached] >= distance[reached] * (1 - 1e-9)).all()


# How it is computed.


@pytest.mark.parametrize("name", PIECEWISE_AFFINE)
def test_the_units_that_probes_rule_out_are_never_the_nearest(name):
    model, x = build(name)
    expected = boundary_distance(model, x, every=True)
    torch.testing.assert_close(boundary_distance(model, x), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("options", [{}, {"pooling": "max", "batch_norm": True}])
def test_of_a_network_of_thousands_of_units_none_that_is_ruled_out_is_the_nearest(options):
    model, x = network("resnet2-4", **options)
    expected = boundary_distance(model, x, every=True, chunk=10_000)
    torch.testing.assert_close(boundary_distance(model, x), expected, rtol=1e-10, atol=0)


def test_among_many_sides_that_are_nearly_as_near_the_nearest_is_found():
    """From zero all planes lie at their biases, in an order that no probe can tell."""
    torch.manual_seed(0)
    model, x = two_layers(20, 600), torch.zeros(4, 20, dtype=DOUBLE)
    weight, bias = model[0].weight.data, model[0].bias.data
    weight /= weight.norm(dim=1, keepdim=True)
    bias.copy_(1 + 0.1 * torch.rand_like(bias))
    expected = bias.min().expand(4)
    torch.testing.assert_close(boundary_distance(model, x), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["resnet", "bird10", "u-net"])
def test_the_probes_seed_does_not_matter(name):
    model, x = build(name)
    one, other = (boundary_distance(model, x, seed=seed) for seed in (1, 2))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["resnet", "bird10", "flatten first"])
def test_an_input_has_the_distance_that_it_has_alone(name):
    model, x = build(name)
    alone = torch.cat([boundary_distance(model, each) for each in x.split(1)])
    torch.testing.assert_close(boundary_distance(model, x), alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("chunk", [1, 16, 33, 1000])
def test_the_distance_does_not_depend_on_the_chunk(chunk):
    model, x = deep()
    expected = boundary_distance(model, x)
    found = boundary_distance(model, x, chunk=chunk)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_torchs_own_generator_is_left_alone():
    model, x = deep()
    before = torch.get_rng_state()
    boundary_distance(model, x)
    assert torch.equal(torch.get_rng_state(), before)


def test_single_precision_is_kept():
    model, x = deep()
    expected = boundary_distance(model, x)
    found = boundary_distance(model.float(), x.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_gradients_and_modes_are_left_alone():
    model, x = deep()
    model[1].eval()
    x.requires_grad_()
    with torch.no_grad():
        found = boundary_distance(model, x)
    assert not found.requires_grad and x.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert [module.training for module in model] == [number != 1 for number in range(7)]


def test_a_network_in_training_mode_is_looked_at_in_eval_mode():
    torch.manual_seed(0)
    layers = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 4)
    model, x = nn.Sequential(*layers, nn.ReLU()).double(), torch.randn(5, 3, dtype=DOUBLE)
    expected = boundary_distance(model.eval(), x)
    assert torch.equal(boundary_distance(model.train(), x), expected)


@pytest.mark.parametrize("name", ["resnet", "bird10"])
def test_frozen_parameters_change_nothing(name):
    model, x = build(name)
    expected = boundary_distance(model, x)
    found = boundary_distance(model.requires_grad_(False), x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "chunk",
    [
        1,
        5,
        16,
        40,
    ],
)
def test_no_more_gradients_than_the_chunk_are_computed_at_a_time(chunk, monkeypatch):
    module = importlib.import_module("birdinv.spline.boundaries")
    sizes = []

    def rows(outputs, x, weights):
        sizes.append(weights.shape[0] * weights.shape[1])
        return jacobian_rows(outputs, x, weights)

    monkeypatch.setattr(module, "jacobian_rows", rows)
    boundary_distance(*deep(), chunk=chunk)
    assert 0 < max(sizes) <= chunk


@pytest.mark.parametrize(
    "bend",
    [
        nn.Threshold(0.1, 0),
        lambda z: z.clip(min=0),
        torch.absolute,
    ],
)
def test_a_bend_is_never_overlooked(bend):
    class Bent(nn.Module):
        def forward(self, x):
            return bend(x)

    assert boundary_distance(Bent(), torch.tensor([[3.0, 4.0]])).item() < 4


# Refusals.


def test_a_chunk_below_one_is_refused():
    with pytest.raises(ValueError, match="chunk=0; expected how many gradients"):
        boundary_distance(*deep(), chunk=0)


def test_inputs_that_are_integers_are_refused():
    with pytest.raises(TypeError, match="expected a tensor of floating point"):
        boundary_distance(nn.Linear(2, 3), torch.ones(4, 2, dtype=torch.int64))


def test_outputs_that_are_no_logits_are_refused():
    with pytest.raises(ValueError, match=r"expected logits \[N, K\]"):
        boundary_distance(nn.ReLU(), torch.ones(4, 2, 3))


def test_a_call_that_cannot_be_looked_into_is_refused():
    model = nn.Sequential(nn.Linear(2, 3), nn.PReLU())
    with pytest.raises(ValueError, match="prelu in layer '1' chooses"):
        boundary_distance(model, torch.ones(4, 2))
