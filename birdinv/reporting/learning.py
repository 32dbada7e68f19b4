"""How a run learnt, drawn from its `metrics.csv`; see `figures` for the size and the colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from birdinv.reporting.figures import COLOURS, WIDTH, printable
from birdinv.training.alarms import SHARES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What a panel's vertical axis shows: column of metrics.csv, name in the legend, colour, line style.
# Blue is learned from, vermilion and pink are validation, green is what needs no labels.
_PANELS = {
    "Entropies (nats)": (
        ("cross_entropy", "cross-entropy: training", COLOURS[0], "-"),
        ("valid_cross_entropy", "validation", COLOURS[1], "--"),
        ("entropy", "entropy: unlabelled", COLOURS[2], ":"),
        ("balance", "balance: unlabelled", COLOURS[4], "-."),
    ),
    "Objective": (
        ("total", "total loss", COLOURS[0], "-"),
        ("reconstruction", "reconstruction error", COLOURS[2], ":"),
    ),
    "Accuracy (%)": (
        ("train_accuracy", "training", COLOURS[0], "-"),
        ("valid_accuracy", "validation segments", COLOURS[1], "--"),
        ("valid_recording_accuracy", "validation recordings", COLOURS[3], "-."),
        ("agreement", "agreement in recordings", COLOURS[2], ":"),
    ),
}


def learning_curves(metrics: Sequence[Mapping[str, str]]) -> Figure:
    """Loss terms, objective and accuracy against the epoch, one panel above the other.

    Args:
        metrics: the rows of `metrics.csv`. An empty cell leaves a gap, an empty column no curve,
            a panel without curves is left out.

    Raises:
        ValueError: not one cell of the known columns holds a number.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = _column(metrics, "epoch")
    epochs = np.where(np.isfinite(epochs), epochs, np.arange(1, len(epochs) + 1))
    names = [column for curves in _PANELS.values() for column, _, _, _ in curves]
    values = {name: _column(metrics, name) for name in names}
    filled = {name for name in names if np.isfinite(values[name]).any()}
    panels = [
        title for title, curves in _PANELS.items() if any(curve[0] in filled for curve in curves)
    ]
    if not panels:
        raise ValueError(f"metrics holds no number to draw in its {len(metrics)} rows")

    figure = Figure(figsize=(WIDTH, 0.5 + 2.1 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    marker = "o" if len(epochs) <= 30 else ""  # a single epoch makes no line
    for axis, title in zip(axes, panels, strict=True):
        percent = title.endswith("(%)")
        for column, name, colour, style in _PANELS[title]:
            if column in filled:
                numbers = 100 * values[column] if percent else values[column]
                axis.plot(epochs, numbers, style, marker=marker, ms=4, color=colour, label=name)
        if percent:
            axis.set_ylim(-3, 103)
        elif title == "Objective":
            low, high = axis.dataLim.intervaly
            if 0 < low < high / 100:
                axis.set_yscale("log")
        axis.set_ylabel(title)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=9, frameon=False,
            borderaxespad=0.2, columnspacing=1.2,
        )  # fmt: skip
    axes[-1].set_xlabel("Epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure


def predicted_shares(metrics: Sequence[Mapping[str, str]], classes: Sequence[str]) -> Figure:
    """What the unlabelled samples were taken for, epoch by epoch: a column that adds up to 100 %.

    Args:
        metrics: the rows of `metrics.csv`.
        classes: the names of the classes, in the order in which they are stacked.

    Raises:
        ValueError: no row holds such shares.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = _column(metrics, "epoch")
    shares = np.array([_column(metrics, SHARES + name) for name in classes])
    there = np.isfinite(shares).all(axis=0) & np.isfinite(epochs) if len(shares) else np.array([])
    if not there.any():
        raise ValueError("metrics holds no shares of classes")
    epochs, shares = epochs[there], 100 * shares[:, there]
    lines = math.ceil(len(classes) / 3)  # of the legend
    figure = Figure(figsize=(WIDTH, 2.6 + 0.22 * lines), layout="constrained")
    axis = figure.subplots()
    width = np.diff(epochs).min() if len(epochs) > 1 else 1.0
    bottom = np.zeros(len(epochs))
    for i, share in enumerate(shares):
        hatch = ("", "//", "..", "xx")[i // len(COLOURS) % 4]  # more classes than colours
        axis.bar(
            epochs, share, width, bottom=bottom, color=COLOURS[i % len(COLOURS)], hatch=hatch,
            edgecolor="white", linewidth=0.4, label=str(i),
        )  # fmt: skip
        bottom += share
    axis.set_ylim(0, 100)
    axis.set_xlabel("Epoch")
    axis.set_ylabel("Unlabelled (%)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axis.spines[["top", "right"]].set_visible(False)
    legend = axis.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=9, frameon=False,
        borderaxespad=0.2, columnspacing=1.2,
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), classes, strict=True):
        text.set(text=printable(name, 24), parse_math=False)  # a label may not begin with _
    return figure


def _column(metrics: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    """The cells of one column as numbers, NaN where a cell holds none."""
    values = np.full(len(metrics), np.nan)
    for i, row in enumerate(metrics):
        try:
            values[i] = float(row.get(name) or "nan")
        except ValueError:
            continue
    values[~np.isfinite(values)] = np.nan
    return values
