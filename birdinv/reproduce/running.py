"""Runs the seeds of a cell: train, then read the test set once, then write the result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from birdinv.audio.store import Store
from birdinv.data.manifests import load_manifest
from birdinv.data.segmenting import SegmentSettings, segment
from birdinv.errors import BirdinvError
from birdinv.files import read_csv, read_json
from birdinv.progress import Progress
from birdinv.reproduce.cells import Cell
from birdinv.reproduce.results import add_seed, begin_result
from birdinv.training.images import images_task
from birdinv.training.learner import choose_device
from birdinv.training.loop import train_task
from birdinv.training.partition import partition
from birdinv.training.recordings import recordings_task
from birdinv.training.scoring import evaluate_run
from birdinv.training.task import Task

CURVE = ("epoch", "cross_entropy", "entropy", "train_accuracy", "valid_accuracy")


def run_cell(
    cell: Cell,
    seeds: Iterable[int],
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
    it here and now. A run that was interrupted goes on, which ends as if it had not been.

    Args:
        root: the folder of the data sets, or that of this one.
        runs: a folder for the runs; the network of each is kept there for the figures.
        progress: makes the bar of one run from its description.

    Raises:
        Interrupted: on Ctrl-C; the state is saved.
        BirdinvError: the data is not at hand, or a result of other settings is in the way.
    """
    place = str(choose_device(device))
    path = cell.file(results)
    result = begin_result(cell, cell.config(0, threads=threads), place, path)
    done = {each["seed"] for each in result["seeds"]}
    for seed in seeds:
        if seed in done:
            continue
        config = cell.config(seed, threads=threads)
        run = runs / cell.table.name / cell.name / f"seed-{seed}"
        task = _task(cell, seed, root, runs)
        resume = _is_begun(run)
        if not resume:
            shutil.rmtree(run, ignore_errors=True)
        bar = progress(f"{cell.row.name}, seed {seed}") if progress else None
        try:
            trained = train_task(
                task, run, config, device=device, resume=resume, command=command, progress=bar
            )
        finally:
            if bar is not None:
                bar.close()
        (run / "last.pt").unlink(missing_ok=True)
        best = trained.rows[trained.best_row - 1]
        # The only time that anything of the test set is read.
        test = evaluate_run(run, split="test", root=_root_of_images(cell, root), resamples=0)
        seconds = sum(float(row["seconds"]) for row in trained.rows)
        entry = {
            "seed": seed,
            "valid_accuracy": float(best["valid_accuracy"]) if best["valid_accuracy"] else None,
            "test_accuracy": round(test.segment_accuracy, 6),
            "epoch": float(best["epoch"]),
            "seconds": round(seconds, 1),
            "confusion": test.confusion_matrix["segments"],
            "curve": _curve(run),
        }
        add_seed(result, entry, str(task.identity["split_hash"]), path)
    return result


def _is_begun(run: Path) -> bool:
    """Whether there is an unfinished run to go on with."""
    if not (run / "run.json").exists() or not (run / "last.pt").exists():
        return False
    return read_json(run / "run.json", "a run").get("outcome") != "finished"


def _curve(run: Path) -> list[dict[str, float]]:
    """The validations of a run: losses, accuracies and layer errors by epoch."""
    _, rows = read_csv(run / "metrics.csv")
    wanted = [*CURVE, *(name for name in rows[0] if name.startswith("valid_reconstruction_"))]
    total = 0.0
    curve = []
    for row in rows:
        total += float(row["seconds"])
        numbers = {name: float(row[name]) for name in wanted if row[name]}
        curve.append({**numbers, "seconds": round(total, 1)})
    return curve


def _task(cell: Cell, seed: int, root: Path, runs: Path) -> Task:
    manifest = load_manifest(cell.dataset)
    if manifest.kind == "images":
        return images_task(cell.dataset, root, cell.labels, seed)
    folder = root / cell.dataset
    if not folder.is_dir():
        raise BirdinvError(
            f"{folder} is not there, and {cell.dataset} is needed; `birdinv data prepare "
            f"{cell.dataset} --root {root}` says how to get it"
        )
    store = runs / "stores" / f"{cell.dataset}-{seed}"
    if not store.exists():
        segment([folder], store, SegmentSettings(seed=seed))
    opened = Store(store)
    return recordings_task(opened, partition(opened, None, seed))


def _root_of_images(cell: Cell, root: Path) -> Path | None:
    return root if load_manifest(cell.dataset).kind == "images" else None
