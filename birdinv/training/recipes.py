"""What `birdinv train` does when it is not told how: one recipe where there is unlabelled audio.

A value that the user gives always wins over the recipe's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from birdinv.audio.store import Store
from birdinv.errors import SettingError
from birdinv.training.config import TrainConfig
from birdinv.training.partition import partition

# Chosen on validation recordings and hidden labels of bird_kenya6, three labelled recordings a
# class, with splits and draws that are not those of the published results: docs/few-labels.md.
FEW_LABELS: Mapping[str, Any] = {
    "objective": "layer-weighted",
    "alpha": 1.0,
    "beta": 1.0,
    "gamma": 3.0,
    "balance": 0.5,
    "ramp": 1.0,
    "enough": 3.0,
    "group_windows": 4,
    "batch_size": 64,
    "augment": "light",
    "average": 0.99,
}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "few-labels": FEW_LABELS,
    "supervised": {
        "objective": "supervised",
        "batch_size": 64,
        "augment": "light",
        "average": 0.99,
    },
}


def settle(store: Store, given: Mapping[str, Any]) -> tuple[TrainConfig, str]:
    """The settings of a run on a store, and the name of the recipe they come from.

    Args:
        given: what the user has said; a value of None counts as not said. `objective` names an
            objective or a recipe.

    Raises:
        BirdinvError: settings out of range, or a store that cannot be trained on.
    """
    said = {name: value for name, value in given.items() if value is not None}
    name = said.get("objective")
    if name is None:
        # A seed changes who is unlabelled, and never whether anybody is.
        parts = partition(store, said.get("labels_per_class"), said.get("seed", 0))
        name = "few-labels" if parts.unlabelled else "weighted"
    if name not in RECIPES:
        return TrainConfig(**{**said, "objective": name}), name
    recipe = RECIPES[name]
    unused = {"few-labels": set(), "supervised": {"alpha", "beta", "gamma"}}[name] & said.keys()
    if unused:
        raise SettingError(
            f"--{min(unused)} is given, and the objective is {name}, which has none; leave it out"
        )
    return TrainConfig(**{**recipe, **said, "objective": recipe["objective"]}), name
