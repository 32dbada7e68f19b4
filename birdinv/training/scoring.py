"""A network's answers and reconstructions on samples, and a run's metrics from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from birdinv.audio.store import Store
from birdinv.data.batches import Segments, Source
from birdinv.errors import BirdinvError
from birdinv.evaluation import Evaluation, evaluate
from birdinv.files import read_json, write_json
from birdinv.inversion import Reconstruction
from birdinv.networks.saved import load_model
from birdinv.networks.swwae import SWWAE
from birdinv.threads import cpu_threads
from birdinv.training.images import samples_to_judge
from birdinv.training.partition import read_roles

BATCH = 512
ERROR_SAMPLES = 256

Reconstruct = Callable[[nn.Module, Tensor, Sequence[str]], Reconstruction]


@torch.no_grad()
def log_probabilities(model: nn.Module, samples: Source, device: torch.device) -> np.ndarray:
    """`log ŷ`, float32 `[S, K]`, of every sample, in eval mode; the mode is put back after."""
    training = model.training
    model.eval()
    parts = []
    try:
        for first in range(0, len(samples), BATCH):
            which = np.arange(first, min(first + BATCH, len(samples)))
            logits = model(samples.inputs(which).to(device))
            parts.append(functional.log_softmax(logits, dim=1).cpu())
    finally:
        model.train(training)
    return torch.cat(parts).numpy()


def layer_errors(
    model: nn.Module, samples: Source, device: torch.device, reconstruct: Reconstruct
) -> dict[str, float]:
    """Mean `R^(l)/D^(l)` (MS 7) of the input and of each layer, in eval mode, on a few samples.

    They are `ERROR_SAMPLES` at most, evenly spread, the same at every call. A layer that is its own
    reconstruction, such as the one a decoder begins with, is left out.

    Args:
        reconstruct: the objective's.
    """
    count = min(ERROR_SAMPLES, len(samples))
    x = samples.inputs(np.arange(count) * len(samples) // count).to(device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():  # of the network's weights
            back = reconstruct(model, x, model.layers)  # type: ignore[arg-type]
    finally:
        model.train(training)
    pairs = {"input": (x, back.x_hat), **back.layers}
    return {
        name: float((z_hat - z).square().mean())
        for name, (z, z_hat) in pairs.items()
        if z is not z_hat
    }


def evaluate_run(
    run: Path,
    *,
    split: str = "test",
    store: Store | None = None,
    root: Path | None = None,
    resamples: int = 1000,
) -> Evaluation:
    """Metrics of a run's network on the `split` ("valid" or "test") it was given when it began.

    Writes `evaluation-<split>.json` into the run. The data is where the run says it was, unless
    another copy of it is given: a store of recordings, or the folder of a data set of images.

    Raises:
        BirdinvError: no such run or data, other data, or a split without samples.
    """
    info = read_json(run / "run.json", "a run made by `birdinv train`")
    model, description = load_model(run)
    samples = _samples(run, info, split, store, root)
    hearing = description.hearing
    with cpu_threads(1):
        log_probs = log_probabilities(model, samples, torch.device("cpu"))
    result = evaluate(
        log_probs,
        samples.labels,
        samples.recordings,
        description.classes,
        non_events=hearing.non_events if hearing else (),
        resamples=resamples,
    )
    write_json(run / f"evaluation-{split}.json", {"split": split, **result.to_dict()})
    return result


def samples_of_run(
    run: Path, split: str, *, store: Store | None = None, root: Path | None = None
) -> Source:
    """The samples of one role ("labelled", "valid" or "test") of a run, as it was given them.

    Raises:
        BirdinvError: as `evaluate_run`.
    """
    info = read_json(run / "run.json", "a run made by `birdinv train`")
    return _samples(run, info, split, store, root)


def reconstruction_of_run(run: Path, split: str, root: Path | None = None) -> float:
    """`Σ‖x − x̃‖² / Σ‖x‖²` of the `split` of a run on images, by its decoder: what is left of them.

    Args:
        root: as in `evaluate_run`.

    Raises:
        BirdinvError: as `evaluate_run`, or a network without a decoder.
    """
    info = read_json(run / "run.json", "a run made by `birdinv train`")
    model, description = load_model(run)
    if not isinstance(model, SWWAE):
        raise BirdinvError(f"the network of {run} is {description.network}, which has no decoder")
    samples = samples_to_judge(info, split, root)
    left = whole = 0.0
    with torch.no_grad(), cpu_threads(1):
        for first in range(0, len(samples), ERROR_SAMPLES):
            x = samples.inputs(np.arange(first, min(first + ERROR_SAMPLES, len(samples))))
            x_tilde = model(x, decode=True).x_tilde
            left += float((x - x_tilde).square().sum())
            whole += float(x.square().sum())
    return left / whole


def _samples(
    run: Path, info: Mapping[str, Any], split: str, store: Store | None, root: Path | None
) -> Source:
    if "dataset" in info:
        return samples_to_judge(info, split, root)
    return _segments(run, info, split, store)


def _segments(run: Path, info: Mapping[str, Any], split: str, store: Store | None) -> Segments:
    store = store or find_store(run, str(info.get("store", "")))
    if store.hash != info.get("store_hash"):
        raise BirdinvError(
            f"{store.path} is not the store this run was trained on (their hashes differ); give "
            "that one with --store, or segment the same recordings with the same settings again"
        )
    segments = Segments(store, read_roles(run)[split])
    if not len(segments):
        raise BirdinvError(
            f"the run {run} has no {split} recordings; segment more recordings a class, or give "
            "their share with --fractions"
        )
    return segments


def find_store(run: Path, named: str) -> Store:
    """The store a run was trained on, where it then was."""
    if not named:
        raise BirdinvError(f"{run / 'run.json'} names no store; give it with --store")
    path = Path(named)
    if not path.is_dir():
        raise BirdinvError(f"the run's store {path} is not there any more; give it with --store")
    return Store(path)
