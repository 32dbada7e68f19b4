"""Layers that torch does not have, shared by the project's networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class FrameConv1d(nn.Conv1d):
    """Strided convolution over frames of a waveform; the same weights and output as `nn.Conv1d`.

    Where the stride `s` divides the kernel `m·s`, the input is cut into blocks of `s` samples and
    the kernel into `m` pieces, so that frame `t` is `Σ_j W_j block_{t+j} + b`: one matrix product
    over blocks that are views of the input, then `m` shifted sums. Its backward and double backward
    are matrix products too, which on a CPU are several times faster than those of `conv1d`.

    Shape:
        input `[N, C, T]`, output `[N, out_channels, F]`, `F = (T − kernel) // stride + 1`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Frames of `x`; see the class."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if kernel % stride or x.ndim != 3 or x.shape[-1] < kernel:
            return functional.conv1d(x, self.weight, self.bias, stride)
        pieces = kernel // stride
        frames = (x.shape[-1] - kernel) // stride + 1
        count = frames + pieces - 1
        blocks = x[..., : count * stride].reshape(*x.shape[:-1], count, stride)
        blocks = blocks.transpose(1, 2).flatten(2)  # [N, blocks, C·s]; a view for one channel
        weight = self.weight.reshape(self.out_channels, self.in_channels, pieces, stride)
        weight = weight.permute(2, 0, 1, 3).reshape(pieces * self.out_channels, -1)
        products = functional.linear(blocks, weight)
        products = products.reshape(len(x), count, pieces, self.out_channels)
        out = products[:, :frames, 0]
        for j in range(1, pieces):
            out = out + products[:, j : j + frames, j]
        if self.bias is not None:
            out = out + self.bias
        return out.transpose(1, 2)


def normalise(x: Tensor) -> Tensor:
    """`(x − mean(x)) / max|x − mean(x)|` per sample (MS §3.1, SPL B.2); a constant becomes zeros.

    Shape:
        `[N, C, *S]` to the same; mean and maximum run over all channels together.
    """
    flat = x.flatten(1)
    level = flat.abs().amax(dim=1, keepdim=True)
    flat = flat / torch.where(level > 0, level, 1.0)  # within ±1: no sum can overflow
    flat = flat - flat.mean(dim=1, keepdim=True)
    peak = flat.abs().amax(dim=1, keepdim=True)
    # The mean of a constant may be off by a rounding: what is that small is nothing.
    nothing = peak <= 8 * torch.finfo(x.dtype).eps
    return torch.where(nothing, 0.0, flat / torch.where(nothing, 1.0, peak)).view_as(x)
