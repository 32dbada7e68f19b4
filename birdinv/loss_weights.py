"""Weights of loss terms: constant, scheduled over steps, or learned (INV 13 to 15, MS §4).

An objective takes a number, a schedule (a function from the step, from 0, to a number) or a tensor
wherever it takes a weight; with a schedule it is called as `objective(model, x, y, step=step)`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Schedule = Callable[[int], float]
Weight = float | Schedule | Tensor


def check_weight(name: str, weight: Weight, most: float = float("inf")) -> None:
    """Refuses a number that is not from 0 to `most`; schedules and tensors are seen when used."""
    if isinstance(weight, Tensor):
        if weight.numel() != 1:
            raise ValueError(f"{name} is a tensor {list(weight.shape)}; expected a single number")
    elif not callable(weight) and not 0 <= weight <= most:
        upto = "of at least 0" if most == float("inf") else f"from 0 to {most:g}"
        raise ValueError(f"{name} is {weight}; expected a number {upto}")


def weight_at(
    name: str, weight: Weight, step: int | None, most: float = float("inf")
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


class LearnedWeights:
    pass
