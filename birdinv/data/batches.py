"""Batches of samples; segments from a store by arithmetic on spans, one gather, normalised.

What a batch holds is a function of (seed, step) alone. Nothing about the sampler has to be saved to
resume a run, and no worker can change what the network sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from birdinv.audio.store import Store
from birdinv.data.augmentation import AUGMENTATIONS, Augmentation, Change
from birdinv.data.background import Background
from birdinv.data.orders import BalancedOrder, EndlessShuffle, GroupedOrder, Order
from birdinv.errors import BirdinvError
from birdinv.networks.layers import normalise
from birdinv.terms import UNLABELED

# The streams of random numbers behind those of the two sets.
TRANSLATIONS, CHANGES, VIEWS = 2, 3, 4


class Source(Protocol):
    """Samples of one role in training: their inputs and classes by number, 0 … S−1."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> np.ndarray:
        """The class of every sample, int64 `[S]`, −1 where unlabelled."""

    @property
    def recordings(self) -> np.ndarray:
        """What every sample is a piece of, int64 `[S]`: each its own where it is whole."""

    @property
    def groups(self) -> np.ndarray:
        """Which samples hold the same, int64 `[S]`; −1 for one that has no others."""

    def inputs(self, which: np.ndarray, change: Change | None = None) -> Tensor:
        """Normalised float32 samples `[B, C, *S]` for int64 numbers `[B]`, changed before that."""

    def classes(self, which: np.ndarray) -> Tensor:
        """Class numbers int64 `[B]`, −1 where unlabelled."""


class Segments:
    """The segments of some recordings of a store, in the order of `recordings.csv`.

    They are kept as spans and computed when asked for: the memory is that of the spans.

    Args:
        store: where the samples are.
        labels: recording → class name, or "" for unlabelled; only these recordings take part.
        group_s: seconds of a stretch whose segments are a group; None = whole recordings.

    Raises:
        BirdinvError: a class that the store does not have.
    """

    def __init__(
        self, store: Store, labels: Mapping[str, str], group_s: float | None = None
    ) -> None:
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
        self._offsets = np.array([r.offset for r in store.recordings], np.int64)
        self._stretch = None if group_s is None else max(1, round(group_s * store.sample_rate))
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

    @cached_property
    def groups(self) -> np.ndarray:
        """The number of every segment's recording, or of the stretch in it, int64 `[S]`."""
        recordings = self.recordings
        if self._stretch is None:
            return recordings
        within = self.starts(np.arange(len(self))) - self._offsets[recordings]
        pairs = np.stack([recordings, within // self._stretch])
        return np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)

    def starts(self, which: np.ndarray) -> np.ndarray:
        """First samples (positions in `store.audio`) of segments `which`, int64 `[B]` to same."""
        span = self._spans(which)
        nth = which - (self._end[span] - self._count[span])
        return np.asarray(self._first[span] + self._hop * nth)

    def inputs(self, which: np.ndarray, change: Change | None = None) -> Tensor:
        """Normalised float32 segments `[B, 1, T]` for int64 indices `[B]`, changed before that."""
        samples = torch.from_numpy(self._windows[self.starts(which)])[:, None].to(torch.float32)
        return normalise(samples if change is None else change(samples))

    def classes(self, which: np.ndarray) -> Tensor:
        """Class numbers int64 `[B]`, −1 where unlabelled."""
        return torch.from_numpy(self._class[self._spans(which)])

    def _spans(self, which: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._end, which, side="right")


class Batch(NamedTuple):
    """Samples of one step, labelled ones first.

    Attributes:
        x: inputs `[B, C, *S]`.
        y: classes int64 `[B]`, −1 where unlabelled.
        groups: int64 `[B]`, the recording or stretch of an unlabelled sample, −1 for none; None
            where samples are not drawn by groups.
        view: the same samples as `x`, changed in another way; None where none is asked for.
    """

    x: Tensor
    y: Tensor
    groups: Tensor | None = None
    view: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(part if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn and changed.

    Attributes:
        balanced: labelled ones class by class, within a class over recordings, then segments.
        together: unlabelled ones so many at a time from one recording or stretch; 0 = any.
        augmentation: of recordings, and `view` that of a second view of each; None = no view.
        background: what `augmentation` mixes in.
        translate: most pixels by which images are moved, each time by another random distance.
    """

    balanced: bool = False
    together: int = 0
    augmentation: Augmentation = AUGMENTATIONS["none"]
    view: Augmentation | None = None
    background: Background | None = None
    translate: int = 0


class TrainingBatches:
    """Batch number `step` of a run: half labelled and half unlabelled where there are both.

    An epoch is as many steps as one pass over the larger of the two sets takes; the other one
    repeats (MS §3.1 has the unlabelled set, which there is the larger one).

    Args:
        labelled_only: leave the unlabelled half out of every batch, and everything else as it is.
    """

    def __init__(
        self,
        labelled: Source,
        unlabelled: Source | None,
        *,
        batch_size: int,
        seed: int,
        labelled_only: bool = False,
        drawing: Drawing = Drawing(),
    ) -> None:
        sets = [samples for samples in (labelled, unlabelled) if samples is not None]
        sets = [samples for samples in sets if len(samples)]
        self._each = batch_size // len(sets)
        self._whole = self._each * len(sets)
        self._parts = [
            (samples, _order(samples, samples is labelled, drawing, seed, stream))
            for stream, samples in enumerate(sets[:1] if labelled_only else sets)
        ]
        self._unlabelled, self._seed, self._drawing = unlabelled, seed, drawing
        self.steps_per_epoch = -(-max(len(samples) for samples in sets) // self._each)

    def batch(self, step: int) -> Batch:
        """The samples of one step."""
        drawing = self._drawing
        picked = [
            (samples, order.take(step * self._each, self._each)) for samples, order in self._parts
        ]
        y = torch.cat([samples.classes(which) for samples, which in picked])
        groups = None
        if drawing.together:
            groups = torch.cat(
                [
                    torch.from_numpy(samples.groups[which])
                    if samples is self._unlabelled
                    else torch.full((len(which),), -1)
                    for samples, which in picked
                ]
            )
        x = self._inputs(picked, drawing.augmentation, CHANGES, step)
        if drawing.translate:
            rng = np.random.default_rng([self._seed, TRANSLATIONS, step])
            moves = rng.integers(-drawing.translate, drawing.translate + 1, (2, self._whole))
            x = translated(x, torch.from_numpy(moves[:, : len(x)]))
        if drawing.view is None:
            return Batch(x, y, groups)
        return Batch(x, y, groups, self._inputs(picked, drawing.view, VIEWS, step))

    def _inputs(
        self,
        picked: Sequence[tuple[Source, np.ndarray]],
        augmentation: Augmentation,
        stream: int,
        step: int,
    ) -> Tensor:
        parts = []
        for half, (samples, which) in enumerate(picked):
            change = None
            if augmentation != AUGMENTATIONS["none"]:
                rng = np.random.default_rng([self._seed, stream, half, step])
                change = augmentation.change(rng, self._drawing.background or None)
            parts.append(samples.inputs(which, change))
        return torch.cat(parts)


def _order(samples: Source, labelled: bool, drawing: Drawing, seed: int, stream: int) -> Order:
    if labelled and drawing.balanced:
        return BalancedOrder(samples.labels, samples.recordings, seed, stream)
    if not labelled and drawing.together:
        return GroupedOrder(samples.groups, drawing.together, seed, stream)
    return EndlessShuffle(len(samples), seed, stream)


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
