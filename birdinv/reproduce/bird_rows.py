"""The rows of `birds-few-labels`: the recipe, what it is made of, and its rivals, as hard tuned.

All rows take the same halves of labelled recordings, as many steps, and weights averaged alike;
what is not the row's own is that of tuned supervised training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from birdinv.training.recipes import FEW_LABELS, RECIPES

LABELS = (1, 3, 5, 10)  # labelled recordings of each class
ROUNDS = (6, 12, 18, 24, 30)  # labelled recordings in all, where they are added round by round
_ONE = (3,)  # where parts and rivals are compared

# How long a run is and what of it is kept is the table's own: the same, by one look at the end.
_SUPERVISED, _FEW = (
    {key: value for key, value in recipe.items() if key not in ("steps", "keep")}
    for recipe in (RECIPES["supervised"], FEW_LABELS)
)
_RECONSTRUCTION = {"objective": "layer-weighted", "alpha": 1.0, "beta": 0.0}
# Chosen as the recipe was, of three weights or thresholds for each of the first three; the others
# have the weight of their papers, FixMatch the threshold that was best for pseudo-labels.
_RIVALS: Mapping[str, dict[str, Any]] = {
    "pseudo-labels": {
        "consistency": "pseudo-labels",
        "consistency_weight": 1.0,
        "threshold": 0.8,
    },
    "pi-model": {"consistency": "pi-model", "consistency_weight": 10.0},
    "mean-teacher": {"consistency": "mean-teacher", "consistency_weight": 10.0},
    "vat": {"consistency": "vat", "consistency_weight": 1.0},
    "fixmatch": {
        "consistency": "fixmatch",
        "consistency_weight": 1.0,
        "threshold": 0.8,
        "augment": "strong",
    },
}


def supervised() -> dict[str, Any]:
    """The settings of tuned supervised training, but for its length."""
    return dict(_SUPERVISED)


def ours() -> dict[str, Any]:
    """The settings of the recipe, but for its length."""
    return dict(_FEW)


def rows() -> Iterator[tuple[str, dict[str, Any], tuple[int, ...]]]:
    """Name, settings and numbers of labels of each row."""
    few: dict[str, Any] = _FEW
    yield "supervised", _SUPERVISED, LABELS
    yield "few-labels", few, LABELS
    changes: dict[str, dict[str, Any]] = {
        "no-reconstruction": {"gamma": 0.0},
        "no-balance": {"balance": 0.0},
        "no-agreement": {"group_windows": 0},
        "no-entropy": {"beta": 0.0, "balance": 0.0},
        "no-augmentation": {"augment": "none"},
        "no-averaging": {"average": 0.0},
        "input-alone": {"objective": "global"},
        "all-layers": {"objective": "multiscale"},
        "weighted": {"objective": "weighted", "alpha": 0.7, "beta": 0.3},
    }
    for name, change in changes.items():
        yield name, {**few, **change}, _ONE
    for name, rival in _RIVALS.items():
        ramp = {name: FEW_LABELS[name] for name in ("ramp", "enough")}
        yield name, {**_SUPERVISED, **ramp, **rival}, _ONE
        both = {**_SUPERVISED, **ramp, **_RECONSTRUCTION, "gamma": FEW_LABELS["gamma"], **rival}
        yield f"{name}-and-reconstruction", both, _ONE
