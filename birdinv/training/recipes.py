"""What `birdinv train` does when it is not told how: one recipe where there is unlabelled audio.

A value that the user gives always wins over the recipe's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from birdinv.audio.store import Store
from birdinv.errors import BirdinvError, SettingError
from birdinv.networks import build
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
    "steps": 1000,
    "keep": "last",
}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "few-labels": FEW_LABELS,
    "supervised": {
        "objective": "supervised",
        "batch_size": 64,
        "augment": "light",
        "average": 0.99,
        "steps": 1000,
        "keep": "last",
    },
    # An encoder as wide as bird10 (INV A.2), with poolings side by side.
    "swwae": {
        "network": "swwae:(42)1024c/512-2p-(42)3c-2p-32fc-Kfc",
        "objective": "swwae",
        "batch_size": 64,
        "augment": "light",
        "average": 0.99,
        "steps": 1000,
        "keep": "last",
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
    recipe = dict(RECIPES.get(name, {"objective": name}))
    if "epochs" in said:
        recipe.pop("steps", None)
    if said.get("consistency") == "fixmatch":
        recipe["augment"] = "strong"  # it learns from strongly changed inputs
    config = TrainConfig(**{**recipe, **said, "objective": recipe["objective"]})
    _require_network(store, config)
    if unused := sorted(said.keys() & _without_effect(name, config)):
        option = "--" + unused[0].replace("_", "-")
        raise SettingError(
            f"{option} is given, and has no effect with the other options of this run (objective "
            f"{name}); leave it out"
        )
    return config, name


def _require_network(store: Store, config: TrainConfig) -> None:
    """Raises SettingError unless the network can be built for the segments of the store."""
    try:
        with torch.device("meta"):
            shape = (1, store.windows.segment)
            build(config.network, classes=len(store.classes), shape=shape, **config.options)
    except BirdinvError as error:
        raise SettingError(str(error)) from error


def _without_effect(name: str, config: TrainConfig) -> set[str]:
    """Settings that nothing of a run depends on."""
    unused = {"alpha", "beta", "gamma"}
    if config.objective in ("weighted", "layer-weighted"):
        unused -= {"alpha", "beta"}
    if config.objective == "layer-weighted":
        unused.discard("gamma")
    if config.objective != "swwae":
        unused |= {"lambda_nll", "lambda_rec", "lambda_mid"}
    elif not config.balance and config.consistency == "none":  # and it has no entropy
        unused |= {"ramp", "enough", "group_windows", "group_seconds"}
    if config.consistency == "none":
        unused.add("consistency_weight")
    if config.consistency not in ("pseudo-labels", "fixmatch"):
        unused.add("threshold")
    if not config.group_windows:
        unused.add("group_seconds")
    if name == "supervised":  # with a consistency it is that method, and still has no entropy
        unused |= {"balance", "group_windows", "group_seconds"}
    if not config.uses_unlabelled:
        unused |= {"ramp", "enough"}
    return unused
