"""The papers' figures, from results and kept networks: INV fig. 1, 2, MS fig. 2, 3, SW 2 to 4."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from birdinv.errors import BirdinvError
from birdinv.files import whole_file
from birdinv.reproduce.bird_figures import label_figures, suggestion_figures
from birdinv.reproduce.cells import Cell
from birdinv.reproduce.collected import Found, at_hand, command
from birdinv.reproduce.learning import (
    ablation_figures,
    baseline_figures,
    layer_figures,
    training_figures,
)
from birdinv.reproduce.reconstructions import reconstruction_figures
from birdinv.reproduce.sw_figures import capsule_figures, unpooling_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Figures = Iterator[tuple[str, Figure]]

_DPI = 160


def write_figures(
    cells: Sequence[Cell], *, results: Path, runs: Path, root: Path | None
) -> list[Path]:
    """Draws what is at hand of the figures of `cells`, as PNG below `results/<table>/figures`.

    A figure is of one data set, number of labels, preset and budget; those of few labelled birds
    are of all numbers of labels. The same results and runs
    give the same bytes.

    Args:
        runs: where the networks are kept, for those that show images.
        root: the folder of the data sets, for their test images; as in `data_root`.

    Returns:
        The files, in the order of the cells.

    Raises:
        BirdinvError: there is nothing to draw, a result or model is damaged, or the data set is
            not at hand.
    """
    if not has_figures(cells[0].table.name):
        raise BirdinvError(
            f"{cells[0].table.name} has no figures, only numbers; leave --figure out"
        )
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        setting = cell.name.replace(f"/{cell.row.name}.", ".")
        if cell.table.name in _OVER_LABELS:
            setting = f"{cell.dataset}.{cell.preset}.{cell.budget}"
        groups.setdefault((cell.table.name, setting), []).append(cell)
    paths = []
    for (table, setting), group in groups.items():
        for name, figure in _drawn(group, results, runs, root):
            path = results / table / "figures" / f"{name}.{setting}.png"
            with whole_file(path, "wb") as file:
                figure.savefig(
                    file, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None}
                )
            paths.append(path)
    if not paths:
        table = cells[0].table.name
        where = f"network is kept in {runs}" if table in _OF_MODELS else f"result lies in {results}"
        raise BirdinvError(
            f"there is nothing to draw of {table}: for what was asked, no {where}; first run a "
            f"cell, for example `{command(cells[0])}`"
        )
    return paths


_OF_MODELS: Mapping[str, Callable[[Sequence[Cell], Path, Path | None], Figures]] = {
    "inv-table2": reconstruction_figures,
    "sw-figure2": unpooling_figures,
    "sw-figure3": capsule_figures,
}
_OF_RESULTS: Mapping[str, tuple[Callable[[Sequence[Cell], Sequence[Found]], Figures], ...]] = {
    "inv-figure2": (baseline_figures,),
    "ms-table2": (layer_figures, training_figures),
    "ms-table3": (layer_figures, training_figures),
    "mnist-ablation": (ablation_figures,),
    "birds-few-labels": (label_figures,),
    "birds-suggest": (suggestion_figures,),
}
_OVER_LABELS = ("birds-few-labels", "birds-suggest")  # a figure is of all numbers of labels


def has_figures(table: str) -> bool:
    """Whether there is anything that may be drawn of a table."""
    return table in _OF_MODELS or table in _OF_RESULTS


def _drawn(cells: Sequence[Cell], results: Path, runs: Path, root: Path | None) -> Figures:
    """Name and figure, of one table and setting."""
    table = cells[0].table.name
    if table in _OF_MODELS:
        yield from _OF_MODELS[table](cells, runs, root)
    elif found := at_hand(cells, results):
        for draw in _OF_RESULTS[table]:
            yield from draw(cells, found)
