"""Every default of a training run in one place, with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from birdinv.errors import SettingError
from birdinv.losses import ParameterFreeObjective, WeightedObjective
from birdinv.terms import Terms

OBJECTIVES = ("supervised", "weighted", "global", "multiscale")
SCHEDULES = ("cosine", "constant")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; all of them are kept in `run.json` and bind a resumed run."""

    network: str = "bird10"
    objective: str = "weighted"
    alpha: float = 0.7  # INV fig. 2: (0.7, 0.3) was the best on birds
    beta: float = 0.3
    labels_per_class: int | None = None  # None = keep every label
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.001  # Adam's own default; INV does not state one for birds
    schedule: str = "cosine"  # to zero over all epochs: the last epochs stop jumping about
    patience: int = 10  # epochs without a better validation accuracy before stopping
    dropout: float = 0.5  # INV A.2
    seed: int = 0
    threads: int = 1  # of the CPU; the same bits come only from the same number

    def __post_init__(self) -> None:
        for name, ok, expected in (
            ("objective", self.objective in OBJECTIVES, f"one of {', '.join(OBJECTIVES)}"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("alpha", 0 <= self.alpha <= 1, "a number from 0 to 1"),
            ("beta", 0 <= self.beta <= 1, "a number from 0 to 1"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", 2 <= self.batch_size <= 65536, "2 to 65536"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0"),
            ("patience", self.patience >= 1, "at least 1"),
            ("dropout", 0 <= self.dropout < 1, "a fraction from 0 to below 1"),
            ("threads", 1 <= self.threads <= 1024, "1 to 1024"),
            ("seed", 0 <= self.seed < 2**32, "0 to 4294967295"),
        ):
            if not ok:
                option = "--" + name.replace("_", "-")
                raise SettingError(f"{option} is {getattr(self, name)}; give {expected}")

    def make_objective(self) -> Callable[[nn.Module, Tensor, Tensor], Terms]:
        """The objective (INV 10, MS 6 and 8) these settings name."""
        if self.objective == "supervised":
            return WeightedObjective(alpha=1.0, beta=0.0)
        if self.objective == "weighted":
            return WeightedObjective(self.alpha, self.beta)
        if self.objective == "global":
            return ParameterFreeObjective("global")
        return ParameterFreeObjective("multiscale")

    @property
    def uses_unlabelled(self) -> bool:
        """Whether unlabelled segments teach anything, and so take half of each batch."""
        supervised = self.objective == "weighted" and self.alpha == 1
        return self.objective != "supervised" and not supervised

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The learning rate of one step of `steps`."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)
