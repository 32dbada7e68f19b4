"""What the recipe gains on birds: paired differences, as `results/birds-few-labels.json` and text.

A pair is two runs of one seed, so of the same split, labelled recordings and initial weights.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birdinv.files import write_json
from birdinv.reproduce.collected import Found, collect, mean_std
from birdinv.reproduce.presets import PRESETS
from birdinv.reproduce.tables import TABLES

TABLE = "birds-few-labels"
BASE, OURS = "supervised", "few-labels"
UNITS = {"recording": "test_recording_accuracy", "segment": "test_accuracy"}


@dataclass(frozen=True)
class Setting:
    """Results that compare: one data set, number of labels, preset and budget, by row."""

    dataset: str
    labels: int | None
    preset: str
    budget: str
    rows: Mapping[str, Found]

    @property
    def count(self) -> str:
        """How many labels there are, in words."""
        return "all labelled" if self.labels is None else f"{self.labels} labelled a class"

    def scores(self, row: str, unit: str) -> dict[int, float]:
        """By seed the test accuracy in % per "recording" or "segment"; none of a row not run."""
        if row not in self.rows:
            return {}
        each = self.rows[row].result["seeds"]
        return {one["seed"]: 100 * one[UNITS[unit]] for one in each if UNITS[unit] in one}

    def gains(self, row: str, unit: str, base: str = BASE) -> dict[int, float]:
        """By seed how many points a row is above `base`, of the seeds that both have."""
        ours, theirs = self.scores(row, unit), self.scores(base, unit)
        return {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}

    def by_split(self, gains: Mapping[int, float]) -> dict[int, float]:
        """The means over the seeds of each split."""
        ways = PRESETS[self.preset].splits or max(gains, default=0) + 1
        splits: dict[int, list[float]] = {}
        for seed, gain in gains.items():
            splits.setdefault(seed % ways, []).append(gain)
        return {split: statistics.fmean(values) for split, values in sorted(splits.items())}


def settings_of(found: Sequence[Found]) -> list[Setting]:
    """The results of a table, those together that compare."""
    groups: dict[tuple[str, int | None, str, str], dict[str, Found]] = {}
    for each in found:
        cell = each.cell
        key = cell.dataset, cell.labels, cell.preset, cell.budget
        groups.setdefault(key, {})[cell.row.name] = each
    settings = [Setting(*key, rows) for key, rows in groups.items()]
    many = math.inf
    return sorted(settings, key=lambda s: (s.dataset, s.labels or many, s.preset, s.budget))


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean by Student's t; None of fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.fmean(values)
    return mean - half, mean + half


def write_summary(results: Path) -> Path | None:
    """Writes `results/birds-few-labels.json` from the result files; None where there are none.

    `"3"` holds what was measured with 3 labelled recordings a class, split by recording; the same
    split by recordist, and spoken digits split by speaker, are below their preset's name.
    """
    found = [s for s in settings_of(collect(TABLES[TABLE], results)[0]) if s.budget == "cpu"]
    summary: dict[str, Any] = {}
    for setting in found:
        if not setting.gains(OURS, "recording"):
            continue
        usual = (setting.dataset, setting.preset) == (TABLES[TABLE].dataset, "by-recording")
        place = summary if usual else summary.setdefault(setting.preset, {})
        place[str(setting.labels)] = _entry(setting)
    if not summary:
        return None
    path = results / f"{TABLE}.json"
    write_json(path, summary)
    return path


def _entry(setting: Setting) -> dict[str, Any]:
    entry: dict[str, Any] = {"dataset": setting.dataset, "seeds": []}
    for unit in UNITS:
        gains = setting.gains(OURS, unit)
        splits = setting.by_split(gains)
        entry["seeds"] = list(gains)
        entry[f"{unit}_accuracy_gains"] = [round(gain, 3) for gain in gains.values()]
        entry[f"{unit}_accuracy_gains_by_split"] = [round(gain, 3) for gain in splits.values()]
        entry[f"{unit}_accuracy_gain"] = round(statistics.fmean(gains.values()), 3)
        bounds = interval(list(splits.values()))
        entry[f"{unit}_accuracy_gain_interval"] = bounds and [round(b, 3) for b in bounds]
        for row in (BASE, OURS):
            scores = setting.scores(row, unit)
            entry[f"{row}_{unit}_accuracy"] = [round(scores[seed], 3) for seed in gains]
    return entry


def gain_tables(found: Sequence[Found]) -> Iterator[str]:
    """Blocks of Markdown: for each setting every row's accuracies and gains."""
    for setting in settings_of(found):
        if BASE not in setting.rows:
            continue
        yield (f"### {setting.dataset}, {setting.count}, {setting.preset}, {setting.budget}")
        head = ("Row", "Recordings", "gain", "95 %, over splits", "Segments", "gain", "Pairs")
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for row in setting.rows:
            cells = [row]
            pairs = 0
            for unit in UNITS:
                gains = setting.gains(row, unit)
                pairs = len(gains)
                cells.append(mean_std(list(setting.scores(row, unit).values())))
                cells.append(mean_std(list(gains.values()), signed=True) if row != BASE else "–")
                if unit == "recording":
                    bounds = interval(list(setting.by_split(gains).values()))
                    shown = f"{bounds[0]:+.1f} to {bounds[1]:+.1f}" if bounds else "–"
                    cells.append(shown if row != BASE else "–")
            lines.append("| " + " | ".join([*cells, str(pairs)]) + " |")
        yield "\n".join(lines)
