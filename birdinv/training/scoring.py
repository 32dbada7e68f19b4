"""A network's answers on the segments of a store, and a run's metrics from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from birdinv.audio.store import Store
from birdinv.data.batches import Segments
from birdinv.errors import BirdinvError
from birdinv.evaluation import Evaluation, evaluate
from birdinv.files import read_json, write_json
from birdinv.networks.saved import load_model
from birdinv.threads import cpu_threads
from birdinv.training.partition import read_roles

BATCH = 512


@torch.no_grad()
def log_probabilities(model: nn.Module, segments: Segments, device: torch.device) -> np.ndarray:
    """`log ŷ`, float32 `[S, K]`, of every segment, in eval mode; the mode is put back after."""
    training = model.training
    model.eval()
    parts = []
    try:
        for first in range(0, len(segments), BATCH):
            which = np.arange(first, min(first + BATCH, len(segments)))
            logits = model(segments.waveforms(which).to(device))
            parts.append(functional.log_softmax(logits, dim=1).cpu())
    finally:
        model.train(training)
    return torch.cat(parts).numpy()


def evaluate_run(
    run: Path, *, split: str = "test", store: Store | None = None, resamples: int = 1000
) -> Evaluation:
    """Metrics of a run's network on the `split` ("valid" or "test") it was given when it began.

    Writes `evaluation-<split>.json` into the run. The store is the one the run names unless another
    copy of it is given.

    Raises:
        BirdinvError: no such run or store, another store, or a split without recordings.
    """
    info = read_json(run / "run.json", "a run made by `birdinv train`")
    store = store or find_store(run, str(info.get("store", "")))
    if store.hash != info.get("store_hash"):
        raise BirdinvError(
            f"{store.path} is not the store this run was trained on (their hashes differ); give "
            "that one with --store, or segment the same recordings with the same settings again"
        )
    model, description = load_model(run)
    segments = Segments(store, read_roles(run)[split])
    if not len(segments):
        raise BirdinvError(
            f"the run {run} has no {split} recordings; segment more recordings a class, or give "
            "their share with --fractions"
        )
    with cpu_threads(1):
        log_probs = log_probabilities(model, segments, torch.device("cpu"))
    result = evaluate(
        log_probs,
        segments.labels,
        segments.recordings,
        description.classes,
        non_events=description.non_events,
        resamples=resamples,
    )
    write_json(run / f"evaluation-{split}.json", {"split": split, **result.to_dict()})
    return result


def find_store(run: Path, named: str) -> Store:
    """The store a run was trained on, where it then was."""
    if not named:
        raise BirdinvError(f"{run / 'run.json'} names no store; give it with --store")
    path = Path(named)
    if not path.is_dir():
        raise BirdinvError(f"the run's store {path} is not there any more; give it with --store")
    return Store(path)
