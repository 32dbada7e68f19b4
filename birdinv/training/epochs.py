"""Rows of `metrics.csv`, one a validation, and what they say: the best one, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from birdinv.data.batches import Source
from birdinv.evaluation import accuracies
from birdinv.training.alarms import SHARES
from birdinv.training.scoring import Reconstruct, layer_errors, log_probabilities

TERMS = (
    *("total", "cross_entropy", "entropy", "reconstruction"),
    *("balance", "consistency", "sparsity"),
)
COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    *TERMS,
    "train_accuracy",
    "agreement",
    "valid_cross_entropy",
    "valid_accuracy",
    "valid_recording_accuracy",
    "seconds",
)


ERROR = "valid_reconstruction_"  # and the name of a layer


def metric_columns(model: nn.Module, classes: Sequence[str]) -> list[str]:
    """The columns of `metrics.csv`: the same for every network but for its layers and classes."""
    layers: Sequence[str] = model.layers  # type: ignore[assignment]  # all our networks have them
    errors = (ERROR + name for name in ("input", *layers))
    return [*COLUMNS, *errors, *(SHARES + name for name in classes)]


def train_cells(sums: Mapping[str, float], steps: int, classes: Sequence[str]) -> dict[str, str]:
    """The means over `steps` steps; a term the objective lacks stays empty.

    `agreement` is the share of unlabelled samples with a group that are predicted to be of the
    class that their group as a whole is; behind the other columns stand the shares of all
    unlabelled samples that are predicted to be of each class.
    """
    cells = {name: f"{sums[name] / steps:.6f}" for name in TERMS if name in sums}
    cells["train_accuracy"] = f"{sums['right'] / max(1.0, sums['known']):.6f}"
    if sums.get("grouped"):
        cells["agreement"] = f"{sums['agreeing'] / sums['grouped']:.6f}"
    counts = [sums.get(SHARES + name, 0.0) for name in classes]
    if sum(counts):
        shares = (f"{count / sum(counts):.6f}" for count in counts)
        cells |= zip((SHARES + name for name in classes), shares, strict=True)
    return cells


def valid_cells(
    model: nn.Module, valid: Source, device: torch.device, reconstruct: Reconstruct
) -> dict[str, str]:
    """How validation stands; nothing without validation samples.

    Args:
        reconstruct: the objective's.
    """
    if not len(valid):
        return {}
    log_probs = log_probabilities(model, valid, device)
    labels, recordings = valid.labels, valid.recordings
    by_sample, by_recording = accuracies(log_probs, labels, recordings)
    loss = functional.nll_loss(torch.from_numpy(log_probs), torch.from_numpy(labels))
    errors = layer_errors(model, valid, device, reconstruct)
    pieces = len(np.unique(recordings)) < len(labels)  # an image is no piece of anything
    return {
        "valid_cross_entropy": f"{float(loss):.6f}",
        "valid_accuracy": f"{by_sample:.6f}",
        "valid_recording_accuracy": f"{by_recording:.6f}" if pieces else "",
        **{ERROR + name: f"{error:.6g}" for name, error in errors.items()},
    }


def best_row(rows: Sequence[Mapping[str, str]], keep: str = "best") -> int | None:
    """Number, from 1, of the row whose weights to keep; None before there is one.

    The best validation accuracy per sample counts, of equal ones the lower cross-entropy; without
    validation, or if the last is to be kept, it is the last row.
    """
    if not rows or not rows[-1]["valid_accuracy"] or keep == "last":
        return len(rows) or None
    return 1 + max(
        range(len(rows)),
        key=lambda i: (float(rows[i]["valid_accuracy"]), -float(rows[i]["valid_cross_entropy"])),
    )


def stops_early(rows: Sequence[Mapping[str, str]], patience: int, keep: str = "best") -> bool:
    """Whether `patience` validations have passed since the best one; never if the last is kept."""
    return len(rows) - (best_row(rows, keep) or 0) >= patience and keep == "best"


def note(rows: Sequence[Mapping[str, str]]) -> str:
    """A few words for the progress bar."""
    if not rows:
        return "epoch 0"
    accuracy = rows[-1]["valid_accuracy"]
    valid = f", valid {float(accuracy):.3f}" if accuracy else ""
    return f"epoch {rows[-1]['epoch']}{valid}"
