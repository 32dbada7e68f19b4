"""Two runs side by side, on the same samples: what did training change inside? (SPL §4, A.5)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from birdinv.audio.store import Store
from birdinv.data.batches import Source
from birdinv.errors import BirdinvError, SettingError
from birdinv.evaluation import evaluate
from birdinv.files import read_json, require_new
from birdinv.inspection.findings import bracket, bracket_numbers, finite
from birdinv.networks.saved import load_model
from birdinv.spline.adversarial import robustness_curve, smallest_flips
from birdinv.spline.boundaries import boundary_distance
from birdinv.spline.lipschitz import Lipschitz
from birdinv.spline.measures import Generalisation
from birdinv.spline.regions import blocks, codes, count_regions
from birdinv.spline.templates import iter_templates
from birdinv.threads import cpu_threads
from birdinv.training.config import TrainConfig
from birdinv.training.learner import fresh_model
from birdinv.training.partition import read_roles
from birdinv.training.scoring import log_probabilities, samples_of_run

LEVELS_DB = tuple(float(level) for level in range(-80, 1, 4))
SEARCHED = 8  # samples that the search for a stretch begins at
EACH_CLASS = 12  # inputs of a class in the matrices of distances
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


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same samples.

    Attributes:
        split: "valid" or "test".
        samples: how many were looked into.
        silent: how many more were to be, and have nothing in them.
        classes: the K names.
        borders: where in the matrices of distances the next class begins.
    """

    a: Inside
    b: Inside
    split: str
    samples: int
    silent: int
    classes: list[str]
    borders: list[int]

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for `json.dump`."""
        return {
            "split": self.split,
            "samples": self.samples,
            "silent": self.silent,
            "levels_db": list(LEVELS_DB),
            "runs": {
                key: {
                    "name": one.name,
                    "measures": one.measures,
                    "robustness": one.robustness,
                    "active": one.active,
                    "regions": one.regions,
                    "sorting": one.sorting,
                    "lipschitz": bracket_numbers(one.bracket),
                }
                for key, one in (("a", self.a), ("b", self.b))
            },
        }


def compare_runs(
    runs: tuple[Path, Path],
    *,
    split: str = "valid",
    samples: int = 256,
    store: Path | None = None,
    root: Path | None = None,
    output: Path | None = None,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Measures two runs that are judged on the same samples.

    Args:
        runs: the two.
        split: "valid" or "test", of which accuracy and generalisation are those of all samples.
        samples: how many are looked into, evenly spread.
        store, root: where the data lies, if it has moved.
        output: refused before any work where it is taken.
        step: told (steps done, steps in all).

    Raises:
        BirdinvError: no such runs or data, or runs that are judged on different samples.
        SettingError: fewer than two samples.
    """
    if samples < 2:
        raise SettingError(f"--samples is {samples}; give two at least")
    if output is not None:
        require_new(output, "comparison")
    infos = [read_json(run / "run.json", "a run made by `birdinv train`") for run in runs]
    _require_same_samples(runs, infos, split)
    given = Store(store) if store is not None else None
    judged = samples_of_run(runs[0], split, store=given, root=root)
    count = min(samples, len(judged))
    spread = np.arange(count) * len(judged) // count
    which = spread[judged.inputs(spread).flatten(1).any(dim=1).numpy()]
    if len(which) < 2:
        raise BirdinvError(f"of {count} samples of the {split} set all but {len(which)} are silent")
    matrix, borders = _some_of_each_class(judged)
    names = [run.resolve().name for run in runs]
    if names[0] == names[1]:  # seed-0 of two rows
        names = ["/".join(run.resolve().parts[-2:]) for run in runs]
    found = []
    for number, (run, info, name) in enumerate(zip(runs, infos, names, strict=True)):

        def tell(done: int, number: int = number) -> None:
            step(number * STAGES + done, 2 * STAGES)

        with cpu_threads(1):
            learned = samples_of_run(run, "labelled", store=given, root=root)
            found.append(_inside(run, info, name, (judged, learned), which, matrix, tell))
    classes = load_model(runs[0])[1].classes
    silent = count - len(which)
    return Comparison(found[0], found[1], split, len(which), silent, classes, borders)


_SAME = {"classes": "classes", "store_hash": "stores", "dataset": "data sets"}  # of run.json


def _require_same_samples(runs: tuple[Path, Path], infos: list[dict[str, Any]], split: str) -> None:
    """That both runs are judged on the same; what they have learned from may differ."""
    differ = [what for key, what in _SAME.items() if infos[0].get(key) != infos[1].get(key)]
    if not differ and "store_hash" in infos[0]:
        roles = [read_roles(run)[split] for run in runs]
        differ = [f"{split} sets"] if roles[0] != roles[1] else []
    elif not differ and split == "valid":  # a test set of images is one and the same
        hashes = [info.get("split_hash") for info in infos]
        differ = ["validation sets"] if hashes[0] != hashes[1] else []
    if differ:
        raise BirdinvError(
            f"{runs[0]} and {runs[1]} differ in their {differ[0]}: compare runs that are tested on "
            "the same data"
        )


def _inside(
    run: Path,
    info: dict[str, Any],
    name: str,
    sources: tuple[Source, Source],
    which: np.ndarray,
    matrix: np.ndarray,
    tell: Callable[[int], None],
) -> Inside:
    """Everything about one run; `sources` are the samples it is judged on, and those it learned."""
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


def _some_of_each_class(samples: Source) -> tuple[np.ndarray, list[int]]:
    """(numbers of samples sorted by class, evenly spread in each; where the next class begins)."""
    labels = np.asarray(samples.labels)
    picked, borders = [], []
    for k in np.unique(labels[labels >= 0]):
        of_class = np.flatnonzero(labels == k)
        count = min(EACH_CLASS, len(of_class))
        picked.append(of_class[np.arange(count) * len(of_class) // count])
        borders.append(sum(len(part) for part in picked))
    return np.concatenate(picked), borders[:-1]
