"""Weights of loss terms: constant or scheduled over steps (INV 13); see also `learned_weights`.

An objective takes a number, a schedule (a function from the step, from 0, to a number) or a tensor
wherever it takes a weight; with a schedule it is called as `objective(model, x, y, step=step)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Schedule = Callable[[int], float]
Weight = float | Schedule | Tensor


def check_weight(name: str, weight: Weight, most: float = math.inf) -> None:
    """Refuses a number that is not from 0 to `most`; a schedule is seen when it is used."""
    if isinstance(weight, Tensor):
        if weight.numel() != 1:
            raise ValueError(f"{name} is a tensor {list(weight.shape)}; expected a single number")
        if weight.device.type != "cpu":  # looking would mean waiting
            return
        weight = weight.item()
    if callable(weight):
        return
    if not isinstance(weight, int | float):
        raise TypeError(
            f"{name} is {weight!r:.40}; expected a number, a schedule (a function from the step) "
            "or a tensor of one number"
        )
    if not (0 <= weight <= most and weight < math.inf):
        upto = "of at least 0" if most == math.inf else f"from 0 to {most:g}"
        raise ValueError(f"{name} is {weight}; expected a number {upto}")


def weight_at(
    name: str, weight: Weight, step: int | None, most: float = math.inf
) -> float | Tensor:
    """The value of a weight at a step.

    Raises:
        TypeError, ValueError: a schedule without a step, or a value that `check_weight` refuses.
    """
    if isinstance(weight, Tensor):
        check_weight(name, weight, most)
        return weight.reshape(())
    if callable(weight):
        if step is None:
            raise ValueError(f"{name} follows a schedule: call the objective with step=…, from 0")
        weight = weight(step)
        check_weight(f"{name} at step {step}", weight, most)
    return weight


def constant(value: float) -> Schedule:
    """`w(t) = value`."""
    check_weight("value", value)
    return piecewise({0: value})


def linear(start: float, end: float, steps: int, *, begin: int = 0) -> Schedule:
    """`w(t) = (1 − r) start + r end`, `r = (t − begin) / steps` held in [0, 1].

    Example:
        >>> weight = linear(0, 0.5, steps=10, begin=5)
        >>> [weight(step) for step in (0, 5, 10, 15, 20)]
        [0.0, 0.0, 0.25, 0.5, 0.5]
    """
    return _Ramp(start, end, steps, begin, half_cosine=False)


def cosine(start: float, end: float, steps: int, *, begin: int = 0) -> Schedule:
    """`w(t) = (1 − s) start + s end`, `s = (1 − cos πr) / 2`, with the `r` of `linear`."""
    return _Ramp(start, end, steps, begin, half_cosine=True)


def piecewise(values: Mapping[int, float]) -> Schedule:
    """`w(t)` = the value of the last key that is at most `t`: `{0: 1.0, 1000: 0.5}`."""
    return _Pieces(dict(sorted(values.items())))


# Classes and not closures: an objective is pickled on its way to other processes.
@dataclass(frozen=True)
class _Ramp:
    start: float
    end: float
    steps: int
    begin: int
    half_cosine: bool

    def __post_init__(self) -> None:
        check_weight("start", self.start)
        check_weight("end", self.end)
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; expected at least 1")
        if self.begin < 0:
            raise ValueError(f"begin is {self.begin}; expected a step, from 0")

    def __call__(self, step: int) -> float:
        s = min(max((step - self.begin) / self.steps, 0), 1)
        if self.half_cosine:
            s = (1 - math.cos(math.pi * s)) / 2
        return (1 - s) * self.start + s * self.end


@dataclass(frozen=True)
class _Pieces:
    values: dict[int, float]

    def __post_init__(self) -> None:
        if next(iter(self.values), None) != 0:
            raise ValueError(f"the steps are {list(self.values)}; expected the first to be 0")
        for start, value in self.values.items():
            check_weight(f"the value from step {start}", value)

    def __call__(self, step: int) -> float:
        begun = [value for start, value in self.values.items() if start <= max(step, 0)]
        return begun[-1]


def reconstruction_first(
    steps: int,
    *,
    alpha: float = 1.0,
    beta: float = 0.1,
    gamma: float = 1.0,
    kept: float = 0.1,
    begin: int = 0,
) -> dict[str, Schedule]:
    """Weights "favoring reconstruction at the beginning to then switch to classification" (INV §4).

    `α(t) = s α`, `β(t) = s β`, `γ(t) = (1 − s) γ + s kept γ`, where `s` rises from 0 to 1 with half
    a cosine over `steps` steps: `LayerWeightedObjective(**reconstruction_first(1000))`. When it is
    how long and what is kept are ours; the paper gives no numbers.

    Args:
        steps: length of the switch.
        alpha, beta: of labels and entropy after it.
        gamma: of the reconstruction before it, of the input and all layers alike.
        kept: the part of gamma that remains after it, in [0, 1].
        begin: step at which the switch begins; before it there is reconstruction alone.
    """
    check_weight("kept", kept, most=1)
    return {
        "alpha": cosine(0, alpha, steps, begin=begin),
        "beta": cosine(0, beta, steps, begin=begin),
        "gamma": cosine(gamma, kept * gamma, steps, begin=begin),
    }
