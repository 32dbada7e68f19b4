"""A network stretches no difference by more than the upper bound, and some by the lower one."""

import copy
import itertools
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from topologies import FAMILIES, DenseNet, build
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import birdinv
from birdinv.spline import lipschitz, of_convolution, spectral_norm, templates

ROUNDING = 1e-9  # of the difference of two inputs, which are 10⁻⁶ apart


class Of(nn.Module):
    """A network whose forward is `function(self, x)`, with layers by name."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def upper_of(model, shape, **options):
    return lipschitz(model, shape, **{"steps": 1, **options}).upper


def bound_of(function, shape, **layers):
    return upper_of(Of(function, **layers).double(), shape)


def drawn(make, seed=0):
    """`make()` with normal weights, in double precision."""
    torch.manual_seed(seed)
    return make().double()


def dense(matrix):
    """`x ↦ W x`, and a bias that no bound may depend on."""
    matrix = torch.as_tensor(matrix, dtype=torch.float64)
    layer = nn.Linear(matrix.shape[1], matrix.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(matrix)
        layer.bias.fill_(3.0)
    return layer


def norm_of(matrix):
    return float(torch.linalg.matrix_norm(matrix.detach(), 2))


def normed(norm, seed=0):
    """With batch statistics, scales and shifts that are none of them 0 or 1."""
    torch.manual_seed(seed)
    count = norm.num_features
    norm = norm.double()
    with torch.no_grad():
        norm.running_mean.copy_(torch.randn(count))
        norm.running_var.copy_(0.2 + 2 * torch.rand(count))
        norm.weight.copy_(torch.randn(count))
        norm.bias.copy_(torch.randn(count))
    return norm


def scale_of(norm):
    """Of a batch norm the largest factor."""
    return float((norm.weight / (norm.running_var + norm.eps).sqrt()).detach().abs().max())


# What is known in closed form.


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_for_a_linear_network_both_bounds_are_its_norm(inputs, classes, seed):
    model = drawn(lambda: nn.Linear(inputs, classes), seed)
    found = lipschitz(model, (inputs,), steps=1)
    assert found.upper == pytest.approx(norm_of(model.weight), rel=1e-12)
    assert found.upper * (1 - 1e-6) <= found.lower <= found.upper * (1 + ROUNDING)


@pytest.mark.parametrize("slope", [0.0, 0.1, -0.5, 2.0])
def test_one_hidden_unit_is_stretched_by_its_two_weights(slope):
    v, w = torch.tensor([[1.5, -2.0]]), torch.tensor([[0.5], [1.0], [-2.0]])
    model = nn.Sequential(dense(v), nn.LeakyReLU(slope), dense(w))
    found = lipschitz(model, (2,), steps=60)
    expected = 2.5 * 5.25**0.5 * max(1.0, abs(slope))
    assert found.upper == pytest.approx(expected, rel=1e-12)
    assert found.lower == pytest.approx(expected, rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=3, max_size=5), st.integers(0, 99))
def test_the_upper_bound_of_a_chain_is_the_product_of_its_norms(widths, seed):
    def make():
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        return nn.Sequential(*itertools.chain(*((layer, nn.ReLU()) for layer in layers)))

    model = drawn(make, seed)
    expected = math.prod(norm_of(layer.weight) for layer in model[::2])
    found = lipschitz(model, (widths[0],), steps=1)
    assert found.upper == pytest.approx(expected, rel=1e-12)
    assert found.lower <= found.upper * (1 + ROUNDING)


# What is known by looking at every region.


def regions(layers):
    """The matrix of every region of a network of two inputs: layers are ("affine", W, b), ("leaky",
    slope) and ("maxima",), of two numbers side by side.

    Unit by unit both ways of each are followed while some place is inside of all their sides.
    """
    start = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    return list(_regions(layers, *start, []))


def _regions(layers, A, b, sides):
    if not layers:
        yield A
        return
    (kind, *values), *rest = layers
    if kind == "affine":
        W, c = values
        yield from _regions(rest, W @ A, W @ b + c, sides)
        return
    if kind == "leaky":
        heights, offsets = A, b
        ways = (1.0, values[0])
    else:
        heights, offsets = A[::2] - A[1::2], b[::2] - b[1::2]
        ways = (0, 1)
    for found, inside in _patterns(heights, offsets, ways, sides):
        if kind == "leaky":
            scale = torch.tensor(found, dtype=torch.float64)
            yield from _regions(rest, scale[:, None] * A, scale * b, inside)
        else:
            taken = [2 * i + way for i, way in enumerate(found)]
            yield from _regions(rest, A[taken], b[taken], inside)


def _patterns(heights, offsets, ways, sides):
    """(the way of each unit, the sides of that region): where a unit is above zero the first."""
    if not len(heights):
        yield (), sides
        return
    for way, sign in zip(ways, (1.0, -1.0), strict=True):
        more = [*sides, (sign * heights[0], sign * offsets[0])]
        if _has_an_inside(more):
            for found, inside in _patterns(heights[1:], offsets[1:], ways, more):
                yield (way, *found), inside


def _has_an_inside(sides):
    """Whether a disk lies on the right side of them all: its radius, at most 1, is largest."""
    rows = [[*(-a).tolist(), float(a.norm())] for a, _ in sides]
    found = linprog(
        [0, 0, -1], rows, [float(b) for _, b in sides], bounds=[(None, None)] * 2 + [(None, 1)]
    )
    return found.status == 0 and -found.fun > 1e-7


def small(kind, seed):
    """(a network of two inputs, its layers for `regions`)."""
    torch.manual_seed(seed)
    widths = ((2, 6), (3, 4), (2, 3)) if kind == "maxima" else ((2, 5), (5, 3), (3, 3))
    layers = first, second, last = [nn.Linear(*width) for width in widths]
    for layer in layers:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
        layer.double()
    bend, step = {
        "relu": (nn.ReLU, ("leaky", 0.0)),
        "leaky": (lambda: nn.LeakyReLU(0.2), ("leaky", 0.2)),
        "maxima": (lambda: Of(lambda _, z: pooled_by_two(z)), ("maxima",)),
    }[kind]
    model = nn.Sequential(first, bend(), second, bend(), last)
    affine = [("affine", layer.weight.detach(), layer.bias.detach()) for layer in layers]
    return model, [affine[0], step, affine[1], step, affine[2]]


def pooled_by_two(z):
    return functional.max_pool1d(z[:, None], 2)[:, 0]


ENUMERATED = [(kind, seed) for kind in ("relu", "leaky", "maxima") for seed in range(4)]


@pytest.fixture(scope="module")
def enumerated():
    """(bracket, the true constant, number of regions) of each small network."""
    found = {}
    for kind, seed in ENUMERATED:
        model, layers = small(kind, seed)
        matrices = regions(layers)
        true = max(map(norm_of, matrices))
        found[kind, seed] = lipschitz(model, (2,)), true, len(matrices)
    return found


@pytest.mark.parametrize(("kind", "seed"), ENUMERATED)
def test_the_true_constant_lies_in_the_bracket(enumerated, kind, seed):
    found, true, count = enumerated[kind, seed]
    assert count > 10
    assert 0 < found.lower <= true * (1 + 1e-9)
    assert true <= found.upper * (1 + 1e-12)


def test_the_lower_bound_is_mostly_near_the_true_constant(enumerated):
    """A search, which may miss a region: of twelve networks it misses more than a tenth on one."""
    shares = [found.lower / true for found, true, _ in enumerated.values()]
    assert statistics.median(shares) > 0.99
    assert sum(share > 0.9 for share in shares) >= 10
    assert min(shares) > 0.5


def test_the_regions_of_these_tests_are_those_that_points_lie_in():
    model, layers = small("relu", 0)
    matrices = torch.stack(regions(layers))
    for x in 2 * torch.randn(50, 2, dtype=torch.float64):
        here = torch.autograd.functional.jacobian(lambda z: model(z[None])[0], x)
        assert float((matrices - here).flatten(1).norm(dim=1).min()) < 1e-9


# What meets: additions, concatenations, loops.


def test_a_residual_branch_adds_to_one():
    branch = nn.Sequential(dense([[0.5, 1.0], [2.0, -1.0]]), nn.ReLU())
    alone = upper_of(branch, (2,))
    assert bound_of(lambda m, x: x + m.f(x), (2,), f=branch) == pytest.approx(1 + alone, rel=1e-12)
    assert bound_of(lambda m, x: m.f(x) - x, (2,), f=branch) == pytest.approx(1 + alone, rel=1e-12)


JOINS = {
    "constant added": (lambda m, x: x + m.c, 1.0),
    "constant added first": (lambda m, x: 3 + x, 1.0),
    "constant taken from": (lambda m, x: x - m.c, 1.0),
    "taken from a constant": (lambda m, x: 1.0 - x, 1.0),
    "alpha": (lambda m, x: torch.add(x, x, alpha=-2), 3.0),
    "scaled": (lambda m, x: x * -3, 3.0),
    "scaled first": (lambda m, x: 0.5 * x, 0.5),
    "scaled by a tensor": (lambda m, x: m.c * x, 4.0),
    "scaled in place": (lambda m, x: (x + 0).mul_(7), 7.0),
    "divided": (lambda m, x: x / 4, 0.25),
    "divided by a tensor": (lambda m, x: x / m.c, 2.0),
    "negative": (lambda m, x: -x, 1.0),
    "nothing": (lambda m, x: x - x.detach() * 0, 1.0),
    "twice": (lambda m, x: x + x, 2.0),
    "cat": (lambda m, x: torch.cat([x, 2 * x], dim=1), 5**0.5),
    "cat with a constant": (lambda m, x: torch.cat([x, m.c.expand(len(x), 3)], dim=1), 1.0),
    "stack": (lambda m, x: torch.stack([x, x, x], dim=1).flatten(1), 3**0.5),
    "mean": (lambda m, x: x.mean(1, keepdim=True), 3**-0.5),
    "sum": (lambda m, x: x.sum(dim=-1, keepdim=True), 3**0.5),
    "broadcast": (lambda m, x: m.c * x.sum(1, keepdim=True), 12.0),
    "added to more places": (lambda m, x: torch.zeros(1, 5).double() + x[:, :1], 5**0.5),
    "view": (lambda m, x: x.view(-1, 3, 1).transpose(1, 2).reshape(-1, 3), 1.0),
    "picked": (lambda m, x: x[:, 1:], 1.0),
    "chunk": (lambda m, x: x.chunk(3, dim=1)[2], 1.0),
    "padded": (lambda m, x: functional.pad(x, (1, 2), value=9.0), 1.0),
    "matmul": (lambda m, x: x @ m.w, 20**0.5),
    "matmul from the left": (lambda m, x: (m.w.T @ x[..., None])[..., 0], 20**0.5),
}


@pytest.mark.parametrize("name", JOINS)
def test_what_is_done_with_constants_and_where_paths_meet_has_its_closed_form(name):
    function, expected = JOINS[name]
    w = torch.tensor([[0.0, 2.0], [4.0, 0.0], [0.0, 0.0]])
    w = w @ torch.tensor([[0.5, 1.0], [1.0, -0.5]])  # of which both columns are √1.25 long
    c = torch.tensor([0.5, -4.0, 1.0])
    model = Of(function, c=nn.Parameter(c), w=nn.Parameter(w)).double()
    found = lipschitz(model, (3,), steps=1)
    assert found.upper == pytest.approx(expected, rel=1e-12)
    assert found.lower <= found.upper * (1 + ROUNDING)


def test_a_loop_is_bounded_as_it_runs():
    """`h ← relu(w x_t + u h)`: a step later is stretched by u less or more."""
    w, u, times = 1.5, 0.5, 4

    def loop(m, x):
        h = torch.zeros(len(x), 1, dtype=x.dtype)
        for t in range(times):
            h = functional.relu(m.w(x[:, t : t + 1]) + m.u(h))
        return h

    found = lipschitz(Of(loop, w=dense([[w]]), u=dense([[u]])), (times,))
    assert found.upper == pytest.approx(w * sum(u**t for t in range(times)), rel=1e-12)
    assert found.lower == pytest.approx(w * sum(u ** (2 * t) for t in range(times)) ** 0.5)
    assert [layer.name for layer in found.layers].count("u") == times - 1


def test_layers_that_are_used_twice_count_twice():
    layer = dense([[3.0]])
    assert bound_of(lambda m, x: m.f(m.f(x)), (1,), f=layer) == pytest.approx(9.0)


def test_dense_connections_are_put_side_by_side():
    """`z₀ = x, z_i = conv_i(relu(norm_i(z₀ … z_{i−1})))` by hand."""
    model = drawn(DenseNet)
    for i in range(3):
        normed(model.norms[i], i)
    squares = 1.0
    for norm, conv in zip(model.norms, model.convs, strict=True):
        scale = scale_of(norm)
        kernel = of_convolution(conv.weight, (5, 5), padding=1).upper
        squares += squares * (scale * kernel) ** 2
    expected = norm_of(model.classifier.weight) / 5 * squares**0.5
    assert upper_of(model, (1, 5, 5)) == pytest.approx(expected, rel=1e-9)


# Convolutions, and batch norm that follows them.


@pytest.mark.parametrize(
    ("make", "norm", "shape"),
    [
        (lambda: nn.Conv1d(4, 6, 3, 2, 2, groups=2), nn.BatchNorm1d(6), (4, 9)),
        (lambda: nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), (2, 5, 4)),
        (lambda: nn.Conv2d(2, 3, (2, 3), padding="same"), nn.BatchNorm2d(3), (2, 5, 4)),
        (lambda: nn.Linear(4, 3), nn.BatchNorm1d(3), (4,)),
    ],
)
def test_batch_norm_that_follows_an_affine_layer_is_one_map_with_it(make, norm, shape):
    layer, norm = drawn(make), normed(norm)
    fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
    folded = fuse(copy.deepcopy(layer).eval(), copy.deepcopy(norm).eval())
    found = lipschitz(nn.Sequential(layer, norm, nn.Flatten()), shape, steps=1)
    expected = lipschitz(nn.Sequential(folded, nn.Flatten()), shape, steps=1)
    assert found.upper == pytest.approx(expected.upper, rel=1e-9)
    assert found.paper == pytest.approx(expected.paper, rel=1e-9)
    (row,) = found.layers
    assert row.name == "0" and row.operation == f"{expected.layers[0].operation} + batch_norm"
    apart = upper_of(nn.Sequential(layer, nn.Flatten()), shape)
    assert found.upper < 0.99 * apart * scale_of(norm)


def test_batch_norm_of_its_own_is_bounded_by_its_largest_scale():
    norm = normed(nn.BatchNorm1d(3))
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    (row,) = lipschitz(nn.Sequential(norm, nn.Flatten()), (3, 4), steps=1).layers
    assert row.upper == pytest.approx(scale_of(norm))
    assert row.paper == pytest.approx(2 * float(scale.norm()))  # √4 places


def test_batch_norm_after_an_activation_is_not_one_map_with_what_is_before_it():
    model = nn.Sequential(dense([[2.0, 0.0], [0.0, 1.0]]), nn.SELU(), normed(nn.BatchNorm1d(2)))
    found = lipschitz(model, (2,))
    assert [layer.operation for layer in found.layers] == ["linear", "selu", "batch_norm"]
    assert found.upper == pytest.approx(2 * 1.7580993408473766 * scale_of(model[2]))
    assert found.lower <= found.upper


CONVOLUTIONS = {
    "1-d": (lambda: nn.Conv1d(2, 3, 4, 2, 1), (2, 9)),
    "1-d, same, dilated": (lambda: nn.Conv1d(2, 2, 3, padding="same", dilation=2), (2, 9)),
    "2-d, valid": (lambda: nn.Conv2d(2, 2, (3, 2), padding="valid", dilation=(1, 2)), (2, 5, 6)),
    "3-d": (lambda: nn.Conv3d(1, 2, 2, (1, 2, 1), 1), (1, 3, 4, 2)),
    "transposed": (lambda: nn.ConvTranspose1d(4, 2, 3, 2, 1, 1, groups=2), (4, 6)),
    "transposed, dilated": (lambda: nn.ConvTranspose2d(2, 3, 2, (2, 1), dilation=2), (2, 3, 4)),
    "dense, of places": (lambda: nn.Linear(4, 3), (5, 4)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_has_the_norms_of_its_dense_matrix(name):
    make, shape = CONVOLUTIONS[name]
    layer = drawn(make)
    x = torch.zeros(shape, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(lambda z: layer(z[None]).flatten(), x).flatten(1)
    found = lipschitz(nn.Sequential(layer, nn.Flatten()), shape, steps=1)
    assert norm_of(matrix) <= found.upper * (1 + 1e-9)
    assert found.layers[0].spectral == pytest.approx(norm_of(matrix), rel=1e-7)
    assert found.layers[0].paper == pytest.approx(float(matrix.norm()), rel=1e-9)
    assert found.lower == pytest.approx(norm_of(matrix), rel=1e-6)


def test_padding_that_is_wider_at_one_end_is_bounded_from_above():
    layer = drawn(lambda: nn.Conv1d(2, 3, 4, padding="same"))
    x = torch.zeros(2, 30, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(lambda z: layer(z[None]).flatten(), x).flatten(1)
    upper = upper_of(nn.Sequential(layer, nn.Flatten()), (2, 30))
    assert norm_of(matrix) <= upper <= 1.01 * norm_of(matrix)


# Networks that people bring, and the project's own.

REFUSED = {
    "pre-activation residual": "the product of two layers",
    "lstm": "no rule for lstm",
    "gru": "no rule for gru",
    "rnn": "no rule for rnn_tanh",
    "attention": "no rule for multi_head_attention_forward",
    "transformer": "no rule for multi_head_attention_forward",
    "transformer in training": "no rule for multi_head_attention_forward",
    "squeeze and excite": "the product of two layers",
    "reflect padding": "padding of mode 'reflect'",
    "siamese": "the product of two layers",
    "layer without gradient": "the product of two layers",
    "hook on the gradient": "what view_as does to its input depends on the input",
    "patched forward": "state its constant",  # which keeps the layer that a copy was made of
}


def assert_brackets(model, x, found, scales=(1e-4, 0.1, 1.0, 10.0)):
    """No pair of inputs, near or far, is stretched by more than the upper bound."""
    generator = torch.Generator().manual_seed(1)
    model = model.eval()
    with torch.no_grad():
        for scale in scales:
            step = scale * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            far = (model(x + step) - model(x)).norm(dim=1)
            assert float(far.max()) > 0
            near = step.flatten(1).norm(dim=1)
            assert bool((far <= found.upper * near * (1 + 1e-9)).all())
    assert 0 < found.lower <= found.upper * (1 + ROUNDING)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in REFUSED])
def test_no_two_inputs_of_any_network_are_stretched_by_more_than_the_upper_bound(name):
    model, x = build(name)
    found = lipschitz(model, x.shape[1:], steps=20)
    assert_brackets(model, x, found)
    assert found.paper >= found.upper * (1 - 1e-12)


@pytest.mark.parametrize("name", REFUSED)
def test_what_stretches_without_bound_or_has_no_rule_is_refused(name):
    model, x = build(name)
    with pytest.raises(ValueError, match=REFUSED[name]):
        lipschitz(model, x.shape[1:], steps=1)


OWN = {
    "bird10": ("bird10", (1, 4700), {"width": 3, "dense": 5}),
    "smallcnn, mean": ("smallcnn", (1, 20, 20), {"pooling": "mean"}),
    "smallcnn, max, batch norm": ("smallcnn", (1, 20, 20), {"pooling": "max", "batch_norm": True}),
    "smallcnn, inhibitor": ("smallcnn", (1, 20, 20), {"pooling": "inhibitor"}),
    "resnet": ("resnet2-4", (1, 16, 16), {}),
    "resnet, ms": ("resnet2-4", (1, 16, 16), {"batch_norm": True, "dropout": 0.2}),
    "resnet, inhibitor": ("resnet2-4", (1, 16, 16), {"pooling": "inhibitor"}),
    "swwae": ("swwae:(4)3c-2p-(4)3c-2p-5fc", (1, 16, 16), {}),
}


def own(name):
    network, shape, options = OWN[name]
    model = drawn(lambda: birdinv.networks.build(network, classes=5, shape=shape, **options))
    for i, module in enumerate(model.modules()):
        if isinstance(module, nn.BatchNorm2d):
            normed(module, i)
    return model, torch.randn(3, *shape, dtype=torch.float64)


@pytest.mark.parametrize("name", OWN)
def test_the_bracket_holds_for_every_network_of_the_project(name):
    model, x = own(name)
    found = lipschitz(model, x.shape[1:], points=x[:2], steps=10)
    assert_brackets(model, x, found)
    assert found.paper > 10 * found.upper


def test_a_residual_network_of_the_project_is_bounded_block_by_block():
    """`‖pool‖ · (‖W‖ + ‖conv‖)` for each, of LeakyReLUs that do not stretch."""
    model, x = own("resnet")
    found = lipschitz(model, x.shape[1:], points=x[:1], steps=1)
    size = 16
    expected = of_convolution(model.stem[0].weight, (size, size), padding=1).upper
    for number in range(1, 7):
        block = getattr(model, f"block{number}")
        linear = norm_of(block.linear.weight.flatten(1))
        expected *= linear + of_convolution(block.conv.weight, (size, size), padding=1).upper
        if number in (2, 4):
            expected /= 2
            size //= 2
    expected *= norm_of(model.head[-1].weight) / size
    assert found.upper == pytest.approx(expected, rel=1e-9)


def test_the_soft_pooling_of_a_network_of_the_project_is_refused():
    model = birdinv.networks.build("swwae:(2)3c-2p-5fc", shape=(1, 8, 8), pooling="soft")
    with pytest.raises(ValueError, match=r"layer 'stage1\.pool' has no Lipschitz constant here"):
        lipschitz(model, (1, 8, 8), steps=1)


# The rows.


def test_the_rows_of_a_chain_are_its_layers_in_order_and_multiply_to_the_bounds():
    model = drawn(
        lambda: nn.Sequential(
            nn.Conv1d(2, 3, 3),
            nn.ReLU(),
            nn.MaxPool1d(3, 2),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(9, 4),
            nn.Tanh(),
        )
    )
    found = lipschitz(model, (2, 9), steps=1)
    rows = found.layers
    assert [row.name for row in rows] == ["0", "1", "2", "5", "6"]
    assert [row.operation for row in rows] == ["conv1d", "relu", "max_pool1d", "linear", "tanh"]
    assert [row.spectral is not None for row in rows] == [True, False, False, True, False]
    products = list(itertools.accumulate((row.upper for row in rows), lambda a, b: a * b))
    assert [row.so_far for row in rows] == pytest.approx(products, rel=1e-12)
    assert rows[-1].so_far == found.upper
    # SPL 68–71: Frobenius norms, and D of what bends or takes maxima, of D numbers.
    linear = float(model[5].weight.detach().norm())
    assert [row.paper for row in rows[1:]] == pytest.approx([21, 9, linear, 4])
    assert rows[0].paper == pytest.approx(float(model[0].weight.detach().norm()) * 7**0.5)
    assert math.prod(row.paper for row in rows) == pytest.approx(found.paper, rel=1e-12)


def test_rows_name_the_module_that_calls_and_where_paths_meet():
    model = nn.Sequential(
        Of(lambda m, x: x + functional.relu(m.inside(x)), inside=dense([[1.0, 0.0], [0.0, 2.0]])),
        Of(lambda m, x: torch.cat([x, m.inside(x)], dim=1), inside=nn.Sigmoid()),
    )
    found = lipschitz(model, (2,), steps=1)
    rows = [(row.name, row.operation, row.upper) for row in found.layers]
    assert rows == [
        ("0.inside", "linear", 2.0),
        ("0", "relu", 1.0),
        ("0", "add", None),
        ("1.inside", "sigmoid", 0.25),
        ("1", "cat", None),
    ]
    assert [row.so_far for row in found.layers] == pytest.approx(
        [2, 2, 3, 0.75, 3 * 1.0625**0.5], rel=1e-12
    )
    assert all(row.spectral is None and row.paper is None for row in found.layers[2::2])


# What is refused, and what may be stated.


class Seven(torch.autograd.Function):
    """Seven times its input, computed where torch's functions are not seen."""

    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(7 * x.detach().numpy())

    @staticmethod
    def backward(ctx, up):
        return 7 * up


class Own(nn.Module):
    def forward(self, x):
        return Seven.apply(x)


class Stated(Own):
    lipschitz_constant = 7.0


class Plain(Own):
    def plain(self, x):
        return 7 * x


def by_itself(m, x):
    return x * x.mean(1, keepdim=True)


REFUSALS = {
    "a layer norm": (nn.LayerNorm(4), r"layer '0' has no .* no rule for layer_norm"),
    "the product of two layers": (Of(by_itself), "the product of two layers stretches without"),
    "division by a layer": (Of(lambda m, x: 1 + x / (2 + x)), "division by a layer"),
    "one divided by a layer": (Of(lambda m, x: 1 / (2 + x)), "no rule for"),
    "a square": (Of(lambda m, x: x**2), "no rule for"),
    "an exponential": (Of(lambda m, x: x.exp()), "no rule for exp"),
    "a norm": (Of(lambda m, x: x.norm(dim=1, keepdim=True)), "no rule for norm"),
    "softmax attention": (
        Of(lambda m, x: (x[..., None] @ x[:, None]).softmax(-1) @ x[..., None]),
        "only products with a constant matrix",
    ),
    "weights from the input": (
        Of(lambda m, x: functional.linear(x, x)),
        "what linear does to its input depends on the input",
    ),
    "indexing by tensors": (Of(lambda m, x: x[:, torch.tensor([0, 0])]), "indexing by tensors"),
    "the mean of a batch": (Of(lambda m, x: x - x.mean(0)), "a sum over the samples of a batch"),
    "the sum of all": (Of(lambda m, x: x.sum().view(1, 1)), "a sum over the samples of a batch"),
    "dropout that stays": (Of(lambda m, x: functional.dropout(x)), "dropout in training"),
    "padding by reflection": (Of(lambda m, x: functional.pad(x, (1, 1), "reflect")), "'reflect'"),
    "steps": (Of(lambda m, x: x.round()), "no rule for round"),
    "a function of one's own": (Own(), "takes numbers out of it"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_network_without_a_constant_is_refused_with_a_sentence(name):
    layer, sentence = REFUSALS[name]
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2)).double()
    torch.manual_seed(0)
    model.eval()(torch.randn(2, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match=sentence):
        lipschitz(model, (4,), steps=1)


def test_batch_norm_by_the_statistics_of_a_batch_is_refused():
    model = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Flatten())
    with pytest.raises(ValueError, match="by the statistics of a batch, which couples its samples"):
        lipschitz(model, (4, 5), steps=1)


@pytest.mark.parametrize("layer", [Stated(), Plain()], ids=["stated", "plain"])
def test_a_layer_of_ones_own_is_bounded_by_what_it_states_or_by_its_plain_form(layer):
    found = lipschitz(nn.Sequential(layer, dense([[0.0, 2.0]])), (2,), steps=1)
    assert found.upper == pytest.approx(14.0, rel=1e-12)
    assert found.lower == pytest.approx(14.0, rel=1e-6)


def test_a_stated_constant_is_a_row_and_counts_from_what_is_before_it():
    model = nn.Sequential(dense([[3.0]]), Stated(), nn.Sigmoid())
    rows = lipschitz(model, (1,), steps=1).layers
    assert [(row.operation, row.upper) for row in rows] == [
        ("linear", 3.0),
        ("stated", 7.0),
        ("sigmoid", 0.25),
    ]
    assert (rows[1].name, rows[1].spectral, rows[1].paper) == ("1", None, None)
    assert [row.so_far for row in rows] == pytest.approx([3, 21, 5.25])


@pytest.mark.parametrize("give", [lambda z: z.mean(1), lambda z: z[:, None], lambda z: (z,)])
def test_what_gives_no_logits_is_refused(give):
    with pytest.raises(ValueError, match=r"expected logits \[N, K\] with N = 1"):
        lipschitz(Of(lambda m, x: give(x)), (3,), steps=1)


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1), (3,), (0, 3)])
def test_points_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"points of shape .*; expected \[N, \*\(3,\)\]"):
        lipschitz(dense(torch.eye(3)), (3,), points=torch.zeros(shape))


def test_what_is_no_network_is_refused():
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        lipschitz(torch.relu, (3,))


# What is easily taken for something else; each is bracketed, or refused.


def changed_in_place(m, x):
    z = m.f(x)
    return m.norm(z.mul_(100))


def changed_by_a_view(m, x):
    z = m.f(x)
    z[:, :1].mul_(100)
    return z


def set_in_part(m, x):
    z = m.f(x)
    z[:, 0] = 100 * z[:, 0]
    return z


def input_changed_after(m, x):
    z = x * 1
    y = m.f(z)
    z.mul_(1e-3)
    return m.norm(y)


def tokens():
    """Of 2 × 2 numbers, where batch norm scales rows and the dense layer mixes columns."""
    norm = nn.BatchNorm1d(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 10.0]))
    return nn.Sequential(dense([[5.0, 0.0], [0.0, 0.1]]), norm.double(), nn.Flatten())


UNBOUNDED = {
    "an activation in place before batch norm": (
        lambda: nn.Sequential(dense(torch.eye(2)), nn.SELU(inplace=True), nn.BatchNorm1d(2)),
        (2,),
    ),
    "scaled in place before batch norm": (
        lambda: Of(changed_in_place, f=dense(torch.eye(2)), norm=nn.BatchNorm1d(2)),
        (2,),
    ),
    "the layer's input changed before batch norm": (
        lambda: Of(input_changed_after, f=dense(torch.eye(2)), norm=nn.BatchNorm1d(2)),
        (2,),
    ),
    "batch norm of tokens after a dense layer": (tokens, (2, 2)),
    "a part scaled in place": (lambda: Of(changed_by_a_view, f=dense(torch.eye(2))), (2,)),
    "a part set": (lambda: Of(set_in_part, f=dense(torch.eye(2))), (2,)),
    "softmax along another axis": (lambda: Of(lambda m, x: x.softmax(1).flatten(1)), (3, 1)),
    "rsub with alpha": (lambda: Of(lambda m, x: torch.rsub(x, 1.0, alpha=2)), (2,)),
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_what_is_not_refused_is_in_the_bracket(name):
    make, shape = UNBOUNDED[name]
    try:
        found = lipschitz(make(), shape, steps=20)
    except ValueError:
        return
    assert found.lower <= found.upper * (1 + ROUNDING)


def test_a_threshold_that_jumps_has_no_constant():
    with pytest.raises(ValueError, match="threshold"):
        bound_of(lambda m, x: torch.threshold(x, 0.1, 20.0), (2,))


def test_a_number_taken_out_of_the_input_is_no_constant():
    with pytest.raises(ValueError):
        bound_of(lambda m, x: x * float(x.detach()[0, 0]), (2,))


def test_a_residual_branch_of_zeros_adds_nothing():
    assert bound_of(
        lambda m, x: x + functional.relu(m.f(x)), (2,), f=dense(torch.zeros(2, 2))
    ) == pytest.approx(1.0)


class Outer(nn.Module):
    lipschitz_constant = 3.0

    def __init__(self):
        super().__init__()
        self.first, self.inner = nn.Linear(2, 2), Stated()

    def forward(self, x):
        return self.inner(self.first(x))


def test_a_layer_that_states_its_constant_may_hold_another_that_does():
    assert upper_of(Outer(), (2,)) == 3.0


def test_batch_norm_of_more_tokens_than_a_dense_layer_gives_is_bounded():
    norm = normed(nn.BatchNorm1d(3))
    model = nn.Sequential(dense([[1.0, 2.0], [0.5, 1.0]]), norm, nn.Flatten())
    assert upper_of(model, (3, 2)) == pytest.approx(2.5 * scale_of(norm))


def test_the_papers_bound_of_a_product_is_that_of_the_dense_layer():
    w = torch.randn(3, 2, dtype=torch.float64)
    product = lipschitz(Of(lambda m, x: (x @ w).flatten(1)), (4, 3), steps=1)
    layer = lipschitz(nn.Sequential(dense(w.T), nn.Flatten()), (4, 3), steps=1)
    assert product.paper == pytest.approx(layer.paper)


# What it leaves alone, and what can be had again.


def test_the_network_is_left_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Dropout(), Stated(), nn.Flatten(), nn.Linear(8, 3)
    ).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    lipschitz(model, (1, 6), steps=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * 5]
    assert all(p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name])
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert "forward" not in vars(module)


def test_it_looks_at_the_network_in_eval_mode_and_in_double_precision():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.9))
    normed(model[1])
    found = lipschitz(model.float().train(), (3,), steps=1)
    expected = lipschitz(copy.deepcopy(model).double().eval(), (3,), steps=1)
    assert (found.lower, found.upper) == (expected.lower, expected.upper)
    assert found.x.dtype == found.direction.dtype == torch.float64


def test_a_seed_gives_one_result():
    model, _ = small("relu", 1)
    one, again, other = (lipschitz(model, (2,), steps=5, seed=seed) for seed in (3, 3, 4))
    assert (one.lower, one.upper) == (again.lower, again.upper)
    assert torch.equal(one.x, again.x) and torch.equal(one.direction, again.direction)
    assert not torch.equal(one.x, other.x)
    assert one.upper == pytest.approx(other.upper, rel=1e-12)


@pytest.mark.parametrize("name", ["1-d cnn", "resnet", "bird10"])
def test_the_lower_bound_is_what_the_network_does_at_the_place_it_gives(name):
    model, x = build(name)
    found = lipschitz(model, x.shape[1:], points=x, steps=10)
    assert found.x.shape == found.direction.shape == x.shape[1:]
    assert float(found.direction.norm()) == pytest.approx(1.0)
    step = 1e-6 * float(x.flatten(1).norm(dim=1).mean()) * found.direction
    with torch.no_grad():
        here, there = model(torch.stack([found.x + step, found.x - step]))
    quotient = float((here - there).norm() / (2 * step.norm()))
    assert quotient == pytest.approx(found.lower, rel=1e-5)


def test_the_search_goes_on_from_the_points_to_where_more_is_stretched():
    """`2 relu(x₁) + relu(x₁ + x₂)` has the slopes (1, 1), (2, 0) and, where both are on, (3, 1)."""
    model = nn.Sequential(dense([[1.0, 0.0], [1.0, 1.0]]), nn.ReLU(), dense([[2.0, 1.0]]))
    model[0].bias.data.zero_()
    points = torch.tensor([[-0.05, 1.0]], dtype=torch.float64)
    slopes = templates(model, points).A.flatten()
    assert slopes.norm() == pytest.approx(2**0.5)
    found = lipschitz(model, (2,), points=points)
    assert found.lower == pytest.approx(10**0.5, rel=1e-6)
    assert bool((model[0](found.x) > 0).all())


def test_where_nothing_is_stretched_the_lower_bound_is_zero():
    first = dense([[1.0, 0.0]])
    first.bias.data.fill_(-1e6)
    model = nn.Sequential(first, nn.ReLU(), dense([[2.0]]))
    found = lipschitz(model, (2,), points=torch.tensor([[-9.0, 0.0]]), steps=3)
    assert found.lower == 0.0 and found.upper == pytest.approx(2.0)


def test_more_steps_do_not_make_the_lower_bound_less():
    model, _ = small("leaky", 2)
    lower = [lipschitz(model, (2,), steps=steps).lower for steps in (0, 10, 60)]
    assert lower[0] <= lower[1] * (1 + 1e-9) and lower[1] <= lower[2] * (1 + 1e-9)


def test_the_lower_bound_agrees_with_the_norm_of_the_map_where_it_is_linear():
    """Of a convolution, by iteration on the layer itself."""
    model = drawn(lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.Flatten()))
    found = lipschitz(model, (1, 6, 6), steps=1)
    expected = spectral_norm(model, (1, 6, 6))
    assert found.lower == pytest.approx(expected, rel=1e-6)
