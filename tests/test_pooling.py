"""FrameMaxPool1d is nn.MaxPool1d, ties and second derivatives included."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from birdinv.networks.pooling import FrameMaxPool1d


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
    results = []
    for pool in (FrameMaxPool1d(kernel, stride), nn.MaxPool1d(kernel, stride)):
        y = pool(weight * x)
        (back,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        results.append([y, back, *torch.autograd.grad(back.square().sum(), [x, weight])])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_one_recording_without_a_batch_is_pooled_too():
    x = torch.randn(3, 9)
    assert torch.equal(FrameMaxPool1d(4, 2)(x), nn.MaxPool1d(4, 2)(x))
