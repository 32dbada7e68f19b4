"""Curves of result files, and how they are drawn.

Colours are those of Okabe and Ito, told apart under every common colour blindness; layers are
shades of one colour, darker inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from birdinv.reproduce.cells import Cell
from birdinv.reproduce.collected import Found, ranges
from birdinv.reproduce.results import is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 5.6  # inches; 10-point text stays readable when that fills a phone's screen
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY = COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
)
_ERROR = "valid_reconstruction_"
_LEGEND = 5  # layers that a legend names
_ACCURACIES = (0, 10, 20, 40, 60, 70, 80, 85, 90, 93, 95, 96, 97, 98, 98.5, 99, 99.3, 99.5, 99.8)
_MARKED = 30  # a curve of at most so many points shows each


@dataclass(frozen=True)
class Curve:
    """A number of the validations against the epoch: mean, least and greatest over the seeds.

    All four are float64 `[E]`, of the epochs at which every seed has the number.
    """

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve(result: Mapping[str, Any], key: str) -> Curve:
    """The curve of `key` in a result; empty where a seed lacks it."""
    seeds = [_points(seed.get("curve"), key) for seed in result["seeds"]]
    epochs = sorted(set.intersection(*(set(points) for points in seeds)))
    values = np.array([[points[epoch] for epoch in epochs] for points in seeds], np.float64)
    return Curve(np.array(epochs), values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def layers(result: Mapping[str, Any]) -> list[str]:
    """What has a reconstruction error, "input" first."""
    entries = result["seeds"][0].get("curve")
    first = entries[0] if isinstance(entries, list) and entries else None
    keys = first if isinstance(first, dict) else ()
    return [key.removeprefix(_ERROR) for key in keys if key.startswith(_ERROR)]


def draw(
    axis: Axes, found: Curve, label: str, colour: Any, *, style: str = "-", marker: str = "o",
    band: bool = False,
) -> None:  # fmt: skip
    """Draws a curve; `band`: with the range over the seeds behind it."""
    if not len(found.epochs):
        return
    marker = marker if len(found.epochs) <= _MARKED else ""
    axis.plot(
        found.epochs, found.mean, style, color=colour, label=label, marker=marker, ms=4, lw=1.4
    )
    if band and (found.high > found.low).any():
        axis.fill_between(found.epochs, found.low, found.high, color=colour, alpha=0.18, lw=0)
        if len(found.epochs) == 1:  # a band of no width
            axis.vlines(found.epochs, found.low, found.high, colors=colour, lw=1)


def draw_accuracy(
    axis: Axes, found: Found, key: str, label: str, colour: Any, *, style: str = "-",
    marker: str = "o", band: bool = False,
) -> None:  # fmt: skip
    """Draws an accuracy in %."""
    of = curve(found.result, key)
    percent = Curve(of.epochs, 100 * of.mean, 100 * of.low, 100 * of.high)
    draw(axis, percent, label, colour, style=style, marker=marker, band=band)


def draw_layers(axis: Axes, found: Found) -> None:
    """Draws the reconstruction error of each layer: λ in blue, Γ in red, inner layers darker."""
    from matplotlib import colormaps

    names = layers(found.result)
    shades = colormaps["Blues" if is_multiscale(found.cell) else "Reds"]
    named = {round(i) for i in np.linspace(0, len(names) - 1, min(_LEGEND, len(names)))}
    for i, name in enumerate(names):
        colour = shades(0.35 + 0.65 * i / max(1, len(names) - 1))
        label = name.replace("$", "") if i in named else "_"  # which no legend shows
        draw(axis, curve(found.result, _ERROR + name), label, colour)
    axis.set_yscale("log", nonpositive="mask")


def is_multiscale(cell: Cell) -> bool:
    """Whether the row is trained by λ, not by Γ."""
    return bool(cell.row.settings["objective"] == "multiscale")


def finish(axis: Axes, *, title: str = "", ylabel: str = "", epochs: bool = True) -> None:
    """Title, labels, grid."""
    from matplotlib.ticker import MaxNLocator

    axis.set_title(title, fontsize=10)
    axis.set_ylabel(ylabel)
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if epochs:
        axis.set_xlabel("Epochs")
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def from_zero(axes: Iterable[Axes]) -> None:
    """Lets the epochs begin at 0, once all is drawn."""
    for axis in axes:
        axis.set_xlim(left=0)


def spread_accuracies(axes: Sequence[Axes]) -> None:
    """Makes accuracies in % as far apart as the logarithms of their errors, once all is drawn.

    The panels share their vertical axis; what is above 99.9 % is at its end.
    """
    spans = [axis.dataLim.intervaly for axis in axes]
    numbers = [y for span in spans for y in span if 0 <= y <= 100]
    if not numbers:
        return
    axes[0].set_yscale(
        "function",
        functions=(
            lambda y: -np.log10(np.clip(100 - y, 0.01, None)),
            lambda log: 100 - 10.0**-log,
        ),
    )
    low, high = max(0, 100 - 1.1 * (100 - min(numbers))), 100 - (100 - max(numbers)) / 1.1
    high = min(99.9, high)
    ticks = [y for y in _ACCURACIES if low <= y <= high]
    axes[0].set_yticks(ticks, [f"{y:g}" for y in ticks])
    axes[0].set_ylim(low, high)


def say(axis: Axes, text: str) -> None:
    """Words in the middle of a panel where there is nothing to draw."""
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color="#555555")


def describe(found: Found | Cell) -> str:
    """Data set, labels, preset, budget and length of a cell's runs in words."""
    cell = found.cell if isinstance(found, Found) else found
    span = found.duration
    if not span.endswith(("epoch", "epochs", "step", "steps")):  # of results a number of epochs
        span += " epoch" + "s" * (found.epochs != 1)
    where = f"{cell.dataset}, {cell.labels_in_words}"
    return f"{where}, preset {cell.preset}, budget {cell.budget} ({span})"


def seeds_in_words(founds: Sequence[Found]) -> str:
    """Which seeds the curves are of."""
    seeds = {tuple(each.seeds) for each in founds}
    if len(seeds) > 1:
        return "mean over the seeds of each"
    only = list(seeds.pop())
    return f"mean over seeds {ranges(only)}" if len(only) > 1 else f"seed {only[0]}"


def _points(entries: Any, key: str) -> dict[float, float]:
    """The number at each epoch of one seed, as far as there is one."""
    found = {}
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            epoch, value = entry.get("epoch"), entry.get(key)
            if is_number(epoch) and is_number(value):
                found[float(epoch)] = float(value)
    return found
