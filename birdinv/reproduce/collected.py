"""What is at hand of a table: its result files, checked, in the unit that the paper prints."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birdinv.errors import BirdinvError
from birdinv.reproduce.cells import Cell, all_cells
from birdinv.reproduce.results import is_number, load_result, measured
from birdinv.reproduce.table import Table
from birdinv.words import counted


@dataclass(frozen=True)
class Found:
    """A cell with the result in its file."""

    cell: Cell
    result: Mapping[str, Any]

    @property
    def seeds(self) -> list[int]:
        """The seeds that were run, in order."""
        return [each["seed"] for each in self.result["seeds"]]

    @property
    def epochs(self) -> float:
        """Passes over the larger set, as the runs were set; the table may have changed since."""
        config = self.result.get("config")
        epochs = config.get("epochs") if isinstance(config, dict) else None
        return float(epochs) if is_number(epochs) else self.cell.epochs

    @property
    def duration(self) -> str:
        """How long the runs were, as they were set: `12` epochs, `1,000 steps`."""
        config = self.result.get("config")
        steps = config.get("steps") if isinstance(config, dict) else None
        return counted(steps, "step") if type(steps) is int else f"{self.epochs:g}"

    def scores(self, split: str) -> dict[int, float]:
        """By seed what the table measures, in %, of "valid" or "test", where there is one."""
        name = f"{split}_{measured(self.cell.table)}"
        scores = {each["seed"]: each[name] for each in self.result["seeds"]}
        return {
            seed: in_unit(self.cell.table, 100 * score)
            for seed, score in scores.items()
            if score is not None
        }


def collect(table: Table, results: Path) -> tuple[list[Found], list[str]]:
    """The results below `results/<table>`, in the order of the table, and the files that are none.

    Returns:
        The results, and of each file that is none a sentence with its path below `results`.
    """
    cells = {cell.file(results): cell for cell in all_cells(table)}
    found, refused = {}, []
    for path in sorted((results / table.name).rglob("*.json"), key=Path.as_posix):
        if path.is_dir():
            continue
        try:
            if path not in cells:
                raise BirdinvError(f"{path} is of no cell of {table.name}")
            found[path] = load_cell(cells[path], results)
        except BirdinvError as error:
            refused.append(str(error).replace(f"{results}{os.sep}", ""))
    return [found[path] for path in cells if path in found], refused


def load_cell(cell: Cell, results: Path) -> Found:
    """The result of a cell.

    Raises:
        BirdinvError: its file is missing, damaged, or of another cell.
    """
    return Found(cell, load_result(cell, cell.file(results)))


def at_hand(cells: Sequence[Cell], results: Path) -> list[Found]:
    """The results of those of `cells` that have one.

    Raises:
        BirdinvError: as `load_cell`.
    """
    return [load_cell(cell, results) for cell in cells if cell.file(results).exists()]


def in_unit(table: Table, accuracy: float) -> float:
    """An accuracy in % as the paper prints it; what is left of inputs is as it is."""
    return 100 - accuracy if table.unit == "error" else accuracy


def published(cell: Cell, *, std: bool = True) -> str | None:
    """The published number, with its standard deviation if that is wanted and known."""
    if cell.published is None:
        return None
    spread = cell.published_std if std else None
    number = f"{in_unit(cell.table, cell.published):.2f}"
    return number if spread is None else f"{number} ± {spread:.2f}"


def mean_std(values: Sequence[float], *, signed: bool = False) -> str:
    """Mean ± sample standard deviation; a single number has none, no number is a dash."""
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):{'+' if signed else ''}.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def ranges(seeds: Sequence[int]) -> str:
    """Numbers in order as `--seeds` takes them: `0-4,7`."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def command(cell: Cell, seeds: Sequence[int] = (0,)) -> str:
    """The command that runs these seeds of a cell."""
    parts = [
        *("birdinv", "reproduce", cell.table.name, "--row", cell.row.name),
        *("--labels", "all" if cell.labels is None else str(cell.labels)),
        *("--seeds", ranges(seeds), "--budget", cell.budget),
    ]
    if cell.row.preset is None and cell.preset != cell.table.presets[0]:
        parts += ["--preset", cell.preset]
    if cell.dataset != cell.table.dataset:
        parts += ["--dataset", cell.dataset]
    return " ".join(parts)
