"""`run.json`: what a run was made from, and whether it may go on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

import birdinv
from birdinv.clock import now
from birdinv.errors import BirdinvError
from birdinv.files import read_json
from birdinv.training.config import TrainConfig
from birdinv.training.task import Task

SINCE = ("lambda_nll", "lambda_rec", "lambda_mid", "sparsity", "pretrain", "freeze", "pad")


def library_versions() -> dict[str, str]:
    """The versions that numbers may depend on."""
    return {
        "birdinv": birdinv.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def describe_run(task: Task, config: TrainConfig, command: str) -> dict[str, Any]:
    """The `run.json` of a run about to begin."""
    return {
        "config": config.to_dict(),
        "command": command,
        "versions": library_versions(),
        "device": "",
        **task.identity,
        **task.facts,
        "warnings": list(task.warnings),
        "started": now(),
        "ended": None,
        "outcome": "running",
        "best_epoch": None,
    }


def resumable_run(run: Path, task: Task, config: TrainConfig) -> dict[str, Any]:
    """The `run.json` of an interrupted run, once it is seen to be the same run.

    Raises:
        BirdinvError: no such run, one that is finished, or one with other settings or other data.
    """
    info = read_json(run / "run.json", "a run made by `birdinv train`")
    old, new = info.get("config"), config.to_dict()
    if not isinstance(old, dict):
        raise BirdinvError(f"{run / 'run.json'} holds no settings; train again into a new folder")
    # Settings that there were not yet when it was begun, at what changes nothing.
    old = {**{name: getattr(TrainConfig, name) for name in SINCE}, **old}
    changed = sorted(k for k in {*old, *new} if k not in old or k not in new or old[k] != new[k])
    if changed:
        raise BirdinvError(
            f"{run} was begun with other settings ({', '.join(changed)}); resume with the same "
            "ones, or give -o a new folder"
        )
    if any(info.get(key) != value for key, value in task.identity.items()):
        kind, where = ("store", "store") if task.hearing else ("set of images", "root")
        raise BirdinvError(
            f"{run} was begun on another {kind} than {task.origin}; resume with that one "
            f"({info.get(where)})"
        )
    if info.get("outcome") == "finished":
        raise BirdinvError(f"{run} is finished; to train again, give -o a new folder")
    return info
