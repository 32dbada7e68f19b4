"""`run.json`: what a run was made from, and whether it may go on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

import birdinv
from birdinv.audio.store import Store
from birdinv.clock import now
from birdinv.data.batches import Segments
from birdinv.errors import BirdinvError
from birdinv.files import read_json
from birdinv.training.config import TrainConfig
from birdinv.training.partition import Partition


def describe_run(
    store: Store, parts: Partition, config: TrainConfig, command: str
) -> dict[str, Any]:
    """The `run.json` of a run about to begin."""
    return {
        "config": config.to_dict(),
        "command": command,
        "versions": {
            "birdinv": birdinv.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": "",
        "store": str(store.path.resolve()),
        "store_hash": store.hash,
        "split_hash": parts.hash,
        "classes": store.classes,
        "counts": {
            "labelled_recordings": len(parts.labelled),
            "unlabelled_recordings": len(parts.unlabelled),
            "valid_recordings": len(parts.valid),
            "test_recordings": len(parts.test),
            "labelled_segments": len(Segments(store, parts.labelled)),
            "unlabelled_segments": len(Segments(store, parts.unlabelled)),
        },
        "warnings": list(parts.warnings),
        "started": now(),
        "ended": None,
        "outcome": "running",
        "best_epoch": None,
    }


def resumable_run(run: Path, store: Store, parts: Partition, config: TrainConfig) -> dict[str, Any]:
    """The `run.json` of an interrupted run, once it is seen to be the same run.

    Raises:
        BirdinvError: no such run, one that is finished, or one with other settings or another
            store.
    """
    info = read_json(run / "run.json", "a run made by `birdinv train`")
    old, new = info.get("config"), config.to_dict()
    if not isinstance(old, dict):
        raise BirdinvError(f"{run / 'run.json'} holds no settings; train again into a new folder")
    changed = sorted(k for k in {*old, *new} if k not in old or k not in new or old[k] != new[k])
    if changed:
        raise BirdinvError(
            f"{run} was begun with other settings ({', '.join(changed)}); resume with the same "
            "ones, or give -o a new folder"
        )
    if info.get("store_hash") != store.hash or info.get("split_hash") != parts.hash:
        raise BirdinvError(
            f"{run} was begun on another store than {store.path}; resume with that one "
            f"({info.get('store')})"
        )
    if info.get("outcome") == "finished":
        raise BirdinvError(f"{run} is finished; to train again, give -o a new folder")
    return info
