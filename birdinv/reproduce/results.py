"""The result file of a cell: one JSON that a stranger can check, a seed at a time."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from birdinv.errors import BirdinvError
from birdinv.files import read_json, write_json
from birdinv.reproduce.cells import Cell
from birdinv.reproduce.table import Table
from birdinv.training.config import TrainConfig
from birdinv.training.record import library_versions

FORMAT, VERSION = "birdinv-cell", 1
# Of `TrainConfig` since the first results were made, at what changes nothing.
_NEW_SETTINGS = {
    "class_balanced": False,
    "group_windows": 0,
    "group_seconds": None,
    "augment": "none",
    "consistency": "none",
    "consistency_weight": 1.0,
    "threshold": 0.95,
    "ramp": 0.0,
    "enough": 0.0,
    "steps": None,
    "keep": "best",
    "pad": 0,
}
LOCKED_S = 10.0  # far longer than reading and writing a result takes


def load_result(cell: Cell, path: Path) -> dict[str, Any]:
    """The result of a cell.

    Raises:
        BirdinvError: the file is missing, damaged, no result, or of another cell.
    """
    result = read_json(path, "a result written by `birdinv reproduce`")
    if (result.get("format"), result.get("version")) != (FORMAT, VERSION):
        raise BirdinvError(
            f"{path} is no result of this version of `birdinv reproduce`; delete it and run the "
            "cell again"
        )
    if {key: result.get(key) for key in _names(cell)} != _names(cell):
        raise BirdinvError(f"{path} says that it is the result of another cell; was it moved?")
    seeds, hashes = result.get("seeds"), result.get("split_hash")
    config, versions = result.get("config"), result.get("versions")
    parts = isinstance(config, dict) and isinstance(versions, dict) and isinstance(hashes, dict)
    if not parts or not isinstance(seeds, list) or not all(isinstance(s, dict) for s in seeds):
        raise BirdinvError(f"{path} is damaged; delete it and run the cell again")
    numbers = [each.get("seed") for each in seeds]
    if not seeds or not all(type(n) is int and n >= 0 for n in numbers):
        raise BirdinvError(f"{path} holds no list of seeds; delete it and run the cell again")
    if numbers != sorted(set(numbers)):
        raise BirdinvError(f"{path} has a seed twice, or not in order; delete it and run it again")
    for each in seeds:
        valid, test = (each.get(f"{split}_{measured(cell.table)}") for split in ("valid", "test"))
        most = 1.0 if measured(cell.table) == "accuracy" else math.inf
        if not _is_within(test, most) or not (valid is None or _is_within(valid, most)):
            raise BirdinvError(
                f"{path}, seed {each['seed']}: its {measured(cell.table)} is not from 0 to {most:g}"
            )
        by_recording = each.get("test_recording_accuracy", 0.0)
        if not _is_within(by_recording, 1.0):
            raise BirdinvError(
                f"{path}, seed {each['seed']}: its accuracy per recording is not from 0 to 1"
            )
        if not is_number(each.get("seconds")):
            raise BirdinvError(f"{path} does not say how long seed {each['seed']} took")
    # Settings that there were not yet when it was made.
    result["config"] = {**_NEW_SETTINGS, **result["config"]}
    return result


def begin_result(cell: Cell, config: TrainConfig, device: str, path: Path) -> dict[str, Any]:
    """The result of a cell as it stands: what its file holds, or one without any seed.

    Raises:
        BirdinvError: the file is damaged, or was made with other settings, another torch, another
            birdinv or on another kind of device: its seeds and new ones would not compare.
    """
    fresh = {
        "format": FORMAT,
        "version": VERSION,
        **_names(cell),
        "network": config.network,
        "objective": config.objective,
        "sizes": {},
        "config": used_settings(config),
        "deviations": list(cell.deviations),
        "split_hash": {},
        "versions": library_versions(),
        "device": device,
        "seconds": 0.0,
        "seeds": [],
    }
    if not path.exists():
        return fresh
    result = load_result(cell, path)
    changed = sorted(
        key
        for key in {*result["config"], *fresh["config"]}
        if result["config"].get(key) != fresh["config"].get(key)
    )
    for library in ("birdinv", "torch"):
        if result["versions"].get(library) != fresh["versions"][library]:
            changed.append(f"{library} {result['versions'].get(library)}")
    if str(result.get("device")).partition(":")[0] != device.partition(":")[0]:
        changed.append(f"device {result.get('device')}")
    if changed:
        raise BirdinvError(
            f"{path} was made with other settings ({', '.join(changed)}); delete it, or give "
            "another folder with --results"
        )
    return result


def add_seed(
    cell: Cell,
    begun: Mapping[str, Any],
    seed: Mapping[str, Any],
    *,
    split_hash: str,
    sizes: Mapping[str, Any],
    path: Path,
) -> dict[str, Any]:
    """A result with one more seed, written whole or not at all.

    The file is read once more before: another process may have added seeds of its own meanwhile.

    Args:
        begun: what `begin_result` gave.
        sizes: all options of the network, also those that are its own defaults.
    """
    with _alone(path):
        return _add(cell, begun, seed, split_hash, sizes, path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps other processes from `path` meanwhile; a lock that a killed one left counts no more."""
    lock = path.with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + LOCKED_S
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            if time.monotonic() > until:
                break
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _add(
    cell: Cell,
    begun: Mapping[str, Any],
    seed: Mapping[str, Any],
    split_hash: str,
    sizes: Mapping[str, Any],
    path: Path,
) -> dict[str, Any]:
    result = load_result(cell, path) if path.exists() else dict(begun)
    others = [each for each in result["seeds"] if each["seed"] != seed["seed"]]
    result["seeds"] = sorted([*others, dict(seed)], key=lambda each: each["seed"])
    hashes = {**result["split_hash"], str(seed["seed"]): split_hash}
    result["split_hash"] = dict(sorted(hashes.items(), key=lambda pair: int(pair[0])))
    result["sizes"] = dict(sizes)
    result["seconds"] = round(sum(each["seconds"] for each in result["seeds"]), 1)
    write_json(path, result)
    return result


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number of JSON; one that no float holds is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def measured(table: Table) -> str:
    """What stands in the results of a table, after `valid_` and `test_`."""
    return "reconstruction" if table.unit == "reconstruction" else "accuracy"


def _is_within(value: Any, most: float) -> bool:
    return is_number(value) and 0 <= value <= most


def _names(cell: Cell) -> dict[str, Any]:
    return {
        "table": cell.table.name,
        "row": cell.row.name,
        "preset": cell.preset,
        "budget": cell.budget,
        "dataset": cell.dataset,
        "labels": cell.labels,
    }


def used_settings(config: TrainConfig) -> dict[str, Any]:
    """All settings but the seed, and but those that the objective has no use for."""
    of_swwae = {
        *("lambda_nll", "lambda_rec", "lambda_mid"),
        *("sparsity", "pretrain", "freeze"),
    }
    used = {
        "weighted": {"alpha", "beta"},
        "layer-weighted": {"alpha", "beta", "gamma"},
        "swwae": of_swwae,
    }
    unused = {"seed", "alpha", "beta", "gamma"} | of_swwae
    unused -= used.get(config.objective, set())
    return {key: value for key, value in config.to_dict().items() if key not in unused}
