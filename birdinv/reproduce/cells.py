"""A cell of a table: what it is called, how it is trained, and where its numbers go."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from birdinv.errors import BirdinvError
from birdinv.reproduce.presets import PRESETS
from birdinv.reproduce.tables import BUDGETS, TABLES, Row, Table
from birdinv.training.config import TrainConfig


@dataclass(frozen=True)
class Cell:
    """A row of a table at a number of labels, by a preset, within a budget.

    Attributes:
        labels: how many samples keep their label; None = all.
    """

    table: Table
    row: Row
    dataset: str
    labels: int | None
    preset: str
    budget: str

    @property
    def name(self) -> str:
        """`mnist-50/smallcnn-mean.few-labels.cpu`, below the folder of the table."""
        labels = "all" if self.labels is None else self.labels
        return f"{self.dataset}-{labels}/{self.row.name}.{self.preset}.{self.budget}"

    @property
    def epochs(self) -> float:
        """Passes over the larger set of a run."""
        return self.row.epochs.get(self.budget, self.table.epochs[self.budget])

    @property
    def duration(self) -> str:
        """`epochs` in words."""
        return f"{self.epochs:g} epoch{'s' * (self.epochs != 1)}"

    @property
    def published(self) -> float | None:
        """Accuracy in %; None where the paper has none for this data set and these labels."""
        return self.row.published.get(self.labels) if self.dataset == self.table.dataset else None

    @property
    def deviations(self) -> tuple[str, ...]:
        """What is not as in the paper, in words."""
        stand_in = (
            (f"{self.dataset} in place of {self.table.dataset}",)
            if self.dataset != self.table.dataset
            else ()
        )
        shorter = (self.duration,) if self.budget != "paper" else ()
        return (*stand_in, *shorter, *PRESETS[self.preset].deviations)

    def file(self, results: Path) -> Path:
        """Where its result lies."""
        return results / self.table.name / f"{self.name}.json"

    def config(self, seed: int, *, threads: int = 1) -> TrainConfig:
        """The settings of one run."""
        settings: dict[str, Any] = {**self.row.settings, **PRESETS[self.preset].settings}
        every = self.epochs / self.row.checks.get(self.budget, self.table.checks[self.budget])
        config = TrainConfig(epochs=self.epochs, check_every=every, threads=threads, seed=seed)
        return replace(config, **settings)


def cells(
    name: str,
    *,
    rows: Sequence[str] = (),
    labels: Sequence[int | None] = (),
    dataset: str | None = None,
    preset: str | None = None,
    budget: str = "cpu",
) -> list[Cell]:
    """The cells of a table that are asked for; all of them where nothing is.

    Raises:
        BirdinvError: an unknown table, row, number of labels, data set, preset or budget, with the
            nearest known one, or nothing left of the table.
    """
    table = TABLES[_known(name, TABLES, "table")]
    budget = _known(budget, BUDGETS, "budget")
    by_name = {row.name: row for row in table.rows}
    picked = [by_name[_known(row, by_name, f"row of {name}")] for row in rows] or table.rows
    datasets = table.datasets
    dataset = table.dataset if dataset is None else _known(dataset, datasets, f"data set of {name}")
    if preset is not None:
        preset = _known(preset, table.presets, f"preset of {name}")
    found = [
        Cell(table, row, dataset, n, row.preset or preset or table.presets[0], budget)
        for row in picked
        for n in table.labels(row, dataset)
        if not labels or n in labels
    ]
    if not found:
        sizes = dict.fromkeys(n for row in picked for n in table.labels(row, dataset))
        have = ", ".join("all" if n is None else str(n) for n in sizes)
        asked = ", ".join("all" if n is None else str(n) for n in labels)
        raise BirdinvError(f"{name} has no cell of {asked} labels there; give {have}")
    return found


def all_cells(table: Table) -> Iterator[Cell]:
    """Every cell that could be run: each data set, preset and budget."""
    for dataset in table.datasets:
        for row in table.rows:
            for labels in table.labels(row, dataset):
                for preset in (row.preset,) if row.preset else table.presets:
                    for budget in BUDGETS:
                        yield Cell(table, row, dataset, labels, preset, budget)


def _known(name: str, known: Sequence[str] | Any, what: str) -> str:
    """`name`, if it is one of `known`."""
    if name in known:
        return name
    near = difflib.get_close_matches(name, list(known), 1, cutoff=0.4)
    guess = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    raise BirdinvError(f"there is no {what} called {name!r}; {guess}")
