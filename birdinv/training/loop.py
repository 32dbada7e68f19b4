"""The training loop: a store in, a run folder out; interrupted and resumed = uninterrupted."""

from __future__ import annotations

import datetime
import math
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from birdinv.audio.store import Store
from birdinv.data.batches import Segments, TrainingBatches
from birdinv.errors import BirdinvError, Interrupted
from birdinv.evaluation import evaluate
from birdinv.files import read_json, require_new, write_csv, write_json
from birdinv.losses import Terms
from birdinv.networks import build
from birdinv.networks.saved import Description, save_model
from birdinv.progress import Progress
from birdinv.training.checkpoint import Checkpoint, load_checkpoint
from birdinv.training.config import TrainConfig
from birdinv.training.partition import Partition, partition, write_roles
from birdinv.training.scoring import log_probabilities

TERMS = ("total", "cross_entropy", "entropy", "reconstruction")
COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    *TERMS,
    "train_accuracy",
    "valid_cross_entropy",
    "valid_segment_accuracy",
    "valid_recording_accuracy",
    "seconds",
)


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
    place = choose_device(device)
    parts = partition(store, config.labels_per_class, config.seed)
    if resume:
        info = _resumable(run, store, parts, config)
        if info["outcome"] == "finished":
            raise BirdinvError(f"{run} is finished; to train again, give -o a new folder")
    else:
        require_new(run, "run", hint=", or go on with this one by --resume")
        info = _run_info(store, parts, config, place, command)
        write_roles(run, parts)
    write_json(run / "run.json", {**info, "outcome": "running", "device": str(place)})

    model = _fresh_model(store, config).to(place)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    labelled, unlabelled = Segments(store, parts.labelled), Segments(store, parts.unlabelled)
    if config.objective == "supervised":
        unlabelled = Segments(store, {})  # they would fill batches and teach nothing
    batches = TrainingBatches(labelled, unlabelled, batch_size=config.batch_size, seed=config.seed)
    valid = Segments(store, parts.valid)
    objective = config.make_objective()
    parameters = list(model.parameters())
    per_epoch, steps = batches.steps_per_epoch, config.epochs * batches.steps_per_epoch

    state = Checkpoint(0, {}, {}, {}, [])
    if resume and (run / "last.pt").exists():
        state = load_checkpoint(run / "last.pt")
        model.load_state_dict(state.model)
        optimiser.load_state_dict(state.optimiser)
    started = time.monotonic() - float(state.sums.get("seconds", 0))

    def save(step: int) -> None:
        state.step, state.model, state.optimiser = step, model.state_dict(), optimiser.state_dict()
        state.sums["seconds"] = time.monotonic() - started
        state.save(run / "last.pt")

    if progress is not None:
        progress.update(state.step, total=steps)
    step = state.step
    outcome = "failed"
    try:
        with _interrupts() as interrupted, torch.random.fork_rng():
            while step < steps and not _stops_early(state.rows, config.patience):
                if interrupted.is_set():
                    outcome = "interrupted"
                    save(step)
                    raise Interrupted(
                        f"interrupted at step {step} of {steps}; the state is saved, go on with "
                        f"--resume -o {run}"
                    )
                rate = config.learning_rate_at(step, steps)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                x, y = (part.to(place) for part in batches.batch(step))
                torch.manual_seed(_mixed(config.seed, step))  # dropout: a function of the step too
                optimiser.zero_grad(set_to_none=True)
                terms = objective(model, x, y)
                torch.autograd.backward(
                    terms.total, inputs=parameters
                )  # not into the input, which also asks
                optimiser.step()
                _add(state.sums, terms, y, step // per_epoch + 1, step + 1, rate)
                step += 1
                if step % per_epoch == 0:
                    seconds = time.monotonic() - started
                    row = _row(state.sums, step, per_epoch, rate, model, valid, store, place)
                    state.rows.append({**row, "seconds": f"{seconds:.3f}"})
                    state.sums.clear()
                    started = time.monotonic()
                    if _best(state.rows) == len(state.rows) - 1:
                        state.best = {k: v.detach().clone() for k, v in model.state_dict().items()}
                    write_csv(run / "metrics.csv", COLUMNS, state.rows)
                    save(step)
                if progress is not None:
                    progress.update(1, note=_note(state.rows))
            outcome = "finished"
        save_model(run / "model", state.best, _description(store, config, model))
    finally:
        best = _best(state.rows) + 1 if state.rows else None
        ended = _now() if outcome != "interrupted" else None
        write_json(
            run / "run.json",
            {**info, "device": str(place), "outcome": outcome, "ended": ended, "best_epoch": best},
        )
    return Trained(state.rows, _best(state.rows) + 1, parts.warnings)


def choose_device(name: str) -> torch.device:
    """The device `name` stands for; "auto" takes CUDA where there is one.

    Raises:
        BirdinvError: no such device, or none here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.zeros(1, device=place)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise BirdinvError(
            f"the device {name!r} cannot be used ({first}); give cpu, cuda or auto"
        ) from error
    return place


def _fresh_model(store: Store, config: TrainConfig) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build(
            config.network,
            classes=len(store.classes),
            shape=(1, store.windows.segment),
            dropout=config.dropout,
        ).train()


def _description(store: Store, config: TrainConfig, model: nn.Module) -> Description:
    sizes: dict[str, Any] = model.sizes  # type: ignore[assignment]  # all our networks have them
    return Description(
        network=config.network,
        sizes=sizes,
        classes=store.classes,
        non_events=store.non_events,
        sample_rate=store.sample_rate,
        segment_samples=store.windows.segment,
        hop_samples=store.windows.hop,
    )


def _mixed(seed: int, step: int) -> int:
    """A generator seed for one step, unlike that of any other step or nearby seed."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def _add(
    sums: dict[str, float], terms: Terms, y: torch.Tensor, epoch: int, step: int, rate: float
) -> None:
    """Adds a step's terms to the sums of its epoch.

    Raises:
        BirdinvError: a term is not finite.
    """
    present = [name for name in TERMS if getattr(terms, name) is not None]
    known = y >= 0
    right = (terms.logits.argmax(dim=1) == y)[known].sum()
    stacked = torch.stack(
        [*(getattr(terms, name).detach().double() for name in present), right.double()]
    ).tolist()  # one wait for the device
    values = dict(zip(present, stacked, strict=False))
    # The parts before the whole: the sentence should name what broke it.
    for name in sorted(values, key=lambda name: name == "total"):
        if not math.isfinite(values[name]):
            raise BirdinvError(
                f"the loss is not finite at step {step} (epoch {epoch}): {name} is "
                f"{values[name]}; try a smaller --learning-rate than {rate:g}, or a smaller --beta"
            )
    values |= {"right": stacked[-1], "known": float(known.sum())}
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + value


def _row(
    sums: dict[str, float],
    step: int,
    per_epoch: int,
    rate: float,
    model: nn.Module,
    valid: Segments,
    store: Store,
    place: torch.device,
) -> dict[str, str]:
    """A row of `metrics.csv`: means over the epoch, and how validation stands after it."""
    row = dict.fromkeys(COLUMNS, "")
    row |= {
        "epoch": str(step // per_epoch),
        "step": str(step),
        "learning_rate": f"{rate:.8g}",
        "train_accuracy": f"{sums['right'] / max(1.0, sums['known']):.6f}",
    }
    row |= {name: f"{sums[name] / per_epoch:.6f}" for name in TERMS if name in sums}
    if len(valid):
        log_probs = log_probabilities(model, valid, place)
        result = evaluate(log_probs, valid.labels, valid.recordings, store.classes, resamples=0)
        loss = functional.nll_loss(torch.from_numpy(log_probs), torch.from_numpy(valid.labels))
        row |= {
            "valid_cross_entropy": f"{float(loss):.6f}",
            "valid_segment_accuracy": f"{result.segment_accuracy:.6f}",
            "valid_recording_accuracy": f"{result.recording_accuracy:.6f}",
        }
    return row


def _best(rows: list[dict[str, str]]) -> int:
    """Index of the epoch to keep: the best on validation, or the last one without validation."""
    if not rows or not rows[-1]["valid_segment_accuracy"]:
        return len(rows) - 1
    return max(
        range(len(rows)),
        key=lambda i: (
            float(rows[i]["valid_segment_accuracy"]),
            -float(rows[i]["valid_cross_entropy"]),
        ),
    )


def _stops_early(rows: list[dict[str, str]], patience: int) -> bool:
    return len(rows) - 1 - _best(rows) >= patience


def _note(rows: list[dict[str, str]]) -> str:
    if not rows or not rows[-1]["valid_segment_accuracy"]:
        return f"epoch {len(rows) + 1}"
    accuracy = float(rows[-1]["valid_segment_accuracy"])
    return f"epoch {len(rows) + 1}, valid {accuracy:.3f}"


def _run_info(
    store: Store, parts: Partition, config: TrainConfig, place: torch.device, command: str
) -> dict[str, Any]:
    import birdinv

    counts = {
        "labelled_recordings": len(parts.labelled),
        "unlabelled_recordings": len(parts.unlabelled),
        "valid_recordings": len(parts.valid),
        "test_recordings": len(parts.test),
        "labelled_segments": len(Segments(store, parts.labelled)),
        "unlabelled_segments": len(Segments(store, parts.unlabelled)),
    }
    return {
        "config": config.to_dict(),
        "command": command,
        "versions": {
            "birdinv": birdinv.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
        "device": str(place),
        "store": str(store.path.resolve()),
        "store_hash": store.hash,
        "split_hash": parts.hash,
        "classes": store.classes,
        "counts": counts,
        "warnings": list(parts.warnings),
        "started": _now(),
        "ended": None,
        "outcome": "running",
        "best_epoch": None,
    }


def _resumable(run: Path, store: Store, parts: Partition, config: TrainConfig) -> dict[str, Any]:
    """The run's `run.json`, once store, split and settings are seen to be the same."""
    info = read_json(run / "run.json", "a run made by `birdinv train`")
    if info.get("config") != config.to_dict():
        old: dict[str, Any] = info.get("config") or {}
        changed = [k for k, v in config.to_dict().items() if old.get(k) != v]
        raise BirdinvError(
            f"{run} was begun with other settings ({', '.join(changed)}); resume with the same "
            "ones, or give -o a new folder"
        )
    if info.get("store_hash") != store.hash or info.get("split_hash") != parts.hash:
        raise BirdinvError(
            f"{run} was begun on another store than {store.path}; resume with that one "
            f"({info.get('store')})"
        )
    return info


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C or termination into an event, the second into what it always was."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # signals reach the main thread alone
        return
    caught = [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.getsignal(number) for number in caught}

    def handle(number: int, frame: Any) -> None:
        flag.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in caught:
        signal.signal(number, handle)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
