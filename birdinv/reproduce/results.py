"""The result file of a cell: one JSON that a stranger can check, a seed at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from birdinv.errors import BirdinvError
from birdinv.files import read_json, write_json
from birdinv.reproduce.cells import Cell
from birdinv.training.config import TrainConfig
from birdinv.training.record import library_versions

FORMAT, VERSION = "birdinv-cell", 1


def load_result(path: Path) -> dict[str, Any]:
    """The result in a file.

    Raises:
        BirdinvError: it is damaged, or is no result.
    """
    result = read_json(path, "a result written by `birdinv reproduce`")
    if (result.get("format"), result.get("version")) != (FORMAT, VERSION):
        raise BirdinvError(
            f"{path} is no result of this version of `birdinv reproduce`; delete it and run the "
            "cell again"
        )
    seeds = result.get("seeds")
    whole = isinstance(seeds, list) and all(
        isinstance(seed, dict) and {"seed", "valid_accuracy", "test_accuracy"} <= seed.keys()
        for seed in seeds
    )
    if not whole:
        raise BirdinvError(f"{path} holds no list of seeds; delete it and run the cell again")
    return result


def begin_result(cell: Cell, config: TrainConfig, device: str, path: Path) -> dict[str, Any]:
    """The result of a cell as it stands: what its file holds, or one without any seed.

    Raises:
        BirdinvError: the file was made with other settings.
    """
    settings = {key: value for key, value in config.to_dict().items() if key != "seed"}
    if path.exists():
        result = load_result(path)
        old = result.get("config", {})
        changed = sorted(k for k in {*old, *settings} if old.get(k) != settings.get(k))
        if changed:
            raise BirdinvError(
                f"{path} was made with other settings ({', '.join(changed)}); delete it, or give "
                "another folder with --results"
            )
        return result
    return {
        "format": FORMAT,
        "version": VERSION,
        "table": cell.table.name,
        "row": cell.row.name,
        "preset": cell.preset,
        "budget": cell.budget,
        "dataset": cell.dataset,
        "labels": cell.labels,
        "network": config.network,
        "objective": config.objective,
        "config": settings,
        "deviations": list(cell.deviations),
        "split_hash": {},
        "versions": library_versions(),
        "device": device,
        "seconds": 0.0,
        "seeds": [],
    }


def add_seed(result: dict[str, Any], seed: dict[str, Any], split_hash: str, path: Path) -> None:
    """Takes one more seed into a result and writes the file, whole or not at all."""
    result["seeds"] = sorted([*result["seeds"], seed], key=lambda each: each["seed"])
    result["split_hash"] = dict(
        sorted({**result["split_hash"], str(seed["seed"]): split_hash}.items())
    )
    result["seconds"] = round(sum(each["seconds"] for each in result["seeds"]), 1)
    write_json(path, result)
