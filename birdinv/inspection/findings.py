"""What is found inside a network for one input, and of the network itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from birdinv.inspection.subjects import Subject
from birdinv.spline.adversarial import Flips, smallest_flips
from birdinv.spline.boundaries import boundary_distance
from birdinv.spline.lipschitz import Lipschitz, lipschitz
from birdinv.spline.regions import codes
from birdinv.spline.templates import Templates, templates
from birdinv.threads import cpu_threads


@dataclass(frozen=True)
class Finding:
    """One input, looked into.

    Attributes:
        classes: the K names.
        templates: of the one input.
        probabilities: `[K]`.
        flips: the smallest step found that changes the prediction.
        boundary: distance to the nearest side of the region.
        active: of each nonlinearity, the share of units that pass their argument on.
        bits: of each code.
    """

    subject: Subject
    classes: Sequence[str]
    templates: Templates
    probabilities: np.ndarray
    flips: Flips
    boundary: float
    active: Mapping[str, float]
    bits: Mapping[str, int]

    @property
    def guess(self) -> int:
        """The predicted class."""
        return int(self.flips.before[0])

    @property
    def fooled(self) -> bool:
        """Whether a step was found that changes the prediction."""
        return bool(torch.isfinite(self.flips.norm[0]))

    @property
    def error(self) -> float:
        """`‖x̂ − x‖² / ‖x‖²` of the reconstruction: 1 for an empty one."""
        x, x_hat = self.subject.x, self.templates.reconstruction
        return float((x_hat - x).square().sum() / x.square().sum())

    @property
    def length(self) -> float:
        """`‖x‖`."""
        return float(self.subject.x.norm())

    @property
    def to_optimal(self) -> float | None:
        """Distance to the best templates for the true class, or the predicted one (theorem 5)."""
        if len(self.classes) < 2:
            return None
        truth = self.subject.truth
        k = self.guess if truth is None else list(self.classes).index(truth)
        return finite(float(self.templates.distance_to_optimal(torch.tensor([k]))[0]))

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for `json.dump`."""
        found, flips = self.templates, self.flips
        names = list(self.classes)
        return {
            "name": self.subject.name,
            "start_s": self.subject.start_s,
            "note": self.subject.note,
            "truth": self.subject.truth,
            "guess": names[self.guess],
            "length": self.length,
            "reconstruction_error": self.error,
            "classes": {
                name: {
                    "probability": float(self.probabilities[k]),
                    "match": float(found.match[0, k]),
                    "bias": float(found.b[0, k]),
                    "gap": float(found.gap[0, k]),
                    "cosine": float(found.cosine[0, k]),
                    "norm": float(found.A[0, k].norm()),
                }
                for k, name in enumerate(names)
            },
            "template_correlation": found.correlation[0].tolist(),
            "distance_to_optimal": self.to_optimal,
            "boundary_distance": finite(self.boundary),
            "flip": {
                "to": names[int(flips.after[0])],
                "norm": float(flips.norm[0]),
                "level_db": float(flips.level_db[0]),
            }
            if self.fooled
            else None,
            "active": dict(self.active),
            "code_bits": dict(self.bits),
        }


def look(model: nn.Module, classes: Sequence[str], subject: Subject) -> Finding:
    """Everything the page shows of one input; the same numbers on any number of cores."""
    x = subject.x
    with cpu_threads(1):
        found = templates(model, x)
        kinks = codes(model, x)
        return Finding(
            subject=subject,
            classes=classes,
            templates=found,
            probabilities=found.logits[0].double().softmax(dim=0).numpy(),
            flips=smallest_flips(model, x),
            boundary=float(boundary_distance(model, x)[0]),
            active={n: float(c.active[0]) for n, c in kinks.items() if c.slopes is not None},
            bits={name: code.bits * code.choices.shape[1] for name, code in kinks.items()},
        )


def bracket(model: nn.Module, shape: Sequence[int], points: Tensor) -> Lipschitz | str:
    """The Lipschitz bracket of a network, or the sentence that says why there is none."""
    try:
        with cpu_threads(1):
            return lipschitz(model, shape, points=points)
    except ValueError as error:
        return str(error)


def finite(value: float) -> float | None:
    """The value, None for what JSON has no number for."""
    return value if np.isfinite(value) else None


def bracket_numbers(bound: Lipschitz | str) -> dict[str, Any]:
    """The bracket and its layers, or why there is none, ready for `json.dump`."""
    if isinstance(bound, str):
        return {"unknown": bound}
    return {
        "lower": bound.lower,
        "upper": bound.upper,
        "paper": bound.paper,
        "layers": [vars(layer) for layer in bound.layers],
    }
