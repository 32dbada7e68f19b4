"""What a table is made of: rows, each a network and how it is trained, and how long they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

BUDGETS = ("smoke", "cpu", "paper")


@dataclass(frozen=True)
class Row:
    """A row: a network and how it is trained.

    Attributes:
        settings: of `TrainConfig`; a preset's go before them.
        published: accuracy in % by number of labels, None where the table has no number; the
            number of labels is None where every label is used.
        std: of the published number, by number of labels.
        elsewhere: accuracy in % that the paper has of a stand-in, by its name and number of labels.
        preset: the only one it makes sense with; None takes the table's, or what is asked for.
        epochs, checks: by budget, where the table's are too many for this network.
    """

    name: str
    settings: Mapping[str, Any]
    published: Mapping[int | None, float | None]
    std: Mapping[int | None, float] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[int | None, float]] = field(default_factory=dict)
    preset: str | None = None
    epochs: Mapping[str, float] = field(default_factory=dict)
    checks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        unit: "accuracy" or "error", as the paper prints it; `Row.published` is always accuracy. Or
            "reconstruction", of networks that learn without labels: what is left of the inputs,
            `Σ‖x − x̃‖² / Σ‖x‖²`.
        dataset: the one of the paper, or its first.
        stand_ins: others that a row may be run on, and how many labels then; nothing was published
            of them but what a row has in `elsewhere`.
        presets: the one to take when none is asked for, then the others.
        epochs: of the larger set, by budget; `checks` validations in a run of the budget.
        steps: by budget, in place of epochs; the last weights are then kept, as there is one
            validation, at the end.
        compared: which of our numbers is the published one's.
        deviations: of every cell, in words.
    """

    name: str
    title: str
    source: str
    unit: Literal["accuracy", "error", "reconstruction"]
    dataset: str
    presets: tuple[str, ...]
    epochs: Mapping[str, float]
    checks: Mapping[str, int]
    rows: tuple[Row, ...]
    stand_ins: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    compared: Literal["test", "valid"] = "test"
    deviations: tuple[str, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data set of the paper, then the stand-ins."""
        return (self.dataset, *self.stand_ins)

    @property
    def printed(self) -> tuple[str, ...]:
        """The data sets that the table of the paper has, in the order of `datasets`."""
        more = {name for row in self.rows for name in row.elsewhere}
        return (self.dataset, *(name for name in self.stand_ins if name in more))

    def labels(self, row: Row, dataset: str) -> tuple[int | None, ...]:
        """The numbers of labels that a row is run with on a data set."""
        return self.stand_ins.get(dataset, tuple(row.published))
