"""Overlapping windows scored from shared frames: the first layer runs once per recording.

A window `x` of a recording is normalised by its own mean `m` and peak `s`, so a first layer that is
linear, `Wx + b`, gives (equation sheet, §5)

    W (x − m)/s + b = (Wx − m·W1)/s + b,    1 = (1, …, 1)ᵀ,

and `Wx` is the same for every window that holds a frame: with a hop that is a multiple of the
layer's stride, frames are computed once and corrected for each window. A maximum over frames that
follows the layer is shared too, since every window scales all of a channel's frames alike, by a
positive number, and shifts them alike. What comes after runs window by window.

The frames of a loud stretch must not blur a quiet one beside it, nor an offset the sound upon it:
each piece of a frame is multiplied without its own mean, in float32, and what the mean adds, and
the correction takes away, is done in float64. Sums, minima and maxima of a window are those of
integer samples, exact.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from torch import Tensor, nn

from birdinv.audio.windows import Windows
from birdinv.networks.frames import FrameConv1d, Taken
from birdinv.networks.layers import normalise
from birdinv.networks.pooling import FrameMaxPool1d

TOLERANCE = 1e-4  # of a logit, on windows that a network is tried with


class SharedFrames:
    """The first layers of a network, for many windows of one stretch of samples at once.

    Args:
        layer: the first layer, of one channel.
        pool: the maximum over its frames that follows at once, if one does.
        windows: whose hop is a multiple of the layer's stride.
    """

    def __init__(self, layer: FrameConv1d, pool: FrameMaxPool1d | None, windows: Windows) -> None:
        kernel, stride = layer.kernel_size[0], layer.stride[0]
        self._windows, self._stride = windows, stride
        self._last: nn.Module = layer if pool is None else pool
        # Frames of whole strides are sums of pieces, which neighbours share; others are one piece.
        self._piece = stride if kernel % stride == 0 else kernel
        weight = layer.weight.detach()[:, 0]
        pieces = weight.reshape(len(weight), -1, self._piece).transpose(0, 1)
        self._weight = pieces.flatten(0, 1).T.contiguous()  # [L, m·O]
        self._sums = pieces.double().sum(dim=2).numpy()  # [m, O]
        self._offset = self._sums.sum(axis=0)
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        self._bias = bias.double().numpy()
        frames = (windows.segment - kernel) // stride + 1
        self._span, self._step = (pool.frames, pool.step) if pool else (1, 1)
        self._mean = np.full(self._piece, 1 / self._piece, np.float32)
        self._memory = threading.local()  # a worker of a cluster may score in several threads
        self._values = (frames - self._span) // self._step + 1  # of a window and channel

    def __call__(self, samples: np.ndarray, count: int) -> tuple[Taken, np.ndarray]:
        """(what the layers give, which windows sound) of the first `count` windows.

        Args:
            samples: int16 `[n]`, at least up to the end of the last window.
        """
        hop, segment = self._windows.hop, self._windows.segment
        samples = samples[: (count - 1) * hop + segment]
        level, peak = _level_and_peak(samples, count, self._windows, self._stride)
        sounding = peak > 0
        scale = sounding / np.where(sounding, peak, 1)
        best = _sliding(self._frames(samples), self._span, np.maximum)
        # Frames of a window are `step` rows apart, its neighbour's begin a hop further: no copy.
        row, column = best.strides
        windows = np.lib.stride_tricks.as_strided(
            best,
            (count, self._values, best.shape[1]),
            (hop // self._stride * row, self._step * row, column),
            writeable=False,
        )
        values = self._kept("values", windows.shape, np.float64)
        np.multiply(windows, scale[:, None, None], out=values)
        values += (self._bias - (level * scale)[:, None] * self._offset)[:, None]
        taken = torch.from_numpy(values.astype(np.float32)).transpose(1, 2)
        return Taken(taken, self._last), sounding

    def _frames(self, samples: np.ndarray) -> np.ndarray:
        """`Wx` of every frame, float64 `[F, O]`."""
        pieces = np.lib.stride_tricks.sliding_window_view(samples, self._piece)[:: self._stride]
        centred = self._kept("centred", pieces.shape, np.float32)
        np.copyto(centred, pieces)
        means = (centred @ self._mean)[:, None]
        centred -= means
        products = (torch.from_numpy(centred) @ self._weight).numpy()
        parts = products.reshape(-1, *self._sums.shape) + means[:, :, None] * self._sums
        frames: np.ndarray = parts[: len(parts) - len(self._sums) + 1, 0]
        for j in range(1, len(self._sums)):
            frames = frames + parts[j : j + len(frames), j]
        return frames

    def _kept(self, name: str, shape: tuple[int, ...], kind: type) -> np.ndarray:
        """An array to write to, the same memory in every call: fresh pages cost more than sums."""
        size, own = math.prod(shape), vars(self._memory)  # of this thread
        if name not in own or own[name].size < size:
            own[name] = np.empty(size, kind)
        array: np.ndarray = own[name][:size].reshape(shape)
        return array


def _level_and_peak(
    samples: np.ndarray, count: int, windows: Windows, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """(mean, largest distance from it) of each window, float64, of int16 samples.

    From sums and extremes of blocks, each of them computed once; hops are whole blocks.
    """
    whole, rest = divmod(windows.segment, block)
    step = windows.hop // block
    blocks = samples[: ((count - 1) * step + whole) * block].reshape(-1, block)
    sums = np.concatenate([[0], np.cumsum(blocks.sum(axis=1, dtype=np.int64))])
    total = (sums[whole:] - sums[: len(sums) - whole])[::step]
    high = _sliding(blocks.max(axis=1), whole, np.maximum)[::step]
    low = _sliding(blocks.min(axis=1), whole, np.minimum)[::step]
    if rest:
        ends = np.lib.stride_tricks.sliding_window_view(samples[whole * block :], rest)
        ends = ends[:: windows.hop]
        total = total + ends.sum(axis=1, dtype=np.int64)
        high, low = np.maximum(high, ends.max(axis=1)), np.minimum(low, ends.min(axis=1))
    level = total / windows.segment
    peak = np.where(high > low, np.maximum(high - level, level - low), 0.0)
    return level, peak


def _sliding(values: np.ndarray, length: int, extreme: np.ufunc) -> np.ndarray:
    """The extreme of every `length` neighbours along the first axis, by doubling the stretch."""
    count, width = len(values) - length + 1, 1
    while 2 * width <= length:
        values = extreme(values[:-width], values[width:])
        width *= 2
    both: np.ndarray = extreme(values[:count], values[length - width :][:count])
    return both


@torch.no_grad()
def shared_frames(network: nn.Module, windows: Windows) -> SharedFrames | None:
    """The shared first layers of `network`, or None where it must hear each window by itself.

    A network qualifies whose input goes into one `FrameConv1d` of one channel and nowhere else; the
    hop must be a multiple of its stride and windows must overlap. It is tried on windows of noise:
    a network that computes something else from `Taken` does not qualify.
    """
    layer = next((m for m in network.modules() if isinstance(m, FrameConv1d)), None)
    if layer is None or layer.in_channels != 1 or layer.weight.dtype != torch.float32:
        return None
    if windows.hop % layer.stride[0] or windows.hop >= windows.segment:
        return None
    rng = np.random.default_rng(0)
    samples = rng.integers(-3000, 9000, windows.segment + windows.hop, dtype=np.int16)
    views = np.stack([samples[: windows.segment], samples[windows.hop :]]).astype(np.float32)
    expected: Tensor = network(normalise(torch.from_numpy(views)[:, None]))
    pools = [m for m in network.modules() if isinstance(m, FrameMaxPool1d)]
    for pool in (*pools[:1], None):
        shared = SharedFrames(layer, pool, windows)
        try:
            logits = network(shared(samples, 2)[0])
        except (TypeError, AttributeError, RuntimeError):
            continue
        alike = isinstance(logits, Tensor) and logits.shape == expected.shape
        if alike and (logits - expected).abs().max() < TOLERANCE:
            return shared
    return None


def frame_stride(network: nn.Module) -> int | None:
    """Samples from one frame to the next of the first `FrameConv1d`, None without one."""
    layer = next((m for m in network.modules() if isinstance(m, FrameConv1d)), None)
    return None if layer is None else layer.stride[0]
