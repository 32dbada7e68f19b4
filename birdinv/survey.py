"""What a network makes of whole recordings: how unsure it is, what they are like, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from birdinv.data.batches import Segments
from birdinv.errors import BirdinvError
from birdinv.ranking import DIGITS, units_of

BATCH = 512


@dataclass(frozen=True)
class Surveyed:
    """What a network makes of one recording, row `row` of `recordings.csv`.

    Attributes:
        mean: `ŷ` averaged over its segments, float64 `[K]`.
        uncertainty: entropy of `mean` over log K, in [0, 1].
        embedding: mean of what the last dense layer is given, of length 1, float64 `[E]`.
        starts: first samples of its segments, positions in `store.audio`, int64 `[S]`.
        entropies: of each segment's `ŷ` over log K, float64 `[S]`.
    """

    row: int
    mean: np.ndarray
    uncertainty: float
    embedding: np.ndarray
    starts: np.ndarray
    entropies: np.ndarray


def survey(
    model: nn.Module, segments: Segments, device: torch.device, *, batch: int = BATCH
) -> Iterator[Surveyed]:
    """What a network makes of each recording with segments, in eval mode, in the store's order.

    Every recording is heard by itself: what is found does not depend on the others.

    Raises:
        BirdinvError: a network without a dense layer (`nn.Linear`), which embeddings are taken at.
    """
    dense = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not dense:
        raise BirdinvError(
            f"the network {type(model).__name__} has no dense layer to compare recordings by; "
            "train one that ends in one, such as bird10"
        )
    rows = segments.recordings
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    for first, end in zip(firsts, [*firsts[1:], len(rows)], strict=True):
        which = np.arange(first, end)
        log_probs, hidden = _answers(model, dense[-1], segments, which, device, batch)
        mean = np.exp(log_probs).mean(axis=0)
        yield Surveyed(
            row=int(rows[first]),
            mean=mean,
            uncertainty=float(_entropy(np.log(np.maximum(mean, 1e-300)))),
            embedding=units_of(hidden[None])[0],
            starts=segments.starts(which),
            entropies=_entropy(log_probs),
        )


@torch.no_grad()
def _answers(
    model: nn.Module,
    dense: nn.Module,
    segments: Segments,
    which: np.ndarray,
    device: torch.device,
    batch: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(log ŷ `[S, K]`, mean input of the layer `dense` `[E]`) on some segments, float64."""
    log_probs: list[Tensor] = []
    hidden: list[Tensor] = []

    def keep(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        hidden.append(arguments[0].detach().flatten(1).double().sum(dim=0).cpu())

    training = model.training
    handle = dense.register_forward_pre_hook(keep)
    model.eval()
    try:
        for part in np.array_split(which, -(-len(which) // batch)):
            logits = model(segments.inputs(part).to(device))
            log_probs.append(torch.log_softmax(logits.double(), dim=1).cpu())
    finally:
        handle.remove()
        model.train(training)
    return torch.cat(log_probs).numpy(), (torch.stack(hidden).sum(dim=0) / len(which)).numpy()


def _entropy(log_probs: np.ndarray) -> np.ndarray:
    """Entropy over log K along the last axis, in [0, 1]."""
    most = np.log(max(2, log_probs.shape[-1]))
    return np.asarray(np.clip(-(np.exp(log_probs) * log_probs).sum(axis=-1) / most, 0.0, 1.0))


def worth_hearing(
    starts: np.ndarray, entropies: np.ndarray, segment: int, longest: int
) -> tuple[int, int]:
    """(first, end) sample of the stretch whose segments add up to the largest entropy.

    It begins where a segment begins and ends where one ends, `longest` samples later at the most;
    of a segment longer than that its beginning. Of equal ones it is the first.

    Args:
        starts: first samples of a recording's segments, int64 `[S]`.
        entropies: of each, `[S]`.
        segment: length of a segment in samples.
        longest: of the stretch, in samples.
    """
    order = np.argsort(starts, kind="stable")  # annotated spans may overlap
    starts, sums = starts[order], np.concatenate([[0.0], np.cumsum(entropies[order])])
    here = np.arange(len(starts))
    ends = np.searchsorted(starts, starts + (longest - segment), side="right")
    ends = np.maximum(ends, here + 1)
    best = int(np.argmax(np.round(sums[ends] - sums[here], DIGITS)))
    first = int(starts[best])
    return first, min(int(starts[ends[best] - 1]) + segment, first + longest)
