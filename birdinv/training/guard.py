"""`--guard`: the same labels with and without the unlabelled audio, and the better one is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from birdinv.audio.store import Store
from birdinv.errors import BirdinvError, Interrupted
from birdinv.files import read_csv, read_json, require_new, whole_folder, write_json
from birdinv.progress import Progress
from birdinv.training.config import TrainConfig
from birdinv.training.epochs import best_row
from birdinv.training.loop import Trained, train_task
from birdinv.training.partition import partition
from birdinv.training.recordings import recordings_task
from birdinv.training.task import Task

SIDES = ("supervised", "semi-supervised")
_KEPT_FILES = ("split.csv", "metrics.csv")


@dataclass(frozen=True)
class Guarded:
    """How the two runs ended: the name of the one that was kept, and the kept rows of both.

    `judges` is how many validation recordings they were judged on.
    """

    kept: str
    judges: int
    rows: dict[str, dict[str, str]]
    trained: Trained


def train_guarded(
    store: Store,
    run: Path,
    config: TrainConfig,
    *,
    device: str = "auto",
    resume: bool = False,
    command: str = "",
    progress: Callable[[str], Progress] | None = None,
) -> Guarded:
    """Trains twice, with the unlabelled recordings and without, and keeps the better network.

    The two are whole runs in `run/supervised` and `run/semi-supervised`, of as many steps each;
    `run` itself becomes a run with the network, the settings and the metrics of the one that names
    more validation recordings right, of equals more validation segments, then the semi-supervised
    one. Its `run.json` has the numbers of both.

    Args:
        progress: makes a bar from its description.

    Raises:
        BirdinvError: no validation recordings to judge by, nothing unlabelled to guard against,
            or what `train` refuses.
        Interrupted: the state is saved; with `resume` it goes on.
    """
    parts = partition(store, config.labels_per_class, config.seed)
    if not parts.valid:
        raise BirdinvError(
            f"--guard judges on validation recordings, and {store.path} has none with segments; "
            "segment more recordings a class, give their share with --fractions, or leave "
            "--guard out"
        )
    if not config.uses_unlabelled or not parts.unlabelled:
        raise BirdinvError(
            "--guard compares training with and without unlabelled recordings, and this run uses "
            "none; leave --guard out"
        )
    if resume:
        _require_guarded(run)
    else:
        require_new(run, "run", hint=", or go on with this one by --resume")
    trained: dict[str, Trained] = {}
    task = recordings_task(store, parts, config.group_seconds, paced=True)
    for side, settings in zip(SIDES, (_supervised(config), config), strict=True):
        folder = run / side
        if resume and _finished(folder, task, settings):
            rows = read_csv(folder / "metrics.csv")[1]
            trained[side] = Trained(rows, best_row(rows, config.keep) or 0, parts.warnings)
            continue
        bar = progress(side) if progress else None
        try:
            trained[side] = train_task(
                task,
                folder,
                settings,
                device=device,
                resume=resume and (folder / "run.json").exists(),
                command=command,
                progress=bar,
            )
        except Interrupted as stop:
            raise Interrupted(
                f"the {side} run: interrupted; the state is saved, go on with --guard --resume "
                f"-o {run}"
            ) from stop
        finally:
            if bar is not None:
                bar.close()
    best = {side: one.rows[one.best_row - 1] for side, one in trained.items()}
    kept = max(reversed(SIDES), key=lambda side: _merit(best[side]))
    _keep(run, kept, best, len(parts.valid))
    return Guarded(kept, len(parts.valid), best, trained[kept])


def _supervised(config: TrainConfig) -> TrainConfig:
    """The same without anything that unlabelled recordings teach."""
    return replace(
        config, objective="supervised", balance=0.0, consistency="none", group_windows=0, ramp=0.0
    )


def _require_guarded(run: Path) -> None:
    """Raises where `run` is none that was begun with --guard."""
    if not run.is_dir():
        raise BirdinvError(f"{run} does not exist; expected a run begun with --guard")
    if (run / "run.json").exists() and "guard" not in read_json(run / "run.json", "a run"):
        raise BirdinvError(
            f"{run} was begun without --guard; leave that out, or give -o a new folder"
        )


def _finished(folder: Path, task: Task, config: TrainConfig) -> bool:
    """Whether a run has come to its end.

    Raises:
        BirdinvError: it has, with other settings or on other data.
    """
    path = folder / "run.json"
    info = read_json(path, "a run") if path.exists() else {}
    if info.get("outcome") != "finished":
        return False
    same = {"config": config.to_dict(), **task.identity}
    if any(info.get(key) != value for key, value in same.items()):
        raise BirdinvError(
            f"{folder} was trained with other settings, or on another store than {task.origin}; "
            "resume with the same ones, or give -o a new folder"
        )
    return True


def _merit(row: dict[str, str]) -> tuple[float, float]:
    segments = float(row["valid_accuracy"])
    return float(row["valid_recording_accuracy"] or segments), segments


def _keep(run: Path, kept: str, best: dict[str, dict[str, str]], judges: int) -> None:
    """Makes `run` a run like `run/<kept>`; `run.json` comes last and says that all is there."""
    for name in _KEPT_FILES:
        part = run / (name + ".part")
        shutil.copyfile(run / kept / name, part)
        part.replace(run / name)
    shutil.rmtree(run / "model", ignore_errors=True)
    with whole_folder(run / "model") as folder:
        shutil.copytree(run / kept / "model", folder, dirs_exist_ok=True)
    info: dict[str, Any] = read_json(run / kept / "run.json", "a run")
    columns = ("epoch", "valid_accuracy", "valid_recording_accuracy", "valid_cross_entropy")
    numbers = {
        side: {name: float(row[name]) if row[name] else None for name in columns}
        for side, row in best.items()
    }
    said = [read_json(run / side / "run.json", "a run").get("alarms") or [] for side in SIDES]
    info["alarms"] = [text for texts in said for text in texts]
    write_json(run / "run.json", {**info, "guard": {"kept": kept, "recordings": judges, **numbers}})
