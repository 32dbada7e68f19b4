"""The training loop: data in, a run folder out; interrupted and resumed = uninterrupted."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from birdinv.audio.store import Store
from birdinv.clock import now
from birdinv.errors import Interrupted
from birdinv.files import require_new, write_csv, write_json
from birdinv.networks.saved import save_model
from birdinv.progress import Progress
from birdinv.threads import cpu_threads
from birdinv.training.alarms import all_alarms, new_alarms
from birdinv.training.checkpoint import Checkpoint, load_checkpoint
from birdinv.training.config import TrainConfig
from birdinv.training.epochs import (
    best_row,
    metric_columns,
    note,
    stops_early,
    train_cells,
    valid_cells,
)
from birdinv.training.interrupts import interrupts
from birdinv.training.learner import Learner, choose_device, describe_model
from birdinv.training.partition import partition, write_roles
from birdinv.training.record import describe_run, resumable_run
from birdinv.training.recordings import recordings_task
from birdinv.training.task import Task

SAVE_EVERY_S = 300.0  # within an epoch, which over a disk of recordings takes hours


@dataclass(frozen=True)
class Trained:
    """How a run ended: the rows of `metrics.csv`, and the number of the best one, from 1."""

    rows: list[dict[str, str]]
    best_row: int
    warnings: tuple[str, ...]


def train(
    store: Store,
    run: Path,
    config: TrainConfig,
    *,
    device: str = "auto",
    resume: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> Trained:
    """Trains a network on a store and leaves a run folder; see `train_task`."""
    parts = partition(store, config.labels_per_class, config.seed)
    task = recordings_task(store, parts, config.group_seconds)
    return train_task(
        task, run, config, device=device, resume=resume, command=command, progress=progress
    )


def train_task(
    task: Task,
    run: Path,
    config: TrainConfig,
    *,
    device: str = "auto",
    resume: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> Trained:
    """Trains a network on recordings or images and leaves a run folder.

    The weights with the best validation accuracy per sample are exported to `run/model`, of equal
    ones those with the lower cross-entropy, or the last ones (`config.keep`). Test samples are not
    looked at.

    Args:
        resume: go on with an interrupted run; on the CPU its weights end bit for bit as if it had
            not been interrupted.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".

    Raises:
        Interrupted: on Ctrl-C or a termination signal, after the state was saved.
        BirdinvError: bad settings or data, or a loss that is not finite.
    """
    # What can be refused is refused before anything is written.
    place = choose_device(device)
    learner = Learner(task, config, place)
    state = Checkpoint()
    if resume:
        info = resumable_run(run, task, config)
        if (run / "last.pt").exists():
            state = load_checkpoint(run / "last.pt", learner.parts)
    else:
        require_new(run, "run", hint=", or go on with this one by --resume")
        info = describe_run(task, config, command)
    info |= {"device": str(place), "outcome": "running", "ended": None}
    write_json(run / "run.json", info)
    if task.roles is not None:
        write_roles(run, task.roles)
    columns = metric_columns(learner.judged, task.classes)

    saved = time.monotonic()
    started = saved - state.seconds

    def save() -> None:
        nonlocal saved
        saved = time.monotonic()
        state.seconds = saved - started
        state.save(run / "last.pt", learner.parts)

    if progress is not None:
        progress.update(state.step, total=learner.steps)
    info["outcome"] = "failed"  # unless it comes to another end
    try:
        with (
            interrupts() as interrupted,
            cpu_threads(config.threads),
            torch.random.fork_rng(devices=[place] if place.type == "cuda" else []),
        ):
            while state.step < learner.steps and not stops_early(
                state.rows, config.patience, config.keep
            ):
                if interrupted.is_set():
                    learner.require_finite(state.step)
                    save()
                    raise Interrupted(
                        f"interrupted at step {state.step} of {learner.steps}; the state is saved, "
                        f"go on with --resume -o {run}"
                    )
                for name, value in learner.learn(state.step).items():
                    state.sums[name] = state.sums.get(name, 0.0) + value
                state.step += 1
                if state.step % learner.steps_per_check == 0 or state.step == learner.steps:
                    learner.require_finite(state.step)
                    steps = state.step - int(state.rows[-1]["step"] if state.rows else 0)
                    row = dict.fromkeys(columns, "") | {
                        "epoch": f"{state.step / learner.steps_per_epoch:.6g}",
                        "step": str(state.step),
                        "learning_rate": f"{learner.rate(state.step - 1):.8g}",
                        **train_cells(state.sums, steps, task.classes),
                        **valid_cells(learner.judged, task.valid, place, learner.reconstruct),
                        "seconds": f"{time.monotonic() - started:.3f}",
                    }
                    state.rows.append(row)
                    for alarm in new_alarms(state.rows, task.classes):
                        warnings.warn(alarm, stacklevel=2)
                    state.sums.clear()
                    started = time.monotonic()
                    if best_row(state.rows, config.keep) == len(state.rows):
                        state.keep_best(learner.judged)
                    write_csv(run / "metrics.csv", columns, state.rows)
                    save()
                elif time.monotonic() - saved > SAVE_EVERY_S:
                    learner.require_finite(state.step)
                    save()
                if progress is not None:
                    progress.update(1, note=note(state.rows))
            save_model(run / "model", state.best, describe_model(task, config, learner.model))
        info["outcome"] = "finished"
    except Interrupted:
        info["outcome"] = "interrupted"
        raise
    finally:
        if info["outcome"] != "interrupted":
            info["ended"] = now()
        best = best_row(state.rows, config.keep)
        epoch = float(state.rows[best - 1]["epoch"]) if best else None
        info["alarms"] = all_alarms(state.rows, task.classes)
        write_json(run / "run.json", {**info, "best_epoch": epoch})
    return Trained(state.rows, best or 0, task.warnings)
