"""Runs the seeds of a cell: train, then read the test set once, then write the result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from birdinv.data.manifests import load_manifest
from birdinv.data.rank_lists import DRAWS
from birdinv.errors import Interrupted, SettingError
from birdinv.files import read_csv, read_json
from birdinv.progress import Progress
from birdinv.reproduce.bird_choices import WAYS, labelled_so_far
from birdinv.reproduce.bird_stores import bird_store
from birdinv.reproduce.cells import Cell
from birdinv.reproduce.presets import PRESETS
from birdinv.reproduce.results import add_seed, begin_result
from birdinv.training.config import TrainConfig
from birdinv.training.epochs import ERROR, best_row
from birdinv.training.images import images_task
from birdinv.training.learner import choose_device
from birdinv.training.loop import train_task
from birdinv.training.partition import partition
from birdinv.training.record import library_versions
from birdinv.training.recordings import recordings_task
from birdinv.training.scoring import evaluate_run, reconstruction_of_run
from birdinv.training.task import Task

CURVE = ("epoch", "cross_entropy", "entropy", "train_accuracy", "valid_accuracy")


def run_cell(
    cell: Cell,
    seeds: Sequence[int],
    *,
    root: Path,
    results: Path,
    runs: Path,
    device: str = "auto",
    threads: int = 1,
    command: str = "",
    progress: Callable[[str], Progress] | None = None,
) -> dict[str, Any]:
    """The result of a cell, with those of `seeds` that it did not have.

    Seed s takes the s-th draw of labels (of recordings: the s-th split) and the s-th initial
    weights. What is published is the file in `results`; the numbers of a seed come from training
    it here and now. A run that was interrupted goes on, which ends as if it had not been; one of
    other settings, data, versions or device is begun anew.

    Args:
        root: the folder of the data sets, or that of this one.
        runs: a folder for the runs; the network of each is kept there for the figures.
        progress: makes the bar of one run from its description.

    Raises:
        Interrupted: on Ctrl-C; the state is saved.
        SettingError: a seed that no draw of labels belongs to.
        BirdinvError: the data is not at hand, or a result of other settings is in the way.
    """
    images = load_manifest(cell.dataset).kind == "images"
    if images and cell.labels is not None and max(seeds) >= DRAWS:
        raise SettingError(
            f"--seeds asks for seed {max(seeds)}, and there are {DRAWS} draws of labels; give "
            f"seeds from 0 to {DRAWS - 1}"
        )
    place = str(choose_device(device))
    path = cell.file(results)
    result = begin_result(cell, cell.config(0, threads=threads), place, path)
    done = {each["seed"] for each in result["seeds"]}
    for seed in seeds:
        if seed in done:
            continue
        config = cell.config(seed, threads=threads)
        run = runs / cell.table.name / cell.name / f"seed-{seed}"
        task = (
            images_task(cell.dataset, root, cell.labels, seed, config.pad)
            if images
            else _recordings(cell, root, runs, seed)
        )
        outcome = _outcome(run, task, config, place)
        if outcome is None:
            shutil.rmtree(run, ignore_errors=True)
        if outcome != "finished":  # else it was interrupted when it was judged
            bar = progress(f"{cell.row.name}, seed {seed}") if progress else None
            resume = outcome is not None
            try:
                train_task(
                    task, run, config, device=device, resume=resume, command=command, progress=bar
                )
            except Interrupted as stop:
                raise Interrupted(
                    f"{cell.row.name}, seed {seed}: interrupted; the state is saved, and the same "
                    "command goes on"
                ) from stop
            finally:
                if bar is not None:
                    bar.close()
        rows = read_csv(run / "metrics.csv")[1]
        best = rows[(best_row(rows, config.keep) or 0) - 1]
        entry = {
            "seed": seed,
            **_judged(cell, run, root if images else None, best["valid_accuracy"]),
            "epoch": float(best["epoch"]),
            "seconds": round(sum(float(row["seconds"]) for row in rows), 1),
            "curve": _curve(run),
        }
        result = add_seed(
            cell,
            result,
            entry,
            split_hash=str(task.identity["split_hash"]),
            sizes=read_json(run / "model" / "model.json", "a model")["sizes"],
            path=path,
        )
        (run / "last.pt").unlink(missing_ok=True)
    return result


def _judged(cell: Cell, run: Path, root: Path | None, valid: str) -> dict[str, Any]:
    """What a run has come to; the only time that anything of the test set is read.

    Args:
        root: as in `run_cell`, of images; None for recordings.
        valid: the validation accuracy of the weights that are kept, as it stands in `metrics.csv`.
    """
    if cell.table.unit == "reconstruction":
        return {
            f"{split}_reconstruction": round(reconstruction_of_run(run, split, root), 6)
            for split in ("valid", "test")
        }
    test = evaluate_run(run, split="test", root=root, resamples=0)
    by_recording = {"test_recording_accuracy": round(test.recording_accuracy, 6)}
    return {
        "valid_accuracy": float(valid) if valid else None,
        "test_accuracy": round(test.segment_accuracy, 6),
        **({} if root is not None else by_recording),
        "confusion": test.confusion_matrix["segments"],
    }


def _outcome(run: Path, task: Task, config: TrainConfig, device: str) -> str | None:
    """How far a run has come that is the same in all that its numbers depend on.

    "finished" of one that was trained and not judged; None where there is none to go on with.
    """
    if not (run / "run.json").exists() or not (run / "last.pt").exists():
        return None
    info = read_json(run / "run.json", "a run")
    same = {
        "config": config.to_dict(),
        "versions": library_versions(),
        "device": device,
        **task.identity,
    }
    if any(info.get(key) != value for key, value in same.items()):
        return None
    # "running" is the last word of a run that was killed.
    outcome = str(info.get("outcome"))
    return outcome if outcome in ("interrupted", "running", "finished") else None


def _curve(run: Path) -> list[dict[str, float]]:
    """The validations of a run: losses, accuracies and layer errors by epoch."""
    _, rows = read_csv(run / "metrics.csv")
    wanted = [*CURVE, *(name for name in rows[0] if name.startswith(ERROR))]
    total = 0.0
    curve = []
    for row in rows:
        total += float(row["seconds"])
        numbers = {name: float(row[name]) for name in wanted if row[name]}
        curve.append({**numbers, "seconds": round(total, 1)})
    return curve


def _recordings(cell: Cell, root: Path, runs: Path, seed: int) -> Task:
    """The recordings of a cell's data set, whole, in a store of their own."""
    preset = PRESETS[cell.preset]
    way = seed if preset.splits is None else seed % preset.splits
    store = bird_store(cell.dataset, root, runs / "stores", way, preset)
    if cell.row.name in WAYS and cell.labels is not None:
        smaller = [n for n in cell.row.published if n is not None and n < cell.labels]
        before = None
        if smaller:
            last = replace(cell, labels=max(smaller))
            before = runs / cell.table.name / last.name / f"seed-{seed}"
        only = labelled_so_far(store, cell.row.name, cell.labels, before, seed)
        parts = partition(store, None, seed, only=only)
    else:
        per_group = preset.grouped == "speaker"
        parts = partition(store, cell.labels, seed, per_group=per_group)
    return recordings_task(store, parts, paced=cell.steps is not None)
