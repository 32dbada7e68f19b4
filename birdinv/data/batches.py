"""Batches of samples; segments from a store by arithmetic on spans, one gather, normalised.

What a batch holds is a function of (seed, step) alone. Nothing about the sampler has to be saved to
resume a run, and no worker can change what the network sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from birdinv.audio.store import Store
from birdinv.errors import BirdinvError
from birdinv.networks.layers import normalise
from birdinv.terms import UNLABELED

TRANSLATIONS = 2  # the stream of random numbers behind those of the two sets


class Source(Protocol):
    """Samples of one role in training: their inputs and classes by number, 0 … S−1."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> np.ndarray:
        """The class of every sample, int64 `[S]`, −1 where unlabelled."""

    @property
    def recordings(self) -> np.ndarray:
        """What every sample is a piece of, int64 `[S]`: each its own where it is whole."""

    def inputs(self, which: np.ndarray) -> Tensor:
        """Normalised float32 samples `[B, C, *S]` for int64 numbers `[B]`."""

    def classes(self, which: np.ndarray) -> Tensor:
        """Class numbers int64 `[B]`, −1 where unlabelled."""


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

    def inputs(self, which: np.ndarray) -> Tensor:
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

    An epoch is one pass over the larger of the two sets; the other one repeats (MS §3.1 has the
    unlabelled set, which there is the larger one).

    Args:
        labelled_only: leave the unlabelled half out of every batch, and everything else as it is.
        translate: most pixels by which images are moved, each time by another random distance.
    """

    def __init__(
        self,
        labelled: Source,
        unlabelled: Source | None,
        *,
        batch_size: int,
        seed: int,
        labelled_only: bool = False,
        translate: int = 0,
    ) -> None:
        sets = [samples for samples in (labelled, unlabelled) if samples is not None]
        sets = [samples for samples in sets if len(samples)]
        self._each = batch_size // len(sets)
        self._whole = self._each * len(sets)
        self._parts = [
            (samples, EndlessShuffle(len(samples), seed, stream))
            for stream, samples in enumerate(sets[:1] if labelled_only else sets)
        ]
        self._seed, self._translate = seed, translate
        self.steps_per_epoch = -(-max(len(samples) for samples in sets) // self._each)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """(inputs `[B, C, *S]`, classes int64 `[B]`) of one step, labelled ones first."""
        picked = [
            (samples, order.take(step * self._each, self._each)) for samples, order in self._parts
        ]
        x = torch.cat([samples.inputs(which) for samples, which in picked])
        y = torch.cat([samples.classes(which) for samples, which in picked])
        if self._translate:
            rng = np.random.default_rng([self._seed, TRANSLATIONS, step])
            moves = rng.integers(-self._translate, self._translate + 1, (2, self._whole))
            x = translated(x, torch.from_numpy(moves[:, : len(x)]))
        return x, y


def translated(x: Tensor, moves: Tensor) -> Tensor:
    """Images `[B, C, H, W]` moved by int64 `moves [2, B]` pixels down and right.

    What comes in from outside repeats the edge, which in MNIST is background.
    """
    rows, columns = (
        (torch.arange(size) - move[:, None]).clamp(0, size - 1)  # [B, size]
        for size, move in zip(x.shape[2:], moves, strict=True)
    )
    images = torch.arange(len(x))[:, None, None]
    moved = x.movedim(1, 3)[images, rows[:, :, None], columns[:, None, :]]
    return moved.movedim(3, 1).contiguous()
