"""What is found in one run, on samples it is judged on and those it learned from (SPL §4, A.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from birdinv.data.batches import Source
from birdinv.evaluation import evaluate
from birdinv.inspection.findings import bracket, finite
from birdinv.networks.saved import load_model
from birdinv.spline.adversarial import robustness_curve, smallest_flips
from birdinv.spline.boundaries import boundary_distance
from birdinv.spline.lipschitz import Lipschitz
from birdinv.spline.measures import Generalisation
from birdinv.spline.regions import blocks, codes, count_regions
from birdinv.spline.templates import iter_templates
from birdinv.training.config import TrainConfig
from birdinv.training.learner import fresh_model
from birdinv.training.scoring import log_probabilities

LEVELS_DB = tuple(float(level) for level in range(-80, 1, 4))
SEARCHED = 8  # samples that the search for a stretch begins at
BATCH = 64
STAGES = 6  # of a look at one run, told as progress


class Sorting(TypedDict):
    """Mean distances of the codes of two inputs of one class, and of different ones."""

    within_before: float | None
    between_before: float | None
    within: float | None
    between: float | None


@dataclass(frozen=True)
class Inside:
    """What is found in one run.

    Attributes:
        name: of its folder.
        measures: name → number, None where there is none.
        robustness: the share named right under steps of `LEVELS_DB`.
        active: of each nonlinearity, the mean share of active units.
        regions: of each code, how many regions the samples visit, of that layer alone.
        sorting: of each code, mean distances within classes and between them, before training
            and after.
        bracket: or the sentence that says why no bound is known.
        distances: of each code, `[M, M]` before and after training, inputs sorted by class.
    """

    name: str
    measures: dict[str, float | None]
    robustness: list[float]
    active: dict[str, float]
    regions: dict[str, int]
    sorting: dict[str, Sorting]
    bracket: Lipschitz | str
    distances: dict[str, tuple[np.ndarray, np.ndarray]]


def look_inside(
    run: Path,
    info: dict[str, Any],
    name: str,
    sources: tuple[Source, Source],
    which: np.ndarray,
    matrix: np.ndarray,
    tell: Callable[[int], None],
) -> Inside:
    """Everything about one run.

    Args:
        info: its `run.json`.
        name: for people.
        sources: all samples it is judged on, and all labelled ones it learned from.
        which: numbers of those it is judged on that are looked into, int64 `[N]`.
        matrix: and of those whose regions are compared, sorted by class, `[M]`.
        tell: told how many of `STAGES` are done.

    Raises:
        BirdinvError: no such run, or one that is damaged.
    """
    model, description = load_model(run)
    judged, learned = sources
    cpu = torch.device("cpu")
    x, y = judged.inputs(which), judged.classes(which)
    log_probs = log_probabilities(model, judged, cpu)
    result = evaluate(log_probs, judged.labels, judged.recordings, description.classes, resamples=0)
    tell(1)
    wrong = log_probabilities(model, learned, cpu).argmax(axis=1) != learned.labels
    general = Generalisation(float(wrong.mean()), 1 - result.segment_accuracy)
    tell(2)
    measures: dict[str, float | None] = {
        "segment_accuracy": result.segment_accuracy,
        "recording_accuracy": result.recording_accuracy,
        "training_accuracy": 1 - general.train_error,
        "generalisation_gap": general.gap,
        "generalisation_objective": general.objective,
        **_of_templates(model, x, y),
    }
    tell(3)
    flips = smallest_flips(model, x)
    measures["flip_db"] = finite(float(flips.level_db.median()))
    tell(4)
    away = boundary_distance(model, x) / x.flatten(1).norm(dim=1)
    measures["boundary_db"] = finite(float(20 * away.log10().median()))
    codes_of_x = codes(model, x)
    active = {n: float(c.active.mean()) for n, c in codes_of_x.items() if c.slopes is not None}
    visited = count_regions(model, torch.split(x, BATCH)).layers
    distances, sorting = _distances(model, description.sizes, info, judged, matrix)
    tell(5)
    bound = bracket(model, description.sizes["shape"], x[:SEARCHED])
    sides = (None, None) if isinstance(bound, str) else (bound.lower, bound.upper)
    measures["lipschitz_lower"], measures["lipschitz_upper"] = sides
    tell(6)
    known = {key: None if v is None else finite(v) for key, v in measures.items()}
    curve = robustness_curve(flips, y, LEVELS_DB)
    return Inside(name, known, curve, active, visited, sorting, bound, distances)


def _of_templates(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float | None]:
    """Means over the samples of what their templates say."""
    sums: dict[str, float] = dict.fromkeys(
        (
            *("reconstruction", "reconstruction_cosine", "cosine_predicted", "cosine_true"),
            *("cosine_others", "optimal", "bias"),
        ),
        0.0,
    )
    first = 0
    for part in iter_templates(model, x):
        n = torch.arange(len(part.x))
        true, said = y[first : first + len(n)], part.logits.argmax(dim=1)
        first += len(n)
        cosine, others = part.cosine, part.cosine.shape[1] - 1
        x_hat, z = part.reconstruction.flatten(1), part.x.flatten(1)
        error = (x_hat - z).square().sum(dim=1) / z.square().sum(dim=1)
        alike = functional.cosine_similarity(x_hat, z, dim=1)
        sums["reconstruction"] += float(error.sum())
        sums["reconstruction_cosine"] += float(alike.sum())
        sums["cosine_predicted"] += float(cosine[n, said].sum())
        sums["cosine_true"] += float(cosine[n, true].sum())
        sums["cosine_others"] += float(((cosine.sum(dim=1) - cosine[n, true]) / others).sum())
        sums["optimal"] += float(part.distance_to_optimal(true).sum())
        sums["bias"] += float((part.b.norm(dim=1) / part.logits.norm(dim=1)).sum())
    return {name: total / len(x) for name, total in sums.items()}


def _distances(
    model: nn.Module,
    sizes: dict[str, Any],
    info: dict[str, Any],
    judged: Source,
    which: np.ndarray,
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, Sorting]]:
    """Distances of regions before and after training, and the means of their blocks."""
    x, y = judged.inputs(which), judged.classes(which)
    config = TrainConfig(**{k: v for k, v in info["config"].items() if k in _FIELDS})
    fresh = fresh_model(config, int(sizes["classes"]), tuple(sizes["shape"]))
    before, after = codes(fresh, x), codes(model, x)
    pairs, means = {}, {}
    for name, code in after.items():
        both = before[name].distances(), code.distances()
        pairs[name] = (both[0].numpy(), both[1].numpy())
        numbers = [finite(value) for matrix in both for value in blocks(matrix, y)]
        means[name] = Sorting(**dict(zip(Sorting.__annotations__, numbers, strict=True)))  # type: ignore[typeddict-item]
    return pairs, means


_FIELDS = TrainConfig.__dataclass_fields__
