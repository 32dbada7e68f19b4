"""A cell of a table: what it is called, how it is trained, and where its numbers go."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from birdinv.data.manifests import load_manifest
from birdinv.errors import BirdinvError
from birdinv.reproduce.presets import PRESETS
from birdinv.reproduce.table import BUDGETS, Row, Table
from birdinv.reproduce.tables import ALIASES, TABLES
from birdinv.training.config import TrainConfig
from birdinv.words import counted


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
    def labels_in_words(self) -> str:
        """`50 labels`, all, or none where a network learns without them."""
        if self.row.settings.get("lambda_nll") == 0:
            return "no labels"
        return "all labels" if self.labels is None else f"{self.labels} labels"

    @property
    def steps(self) -> int | None:
        """Of a run, where that is not told in epochs."""
        return self.table.steps.get(self.budget)

    @property
    def epochs(self) -> float:
        """Passes over the larger set of a run, where its steps are not told."""
        if self.steps is not None:
            return 1.0
        return self.row.epochs.get(self.budget, self.table.epochs[self.budget])

    @property
    def duration(self) -> str:
        """How long a run is, in words."""
        if self.steps is not None:
            return counted(self.steps, "step")
        return f"{self.epochs:g} epoch{'s' * (self.epochs != 1)}"

    @property
    def published(self) -> float | None:
        """Accuracy in %; None where the paper has none for this data set and these labels."""
        if self.dataset == self.table.dataset:
            return self.row.published.get(self.labels)
        return self.row.elsewhere.get(self.dataset, {}).get(self.labels)

    @property
    def published_std(self) -> float | None:
        """Standard deviation of `published`; None where the paper has none."""
        return self.row.std.get(self.labels) if self.dataset == self.table.dataset else None

    @property
    def deviations(self) -> tuple[str, ...]:
        """What is not as in the paper, in words."""
        words = []
        if self.dataset not in self.table.printed:
            words.append(f"{self.dataset} in place of {self.table.dataset}")
        if self.budget != "paper" or self.steps is not None:
            words.append(self.duration)
        elif self.table.name == "inv-table2":
            words.append(f"{self.duration}, of which INV states no number")
        manifest = load_manifest(self.dataset)
        if manifest.valid:
            why = "" if self.steps is not None else " to choose the epoch on"
            words.append(f"{manifest.valid} training images set apart{why}")
        if manifest.kind == "images" and not self.table.source.startswith("SW"):
            words.append("initial weights of He et al., where SPL has Glorot's")
        if self.row.settings.get("options", {}).get("pooling") == "inhibitor":
            words.append("inhibitor connections as we construct them, as no paper defines them")
        return (*words, *self.table.deviations, *PRESETS[self.preset].deviations)

    def file(self, results: Path) -> Path:
        """Where its result lies."""
        return results / self.table.name / f"{self.name}.json"

    def config(self, seed: int, *, threads: int = 1) -> TrainConfig:
        """The settings of one run."""
        settings: dict[str, Any] = {**self.row.settings, **PRESETS[self.preset].settings}
        if self.steps is not None:
            once = float(self.steps)  # no epoch is shorter than a step
            own = TrainConfig(steps=self.steps, check_every=once, threads=threads, seed=seed)
            return replace(own, **settings)
        every = self.epochs / self.row.checks.get(self.budget, self.table.checks[self.budget])
        config = TrainConfig(
            epochs=self.epochs,
            check_every=every,
            class_balanced=False,  # the papers know nothing of it
            threads=threads,
            seed=seed,
        )
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
    table = TABLES[_known(ALIASES.get(name, name), TABLES, "table")]
    budget = _known(budget, BUDGETS, "budget")
    by_name = {row.name: row for row in table.rows}
    names = dict.fromkeys(_known(row, by_name, f"row of {name}") for row in rows)
    picked = [by_name[row] for row in names] or table.rows
    datasets = table.datasets
    dataset = table.dataset if dataset is None else _known(dataset, datasets, f"data set of {name}")
    if preset is not None:
        preset = _known(preset, table.presets, f"preset of {name}")
    sizes = dict.fromkeys(n for row in picked for n in table.labels(row, dataset))
    if unknown := [n for n in labels if n not in sizes]:
        asked, have = (", ".join(map(_number, some)) for some in (unknown, sizes))
        raise BirdinvError(f"{name} has no cell of {asked} labels there; give {have}")
    if fixed := [row for row in picked if rows and preset and row.preset not in (None, preset)]:
        raise BirdinvError(
            f"the row {fixed[0].name} is trained by the preset {fixed[0].preset} alone; leave "
            "--preset out"
        )
    return [
        Cell(table, row, dataset, n, row.preset or preset or table.presets[0], budget)
        for row in picked
        for n in table.labels(row, dataset)
        if not labels or n in labels
    ]


def all_cells(table: Table) -> Iterator[Cell]:
    """Every cell that could be run: each data set, preset and budget."""
    for dataset in table.datasets:
        for row in table.rows:
            for labels in table.labels(row, dataset):
                for preset in (row.preset,) if row.preset else table.presets:
                    for budget in BUDGETS:
                        yield Cell(table, row, dataset, labels, preset, budget)


def _number(labels: int | None) -> str:
    return "all" if labels is None else str(labels)


def _known(name: str, known: Sequence[str] | Any, what: str) -> str:
    """`name`, if it is one of `known`."""
    if name in known:
        return name
    near = difflib.get_close_matches(name, list(known), 1, cutoff=0.4)
    guess = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    raise BirdinvError(f"there is no {what} called {name!r}; {guess}")
