"""Norms of linear maps are those of their matrices, and constants of layers are their steepest."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from topologies import SineConv1d
from torch import nn
from torch.nn import functional

from birdinv.networks.pooling import Inhibitor, MeanPool
from birdinv.spline import lipschitz, of_convolution, softmax_constant, spectral_norm
from birdinv.spline.norms import of_matrix, of_nonnegative
from birdinv.spline.rules import RULES

CONVS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def dense(linear, shape):
    """The matrix of a linear map of tensors `[N, *shape]`, a column for each place of the input."""
    places = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    return linear(places).flatten(1).T


def norm_of(matrix):
    return float(torch.linalg.svdvals(matrix)[0])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix_of_convolution(weight, size, **options):
    groups = options.get("groups", 1)
    conv = CONVS[weight.ndim - 2]
    return dense(lambda v: conv(v, weight, **options), (weight.shape[1] * groups, *size))


CONVOLUTIONS = {
    "1-d": ((3, 2, 3), (9,), {}),
    "1-d strided": ((3, 2, 4), (13,), {"stride": 3}),
    "1-d padded": ((2, 2, 3), (8,), {"padding": 2}),
    "1-d dilated": ((2, 2, 3), (11,), {"dilation": 3}),
    "1-d grouped": ((4, 2, 3), (8,), {"groups": 2}),
    "1-d stride beyond the kernel": ((2, 1, 2), (14,), {"stride": 5}),
    "1-d all": ((6, 2, 3), (12,), {"stride": 2, "padding": 3, "dilation": 2, "groups": 3}),
    "2-d": ((3, 2, 3, 2), (6, 5), {}),
    "2-d strided": ((2, 2, 3, 3), (7, 8), {"stride": (2, 3)}),
    "2-d padded": ((2, 1, 3, 3), (5, 4), {"padding": (1, 2)}),
    "2-d dilated": ((2, 2, 2, 3), (6, 7), {"dilation": (3, 2)}),
    "2-d depthwise": ((4, 1, 3, 3), (5, 5), {"groups": 4, "padding": 1}),
    "2-d all": (
        (4, 2, 3, 2),
        (7, 6),
        {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2},
    ),
    "3-d all": (
        (2, 1, 2, 3, 2),
        (4, 5, 3),
        {"stride": (1, 2, 1), "padding": (1, 1, 0), "dilation": (2, 1, 1), "groups": 2},
    ),
}
every_convolution = pytest.mark.parametrize("name", CONVOLUTIONS)


@every_convolution
def test_the_norm_of_a_convolution_is_that_of_its_dense_matrix(name):
    shape, size, options = CONVOLUTIONS[name]
    weight = normal(*shape)
    norm = of_convolution(weight, size, **options)
    expected = norm_of(matrix_of_convolution(weight, size, **options))
    assert norm.spectral == pytest.approx(expected, rel=1e-8)


@every_convolution
def test_the_frobenius_norm_of_a_convolution_is_that_of_its_dense_matrix(name):
    shape, size, options = CONVOLUTIONS[name]
    weight = normal(*shape)
    expected = float(matrix_of_convolution(weight, size, **options).norm())
    assert of_convolution(weight, size, **options).frobenius == pytest.approx(expected, rel=1e-12)


@st.composite
def convolutions(draw):
    """(weight, size, options), of one or two dimensions and at least one place."""
    dims = draw(st.integers(1, 2))
    groups = draw(st.integers(1, 2))
    each = st.integers(1, 3)
    kernel, stride, dilation, more = ([draw(each) for _ in range(dims)] for _ in range(4))
    padding = [draw(st.integers(0, 3)) for _ in range(dims)]
    size = [
        max(1, d * (k - 1) - 2 * p + s + m)
        for k, s, d, p, m in zip(kernel, stride, dilation, padding, more, strict=True)
    ]
    weight = normal(groups * draw(each), draw(each), *kernel, seed=draw(st.integers(0, 99)))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return weight, size, options


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_the_norm_lies_below_its_bound_from_above_and_that_below_the_frobenius_norm(drawn):
    weight, size, options = drawn
    norm = of_convolution(weight, size, **options)
    expected = norm_of(matrix_of_convolution(weight, size, **options))
    assert norm.spectral == pytest.approx(expected, rel=1e-6)
    assert expected <= norm.upper * (1 + 1e-12)
    assert norm.spectral <= norm.upper <= max(norm.spectral, norm.frobenius)


@pytest.mark.parametrize(
    ("shape", "size", "options", "within"),
    [
        ((3, 2, 5), (200,), {"padding": 2}, 1.002),
        ((3, 2, 6), (300,), {"stride": 3}, 1.005),
        ((3, 2, 3), (200,), {"dilation": 4, "padding": 4}, 1.01),
        ((3, 2, 3, 3), (18, 18), {"padding": 1}, 1.03),
        ((3, 2, 3, 3), (20, 20), {"stride": 2, "padding": 1}, 1.03),
    ],
)
def test_on_large_maps_the_bound_from_above_is_near_the_norm(shape, size, options, within):
    weight = normal(*shape)
    norm = of_convolution(weight, size, **options)
    expected = norm_of(matrix_of_convolution(weight, size, **options))
    assert expected <= norm.upper * (1 + 1e-12)
    assert norm.upper < within * expected
    assert norm.upper < 0.5 * norm.frobenius


@pytest.mark.parametrize("places", [1, 2, 5, 40])
def test_the_norm_of_three_ones_is_that_of_a_tridiagonal_matrix(places):
    """Whose eigenvalues are known; the reshaped kernel would have √3, whatever the size."""
    norm = of_convolution(torch.ones(1, 1, 3), (places,), padding=1)
    assert norm.spectral == pytest.approx(1 + 2 * math.cos(math.pi / (places + 1)), rel=1e-8)
    assert norm.upper <= 3 + 1e-12


def test_the_norm_of_a_convolution_is_not_that_of_its_reshaped_kernel():
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    reshaped = of_matrix(kernel.flatten(1)).spectral
    norm = of_convolution(kernel, (20, 20), padding=1)
    assert reshaped == pytest.approx(3.0)
    assert norm.spectral == pytest.approx((1 + 2 * math.cos(math.pi / 21)) ** 2, rel=1e-8)
    assert norm.spectral > 2.9 * reshaped


def test_a_convolution_of_one_tap_has_the_norm_of_its_matrix_at_every_size():
    weight = normal(4, 3, 1, 1)
    expected = norm_of(weight[:, :, 0, 0])
    for size in ((1, 1), (3, 4)):
        norm = of_convolution(weight, size)
        assert norm.spectral == pytest.approx(expected, rel=1e-9)
        assert norm.upper == pytest.approx(expected, rel=1e-9)
        assert norm.frobenius == pytest.approx(float(weight.norm()) * math.prod(size) ** 0.5)


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-9, 1e-7, 1e-4])
def test_singular_values_that_are_equal_or_nearly_so_do_not_keep_it_from_the_largest(apart):
    kernel = normal(1, 1, 5)
    weight = torch.cat([kernel, kernel * (1 - apart)])
    expected = norm_of(matrix_of_convolution(weight, (30,), groups=2))
    norm = of_convolution(weight, (30,), groups=2)
    assert norm.spectral == pytest.approx(expected, rel=1e-6)
    values = torch.tensor([2.0, 2.0 * (1 - apart), *[1.0] * 20], dtype=torch.float64)
    assert spectral_norm(lambda v: v * values, (22,)) == pytest.approx(2.0, rel=1e-6)


def test_a_zero_kernel_has_norm_zero():
    assert tuple(of_convolution(torch.zeros(2, 3, 3), (8,), padding=1)) == (0.0, 0.0, 0.0)
    assert spectral_norm(lambda v: 0 * v, (4,)) == 0.0
    assert tuple(of_matrix(torch.zeros(3, 2))) == (0.0, 0.0, 0.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_the_norm_of_a_matrix_is_its_known_largest_singular_value(rows, columns, seed):
    left = torch.linalg.qr(normal(rows, rows, seed=seed))[0]
    right = torch.linalg.qr(normal(columns, columns, seed=seed + 1))[0]
    count = min(rows, columns)
    values = torch.linspace(3.5, 0.5, count, dtype=torch.float64)
    matrix = left[:, :count] * values @ right[:count]
    assert spectral_norm(lambda v: v @ matrix.T, (columns,)) == pytest.approx(3.5, rel=1e-8)
    of = of_matrix(matrix)
    assert of.spectral == of.upper == pytest.approx(3.5, rel=1e-12)
    assert of.frobenius == pytest.approx(float(values.norm()), rel=1e-12)


def test_a_transposed_convolution_has_the_norm_of_the_convolution():
    weight = normal(3, 2, 4)
    norm = spectral_norm(lambda v: functional.conv_transpose1d(v, weight, stride=2), (3, 6))
    assert norm == pytest.approx(of_convolution(weight, (14,), stride=2).spectral, rel=1e-7)


@pytest.mark.parametrize(
    ("window", "shape"), [((2,), (3, 8)), ((3,), (1, 10)), ((2, 2), (2, 6, 7))]
)
def test_the_inhibitor_is_a_projection_of_norm_one_as_it_states(window, shape):
    layer = Inhibitor(window)
    assert spectral_norm(layer, shape) == pytest.approx(1.0, rel=1e-9)
    assert layer.lipschitz_constant == 1.0


@pytest.mark.parametrize(
    ("window", "shape"), [((2,), (3, 8)), ((3,), (1, 10)), ((2, 3), (2, 6, 7))]
)
def test_means_side_by_side_have_the_norm_of_one_mean(window, shape):
    expected = math.prod(window) ** -0.5
    assert spectral_norm(MeanPool(window), shape) == pytest.approx(expected, rel=1e-9)
    assert of_nonnegative(MeanPool(window).plain, shape) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "count_all"),
    [(3, 1, 0, True), (3, 2, 1, True), (3, 2, 1, False), (4, 3, 2, False), (2, 3, 0, True)],
)
def test_the_bound_of_means_is_not_below_the_norm_where_windows_overlap(
    kernel, stride, padding, count_all
):
    def mean(v):
        return functional.avg_pool2d(v, kernel, stride, padding, count_include_pad=count_all)

    norm = norm_of(dense(mean, (1, 9, 8)))
    bound = of_nonnegative(mean, (1, 9, 8))
    assert norm <= bound * (1 + 1e-12)
    assert bound < 1.4 * norm


def test_a_seed_gives_one_number_and_leaves_the_global_generator_alone():
    weight = normal(3, 2, 3, 3)
    state = torch.get_rng_state()
    norms = [of_convolution(weight, (9, 9), padding=1, seed=seed) for seed in (0, 0, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert norms[0] == norms[1]
    for norm in norms:
        assert norm.spectral == pytest.approx(norms[0].spectral, rel=1e-8)


def steepest(function, least=-12.0, most=12.0):
    """The steepest slope on a fine grid."""
    x = torch.linspace(least, most, 240001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(function(x).sum(), x)
    return float(slope.abs().max())


def upper_of(layer, shape):
    return lipschitz(layer, shape, steps=1).upper


ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky relu": nn.LeakyReLU(0.1),
    "leaky relu that grows": nn.LeakyReLU(2.5),
    "leaky relu that folds": nn.LeakyReLU(-1.5),
    "prelu": nn.PReLU(init=-1.25),
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid": nn.Hardsigmoid(),
    "tanh": nn.Tanh(),
    "hardtanh": nn.Hardtanh(),
    "softplus": nn.Softplus(),
    "softplus, sharp": nn.Softplus(beta=4),
    "softsign": nn.Softsign(),
    "softshrink": nn.Softshrink(),
    "elu": nn.ELU(),
    "elu, alpha 2": nn.ELU(2.0),
    "celu": nn.CELU(0.3),
    "selu": nn.SELU(),
    "gelu": nn.GELU(),
    "gelu by tanh": nn.GELU("tanh"),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_constant_of_an_activation_is_its_steepest_slope(name):
    layer = ACTIVATIONS[name].double().requires_grad_(False)
    bound, slope = upper_of(layer, (1,)), steepest(layer)
    if name == "prelu":  # looked at by channels, of which a grid has none
        slope = steepest(lambda x: layer(x[:, None]))
    assert slope <= bound * (1 + 1e-7)  # torch's own slope of a hardsigmoid is a float32
    assert bound <= 1.01 * slope


@pytest.mark.parametrize("name", ["abs", "sin", "cos"])
def test_the_constant_of_a_function_is_its_steepest_slope(name):
    function = getattr(torch, name)
    bound = RULES[name](torch.zeros(1, 1)).upper
    assert steepest(function) <= bound + 1e-12
    assert bound <= 1.01 * steepest(function)


def test_the_constant_of_the_logarithm_of_a_sigmoid_is_one():
    assert upper_of(nn.LogSigmoid(), (1,)) == 1.0


def test_what_comes_after_a_layer_in_its_own_forward_is_counted():
    layer = SineConv1d(1, 1, 1, bias=False).double()
    nn.init.constant_(layer.weight, -3.0)
    assert upper_of(nn.Sequential(layer, nn.Flatten()), (1, 4)) == pytest.approx(3.0)


POOLS = {
    "side by side": (nn.MaxPool1d(3), (9,), 1),
    "one at a time": (nn.MaxPool1d(3, 1), (9,), 3),
    "strided": (nn.MaxPool1d(3, 2), (9,), 2),
    "strided, padded": (nn.MaxPool1d(5, 2, 2), (11,), 3),
    "gaps": (nn.MaxPool1d(3, 1, dilation=2), (12,), 3),
    "gaps that a stride skips": (nn.MaxPool1d(4, 2, dilation=3), (21,), 2),
    "gaps of a stride": (nn.MaxPool1d(4, 3, dilation=3), (24,), 4),
    "stride beyond the window": (nn.MaxPool1d(2, 3), (9,), 1),
    "2-d side by side": (nn.MaxPool2d(2), (4, 6), 1),
    "2-d": (nn.MaxPool2d(3, 2, 1), (7, 7), 4),
    "2-d, not square": (nn.MaxPool2d((3, 2), (1, 2)), (6, 6), 3),
    "2-d gaps": (nn.MaxPool2d((2, 3), (1, 2), dilation=(2, 2)), (6, 9), 6),
    "adaptive, side by side": (nn.AdaptiveMaxPool1d(4), (8,), 1),
    "adaptive": (nn.AdaptiveMaxPool1d(4), (6,), 2),
    "adaptive 2-d": (nn.AdaptiveMaxPool2d((4, 3)), (6, 4), 4),
}
every_pool = pytest.mark.parametrize("name", POOLS)


def selection(pool, x):
    """The matrix of 0 and 1 that takes the maxima of `x [1, *S]`."""
    x = x.clone().requires_grad_()
    out = pool(x[None]).flatten()
    return torch.stack([torch.autograd.grad(v, x, retain_graph=True)[0].flatten() for v in out])


@every_pool
def test_the_constant_of_maxima_is_attained_where_one_place_is_the_largest_of_all_its_windows(name):
    pool, size, shared = POOLS[name]
    bound = upper_of(nn.Sequential(pool, nn.Flatten()), (1, *size))
    assert bound == pytest.approx(shared**0.5)
    deltas = torch.eye(math.prod(size), dtype=torch.float64).view(-1, 1, *size)
    windows = pool(deltas).flatten(1).sum(dim=1)  # that each place is in
    assert int(windows.max()) == shared
    matrix = selection(pool, 10 * deltas[int(windows.argmax())] + 0.1 * normal(1, *size))
    assert norm_of(matrix) == pytest.approx(bound)


@every_pool
def test_no_selection_of_maxima_has_a_norm_above_the_constant(name):
    pool, size, _ = POOLS[name]
    bound = upper_of(nn.Sequential(pool, nn.Flatten()), (1, *size))
    norms = [norm_of(selection(pool, normal(1, *size, seed=seed))) for seed in range(20)]
    assert max(norms) <= bound * (1 + 1e-12)


def slope_of_softmax(p):
    """`diag(p) − ppᵀ`."""
    return torch.diag(p) - torch.outer(p, p)


def test_softmax_stretches_most_where_two_classes_have_half_each():
    for classes in range(2, 13):
        p = torch.zeros(classes, dtype=torch.float64)
        p[:2] = 0.5
        assert norm_of(slope_of_softmax(p)) == pytest.approx(0.5, rel=1e-12)
        assert softmax_constant(classes) == 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(0, 9999), st.sampled_from([0.3, 1.0, 4.0, 20.0]))
def test_softmax_stretches_nowhere_more_than_its_constant(classes, seed, sharpness):
    logits = sharpness * normal(classes, seed=seed)
    matrix = torch.autograd.functional.jacobian(lambda z: z.softmax(0), logits)
    torch.testing.assert_close(matrix, slope_of_softmax(logits.softmax(0)), rtol=0, atol=1e-12)
    assert norm_of(matrix) <= softmax_constant(classes) + 1e-12


def test_the_papers_constant_of_softmax_holds_for_two_classes_and_not_beyond():
    """Theorem 11: `‖dŷ/df‖²_F ≤ (K−1)/K²`, what the uniform p has."""
    half = torch.full((2,), 0.5, dtype=torch.float64)
    assert float(slope_of_softmax(half).square().sum()) == pytest.approx(1 / 4)
    for classes in range(2, 13):
        uniform = torch.full((classes,), 1 / classes, dtype=torch.float64)
        papers = (classes - 1) / classes**2
        assert float(slope_of_softmax(uniform).square().sum()) == pytest.approx(papers)
        two = functional.pad(half, (0, classes - 2))
        assert float(slope_of_softmax(two).square().sum()) == pytest.approx(1 / 4)
        # And of the norm itself: a single direction is stretched by 1/2.
        assert (norm_of(slope_of_softmax(two)) ** 2 > papers + 0.01) == (classes > 2)


def test_softmax_of_one_class_is_constant_and_of_none_is_refused():
    assert softmax_constant(1) == 0.0
    with pytest.raises(ValueError, match="0 classes; expected one at least"):
        softmax_constant(0)
