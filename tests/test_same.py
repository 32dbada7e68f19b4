"""Convolutions that keep the size are torch's with zeros around, and `Deconv` is their adjoint."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn import functional

from birdinv.networks.same import Deconv, same_conv


def zeros(side, kernel, stride):
    """(before, after) as the module says."""
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def drawn_(layer):
    """The layer in float64, weights and bias drawn anew."""
    layer.double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def conv_of(layer):
    """The convolution itself, without what adds zeros before it."""
    return next(m for m in layer.modules() if isinstance(m, nn.Conv1d | nn.Conv2d))


def outputs_of(size, stride):
    return [math.ceil(side / stride) for side in size]


CASES = {
    "size": st.lists(st.integers(1, 9), min_size=1, max_size=2),
    "kernel": st.integers(1, 6),
    "stride": st.integers(1, 5),
    "wide": st.sampled_from([1, 2, 30]),
    "narrow": st.integers(1, 3),
    "seed": st.integers(0, 1000),
}


@settings(max_examples=60, deadline=None)
@given(**CASES)
@example(size=[1111], kernel=128, stride=64, wide=2, narrow=1, seed=0)
@example(size=[8], kernel=2, stride=5, wide=2, narrow=1, seed=0)
def test_same_convolution_is_torch_s_with_zeros_around(size, kernel, stride, wide, narrow, seed):
    torch.manual_seed(seed)
    layer = drawn_(same_conv(narrow, wide, kernel, stride, size))
    x = torch.randn(2, narrow, *size).double()
    conv = functional.conv1d if len(size) == 1 else functional.conv2d
    around = [n for side in reversed(size) for n in zeros(side, kernel, stride)]
    weight, bias = conv_of(layer).weight, conv_of(layer).bias
    expected = conv(functional.pad(x, around), weight, bias, stride)
    out = layer(x)
    assert list(out.shape) == [2, wide, *outputs_of(size, stride)]
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=100, deadline=None)
@given(**CASES)
@example(size=[1111], kernel=128, stride=64, wide=2, narrow=1, seed=0)
@example(size=[8], kernel=2, stride=5, wide=2, narrow=1, seed=0)
@example(size=[9, 7], kernel=1, stride=4, wide=2, narrow=1, seed=0)
def test_deconv_is_torch_s_transposed_convolution_without_the_zeros(
    size, kernel, stride, wide, narrow, seed
):
    """Zeros too, but for the bias, at places that a stride beyond the kernel left out."""
    torch.manual_seed(seed)
    for inputs, outputs in ((wide, narrow), (narrow, wide)):
        layer = drawn_(Deconv(inputs, outputs, kernel, stride, size))
        z = torch.randn(2, inputs, *outputs_of(size, stride)).double()
        conv = functional.conv_transpose1d if len(size) == 1 else functional.conv_transpose2d
        whole = conv(z, layer.weight.transpose(0, 1), stride=stride)
        for d, side in enumerate(size, 2):
            before = zeros(side, kernel, stride)[0]
            whole = whole.narrow(d, before, min(side, whole.shape[d] - before))
        missing = [side - have for side, have in zip(size, whole.shape[2:], strict=True)]
        whole = functional.pad(whole, [n for gap in reversed(missing) for n in (0, gap)])
        expected = whole + layer.bias.view(-1, *[1] * len(size))
        out = layer(z)
        assert list(out.shape) == [2, outputs, *size]
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=80, deadline=None)
@given(**CASES)
@example(size=[8], kernel=2, stride=5, wide=2, narrow=1, seed=0)
def test_deconv_is_the_adjoint_of_the_convolution(size, kernel, stride, wide, narrow, seed):
    """`⟨same_conv(x), y⟩ = ⟨x, Deconv(y)⟩` with the same weights and no biases."""
    torch.manual_seed(seed)
    for inputs, outputs in ((wide, narrow), (narrow, wide)):
        there = drawn_(same_conv(inputs, outputs, kernel, stride, size))
        back = drawn_(Deconv(outputs, inputs, kernel, stride, size))
        with torch.no_grad():
            conv_of(there).bias.zero_()
            back.bias.zero_()
            back.weight.copy_(conv_of(there).weight.transpose(0, 1))
        x = torch.randn(2, inputs, *size).double()
        out = there(x)
        y = torch.randn_like(out)
        torch.testing.assert_close((out * y).sum(), (x * back(y)).sum(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("side", [4, 5, 6, 7])
def test_a_convolution_hears_every_place_unless_its_stride_is_beyond_the_kernel(
    side, kernel, stride
):
    layer = same_conv(1, 1, kernel, stride, (side,))
    conv_of(layer).weight.data.fill_(1)
    heard = []
    for place in range(side):
        x = torch.zeros(1, 1, side)
        x[..., place] = 1
        heard.append(bool((layer(x) - conv_of(layer).bias).abs().max() > 0.5))
    assert heard == [stride <= kernel or place % stride < kernel for place in range(side)]


def test_the_middle_of_an_odd_kernel_is_at_the_place_itself():
    for size in ((7,), (5, 6)):
        layer = same_conv(2, 2, 5, 1, size).double()
        weight = torch.zeros_like(conv_of(layer).weight)
        for c in range(2):
            weight[(c, c, *[2] * len(size))] = 1
        conv_of(layer).weight.data.copy_(weight)
        conv_of(layer).bias.data.zero_()
        back = Deconv(2, 2, 5, 1, size).double()
        back.weight.data.copy_(weight)
        x = torch.randn(2, 2, *size).double()
        assert torch.equal(layer(x), x) and torch.equal(back(x), x)


# Which way it goes follows from the channels and the stride.
BRANCHES = [
    ((7,), 3, 1, 4, 2, True),
    ((7,), 3, 1, 1, 2, False),
    ((6,), 4, 1, 4, 2, True),
    ((6,), 4, 1, 1, 2, False),
    ((7,), 4, 2, 1, 2, True),
    ((8,), 5, 3, 2, 1, True),
    ((8,), 2, 5, 2, 1, True),
    ((4, 5), 3, 1, 5, 1, True),
    ((4, 5), 3, 1, 1, 2, False),
    ((4, 3), 2, 1, 4, 1, True),
    ((4, 3), 2, 1, 1, 2, False),
    ((5, 4), 3, 2, 2, 1, True),
    ((4, 4), 4, 2, 1, 2, True),
    ((5, 4), 1, 3, 2, 1, True),
]
each_branch = pytest.mark.parametrize(
    ("size", "kernel", "stride", "inputs", "outputs", "folds"), BRANCHES
)


@each_branch
def test_gradients_of_deconv_are_finite_differences(
    size, kernel, stride, inputs, outputs, folds, monkeypatch
):
    calls, convolved = [], Deconv._convolved
    monkeypatch.setattr(Deconv, "_convolved", lambda *a: calls.append(1) or convolved(*a))
    torch.manual_seed(0)
    layer = drawn_(Deconv(inputs, outputs, kernel, stride, size))
    z = torch.randn(2, inputs, *outputs_of(size, stride)).double().requires_grad_()

    def through(z, weight, bias):
        return functional_call(layer, {"weight": weight, "bias": bias}, z)

    assert gradcheck(through, (z, layer.weight, layer.bias))
    assert bool(calls) != folds


@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [
        ((7,), 3, 1),
        ((6,), 4, 1),
        ((7,), 4, 2),
        ((8,), 9, 4),
        ((8,), 2, 5),
        ((3, 4), 3, 1),
        ((4, 3), 2, 1),
        ((5, 4), 3, 2),
        ((5, 4), 1, 3),
    ],
)
def test_gradients_of_a_same_convolution_are_finite_differences(size, kernel, stride):
    """The second ones too, which an inversion goes through."""
    torch.manual_seed(0)
    layer = drawn_(same_conv(2, 2, kernel, stride, size))
    names, parameters = zip(*layer.named_parameters(), strict=True)
    x = torch.randn(2, 2, *size).double().requires_grad_()

    def through(x, *parameters):
        return functional_call(layer, dict(zip(names, parameters, strict=True)), x)

    assert gradcheck(through, (x, *parameters))
    assert gradgradcheck(through, (x, *parameters))


@each_branch
def test_deconv_takes_half_precision_and_keeps_it(size, kernel, stride, inputs, outputs, folds):
    torch.manual_seed(0)
    layer = drawn_(Deconv(inputs, outputs, kernel, stride, size)).float()
    z = torch.randn(2, inputs, *outputs_of(size, stride))
    expected = layer(z)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(z)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.1)
    half.sum().backward()
    assert layer.bias.grad.dtype == torch.float32
    per_channel = 2 * math.prod(size)
    assert layer.bias.grad.tolist() == pytest.approx([per_channel] * outputs, rel=0.01)


def test_channels_kernel_and_stride_are_printed():
    assert repr(Deconv(4, 3, 5, 2, (8, 8))) == "Deconv(4, 3, 5, 2)"
