"""Convolutions that keep the size of a map, and the way back from one.

A convolution of stride s gives a place for every s of its input, `⌈n / s⌉`; zeros are added so that
it reaches all of it: `max((⌈n / s⌉ − 1) s + k − n, 0)`, half of them before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from birdinv.networks.frames import FrameConv1d
from birdinv.networks.lean import Conv2d

PIECES = 8  # strides of a kernel up to which its pieces are summed one by one


def same_conv(
    inputs: int, outputs: int, kernel: int, stride: int, size: Sequence[int]
) -> nn.Module:
    """`[N, inputs, *size]` to `[N, outputs, *⌈size / stride⌉]`, of one or two dimensions."""
    before, after = zip(*(_zeros(side, kernel, stride) for side in size), strict=True)
    if len(size) == 1:
        conv = FrameConv1d(inputs, outputs, kernel, stride)
        return nn.Sequential(nn.ZeroPad1d((before[0], after[0])), conv)
    if len({*before, *after}) == 1:
        return Conv2d(inputs, outputs, kernel, stride, before[0])
    pad = nn.ZeroPad2d((before[1], after[1], before[0], after[0]))
    return nn.Sequential(pad, Conv2d(inputs, outputs, kernel, stride))


class Deconv(nn.Module):
    """Transposed convolution that gives back the size that a `same_conv` came from.

    Every place z of the input adds its `z · kernel` to the places that the convolution heard it
    from. Where that is little, all of it is one matrix product and a sum over what overlaps, which
    on a CPU took a third of the time of the convolution that it equals at stride 1; that
    convolution is used where there are many outputs. Of waveforms the pieces of a kernel are summed
    one by one: a step of `(42)1024c/512` took 32 ms, and 75 with `fold`.

    Args:
        inputs, outputs: channels.
        kernel, stride: of the convolution to go back through.
        size: of its input.

    Shape:
        `[N, inputs, *⌈size / stride⌉]` to `[N, outputs, *size]`.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, size: Sequence[int]
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.size = kernel, stride, tuple(size)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *[kernel] * len(size)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self._before = [_zeros(side, kernel, stride)[0] for side in size]
        self._in_pieces = len(size) == 1 and kernel % stride == 0 and kernel <= PIECES * stride
        self._folds = stride > 1 or outputs * kernel ** len(size) <= 2 * inputs

    def forward(self, z: Tensor) -> Tensor:
        """The map that `z` came from; see the class."""
        out = self._folded(z) if self._folds else self._convolved(z)
        return out + self.bias.view(-1, *[1] * len(self.size)).to(out.dtype)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return f"{self.weight.shape[1]}, {len(self.weight)}, {self.kernel}, {self.stride}"

    def _folded(self, z: Tensor) -> Tensor:
        """The products of all places, summed where they overlap."""
        dims = len(self.size)
        out = self._of_pieces(z) if self._in_pieces else self._of_columns(z)
        for d, (before, side) in enumerate(zip(self._before, self.size, strict=True), 2):
            out = out.narrow(d, before, min(side, out.shape[d] - before))
            if out.shape[d] < side:  # a stride beyond the kernel leaves the last places out
                gap = [0, side - out.shape[d]]
                out = functional.pad(out, [0, 0] * (dims + 1 - d) + gap)
        return out

    def _of_pieces(self, z: Tensor) -> Tensor:
        """Of waveforms, with a kernel of whole strides: as many sums of stretches side by side."""
        pieces = self.kernel // self.stride
        kernels = self.weight.transpose(0, 1).flatten(1)  # [inputs, outputs · kernel]
        products = z.transpose(1, 2) @ kernels
        parts = products.view(*products.shape[:2], -1, pieces, self.stride).unbind(3)
        out = functional.pad(parts[0], (0, 0, 0, 0, 0, pieces - 1))
        for j, part in enumerate(parts[1:], 1):
            out = out + functional.pad(part, (0, 0, 0, 0, j, pieces - 1 - j))
        return out.transpose(1, 2).flatten(2)

    def _of_columns(self, z: Tensor) -> Tensor:
        dims = len(self.size)
        kernels = self.weight.transpose(0, 1).flatten(1).T  # [outputs · kernel^D, inputs]
        products = kernels @ z.flatten(2)
        lengths = [(side - 1) * self.stride + self.kernel for side in z.shape[2:]]
        # Of one dimension it is a map of one column.
        kernel, stride = ((n, n if dims == 2 else 1) for n in (self.kernel, self.stride))
        shape = (lengths[0], lengths[1] if dims == 2 else 1)
        out = functional.fold(products, shape, kernel, stride=stride)
        return out[..., 0] if dims == 1 else out

    def _convolved(self, z: Tensor) -> Tensor:
        """The same of stride 1, as a convolution with the kernel the other way round."""
        dims = [*range(2, z.ndim)]
        pads = [n for b in reversed(self._before) for n in (self.kernel - 1 - b, b)]
        conv = functional.conv1d if z.ndim == 3 else functional.conv2d
        if len(set(pads)) == 1:
            return conv(z, self.weight.flip(dims), padding=pads[0])
        return conv(functional.pad(z, pads), self.weight.flip(dims))


def _zeros(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """How many zeros are added before and after."""
    total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2
