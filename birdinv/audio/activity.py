"""Where in a recording something worth learning from happens (the pipeline of the authors of INV).

Frames of 256 samples, one every 128, each with an energy (the variance of its samples, so that a
constant offset is not sound) and a spectral flatness. A segment is active when the mean energy of
its frames exceeds 0.2 × the recording's 95th percentile of frame energy and the energy-weighted
mean of their flatness is below 0.3. A span is a run of consecutive active segments.

The percentile needs the whole recording before the first decision, so there are two passes: one
while the samples are written, which fills a histogram of fixed size, and one over what was written.
Memory does not depend on the length of the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from birdinv.audio.windows import Windows

FRAME = 256
HOP = 128
LEVEL = 0.2
PERCENTILE = 95
FLATNESS = 0.3
CHUNK_SAMPLES = 1 << 18  # looked at in one go, whatever the windows
CHUNK_FRAMES = 4096

_WINDOW = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)).astype(np.float32)  # Hann
_FLOOR = np.float32(1e-10)  # power below which a bin is silence, for samples of full scale 1


def frame_energy(samples: np.ndarray) -> np.ndarray:
    """Variance of each frame, float32 `[F]`, of int16 samples `[n]`, `F = (n − 256) // 128 + 1`."""
    halves = len(samples) // HOP
    if halves < 2:
        return np.zeros(0, np.float32)
    # Sums of whole numbers, exact in float64; in float32 an offset would leave a variance behind.
    blocks = samples[: halves * HOP].reshape(halves, HOP).astype(np.float64)
    total = blocks.sum(axis=1)
    square = np.einsum("ij,ij->i", blocks, blocks)
    mean = (total[:-1] + total[1:]) / FRAME
    variance = (square[:-1] + square[1:]) / FRAME - mean**2
    energy: np.ndarray = np.maximum(variance, 0).astype(np.float32)
    return energy


def frame_flatness(frames: np.ndarray) -> np.ndarray:
    """Spectral flatness in [0, 1] of frames `[F, 256]`: geometric over arithmetic mean of power.

    1 for a flat spectrum, near 0 for a tone. A frame's mean is taken off first, as in the energy.
    """
    x = frames.astype(np.float32) * np.float32(1 / 32768)
    x -= x.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(x * _WINDOW, axis=1)
    power = spectrum.real**2 + spectrum.imag**2 + _FLOOR
    flatness = np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)
    flatness32: np.ndarray = flatness.astype(np.float32)
    return flatness32


class LevelHistogram:
    """Running percentile of frame energies in fixed memory.

    Counts by the leading 20 bits of the float32 pattern, which is monotone for values ≥ 0: the
    percentile is exact to one part in 2 048.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(1 << 19, np.int64)
        self._rest = np.zeros(0, np.int16)

    def update(self, samples: np.ndarray) -> None:
        """Adds int16 samples that directly follow the ones before."""
        samples = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        energy = frame_energy(samples)
        np.add.at(self._counts, energy.view(np.uint32) >> 12, 1)
        self._rest = samples[len(energy) * HOP :].copy()

    def percentile(self, q: float = PERCENTILE) -> float:
        """The q-th percentile, rounded down to the histogram's resolution; 0 without frames."""
        frames = int(self._counts.sum())
        if frames == 0:
            return 0.0
        rank = q / 100 * (frames - 1)
        key = np.searchsorted(np.cumsum(self._counts), rank, side="right")
        value: np.float32 = np.uint32(int(key) << 12).view(np.float32)
        return float(value)


def active_segments(samples: np.ndarray, windows: Windows, first: int, level: float) -> np.ndarray:
    """Which segments are active, bool `[n]`, for the segments that fit in int16 `samples`.

    Args:
        samples: the recording from sample `first · hop` on.
        windows: segment and hop in samples.
        first: number of the first segment; fixes the frame grid, which starts with the recording.
        level: 95th percentile of the recording's frame energy.
    """
    start = first * windows.hop
    count = windows.count(len(samples))
    skip = -start % HOP  # samples up to the first frame of the recording's grid
    samples_on_grid = samples[skip:]
    energy = frame_energy(samples_on_grid).astype(np.float64)
    offsets = windows.hop * np.arange(count)
    lo = -(-(offsets - skip) // HOP).clip(max=0)  # ceil((offsets − skip) / HOP), at least 0
    hi = (offsets + windows.segment - FRAME - skip) // HOP + 1
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    total = sums[hi] - sums[lo]
    loud: np.ndarray = total > LEVEL * level * (hi - lo)
    if not loud.any():
        return loud
    # Flatness is the dear part: only frames of loud segments, each once.
    edges = np.zeros(len(energy) + 1, np.int64)
    np.add.at(edges, lo[loud], 1)
    np.add.at(edges, hi[loud], -1)
    wanted = np.flatnonzero(np.cumsum(edges)[:-1] > 0)
    views = np.lib.stride_tricks.sliding_window_view(samples_on_grid, FRAME)
    weighted = np.zeros(len(energy))
    for some in np.split(wanted, range(CHUNK_FRAMES, len(wanted), CHUNK_FRAMES)):
        weighted[some] = energy[some] * frame_flatness(views[some * HOP])
    sums = np.concatenate([[0.0], np.cumsum(weighted)])
    return np.asarray(loud & (sums[hi] - sums[lo] < FLATNESS * total))


def annotated_spans(
    stretches: Sequence[tuple[int, int]], samples: int, windows: Windows
) -> list[tuple[int, int]]:
    """Spans [start, end) in samples of annotated stretches, each of one segment at least, in order.

    A stretch shorter than a segment grows to one, equally to both sides but not out of the
    recording; one that begins past the recording's end is left out. Stretches that lie apart give
    no segment twice; like active spans, grown ones may overlap.

    Args:
        stretches: annotated samples [start, end), apart from each other.
        samples: length of the recording, a segment at least.
    """
    spans = set()
    for start, end in stretches:
        end = min(end, samples)
        missing = windows.segment - (end - start)
        if start >= samples:
            continue
        if missing > 0:
            start = min(max(0, start - missing // 2), samples - windows.segment)
            end = start + windows.segment
        spans.add((start, end))
    return sorted(spans)


def active_spans(
    read: Callable[[int, int], np.ndarray], samples: int, windows: Windows, level: float
) -> list[tuple[int, int]]:
    """Spans [start, end) in samples, each a run of consecutive active segments, in order.

    Spans hold whole segments; two of them overlap where fewer segments than one window's length
    lie between them, so that no segment is counted that is not active.

    Args:
        read: gives the int16 samples [start, end) of the recording.
        samples: its length.
        level: 95th percentile of its frame energy.
    """
    spans: list[tuple[int, int]] = []
    count = windows.count(samples)
    chunk = max(1, CHUNK_SAMPLES // windows.hop)
    for first in range(0, count, chunk):
        last = min(first + chunk, count)
        end = (last - 1) * windows.hop + windows.segment
        active = active_segments(read(first * windows.hop, end), windows, first, level)
        for number in first + np.flatnonzero(active):
            begin = int(number) * windows.hop
            if spans and spans[-1][1] == begin - windows.hop + windows.segment:
                spans[-1] = (spans[-1][0], begin + windows.segment)
            else:
                spans.append((begin, begin + windows.segment))
    return spans
