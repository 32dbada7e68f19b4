"""Batches of segments from a store: arithmetic on spans, one gather, normalised.

What a batch holds is a function of (seed, step) alone. Nothing about the sampler has to be saved to
resume a run, and no worker can change what the network sees.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from birdinv.audio.store import Store
from birdinv.errors import BirdinvError
from birdinv.networks.layers import normalise
from birdinv.terms import UNLABELED


class Segments:
    """The segments of some recordings of a store, in the order of `recordings.csv`.

    They are kept as spans and computed when asked for: the memory is that of the spans.

    Args:
        store: where the samples are.
        labels: recording → class name, or "" for unlabelled; only these recordings take part.

    Raises:
        BirdinvError: a class that the store does not have.
    """

    def __init__(self, store: Store, labels: Mapping[str, str]) -> None:
        number = {name: i for i, name in enumerate(store.classes)} | {"": UNLABELED}
        if unknown := sorted(set(labels.values()) - set(number)):
            raise BirdinvError(
                f"{store.path} has no class {unknown[0]!r}; it has {', '.join(store.classes)}"
            )
        spans = [
            (r.offset + start, store.windows.count(end - start), number[labels[r.file]], row)
            for row, r in enumerate(store.recordings)
            if r.file in labels
            for start, end in store.spans.get(r.file, [])
        ]
        columns = np.array(spans, np.int64).reshape(-1, 4).T
        self._first, self._count, self._class, self._recording = columns
        self._end = np.cumsum(self._count)  # number of the first segment behind each span
        self._hop = store.windows.hop
        self._windows = (
            np.lib.stride_tricks.sliding_window_view(store.audio, store.windows.segment)
            if len(spans)
            else np.zeros((0, store.windows.segment), np.int16)
        )

    def __len__(self) -> int:
        return int(self._count.sum())

    @property
    def labels(self) -> np.ndarray:
        """The class of every segment, int64 `[S]`, −1 where unlabelled."""
        return np.repeat(self._class, self._count)

    @property
    def recordings(self) -> np.ndarray:
        """The row in `recordings.csv` of every segment's recording, int64 `[S]`."""
        return np.repeat(self._recording, self._count)

    def starts(self, which: np.ndarray) -> np.ndarray:
        """First samples (positions in `store.audio`) of segments `which`, int64 `[B]` to same."""
        span = self._spans(which)
        nth = which - (self._end[span] - self._count[span])
        return np.asarray(self._first[span] + self._hop * nth)

    def waveforms(self, which: np.ndarray) -> Tensor:
        """Normalised float32 segments `[B, 1, T]` for int64 indices `[B]`."""
        samples = torch.from_numpy(self._windows[self.starts(which)])
        return normalise(samples[:, None].to(torch.float32))

    def classes(self, which: np.ndarray) -> Tensor:
        """Class numbers int64 `[B]`, −1 where unlabelled."""
        return torch.from_numpy(self._class[self._spans(which)])

    def _spans(self, which: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._end, which, side="right")


class EndlessShuffle:
    """Positions 0 … n−1 in a new random order each time round, addressable anywhere.

    The order of round r is drawn from `(seed, stream, r)`.
    """

    def __init__(self, n: int, seed: int, stream: int) -> None:
        if n < 1:
            raise ValueError("there is nothing to shuffle")
        self._n, self._key = n, (seed, stream)
        self._round, self._order = -1, np.zeros(0, np.int64)

    def take(self, start: int, count: int) -> np.ndarray:
        """Entries [start, start + count) of the endless sequence, int64."""
        parts = []
        while count > 0:
            turn, offset = divmod(start, self._n)
            if turn != self._round:
                rng = np.random.default_rng([*self._key, turn])
                self._round, self._order = turn, rng.permutation(self._n)
            part = self._order[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)


class TrainingBatches:
    """Batch number `step` of a run: half labelled and half unlabelled where there are both.

    An epoch is one pass over the larger of the two sets; the other one repeats (MS §3.2 has the
    unlabelled set, which there is the larger one).
    """

    def __init__(
        self, labelled: Segments, unlabelled: Segments, *, batch_size: int, seed: int
    ) -> None:
        half = batch_size // 2 if len(labelled) and len(unlabelled) else batch_size
        self._parts = [
            (segments, EndlessShuffle(len(segments), seed, stream))
            for stream, segments in enumerate((labelled, unlabelled))
            if len(segments)
        ]
        self._each = half
        longest = max(len(segments) for segments, _ in self._parts)
        self.steps_per_epoch = -(-longest // half)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """(waveforms `[B, 1, T]`, classes int64 `[B]`) of one step, labelled ones first."""
        picked = [
            (segments, order.take(step * self._each, self._each)) for segments, order in self._parts
        ]
        x = torch.cat([segments.waveforms(which) for segments, which in picked])
        y = torch.cat([segments.classes(which) for segments, which in picked])
        return x, y
