"""Scores of windows → rows of a table of detections."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np

from birdinv.audio.windows import Windows
from birdinv.errors import SettingError

COLUMNS = ("file", "start_s", "end_s", "label", "score")

MOST_WAITING = 50_000  # rows in memory, some 10 MB
CHUNK = 1024  # of them read back at a time


@dataclass(frozen=True)
class Choice:
    """Which scores become rows; the names are BirdNET's.

    Args:
        min_conf: the least probability.
        top_n: keep only the N best birds of each window.
        merge: merge up to so many consecutive windows of one bird into a row, whose score is the
            mean of its three best; 1 = none, 0 = any number.
    """

    min_conf: float = 0.5  # one bird a window at the most: the probabilities sum to 1
    top_n: int | None = None
    merge: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.min_conf <= 1:
            raise SettingError(f"--min-conf is {self.min_conf:g}; give a probability from 0 to 1")
        if self.top_n is not None and self.top_n < 1:
            raise SettingError(f"--top-n is {self.top_n}; give at least 1")
        if self.merge < 0:
            raise SettingError(
                f"--merge-consecutive is {self.merge}; give the most windows of a row, or 'all'"
            )


DEFAULT_CHOICE = Choice()


@dataclass
class _Open:
    """A run of windows of one bird that may still grow."""

    first: int
    last: int
    scores: list[float]


class _Waiting:
    """Rows that wait for a bird which began before them and still sings.

    Beyond `MOST_WAITING` they wait in a file, sorted: a night of crickets costs no memory.
    """

    _KIND = np.dtype([("first", "<i8"), ("score", "<f8"), ("rank", "<i8"), ("last", "<i8")])

    def __init__(self, names: Sequence[str]) -> None:
        self._names = sorted(names)
        self._ranks = [self._names.index(name) for name in names]
        self._heap: list[tuple[int, float, int, int]] = []
        self._stretches: list[tuple[int, int]] = []  # of the file, in rows
        self._file: IO[bytes] | None = None

    def add(self, first: int, score: float, bird: int, last: int) -> None:
        heapq.heappush(self._heap, (first, -score, self._ranks[bird], last))

    def before(self, window: int) -> Iterator[tuple[int, int, str, float]]:
        """The rows that begin before `window`, in order; nothing will be added before them."""
        if not self._stretches:  # else there are earlier ones in the file: all come at the end
            while self._heap and self._heap[0][0] < window:
                yield self._row(heapq.heappop(self._heap))
        if len(self._heap) > MOST_WAITING:
            self._put_aside()

    def rest(self) -> Iterator[tuple[int, int, str, float]]:
        """All the others."""
        aside = [self._taken_back(*stretch) for stretch in self._stretches]
        for row in heapq.merge(*aside, sorted(self._heap)):
            yield self._row(row)

    def _put_aside(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  it goes with this object
        start = self._file.seek(0, 2) // self._KIND.itemsize
        self._file.write(np.array(sorted(self._heap), self._KIND).tobytes())
        self._stretches.append((start, len(self._heap)))
        self._heap.clear()

    def _taken_back(self, start: int, count: int) -> Iterator[tuple[int, float, int, int]]:
        for at in range(start, start + count, CHUNK):
            size = min(CHUNK, start + count - at) * self._KIND.itemsize
            if self._file is not None:
                self._file.seek(at * self._KIND.itemsize)
                yield from np.frombuffer(self._file.read(size), self._KIND).tolist()

    def _row(self, row: tuple[int, float, int, int]) -> tuple[int, int, str, float]:
        return row[0], row[3], self._names[row[2]], -row[1]


def detections(
    scored: Iterable[tuple[int, np.ndarray]],
    classes: Sequence[str],
    non_events: Collection[str],
    choice: Choice,
) -> Iterator[tuple[int, int, str, float]]:
    """Rows `(first window, last window, label, score)`, by first window, then best score.

    Args:
        scored: `(number of the first window, probabilities [B, K])`, in order.
        non_events: the classes (`noise`, `background`, …) that are never reported.
    """
    birds = [i for i, name in enumerate(classes) if name not in non_events]
    if choice.merge == 1:
        yield from _unmerged(scored, birds, [classes[i] for i in birds], choice)
        return
    most = choice.merge or np.inf
    growing: dict[int, _Open] = {}
    done = _Waiting([classes[i] for i in birds])

    def close(bird: int) -> None:
        run = growing.pop(bird)
        score = float(np.mean(sorted(run.scores, reverse=True)[:3]))
        done.add(run.first, score, bird, run.last)

    for first, probabilities in scored:
        scores = probabilities[:, birds]
        enough = scores >= choice.min_conf
        for offset in np.flatnonzero(enough.any(axis=1)).tolist():  # few windows hold a bird
            window = first + offset
            ranked = np.argsort(-scores[offset], kind="stable")[: choice.top_n].tolist()
            hits = {i: float(scores[offset, i]) for i in ranked if enough[offset, i]}
            for bird in [b for b, run in growing.items() if b not in hits or run.last < window - 1]:
                close(bird)
            for bird, score in hits.items():
                run = growing.get(bird)
                if run is not None and window - run.first < most:
                    run.last = window
                    run.scores = sorted([*run.scores, score], reverse=True)[:3]
                else:
                    if run is not None:
                        close(bird)
                    growing[bird] = _Open(window, window, [score])
            yield from done.before(min((r.first for r in growing.values()), default=window + 1))
    for bird in list(growing):
        close(bird)
    yield from done.rest()


def _unmerged(
    scored: Iterable[tuple[int, np.ndarray]],
    birds: Sequence[int],
    names: Sequence[str],
    choice: Choice,
) -> Iterator[tuple[int, int, str, float]]:
    """The same where nothing can grow: a whole batch at once, for tables of millions of rows."""
    alphabetical = np.argsort(np.argsort(np.array(names, dtype=object), kind="stable"))
    for first, probabilities in scored:
        scores = probabilities[:, birds]
        hits = scores >= choice.min_conf
        if choice.top_n is not None and choice.top_n < len(birds):
            ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
            hits &= ranks < choice.top_n
        window, bird = np.nonzero(hits)
        score = scores[window, bird]
        order = np.lexsort((alphabetical[bird], -score, window))
        columns = (each[order].tolist() for each in (window + first, bird, score))
        for number, which, value in zip(*columns, strict=True):
            yield number, number, names[which], value


def native_row(
    file: str,
    detection: tuple[int, int, str, float],
    windows: Windows,
    sample_rate: int,
    frames: int,
) -> tuple[str, str, str, str, str]:
    """A detection as a row of the native table (`COLUMNS`); seconds from the recording's start.

    Args:
        frames: samples of the recording, where a padded last window ends.
    """
    first, last, label, score = detection
    return file, *windows.seconds(first, last, sample_rate, frames), label, f"{score:.4f}"
