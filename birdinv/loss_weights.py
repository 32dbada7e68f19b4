"""Weights of loss terms: constant or scheduled over steps (INV 13); see also `learned_weights`.

An objective takes a number, a schedule (a function from the step, from 0, to a number) or a tensor
wherever it takes a weight; with a schedule it is called as `objective(model, x, y, step=step)`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping

from torch import Tensor

Schedule = Callable[[int], float]
Weight = float | Schedule | Tensor


def check_weight(name: str, weight: Weight, most: float = math.inf) -> None:
    """Refuses a number that is not from 0 to `most`; schedules and tensors are seen when used."""
    if isinstance(weight, Tensor):
        if weight.numel() != 1:
            raise ValueError(f"{name} is a tensor {list(weight.shape)}; expected a single number")
    elif not callable(weight) and not (0 <= weight <= most and weight < math.inf):
        upto = "of at least 0" if most == math.inf else f"from 0 to {most:g}"
        raise ValueError(f"{name} is {weight}; expected a number {upto}")


def weight_at(
    name: str, weight: Weight, step: int | None, most: float = math.inf
) -> float | Tensor:
    """The value of a weight at a step.

    Raises:
        ValueError: a schedule without a step, or one that gave what `check_weight` refuses.
    """
    if isinstance(weight, Tensor):
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
    return lambda step: value


def linear(start: float, end: float, steps: int, *, begin: int = 0) -> Schedule:
    """`w(t) = (1 − r) start + r end`, `r = (t − begin) / steps` held in [0, 1].

    Example:
        >>> weight = linear(0, 0.5, steps=10, begin=5)
        >>> [weight(step) for step in (0, 5, 10, 15, 20)]
        [0.0, 0.0, 0.25, 0.5, 0.5]
    """
    return _between(start, end, steps, begin, lambda r: r)


def cosine(start: float, end: float, steps: int, *, begin: int = 0) -> Schedule:
    """`w(t) = (1 − s) start + s end`, `s = (1 − cos πr) / 2`, with the `r` of `linear`."""
    return _between(start, end, steps, begin, lambda r: (1 - math.cos(math.pi * r)) / 2)


def _between(
    start: float, end: float, steps: int, begin: int, shape: Callable[[float], float]
) -> Schedule:
    check_weight("start", start)
    check_weight("end", end)
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1")
    if begin < 0:
        raise ValueError(f"begin is {begin}; expected a step, from 0")

    def schedule(step: int) -> float:
        s = shape(min(max((step - begin) / steps, 0), 1))
        return (1 - s) * start + s * end

    return schedule


def piecewise(values: Mapping[int, float]) -> Schedule:
    """`w(t)` = the value of the last key that is at most `t`: `{0: 1.0, 1000: 0.5}`."""
    starts = sorted(values)
    if not starts or starts[0] != 0:
        raise ValueError(f"the steps are {starts}; expected the first to be 0")
    for start, value in values.items():
        check_weight(f"the value from step {start}", value)
    return lambda step: values[starts[max(bisect_right(starts, step), 1) - 1]]


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
