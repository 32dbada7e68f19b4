"""MeanPool and FrameMaxPool1d are torch's own, ties and second derivatives included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from birdinv.networks.pooling import FrameMaxPool1d, MeanPool


def derivatives(pool, x, weight):
    """Output, and first and second derivatives, of `pool(weight · x)`."""
    y = pool(weight * x)
    (back,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    return [y, back, *torch.autograd.grad(back.square().sum(), [x, weight])]


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    extra=st.integers(0, 6),
    channels=st.integers(1, 4),
    ties=st.booleans(),
    transposed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_frame_pooling_is_torchs(kernel, stride, extra, channels, ties, transposed, seed):
    torch.manual_seed(seed)
    x = torch.randn(2, channels, kernel + extra).double()
    x = x.round() if ties else x
    x = x.transpose(1, 2).contiguous().transpose(1, 2) if transposed else x
    x.requires_grad_()
    weight = torch.randn(channels, 1).double().requires_grad_()
    pools = (FrameMaxPool1d(kernel, stride), nn.MaxPool1d(kernel, stride))
    for ours, theirs in zip(*(derivatives(pool, x, weight) for pool in pools), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_one_recording_without_a_batch_is_pooled_too():
    x = torch.randn(3, 9)
    assert torch.equal(FrameMaxPool1d(4, 2)(x), nn.MaxPool1d(4, 2)(x))


@settings(max_examples=60, deadline=None)
@given(
    window=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    extra=st.lists(st.integers(0, 7), min_size=2, max_size=2),
    samples=st.integers(0, 3),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_means_are_torchs(window, extra, samples, channels_last, seed):
    """Of recordings and of images, where windows fit and where something is left over."""
    torch.manual_seed(seed)
    size = [w + e for w, e in zip(window, extra, strict=False)]
    x = torch.randn(samples, 3, *size).double()
    x = x.transpose(1, -1).contiguous().transpose(1, -1) if channels_last else x
    x.requires_grad_()
    weight = torch.randn(3, *[1] * len(window)).double().requires_grad_()
    theirs = (nn.AvgPool1d, nn.AvgPool2d)[len(window) - 1](tuple(window))
    for got, expected in zip(
        derivatives(MeanPool(window), x, weight), derivatives(theirs, x, weight), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_means_keep_the_type_and_are_right_to_a_rounding(dtype):
    x = torch.randn(4, 5, 12, 18)
    got = MeanPool((6, 6))(x.to(dtype))
    assert got.dtype == dtype
    expected = nn.AvgPool2d(6)(x.to(dtype).float())
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("window", [(), (2, 2, 2), (0,), (2, -1)])
def test_a_window_of_no_size_is_refused(window):
    with pytest.raises(ValueError, match="expected one or two lengths of at least 1"):
        MeanPool(window)
