"""Few labels on birds as pictures: accuracy against labels, parts and rivals, suggestions."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from birdinv.reproduce.bird_choices import WAYS
from birdinv.reproduce.bird_summary import BASE, OURS, Setting, settings_of
from birdinv.reproduce.cells import Cell
from birdinv.reproduce.collected import Found
from birdinv.reproduce.curves import BLUE, GREEN, VERMILION, WIDTH, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Pictures = Iterator[tuple[str, Figure]]

_LOOKS = {
    BASE: (BLUE, "o", "-"),
    OURS: (VERMILION, "s", "-"),
    WAYS[1]: (BLUE, "o", "-"),
    WAYS[0]: (VERMILION, "s", "-"),
}
_PANELS = {"recording": "Recordings named right (%)", "segment": "Segments named right (%)"}


def label_figures(cells: Sequence[Cell], found: Sequence[Found]) -> Pictures:
    """Test accuracy against labelled recordings a class; then the gains of all rows at each."""
    settings = settings_of(found)
    x = "Labelled recordings of each class"
    yield "accuracy", _against_labels(settings, (BASE, OURS), x)
    for setting in settings:
        others = [row for row in setting.rows if row != BASE]
        if len(others) > 1 and BASE in setting.rows:
            yield f"gains-{setting.labels}", _gains(setting, others)


def suggestion_figures(cells: Sequence[Cell], found: Sequence[Found]) -> Pictures:
    """Test accuracy against the number of labelled recordings, added in either way."""
    yield "accuracy", _against_labels(settings_of(found), WAYS, "Labelled recordings in all")


def _against_labels(settings: Sequence[Setting], rows: Sequence[str], xlabel: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    first = settings[0]
    figure.suptitle(
        f"{first.dataset}, split {first.preset}\nmean and standard deviation over splits and seeds",
        fontsize=10,
    )
    for axis, (unit, ylabel) in zip(figure.subplots(2, sharex=True), _PANELS.items(), strict=True):
        for shift, row in enumerate(rows):
            _line(axis, settings, row, unit, shift)
        finish(axis, ylabel=ylabel, epochs=False)
        numbers = sorted({setting.labels for setting in settings if setting.labels is not None})
        axis.set_xscale("log")
        axis.set_xticks(numbers, [str(number) for number in numbers])
        axis.minorticks_off()
        if unit == "segment":
            axis.set_xlabel(xlabel)
        else:
            axis.legend(frameon=False, fontsize=9, loc="upper left")
    return figure


def _line(axis: Axes, settings: Sequence[Setting], row: str, unit: str, shift: int) -> None:
    found: Mapping[int, list[float]] = {
        setting.labels: scores
        for setting in settings
        if setting.labels is not None and (scores := list(setting.scores(row, unit).values()))
    }
    colour, marker, style = _LOOKS[row]
    axis.errorbar(
        [labels * (1 + 0.03 * shift) for labels in found],  # beside each other, not on top
        [statistics.fmean(scores) for scores in found.values()],
        yerr=[statistics.stdev(s) if len(s) > 1 else 0.0 for s in found.values()],
        fmt=style, marker=marker, ms=5, color=colour, capsize=3, lw=1.4, label=row,
    )  # fmt: skip


def _gains(setting: Setting, rows: Sequence[str]) -> Figure:
    """Points above supervised training: the mean, and a dot for each split."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH + 1.0, 1.4 + 0.3 * len(rows)), layout="constrained")
    figure.suptitle(
        f"{setting.dataset}, {setting.labels} labelled a class, {setting.preset}:\n"
        f"points above {BASE} on the same splits, labels and weights",
        fontsize=10,
    )
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (unit, title) in zip(axes, _PANELS.items(), strict=True):
        for place, row in enumerate(rows):
            gains = setting.gains(row, unit)
            splits = list(setting.by_split(gains).values())
            axis.plot(splits, [place] * len(splits), ".", color=GREEN, ms=5, alpha=0.7)
            if gains:
                axis.plot(statistics.fmean(gains.values()), place, "D", color=VERMILION, ms=6)
        axis.axvline(0, color="#555555", lw=0.8)
        finish(axis, title=title.removesuffix(" (%)"), epochs=False)
        axis.set_xlabel("points")
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure
