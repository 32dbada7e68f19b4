"""How networks learnt, from their result files: INV fig. 2, MS fig. 2 and 3, and the ablation.

Every function takes the cells of one setting and the results of those that have one, at least one,
and yields the names of figures and the figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from birdinv.reproduce.ablation import BALANCED, OBJECTIVES
from birdinv.reproduce.cells import Cell
from birdinv.reproduce.collected import Found
from birdinv.reproduce.curves import (
    BLUE,
    COLOURS,
    VERMILION,
    WIDTH,
    curve,
    describe,
    draw,
    draw_accuracy,
    draw_layers,
    finish,
    from_zero,
    is_multiscale,
    say,
    seeds_in_words,
    spread_accuracies,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ERROR = "Reconstruction error R/D"  # per number of a layer, MS 7
_OBJECTIVE_LOOKS = dict(zip(OBJECTIVES, zip(COLOURS, "osD^vP", strict=True), strict=True))


def baseline_figures(cells: Sequence[Cell], found: Sequence[Found]) -> Iterator[tuple[str, Figure]]:
    """Test accuracies of all rows; how the baseline and the best other row learnt (INV fig. 2).

    The best has the highest accuracy on validation, where the paper took that on the test set.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 7.0), layout="constrained")
    figure.suptitle(f"{describe(found[0])}\n{seeds_in_words(found)}", fontsize=10)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.1, 1)).flat
    _test_accuracies(upper.subplots(), cells, found)
    below = lower.subplots(1, 2, sharex=True, sharey=True)
    baselines = [each for each in found if each.cell.row.settings["alpha"] == 1]
    others = [each for each in found if each not in baselines and each.scores("valid")]
    best = sorted(others, key=lambda each: -statistics.fmean(each.scores("valid").values()))
    shown = (("baseline", baselines), ("best other, by validation", best))
    for axis, (which, one) in zip(below, shown, strict=True):
        settings = one[0].cell.row.settings if one else {}
        alpha_beta = f"\nα = {settings['alpha']:g}, β = {settings['beta']:g}" if one else ""
        axis.set_ylim(0, 102)
        ylabel = "Accuracy of segments (%)" if which == "baseline" else ""
        finish(axis, title=which + alpha_beta, ylabel=ylabel)
        if one:
            draw_accuracy(axis, one[0], "train_accuracy", "training", BLUE, band=True)
            draw_accuracy(
                axis, one[0], "valid_accuracy", "validation", VERMILION,
                style="--", marker="s", band=True,
            )  # fmt: skip
            axis.legend(fontsize=9, frameon=False, loc="lower right")
        else:
            say(axis, "not run")
    from_zero(below)
    yield "learning", figure


def layer_figures(cells: Sequence[Cell], found: Sequence[Found]) -> Iterator[tuple[str, Figure]]:
    """Reconstruction errors of all layers, λ beside Γ, a line for each network (MS fig. 2)."""
    from matplotlib.figure import Figure

    networks: dict[str, dict[bool, Found]] = {}
    for each in found:
        networks.setdefault(_network(each.cell), {})[is_multiscale(each.cell)] = each
    figure = Figure(figsize=(WIDTH + 1.4, 0.8 + 2.7 * len(networks)), layout="constrained")
    figure.suptitle(
        f"Reconstruction errors on validation samples\n{describe(found[0])}\n"
        f"{seeds_in_words(found)}",
        fontsize=10,
    )
    axes = figure.subplots(len(networks), 2, sharex=True, sharey=True, squeeze=False)
    for row, (network, objectives) in enumerate(networks.items()):
        for axis, multiscale in zip(axes[row], (True, False), strict=True):
            loss = "multiscale loss λ" if multiscale else "global loss Γ"
            finish(
                axis,
                title=f"{network}, {loss}",
                ylabel=_ERROR if multiscale else "",
                epochs=row == len(networks) - 1,
            )
            if multiscale in objectives:
                draw_layers(axis, objectives[multiscale])
                _legend_beside(axis)
            else:
                say(axis, "not run")
    from_zero(axes.flat)
    yield "layers", figure


def training_figures(cells: Sequence[Cell], found: Sequence[Found]) -> Iterator[tuple[str, Figure]]:
    """Of each row: entropies, reconstruction errors, validation accuracy (MS fig. 3)."""
    from matplotlib.figure import Figure

    for each in found:
        figure = Figure(figsize=(WIDTH, 7.6), layout="constrained")
        figure.suptitle(
            f"{each.cell.row.name}, {seeds_in_words([each])}\n{describe(each)}", fontsize=10
        )
        losses, errors, accuracy = figure.subplots(3, sharex=True)
        draw(losses, curve(each.result, "cross_entropy"), "cross-entropy", BLUE)
        draw(losses, curve(each.result, "entropy"), "entropy", "black", style="--", marker="s")
        losses.set_yscale("log", nonpositive="mask")
        finish(losses, ylabel="Training loss (nats)", epochs=False)
        draw_layers(errors, each)
        finish(errors, ylabel=_ERROR, epochs=False)
        draw_accuracy(accuracy, each, "valid_accuracy", "", VERMILION, band=True)
        finish(accuracy, ylabel="Validation accuracy (%)")
        for axis in (losses, errors):
            _legend_beside(axis)
        from_zero((losses, errors, accuracy))
        yield f"training-{each.cell.row.name}", figure


def ablation_figures(cells: Sequence[Cell], found: Sequence[Found]) -> Iterator[tuple[str, Figure]]:
    """Validation accuracy of each objective, without and with balance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH + 1.4, 4.2), layout="constrained")
    figure.suptitle(
        f"{describe(found[0])}\n{seeds_in_words(found)}; bands from the lowest to the highest seed",
        fontsize=10,
    )
    by_row = {each.cell.row.name: each for each in found}
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    handles: dict[str, Artist] = {}
    for axis, end, title in zip(
        axes, ("", BALANCED), ("without balance", "with balance"), strict=True
    ):
        finish(
            axis,
            title=title,
            ylabel="" if end else "Validation accuracy (%),\nlogarithmic in the error",
        )
        there = [name for name in OBJECTIVES if name + end in by_row]
        for name in there:
            colour, marker = _OBJECTIVE_LOOKS[name]
            draw_accuracy(
                axis, by_row[name + end], "valid_accuracy", name, colour, marker=marker, band=True
            )
        if not there:
            say(axis, "not run")
        handles |= _legend_entries(axis)
    spread_accuracies(axes)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=3, fontsize=9,
        frameon=False,
    )  # fmt: skip
    from_zero(axes)
    yield "ablation", figure


def _test_accuracies(axis: Axes, cells: Sequence[Cell], found: Sequence[Found]) -> None:
    """Ours, with the standard deviation over seeds, and the published numbers, row by row."""
    by_row = {each.cell.row.name: list(each.scores("test").values()) for each in found}
    names = []
    for i, cell in enumerate(cells):
        settings = cell.row.settings
        ours = by_row.get(cell.row.name, [])
        name = f"α = {settings['alpha']:g}, β = {settings['beta']:g}"
        names.append(name if ours else f"{name} (not run)")
        if ours:
            spread = statistics.stdev(ours) if len(ours) > 1 else None
            axis.errorbar(
                statistics.fmean(ours), i, xerr=spread, fmt="o", color=BLUE, capsize=3, ms=6,
                label="ours" if len(ours) == 1 else "ours, mean ± std",
            )  # fmt: skip
        if cell.published is not None:
            axis.plot(
                cell.published, i, "D", color=VERMILION, fillstyle="none", ms=7, label="published"
            )
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    finish(axis, epochs=False)
    axis.set_xlabel("Test accuracy of segments (%)")
    entries = _legend_entries(axis)
    axis.legend(
        list(entries.values()), list(entries), fontsize=9, frameon=False,
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2,
    )  # fmt: skip


def _network(cell: Cell) -> str:
    """The network of a row that is called by network and objective: `sigmoid-cnn`."""
    return cell.row.name.rpartition("-")[0]


def _legend_entries(axis: Axes) -> dict[str, Artist]:
    """What a legend shows, each label once."""
    handles, labels = axis.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def _legend_beside(axis: Axes) -> None:
    if _legend_entries(axis):
        axis.legend(
            fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0.2,
            handlelength=1.5,
        )  # fmt: skip
