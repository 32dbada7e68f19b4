"""Pooling whose gradients keep the layout they come in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class FrameMaxPool1d(nn.MaxPool1d):
    """Maximum over a few frames; output, gradients and ties are those of `nn.MaxPool1d`.

    The maxima are looked up by their places, and the gradients of a look-up, first and second, are
    look-ups again. `nn.MaxPool1d` copies between memory layouts in each of them.

    Shape:
        input `[N, C, F]`, output `[N, C, (F − kernel) // stride + 1]`; in memory the channels of a
        frame lie side by side, as `FrameConv1d` leaves them.
    """

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__(kernel_size, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maxima of `x`; see the class."""
        if x.ndim != 3:
            pooled: Tensor = super().forward(x)
            return pooled
        with torch.no_grad():
            _, places = functional.max_pool1d(x, self.kernel_size, self.stride, return_indices=True)
            places = places.transpose(1, 2)  # [N, F', C]
        frames = x.transpose(1, 2)
        maxima: Tensor = frames.gather(1, places)
        return maxima.transpose(1, 2)
