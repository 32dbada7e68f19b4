"""Pooling that splits a map into what and where, and unpooling that puts them together (SW §3).

`split` gives the *what*, the values that the next layer sees, and the *where*, which the decoder
needs to put values back into their places. Windows lie side by side, so that no place is in two:
unpooling of windows that overlap would not be defined. What is left beyond the last whole window
is left out by the pooling, as torch does, and is zero after the unpooling.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class WhatWhere(nn.Module, ABC):
    """Pooling over windows side by side, and its way back.

    Args:
        window: its length, or its height and width.

    Shape:
        `[N, C, T]` to `[N, C, T // window]`, or `[N, C, H, W]` to `[N, C, H // h, W // w]`.

    Raises:
        ValueError: a window of no size, or of more than two dimensions.
    """

    def __init__(self, window: Sequence[int]) -> None:
        super().__init__()
        self.window = tuple(window)
        if not 1 <= len(self.window) <= 2 or min(self.window) < 1:
            raise ValueError(f"window={self.window}; expected one or two lengths of at least 1")

    def forward(self, z: Tensor) -> Tensor:
        """The what of `z`."""
        return self.split(z)[0]

    @abstractmethod
    def split(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """(what, where) of `z`; for the where see the class."""

    @abstractmethod
    def unpool(self, what: Tensor, where: Tensor | None, size: Sequence[int]) -> Tensor:
        """`what` in a map `[N, C, *size]`, at the places that `where` says."""

    def extra_repr(self) -> str:
        """The window, for `print(model)`."""
        return f"window={self.window}"


class Switches(WhatWhere):
    """Maxima, and where in the map they were (SW §3): hard max-pooling.

    The where is int64 like the what: places in the flattened map `*S`, of equal maxima the first.
    `unpool(split(z))` is `z` where it is the maximum of its window, and zero elsewhere. No gradient
    goes through the where.
    """

    def forward(self, z: Tensor) -> Tensor:
        """Maxima alone, which torch finds quicker without their places."""
        pool = functional.max_pool1d if z.ndim == 3 else functional.max_pool2d
        pooled: Tensor = pool(z, self.window)
        return pooled

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(maxima, places), both `[N, C, *S']`."""
        pool = functional.max_pool1d if z.ndim == 3 else functional.max_pool2d
        what, where = pool(z, self.window, return_indices=True)
        return what, where

    def unpool(self, what: Tensor, where: Tensor | None, size: Sequence[int]) -> Tensor:
        """`[N, C, *size]`, zero but at `where`."""
        if where is None:
            raise ValueError("unpooling needs the where that `split` gave; got None")
        flat = what.new_zeros(*what.shape[:2], math.prod(size))
        return flat.scatter(2, where.flatten(2), what.flatten(2)).view(*what.shape[:2], *size)


class SoftSwitches(WhatWhere):
    """Means weighted by `softmax(β z)` over the window, and of the places alike (SW 3, 4).

        m = Σ z w,   p = Σ place · w,   w = e^{βz} / Σ e^{βz},

    the sums over the window, whose places run from −1 to 1 along each dimension (a window of one
    place has 0). β = 0 is mean-pooling and the middle, β → ∞ the maximum and its place.

    The paper interpolates on the way back and does not say how. Here `unpool` shares the value out
    linearly, along each dimension, between the two places that p lies between: `m · Π_d max(0,
    1 − |p_d − place_d|)`, distances in places. So the sum over a window is m wherever p lies; at a
    place itself all of m goes there, as by `Switches`; and gradients reach both m and p. In p they
    are piecewise constant, and where p is exactly a place, where the slope jumps, zero.

    The where is `[N, C, *S', D]`: `p_d` for each of the D dimensions, in at least float32.

    Args:
        beta: β, at least 0.
    """

    def __init__(self, window: Sequence[int], beta: float) -> None:
        super().__init__(window)
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta={beta}; expected a number from 0")
        self.beta = beta

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(weighted means `[N, C, *S']`, their places)."""
        with torch.autocast(z.device.type, enabled=False):  # half precision knows few places
            what, where = self._means(z.to(torch.promote_types(z.dtype, torch.float32)))
        return what.to(z.dtype), where

    def _means(self, z: Tensor) -> tuple[Tensor, Tensor]:
        values = self._windows(z)
        shares = torch.softmax(self.beta * values, dim=0)
        places = [
            (2 * torch.arange(k, dtype=shares.dtype, device=z.device) - (k - 1)) / max(k - 1, 1)
            for k in self.window
        ]
        grid = torch.cartesian_prod(*places).view(-1, len(self.window))
        where = torch.tensordot(grid, shares, dims=([0], [0]))
        return (shares * values).sum(dim=0), where.movedim(0, -1)

    def unpool(self, what: Tensor, where: Tensor | None, size: Sequence[int]) -> Tensor:
        """`[N, C, *size]`, each value shared out between the places next to its own."""
        if where is None:
            raise ValueError("unpooling needs the where that `split` gave; got None")
        many = len(self.window)
        out = what
        for d in reversed(range(many)):  # places first, as in `_windows`
            k = self.window[d]
            steps = torch.arange(k, device=what.device, dtype=where.dtype)
            distance = (where[..., d] + 1) / 2 * (k - 1) - steps.view(-1, *[1] * what.ndim)
            share = functional.relu(1 - distance.abs())
            out = share.view(k, *[1] * (many - 1 - d), *what.shape) * out
        # [h, w, N, C, H', W'] to [N, C, H'·h, W'·w], or the same with one dimension.
        order = [axis for d in range(many) for axis in (many + 2 + d, d)]
        shape = [side * k for side, k in zip(what.shape[2:], self.window, strict=True)]
        out = out.permute(many, many + 1, *order).reshape(*what.shape[:2], *shape)
        return _padded(out.to(what.dtype), size)

    def extra_repr(self) -> str:
        """Window and β, for `print(model)`."""
        return f"{super().extra_repr()}, beta={self.beta:g}"

    def _windows(self, z: Tensor) -> Tensor:
        """The places of each window, `[n, N, C, *S']`: sums over them are then over whole maps.

        With the places last, of which small windows have few, a step took five times as long.
        """
        many = len(self.window)
        for d, k in enumerate(self.window):
            at = 2 + 2 * d
            before, count, after = z.shape[:at], z.shape[at] // k, z.shape[at + 1 :]
            z = z.narrow(at, 0, count * k).reshape(*before, count, k, *after)
        order = [*range(3, 3 + 2 * many, 2), 0, 1, *range(2, 2 + 2 * many, 2)]
        return z.permute(*order).flatten(0, many - 1)


class Upsampling(Switches):
    """Maxima without a where: each is copied to every place of its window (SW §4.1).

    What SWWAE is compared with, to see what the where is good for.
    """

    def split(self, z: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]  # it has no where
        """(maxima `[N, C, *S']`, None)."""
        return self(z), None

    def unpool(self, what: Tensor, where: Tensor | None, size: Sequence[int]) -> Tensor:
        """`[N, C, *size]`, each value in all of its window."""
        for d, k in enumerate(self.window):
            what = what.repeat_interleave(k, dim=2 + d)
        return _padded(what, size)


def _padded(z: Tensor, size: Sequence[int]) -> Tensor:
    """Zeros behind each dimension, up to `size`."""
    missing = [want - have for want, have in zip(size, z.shape[2:], strict=True)]
    if not any(missing):
        return z
    return functional.pad(z, [n for gap in reversed(missing) for n in (0, gap)])
