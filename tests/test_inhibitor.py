"""The inhibitor layer is the projection `I − 11ᵀ/n` of every window, in every derivative."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import birdinv
from birdinv.networks.pooling import Inhibitor


def explicit(x, window):
    """`(I − 11ᵀ/n)` on the places of one window after the other."""
    n = torch.Size(window).numel()
    projection = torch.eye(n, dtype=x.dtype) - torch.ones(n, n, dtype=x.dtype) / n
    y = x.clone()
    if len(window) == 1:
        for t in range(0, x.shape[2] - window[0] + 1, window[0]):
            y[..., t : t + window[0]] = x[..., t : t + window[0]] @ projection
        return y
    height, width = window
    for i in range(0, x.shape[2] - height + 1, height):
        for j in range(0, x.shape[3] - width + 1, width):
            part = x[..., i : i + height, j : j + width]
            y[..., i : i + height, j : j + width] = (part.flatten(2) @ projection).view_as(part)
    return y


def derivatives(function, x, weight):
    y = function(weight * x)
    (back,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    return [y, back, *torch.autograd.grad(back.square().sum(), [x, weight])]


@settings(max_examples=60, deadline=None)
@given(
    window=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    extra=st.lists(st.integers(0, 5), min_size=2, max_size=2),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_it_is_the_projection_window_by_window(window, extra, channels_last, seed):
    torch.manual_seed(seed)
    size = [w + e for w, e in zip(window, extra, strict=False)]
    x = torch.randn(2, 3, *size).double()
    x = x.transpose(1, -1).contiguous().transpose(1, -1) if channels_last else x
    x.requires_grad_()
    weight = torch.randn(3, *[1] * len(window)).double().requires_grad_()
    for got, expected in zip(
        derivatives(Inhibitor(window), x, weight),
        derivatives(lambda z: explicit(z, window), x, weight),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("window", "size"), [((2, 2), (5, 4)), ((2, 3), (4, 7)), ((3,), (7,))])
def test_its_derivatives_are_those_of_finite_differences(window, size):
    torch.manual_seed(0)
    x = torch.randn(2, 2, *size).double().requires_grad_()
    layer = nn.Sequential(Inhibitor(window), nn.Tanh())
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_it_projects_and_no_window_is_positive_all_over():
    x = torch.rand(3, 4, 6, 9).double() + 1
    layer = Inhibitor((2, 3))
    y = layer(x)
    torch.testing.assert_close(layer(y), y)
    torch.testing.assert_close(
        nn.functional.avg_pool2d(y, (2, 3)), torch.zeros(3, 4, 3, 3).double()
    )
    lowest = -nn.functional.max_pool2d(-y, (2, 3))
    assert (lowest < 0).all()
    # Positive semidefinite: ⟨x, Px⟩ = ‖Px‖².
    torch.testing.assert_close((x * y).sum(), y.square().sum())


def test_what_is_left_over_is_as_it_was():
    x = torch.randn(2, 3, 5, 7)
    y = Inhibitor((2, 2))(x)
    assert torch.equal(y[:, :, 4], x[:, :, 4]) and torch.equal(y[..., 6], x[..., 6])


@pytest.mark.parametrize("name", ["smallcnn", "mscnn", "resnet2-16"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_bias_before_it_would_change_nothing_and_is_left_out(name, batch_norm):
    torch.manual_seed(0)
    model = birdinv.networks.build(
        name, classes=3, shape=(1, 24, 24), pooling="inhibitor", batch_norm=batch_norm, dropout=0.0
    )
    inhibited = [
        parts
        for parts in model.modules()
        if isinstance(parts, nn.Sequential) and any(isinstance(p, Inhibitor) for p in parts)
    ]
    assert len(inhibited) == {"smallcnn": 2, "mscnn": 3, "resnet2-16": 2}[name]
    x = torch.randn(4, 1, 24, 24)
    before = model(x)
    for parts in inhibited:
        *linear, projection, activation = parts[: 4 if batch_norm else 3]
        assert isinstance(projection, Inhibitor)
        assert isinstance(activation, nn.LeakyReLU)
        assert [type(part).__name__ for part in linear] == ["Conv2d", "BatchNorm2d"][: len(linear)]
        assert all(part.bias is None for part in linear)
        linear[-1].bias = nn.Parameter(torch.randn(linear[0].out_channels))
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


def test_a_small_cnn_with_inhibitors_is_the_explicit_formula():
    torch.manual_seed(0)
    model = birdinv.networks.build("smallcnn", classes=3, shape=(2, 20, 21), pooling="inhibitor")
    model = model.double()
    x = torch.randn(2, 2, 20, 21).double()

    def plain(x):
        z = x
        for block, padding in zip(list(model.children())[:4], (4, 0, 2, 0), strict=True):
            z = nn.functional.conv2d(z, block[0].weight, block[0].bias, padding=padding)
            if padding:
                z = explicit(z, (2, 2))
            z = nn.functional.leaky_relu(z, 0.01)
            z = nn.functional.avg_pool2d(z, 2) if padding else z
        return nn.functional.conv2d(z, model.head[0].weight, model.head[0].bias).mean((2, 3))

    results = []
    for function in (model, plain):
        x = x.detach().requires_grad_()
        logits = function(x)
        (back,) = torch.autograd.grad(0.5 * logits.square().sum(), x, create_graph=True)
        gradients = torch.autograd.grad((back - x).square().sum(), list(model.parameters()))
        results.append([logits, back, *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
