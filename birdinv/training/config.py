"""Every default of a training run in one place, with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from birdinv.auto_encoding import WhatWhereObjective
from birdinv.balance import Balance
from birdinv.consistency import (
    Consistency,
    FixMatch,
    MeanTeacher,
    PiModel,
    PseudoLabels,
    VirtualAdversarial,
)
from birdinv.data.augmentation import AUGMENTATIONS
from birdinv.data.background import Background
from birdinv.data.batches import Drawing
from birdinv.errors import SettingError
from birdinv.loss_weights import linear, piecewise
from birdinv.losses import LayerWeightedObjective, ParameterFreeObjective, WeightedObjective
from birdinv.networks import WHAT_WHERE
from birdinv.objective import Objective

# layer-weighted is INV 11 with all γ^(l) = γ / L, swwae SW 1. The last two leave a term of the
# multiscale objective out, to see what it was good for.
OBJECTIVES = (
    *("supervised", "weighted", "global", "multiscale", "layer-weighted", "swwae"),
    *("entropy", "reconstruction"),
)
SCHEDULES: Mapping[str, Callable[[float], float]] = {  # of the learning rate, over [0, 1)
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "constant": lambda done: 1.0,
    "halved": lambda done: 0.5 ** ((done >= 150 / 400) + (done >= 300 / 400)),  # MS §3.1
}
PRECISIONS = ("float32", "bfloat16")
CONSISTENCIES: Mapping[str, Callable[[TrainConfig], Consistency | None]] = {
    "none": lambda config: None,
    "pseudo-labels": lambda c: PseudoLabels(c.consistency_weight, c.threshold),
    "pi-model": lambda c: PiModel(c.consistency_weight),
    "mean-teacher": lambda c: MeanTeacher(c.consistency_weight),
    "vat": lambda c: VirtualAdversarial(c.consistency_weight),
    "fixmatch": lambda c: FixMatch(c.consistency_weight, c.threshold),
}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; all of them are kept in `run.json` and bind a resumed run."""

    network: str = "bird10"
    options: dict[str, Any] = field(default_factory=dict)  # of the network, see its class
    objective: str = "weighted"
    alpha: float = 0.7  # INV fig. 2: (0.7, 0.3) was the best on birds
    beta: float = 0.3
    gamma: float = 1.0  # of layer-weighted: of the mean over the input and all layers
    lambda_nll: float = 1.0  # of swwae (SW 1): of the labels,
    lambda_rec: float = 1.0  # of the input,
    lambda_mid: float = 0.2  # and of the levels between (SW table 3 has these two)
    sparsity: float = 0.0  # of swwae: L1 of the pooled levels, which SW table 4 compares with
    pretrain: float = 0.0  # of swwae: share of steps without labels, before those without decoder
    freeze: bool = False  # then the encoder learns no more (SW table 4, unsup-sfx)
    balance: float = 0.0  # κ; the papers have none
    balance_memory: float = 0.0  # of the mean prediction, from batch to batch
    consistency: str = "none"  # what a rival asks of unlabelled samples, on top of the objective
    consistency_weight: float = 1.0
    threshold: float = 0.95  # of pseudo-labels and FixMatch: the latter's own
    ramp: float = 0.0  # epochs over which entropy, balance and consistency come in
    enough: float = 0.0  # unlabelled recordings a labelled one from which on these count in full
    labels_per_class: int | None = None  # of recordings; None = keep every label
    epochs: float = 30
    steps: int | None = None  # in place of epochs
    check_every: float = 1  # epochs from one validation to the next
    batch_size: int = 128
    class_balanced: bool = True  # the labelled half: class, then recording, then segment
    group_windows: int = 0  # of one recording together, which are to agree; 0 = none
    group_seconds: float | None = None  # of a stretch that is a group; None = whole recordings
    augment: str = "none"  # the papers change no recording
    learning_rate: float = 0.001  # Adam's own default; INV does not state one for birds
    schedule: str = "cosine"  # to zero over all epochs: the last epochs stop jumping about
    keep: str = "best"  # on validation; "last" where that has too few recordings to choose by
    patience: int = 10  # validations without a better accuracy before stopping
    dropout: float | None = None  # None = the network's own: 0.5 in bird10 (INV A.2)
    average: float = 0.0  # decay of the moving average of the weights that is judged and kept
    translate: int = 0  # most pixels by which training images are moved; the papers move none
    pad: int = 0  # black pixels round images: SW has those of MNIST at 32 × 32
    precision: str = "float32"
    seed: int = 0
    threads: int = 1  # of the CPU; the same bits come only from the same number

    def __post_init__(self) -> None:
        for name, ok, expected in (
            ("objective", self.objective in OBJECTIVES, f"one of {', '.join(OBJECTIVES)}"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            (
                "consistency",
                self.consistency in CONSISTENCIES,
                f"one of {', '.join(CONSISTENCIES)}",
            ),
            ("augment", self.augment in AUGMENTATIONS, f"one of {', '.join(AUGMENTATIONS)}"),
            ("alpha", 0 <= self.alpha <= 1, "a number from 0 to 1"),
            ("beta", 0 <= self.beta <= 1, "a number from 0 to 1"),
            ("gamma", 0 <= self.gamma < math.inf, "a number from 0"),
            *(
                (name, 0 <= getattr(self, name) < math.inf, "a number from 0")
                for name in ("lambda_nll", "lambda_rec", "lambda_mid", "sparsity")
            ),
            (
                "lambda_rec",
                self.objective != "swwae"
                or self.lambda_nll + self.lambda_rec + self.lambda_mid + self.sparsity > 0,
                "a number above 0, or another --lambda: with none of them nothing is learned",
            ),
            ("pretrain", 0 <= self.pretrain < 1, "a fraction from 0 to below 1"),
            (
                "keep",
                not self.pretrain or self.keep == "last",
                "last with pretrain: before the labels come in, validation says nothing",
            ),
            ("freeze", self.pretrain > 0 or not self.freeze, "False, or a pretrain above 0 too"),
            (
                "network",
                self.objective != "swwae" or self.network.startswith(WHAT_WHERE),
                f"one with a decoder for --objective swwae, such as {WHAT_WHERE}(64)5c-2p-10fc",
            ),
            ("balance", 0 <= self.balance < math.inf, "a number from 0"),
            ("balance_memory", 0 <= self.balance_memory < 1, "a fraction from 0 to below 1"),
            ("consistency_weight", 0 <= self.consistency_weight < math.inf, "a number from 0"),
            ("threshold", 0 <= self.threshold <= 1, "a number from 0 to 1"),
            ("enough", 0 <= self.enough < math.inf, "a number from 0"),
            ("ramp", 0 <= self.ramp < math.inf, "a number of epochs from 0"),
            ("group_windows", 0 <= self.group_windows <= 65536, "0 to 65536"),
            (
                "group_seconds",
                self.group_seconds is None or 0 < self.group_seconds < math.inf,
                "seconds above 0",
            ),
            ("epochs", 0 < self.epochs < math.inf, "a number above 0"),
            ("steps", self.steps is None or 1 <= self.steps < 2**31, "at least 1"),
            ("check_every", 0 < self.check_every < math.inf, "a number of epochs above 0"),
            ("batch_size", 2 <= self.batch_size <= 65536, "2 to 65536"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0"),
            ("keep", self.keep in ("best", "last"), "best or last"),
            ("patience", self.patience >= 1, "at least 1"),
            ("dropout", 0 <= (self.dropout or 0) < 1, "a fraction from 0 to below 1"),
            ("average", 0 <= self.average < 1, "a fraction from 0 to below 1"),
            (
                "average",
                self.average > 0 or self.consistency != "mean-teacher",
                "a fraction above 0, such as 0.99: the mean teacher is the average",
            ),
            ("translate", 0 <= self.translate <= 1024, "0 to 1024 pixels"),
            ("pad", 0 <= self.pad <= 1024, "0 to 1024 pixels"),
            ("threads", 1 <= self.threads <= 1024, "1 to 1024"),
            ("seed", 0 <= self.seed < 2**32, "0 to 4294967295"),
        ):
            if not ok:
                option = "--" + name.replace("_", "-")
                raise SettingError(f"{option} is {getattr(self, name)}; give {expected}")

    def make_objective(
        self, steps: int, steps_per_epoch: int, layers: int, unlabelled: float = math.inf
    ) -> Objective:
        """The objective (INV 10, 11, MS 6, 8, SW 1) these settings name, or an ablation of it.

        Args:
            steps: of the run.
            layers: how many the network has, the logits aside.
            unlabelled: how many unlabelled recordings there are for each labelled one. Where they
                are few, their classes are seldom as balanced as those of the labelled ones.
        """
        ramp = round(self.ramp * steps_per_epoch)
        full = min(1.0, unlabelled / self.enough) if self.enough else 1.0
        shared: dict[str, Any] = {
            "balance": Balance(self.balance, memory=self.balance_memory) if self.balance else None,
            "consistency": CONSISTENCIES[self.consistency](self),
            "ramp": linear(0.0, full, ramp) if ramp else full,
        }
        if self.objective == "supervised":
            return WeightedObjective(alpha=1.0, beta=0.0, **shared)
        if self.objective == "weighted":
            return WeightedObjective(self.alpha, self.beta, **shared)
        if self.objective == "layer-weighted":
            return LayerWeightedObjective(
                self.alpha, self.beta, self.gamma / (1 + layers), **shared
            )
        if self.objective == "swwae":
            first = self.steps_without_labels(steps)
            rec, mid, nll = (
                piecewise({0: before, first: after}) if first else (before or after)
                for before, after in (
                    (self.lambda_rec, 0.0),
                    (self.lambda_mid, 0.0),
                    (0.0, self.lambda_nll),
                )
            )
            return WhatWhereObjective(rec, mid, nll=nll, sparsity=self.sparsity, **shared)
        if self.objective == "global":
            return ParameterFreeObjective("global", **shared)
        if self.objective == "entropy":
            return ParameterFreeObjective(None, **shared)
        return ParameterFreeObjective(
            "multiscale", entropy=self.objective == "multiscale", **shared
        )

    def drawing(self, background: Background | None) -> Drawing:
        """How these settings draw samples; `background` is what there is to mix in."""
        change = AUGMENTATIONS[self.augment]
        views = {
            "pi-model": change,
            "mean-teacher": change,
            "fixmatch": AUGMENTATIONS["light"],  # the weak one of the two
        }
        return Drawing(
            balanced=self.class_balanced,
            together=self.group_windows,
            augmentation=change,
            view=views.get(self.consistency),
            background=background,
            translate=self.translate,
        )

    @property
    def uses_unlabelled(self) -> bool:
        """Whether unlabelled samples teach anything, and so take half of each batch."""
        own = {
            "supervised": False,
            "weighted": self.alpha < 1,
            "swwae": max(self.lambda_rec, self.lambda_mid, self.sparsity) > 0,
        }.get(self.objective, True)
        return own or self.balance > 0 or self.consistency != "none"

    def steps_without_labels(self, steps: int) -> int:
        """With how many of `steps` a run begins that has two parts; else 0."""
        if not self.pretrain or self.objective != "swwae":  # as `--guard` trains beside one
            return 0
        return min(max(1, round(self.pretrain * steps)), steps - 1)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The learning rate of one step of `steps`; a part of a run has the schedule for itself."""
        first = self.steps_without_labels(steps)
        done = step / first if step < first else (step - first) / (steps - first)
        return self.learning_rate * SCHEDULES[self.schedule](done)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)
