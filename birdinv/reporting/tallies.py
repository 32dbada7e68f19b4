"""What the tables of a prediction come to, in one pass each over `files.csv` and `combined.csv`.

A table may have millions of rows: only sums are held, and the windows that may yet be among the
best of their class.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from birdinv.errors import BirdinvError
from birdinv.files import csv_rows
from birdinv.prediction.recorders import recorded_at

_FOREVER_S = 1e9  # 30 years: a recording that a calendar can end
BEST = 10  # windows of each class
STATUSES = ("unreadable", "empty", "partial", "ok")  # worst first


class Window(NamedTuple):
    """A detection: from `start_s` to `end_s` seconds of the recording `file`."""

    file: str
    start_s: float
    end_s: float
    label: str
    score: float


class ClassTally:
    """What is kept of the detections of one class.

    Of two detections in one recording that overlap or adjoin only the better counts as one of the
    `best` windows, of equals the earlier: ten views of one call would help nobody.

    Attributes:
        detections: how many there are.
        recordings: in how many recordings.
        score: the highest.
        by_hour: [24] detections that began in each hour of the day, where the time is known.
    """

    def __init__(self) -> None:
        self.detections = self.recordings = 0
        self.score = -math.inf
        self.by_hour = [0] * 24
        self._file: str | None = None
        self._near: list[tuple[int, Window, bool]] = []  # may touch rows to come; is it beaten?
        self._heap: list[tuple[float, int, Window]] = []

    def add(self, window: Window, hour: int | None) -> None:
        """Counts the next detection; those of a recording come together, by their starts."""
        self.detections += 1
        self.score = max(self.score, window.score)
        if hour is not None:
            self.by_hour[hour] += 1
        if window.file != self._file:
            self._file = window.file
            self.recordings += 1
            self._settle(math.inf)
        elif self._near:
            self._settle(window.start_s)
        # What is still near touches the window. What is worse and ends no later is forgotten: the
        # window will beat all that it would have beaten.
        beaten = any(other.score >= window.score for _, other, _ in self._near)
        self._near = [
            (row, other, lost or other.score < window.score)
            for row, other, lost in self._near
            if other.score >= window.score or other.end_s > window.end_s
        ]
        self._near.append((self.detections, window, beaten))

    def best(self) -> list[Window]:
        """The ten best windows, best first, once all detections were added."""
        self._settle(math.inf)
        return [window for _, _, window in sorted(self._heap, reverse=True)]

    def _settle(self, start_s: float) -> None:
        """Decides on the windows that end before `start_s`."""
        for row, window, beaten in self._near:
            if window.end_s < start_s and not beaten:
                keep = heapq.heappushpop if len(self._heap) == BEST else heapq.heappush
                keep(self._heap, (window.score, -row, window))
        self._near = [near for near in self._near if near[1].end_s >= start_s]


def tally_classes(table: Path) -> dict[str, ClassTally]:
    """Label → its tally, of every row of a `combined.csv`, in the order of the first rows.

    Raises:
        BirdinvError: the table cannot be read, or is none of detections.
    """
    tallies: dict[str, ClassTally] = {}
    file: str | None = None
    began_s: float | None = None  # since midnight
    for number, row in enumerate(csv_rows(table), 1):
        try:
            start, end, score = float(row["start_s"]), float(row["end_s"]), float(row["score"])
            window = Window(row["file"], start, end, row["label"], score)
            if not (0 <= start <= end < _FOREVER_S and math.isfinite(score)):
                raise ValueError(f"from {start:g} to {end:g} s, score {score:g}")
        except (KeyError, ValueError) as error:
            raise BirdinvError(
                f"{table}: row {number} is no detection ({error}); expected the table that "
                "birdinv predict writes"
            ) from error
        if window.file != file:
            file, began = window.file, recorded_at(window.file)
            began_s = None if began is None else second_of_day(began)
        hour = None if began_s is None else int((began_s + start) // 3600) % 24
        if window.label not in tallies:
            tallies[window.label] = ClassTally()
        tallies[window.label].add(window, hour)
    return tallies


@dataclass
class Heard:
    """What `files.csv` says of all recordings together."""

    statuses: Counter[str] = field(default_factory=Counter)
    read_s: float = 0.0
    windows: int = 0
    listened_s: list[float] = field(default_factory=lambda: [0.0] * 24)  # by hour of day
    timed: int = 0  # recordings with sound whose name tells when they began
    untimed: int = 0


def tally_recordings(table: Path) -> Heard:
    """The sums over a `files.csv`.

    Raises:
        BirdinvError: the table cannot be read, or is none of recordings.
    """
    heard = Heard()
    for number, row in enumerate(csv_rows(table), 1):
        try:
            name, status = row["file"], row["status"]
            read_s, windows = float(row["read_s"] or 0), int(row["windows"] or 0)
            float(row.get("declared_s") or 0)
            if not 0 <= read_s < math.inf:
                raise ValueError(f"{read_s:g} s read")
        except (KeyError, ValueError) as error:
            raise BirdinvError(
                f"{table}: row {number} tells of no recording ({error}); expected the table that "
                "birdinv predict writes"
            ) from error
        heard.statuses[status] += 1
        heard.read_s += read_s
        heard.windows += windows
        if read_s == 0:
            continue
        began = recorded_at(name)
        if began is None:
            heard.untimed += 1
            continue
        heard.timed += 1
        start_s = second_of_day(began)
        for hour in range(int(start_s // 3600), int((start_s + read_s) // 3600) + 1):
            in_hour = min(start_s + read_s, 3600 * (hour + 1)) - max(start_s, 3600 * hour)
            heard.listened_s[hour % 24] += in_hour
    return heard


def worst_recordings(table: Path, most: int) -> list[Mapping[str, str]]:
    """The rows of a `files.csv` that are not ok, at most so many, worst first.

    What could not be opened comes before what is empty and what was read in part, least read first.
    """

    def severity(row: Mapping[str, str]) -> tuple[int, float, str]:
        status = row["status"]
        rank = STATUSES.index(status) if status in STATUSES else -1
        try:
            share = float(row["read_s"]) / float(row["declared_s"])
        except (KeyError, ValueError, ZeroDivisionError):
            share = 1.0  # nothing was promised
        return rank, share, row["file"]

    return heapq.nsmallest(most, (r for r in csv_rows(table) if r["status"] != "ok"), severity)


def whole_recordings(table: Path, names: Container[str]) -> set[str]:
    """Those of the names that a `files.csv` calls ok: read from beginning to end without a flaw."""
    return {r["file"] for r in csv_rows(table) if r["status"] == "ok" and r["file"] in names}


def second_of_day(time: datetime) -> float:
    """Seconds since midnight."""
    return 3600 * time.hour + 60 * time.minute + time.second + time.microsecond / 1e6
