"""In which order samples are taken, without end: shuffled, class by class, recording by recording.

Every order is addressable: what stands at a position is a function of the seed and the position
alone. Nothing about it has to be saved to resume a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Order(Protocol):
    """An endless sequence of numbers of samples."""

    def take(self, start: int, count: int) -> np.ndarray:
        """Entries [start, start + count), int64."""


class EndlessShuffle:
    """Positions 0 … n−1 in a new random order each time round.

    The order of round r is drawn from `(seed, *stream, r)`.
    """

    def __init__(self, n: int, seed: int, *stream: int) -> None:
        if n < 1:
            raise ValueError("there is nothing to shuffle")
        self._n, self._key = n, (seed, *stream)
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


class GroupedOrder:
    """Group after group in a shuffled order, `each` samples of one at a time.

    All groups come equally often, however many samples they have, and so do the samples of one. A
    sample comes twice in a visit only where a round of its group ends in it.

    Args:
        groups: which group every sample is of, int64 `[S]`.
        seed, stream: of the shuffles.
    """

    def __init__(self, groups: np.ndarray, each: int, seed: int, *stream: int) -> None:
        self._members = _members(groups)
        self._each, self._key = each, (seed, *stream)
        self._groups = EndlessShuffle(len(self._members), seed, *stream, 1, 0)
        self._within: dict[int, EndlessShuffle] = {}

    def take(self, start: int, count: int) -> np.ndarray:
        """Entries [start, start + count) of the endless sequence, int64."""
        parts, end = [], start + count
        while start < end:
            visit, offset = divmod(start, self._each)
            size = min(self._each - offset, end - start)
            group = int(self._groups.take(visit, 1)[0])
            before = visit // len(self._members) * self._each
            parts.append(self._of(group, before + offset, size))
            start += size
        return np.concatenate(parts)

    def _of(self, group: int, start: int, count: int) -> np.ndarray:
        members = self._members[group]
        if group not in self._within:
            self._within[group] = EndlessShuffle(len(members), *self._key, 2, group)
        return np.asarray(members[self._within[group].take(start, count)])


class BalancedOrder:
    """Class after class in a shuffled order; within a class over recordings, then over segments.

    All classes come equally often, and so do the recordings of a class and the segments of a
    recording: a long recording does not drown a short one.

    Args:
        labels, recordings: class and recording of every sample, int64 `[S]`.
        seed, stream: of the shuffles.
    """

    def __init__(self, labels: np.ndarray, recordings: np.ndarray, seed: int, *stream: int) -> None:
        self._members = _members(labels)
        self._classes = EndlessShuffle(len(self._members), seed, *stream, 1, 0)
        self._within = [
            GroupedOrder(recordings[members], 1, seed, *stream, 2, number)
            for number, members in enumerate(self._members)
        ]

    def take(self, start: int, count: int) -> np.ndarray:
        """Entries [start, start + count) of the endless sequence, int64."""
        numbers = self._classes.take(start, count)
        rounds = np.arange(start, start + count) // len(self._members)
        picked = [
            self._members[number][self._within[number].take(turn, 1)[0]]
            for number, turn in zip(numbers.tolist(), rounds.tolist(), strict=True)
        ]
        return np.array(picked, np.int64)


def _members(keys: np.ndarray) -> Sequence[np.ndarray]:
    """The positions of each distinct key, in the order of the keys."""
    if not len(keys):
        raise ValueError("there is nothing to shuffle")
    order = np.argsort(keys, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
