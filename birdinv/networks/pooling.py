"""Pooling by mean, by maximum and with inhibitor connections, for recordings and for images.

All means over windows side by side are one matrix product: the rows that a window spans lie one
after the other in memory, so `[N, C, H, W]` is a matrix of `N·C·H/h` rows of `h·W` numbers without
a copy, and a constant matrix of `h·W` by `W/w` averages each of them. Its derivatives of any order
are products with the same matrix. On a CPU this beats `nn.AvgPool2d`, which goes through the
windows one number at a time: a multiscale step of SmallCNN, batches of 50 on one thread, took 0.86
of the time, and 0.66 with inhibitors, which are such a product too. Maxima of images are torch's
own: looked up by their places, as those of frames are, they took 1.02.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from birdinv.networks.frames import Taken


class MeanPool(nn.Module):
    """Means over windows side by side, as `nn.AvgPool1d(window)` and `nn.AvgPool2d(window)`.

    Args:
        window: its length, or its height and width.

    Shape:
        `[N, C, T]` to `[N, C, T // window]`, or `[N, C, H, W]` to `[N, C, H // h, W // w]`: what is
        left beyond the last whole window is left out, as torch does.

    Raises:
        ValueError: a window of no size, or of more than two dimensions.
    """

    def __init__(self, window: Sequence[int]) -> None:
        super().__init__()
        self.window = _checked(window)

    def forward(self, x: Tensor) -> Tensor:
        """Means of `x`; see the class."""
        if x.ndim == 3:
            return self.forward(x[..., None])[..., 0]
        if x.device.type != "cpu" or not x.is_contiguous():  # no copy, and no change of layout
            return functional.avg_pool2d(x, self.window)
        return _rows(x, self.window) @ _members(x, self.window).div(math.prod(self.window))

    def plain(self, x: Tensor) -> Tensor:
        """The same, as torch computes it."""
        if x.ndim == 3:
            return functional.avg_pool1d(x, self.window[0])
        return functional.avg_pool2d(x, self.window)

    def extra_repr(self) -> str:
        """The window, for `print(model)`."""
        return f"window={self.window}"


class Inhibitor(nn.Module):
    """Each channel less its mean over the window: `(I − 11ᵀ/n) x`, for windows side by side.

    What "inhibitor connections", "winner-share-all" layers or U networks are no paper defines: this
    is our construction from what INV §3.1 and SPL §1, §4.3.2 and §5 say of them, a positive
    semidefinite linear layer before the nonlinearity, no biases, and winners that share in place of
    the one that takes all. The projection `I − 11ᵀ/n` is positive semidefinite, and what it gives
    cannot be positive all over a window: units inhibit their neighbours. It cancels whatever is
    added to a whole channel, so the layer before it needs no bias. The nonlinearity follows it,
    then `MeanPool` over the same windows, through which every winner has its share, also of the
    gradient.

    Args:
        window: its length, or its height and width.

    Shape:
        `[N, C, T]` or `[N, C, H, W]` to the same. What is left beyond the last whole window is as
        it was; the pooling leaves it out.

    Raises:
        ValueError: a window of no size, or of more than two dimensions.
    """

    lipschitz_constant = 1.0  # of a projection

    def __init__(self, window: Sequence[int]) -> None:
        super().__init__()
        self.window = _checked(window)

    def forward(self, x: Tensor) -> Tensor:
        """The projection of `x`; see the class."""
        if x.ndim == 3:
            return self.forward(x[..., None])[..., 0]
        rows = _rows(x, self.window)
        members = _members(x, self.window)
        projection = torch.eye(len(members), dtype=x.dtype, device=x.device).addmm(
            members, members.T, alpha=-1 / math.prod(self.window)
        )
        projected = (rows @ projection).view(*x.shape[:2], -1, x.shape[3])
        whole = projected.shape[2]
        if whole == x.shape[2]:
            return projected
        return torch.cat([projected, x[:, :, whole:].to(projected.dtype)], dim=2)

    def extra_repr(self) -> str:
        """The window, for `print(model)`."""
        return f"window={self.window}"


class FrameMaxPool1d(nn.MaxPool1d):
    """Maximum over a few frames; output, gradients and ties are those of `nn.MaxPool1d`.

    The maxima are looked up by their places, and the gradients of a look-up, first and second, are
    look-ups again. `nn.MaxPool1d` copies between memory layouts in each of them.

    Shape:
        input `[N, C, F]`, output `[N, C, (F − kernel) // stride + 1]`; in memory the channels of a
        frame lie side by side, as `FrameConv1d` leaves them.
    """

    plain = nn.MaxPool1d.forward  # the same, as torch computes it

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__(kernel_size, stride)
        self.frames, self.step = kernel_size, stride

    def forward(self, x: Tensor | Taken) -> Tensor:
        """Maxima of `x`; see the class."""
        if isinstance(x, Taken):
            taken: Tensor = x.through(self)
            return taken
        if x.ndim != 3:
            pooled: Tensor = super().forward(x)
            return pooled
        with torch.no_grad():
            _, places = functional.max_pool1d(x, self.kernel_size, self.stride, return_indices=True)
            places = places.transpose(1, 2)  # [N, F', C]
        frames = x.transpose(1, 2)
        maxima: Tensor = frames.gather(1, places)
        return maxima.transpose(1, 2)


def _checked(window: Sequence[int]) -> tuple[int, int]:
    if not 1 <= len(window) <= 2 or min(window) < 1:
        raise ValueError(f"window={tuple(window)}; expected one or two lengths of at least 1")
    return (window[0], window[1] if len(window) == 2 else 1)


def _rows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """The rows each window spans, side by side: `[N, C, H // h, h·W]`."""
    samples, channels, height, width = x.shape
    count = height // window[0]
    return x[:, :, : count * window[0]].reshape(samples, channels, count, window[0] * width)


def _members(x: Tensor, window: tuple[int, int]) -> Tensor:
    """1 where a place of such a row is in a window of it, `[h·W, W // w]`; no window: only zeros.

    It is made anew for every batch, which costs some microseconds: a buffer would have to follow
    the network to devices and types, and a network laid out on the meta device would lose it.
    """
    count = x.shape[3] // window[1]
    places = torch.eye(count, dtype=x.dtype, device=x.device).repeat_interleave(window[1], dim=0)
    left_over = x.shape[3] - len(places)
    return functional.pad(places, (0, 0, 0, left_over)).repeat(window[0], 1)
