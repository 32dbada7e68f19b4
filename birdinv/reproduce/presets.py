"""Training protocols by name: the papers' own (INV A.1, A.2, MS §3.1), and ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NO_PATIENCE = 1_000_000  # the number of epochs is fixed, so that every run of a cell is as long


@dataclass(frozen=True)
class Preset:
    """A protocol.

    Attributes:
        about: one line.
        settings: of `TrainConfig`; they go before those of a table's row.
        deviations: what it does that the paper does not, as printed beside every result.
        splits: how many ways recordings are split; seed s takes way s modulo that. None = a way
            of its own for each seed.
        grouped: what is not to lie on two sides of a split, by the data set's column of that name.
    """

    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    splits: int | None = None
    grouped: str | None = None


_CONSTANT = {"schedule": "constant", "patience": NO_PATIENCE, "batch_size": 50}
_FEW_LABELS: dict[
    str, Any
] = {  # chosen on training images, by two draws that are no committed ones
    "schedule": "cosine",
    "patience": NO_PATIENCE,
    "batch_size": 50,
    "balance": 4.0,  # with this memory the gradient is that of 0.4
    "balance_memory": 0.9,  # 25 samples alone say little of the shares of ten classes
    "translate": 2,
    "average": 0.99,
}
_FEW_LABELS_DEVIATIONS = (
    "balance (kappa = 4, memory 0.9)",
    "images moved by up to 2 pixels",
    "averaged weights (0.99)",
    "cosine schedule",
    "batches of 25 + 25, which INV does not state",
)

PRESETS: Mapping[str, Preset] = {
    "inv-mnist": Preset(
        "INV A.1: Adam, the row's own alpha, beta and learning rate",
        _CONSTANT,
        ("batches of 25 + 25, which INV does not state",),
    ),
    "inv-supervised": Preset(
        "INV table 2, last column: labels alone",
        {**_CONSTANT, "objective": "supervised"},
        ("batches of 25, which INV does not state",),
    ),
    "inv-bird10": Preset(
        "INV A.2 on recordings: every label, dropout 0.5",
        {"learning_rate": 0.001, "schedule": "constant", "patience": NO_PATIENCE},
        ("Adam 0.001 and batches of 128, which INV does not state",),
    ),
    "ms": Preset(
        "MS §3.1: Adam 0.002, halved at 150/400 and 300/400 of the epochs, 25 + 25 a batch",
        {
            "learning_rate": 0.002,
            "schedule": "halved",
            "patience": NO_PATIENCE,
            "batch_size": 50,
        },
    ),
    "sw": Preset(
        "SW: its networks and losses; all that it leaves open is ours",
        {"patience": NO_PATIENCE, "batch_size": 50, "class_balanced": False},
        (
            "Adam 0.001, a cosine schedule and batches of 25 + 25 (50 where all are labelled), of "
            "which SW states none",
        ),
    ),
    "few-labels": Preset(
        "ours: multiscale with balance, small translations and averaged weights",
        {**_FEW_LABELS, "objective": "multiscale"},
        ("multiscale objective", *_FEW_LABELS_DEVIATIONS),
    ),
    "by-recording": Preset(
        "recordings split 60 : 10 : 30, five ways; the last weights are kept",
        {"patience": NO_PATIENCE},
        splits=5,
    ),
    "by-recordist": Preset(
        "the same, all recordings of a recordist on one side",
        {"patience": NO_PATIENCE},
        splits=5,
        grouped="author",
    ),
    "by-speaker": Preset(
        "the same, all takes of a speaker on one side, labels for each digit and speaker",
        {"patience": NO_PATIENCE},
        splits=5,
        grouped="speaker",
    ),
    "ablation": Preset(
        "few-labels but for the objective and the balance, which are the row's",
        {key: value for key, value in _FEW_LABELS.items() if not key.startswith("balance")},
        _FEW_LABELS_DEVIATIONS[1:],  # but the balance
    ),
}
