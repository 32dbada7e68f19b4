"""The training loop: a store in, a run folder out; interrupted and resumed = uninterrupted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from birdinv.audio.store import Store
from birdinv.clock import now
from birdinv.data.batches import Segments
from birdinv.errors import Interrupted
from birdinv.files import require_new, write_csv, write_json
from birdinv.networks.saved import save_model
from birdinv.progress import Progress
from birdinv.threads import cpu_threads
from birdinv.training.checkpoint import Checkpoint, load_checkpoint
from birdinv.training.config import TrainConfig
from birdinv.training.epochs import (
    COLUMNS,
    best_epoch,
    note,
    stops_early,
    train_cells,
    valid_cells,
)
from birdinv.training.interrupts import interrupts
from birdinv.training.learner import Learner, choose_device, describe_model
from birdinv.training.partition import partition, write_roles
from birdinv.training.record import describe_run, resumable_run

SAVE_EVERY_S = 300.0  # within an epoch, which over a disk of recordings takes hours


@dataclass(frozen=True)
class Trained:
    """How a run ended: the finished epochs as rows of `metrics.csv`, the best one's number."""

    rows: list[dict[str, str]]
    best_epoch: int
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
    """Trains a network on a store and leaves a run folder.

    The weights of the epoch with the best validation accuracy per segment are exported to
    `run/model`; of equal ones, that with the lower cross-entropy.

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
    parts = partition(store, config.labels_per_class, config.seed)
    learner = Learner(store, parts, config, place)
    state = Checkpoint()
    if resume:
        info = resumable_run(run, store, parts, config)
        if (run / "last.pt").exists():
            state = load_checkpoint(run / "last.pt", learner.model, learner.optimiser)
    else:
        require_new(run, "run", hint=", or go on with this one by --resume")
        info = describe_run(store, parts, config, command)
    info |= {"device": str(place), "outcome": "running", "ended": None}
    write_json(run / "run.json", info)
    write_roles(run, parts)

    valid = Segments(store, parts.valid)
    saved = time.monotonic()
    started = saved - state.seconds

    def save() -> None:
        nonlocal saved
        saved = time.monotonic()
        state.seconds = saved - started
        state.save(run / "last.pt", learner.model, learner.optimiser)

    if progress is not None:
        progress.update(state.step, total=learner.steps)
    info["outcome"] = "failed"  # unless it comes to another end
    try:
        with (
            interrupts() as interrupted,
            cpu_threads(config.threads),
            torch.random.fork_rng(devices=[place] if place.type == "cuda" else []),
        ):
            while state.step < learner.steps and not stops_early(state.rows, config.patience):
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
                if state.step % learner.steps_per_epoch == 0:
                    learner.require_finite(state.step)
                    row = dict.fromkeys(COLUMNS, "") | {
                        "epoch": str(len(state.rows) + 1),
                        "step": str(state.step),
                        "learning_rate": f"{learner.rate(state.step - 1):.8g}",
                        **train_cells(state.sums, learner.steps_per_epoch),
                        **valid_cells(learner.model, valid, place),
                        "seconds": f"{time.monotonic() - started:.3f}",
                    }
                    state.rows.append(row)
                    state.sums.clear()
                    started = time.monotonic()
                    if best_epoch(state.rows) == len(state.rows):
                        state.keep_best(learner.model)
                    write_csv(run / "metrics.csv", COLUMNS, state.rows)
                    save()
                elif time.monotonic() - saved > SAVE_EVERY_S:
                    learner.require_finite(state.step)
                    save()
                if progress is not None:
                    progress.update(1, note=note(state.rows, config.epochs))
            save_model(run / "model", state.best, describe_model(store, config, learner.model))
        info["outcome"] = "finished"
    except Interrupted:
        info["outcome"] = "interrupted"
        raise
    finally:
        if info["outcome"] != "interrupted":
            info["ended"] = now()
        write_json(run / "run.json", {**info, "best_epoch": best_epoch(state.rows)})
    return Trained(state.rows, best_epoch(state.rows) or 0, parts.warnings)
