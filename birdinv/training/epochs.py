"""Epochs as rows of `metrics.csv`, and what the rows say: the best one, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from birdinv.data.batches import Segments
from birdinv.evaluation import accuracies
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


def train_cells(sums: Mapping[str, float], steps: int) -> dict[str, str]:
    """The means over an epoch of `steps` steps; a term the objective lacks stays empty."""
    cells = {name: f"{sums[name] / steps:.6f}" for name in TERMS if name in sums}
    return cells | {"train_accuracy": f"{sums['right'] / max(1.0, sums['known']):.6f}"}


def valid_cells(model: nn.Module, valid: Segments, device: torch.device) -> dict[str, str]:
    """How validation stands; nothing without validation recordings."""
    if not len(valid):
        return {}
    log_probs = log_probabilities(model, valid, device)
    by_segment, by_recording = accuracies(log_probs, valid.labels, valid.recordings)
    loss = functional.nll_loss(torch.from_numpy(log_probs), torch.from_numpy(valid.labels))
    return {
        "valid_cross_entropy": f"{float(loss):.6f}",
        "valid_segment_accuracy": f"{by_segment:.6f}",
        "valid_recording_accuracy": f"{by_recording:.6f}",
    }


def best_epoch(rows: Sequence[Mapping[str, str]]) -> int | None:
    """Number, from 1, of the epoch to keep; None before the first has ended.

    The best validation accuracy per segment counts, of equal ones the lower cross-entropy; without
    validation it is the last epoch.
    """
    if not rows or not rows[-1]["valid_segment_accuracy"]:
        return len(rows) or None
    return 1 + max(
        range(len(rows)),
        key=lambda i: (
            float(rows[i]["valid_segment_accuracy"]),
            -float(rows[i]["valid_cross_entropy"]),
        ),
    )


def stops_early(rows: Sequence[Mapping[str, str]], patience: int) -> bool:
    """Whether `patience` epochs have passed since the best one."""
    return len(rows) - (best_epoch(rows) or 0) >= patience


def note(rows: Sequence[Mapping[str, str]], epochs: int) -> str:
    """A few words for the progress bar of a run of so many epochs."""
    accuracy = rows[-1]["valid_segment_accuracy"] if rows else ""
    return f"epoch {min(len(rows) + 1, epochs)}" + (
        f", valid {float(accuracy):.3f}" if accuracy else ""
    )
