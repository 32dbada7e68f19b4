"""Where the paths of a network meet, or one meets a constant: sums, products, what is put together.

A join is given the arguments of a call, what it gave, and how much each argument has grown so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from birdinv.spline.norms import of_matrix


class Bound(NamedTuple):
    """How much a difference of the input has grown at the most, by our constants and by SPL's."""

    upper: float
    paper: float

    def times(self, upper: float, paper: float | None = None) -> Bound:
        """After an operation of such constants; `paper` is `upper` where the paper has none."""
        return Bound(self.upper * upper, self.paper * (upper if paper is None else paper))


NOTHING = Bound(0.0, 0.0)

Given = Mapping[int, Bound]
"""By the `id` of each argument that depends on the input."""


def _spread(z: Any, out: Tensor, given: Given) -> Bound:
    """Of a part of `out` that is repeated to its shape."""
    if not isinstance(z, Tensor) or id(z) not in given:
        return NOTHING
    return given[id(z)].times(math.sqrt(max(1.0, out.numel() / max(1, z.numel()))))


def _added(parts: list[Any], named: Mapping[str, Any], out: Tensor, given: Given) -> Bound:
    a, b = (_spread(z, out, given) for z in parts[:2])
    alpha = abs(float(named.get("alpha", 1)))
    return Bound(a.upper + alpha * b.upper, a.paper + alpha * b.paper)


def _taken_from(parts: list[Any], named: Mapping[str, Any], out: Tensor, given: Given) -> Bound:
    return _added([parts[1], parts[0]], named, out, given)


def _joined(parts: list[Any], named: Mapping[str, Any], out: Tensor, given: Given) -> Bound:
    bounds = [given.get(id(z), NOTHING) for z in parts[0]]
    return Bound(*(math.hypot(*values) for values in zip(*bounds, strict=True)))


def _larger(parts: list[Any], named: Mapping[str, Any], out: Tensor, given: Given) -> Bound:
    bounds = [_spread(z, out, given) for z in parts[:2]]
    return Bound(*(math.hypot(*values) for values in zip(*bounds, strict=True)))


def _repeated(parts: list[Any], named: Mapping[str, Any], out: Tensor, given: Given) -> Bound:
    return _spread(parts[0], out, given)


def _scaled(parts: list[Any], named: Mapping[str, Any], out: Tensor, given: Given) -> Bound:
    a, b = parts[:2]
    if id(a) in given:
        a, b = b, a
    if id(a) in given:
        raise ValueError("the product of two layers stretches without bound")
    return _spread(b, out, given).times(_largest(a))


def _divided(parts: list[Any], named: Mapping[str, Any], out: Tensor, given: Given) -> Bound:
    a, b = parts[:2]
    if id(b) in given:
        raise ValueError("division by a layer stretches without bound")
    if named.get("rounding_mode") is not None:
        raise ValueError("a quotient that is rounded jumps")
    return _spread(a, out, given).times(_largest(1 / torch.as_tensor(b, dtype=torch.float64)))


def _multiplied(parts: list[Any], named: Mapping[str, Any], out: Tensor, given: Given) -> Bound:
    a, b = parts[:2]
    fixed, moving = (a, b) if id(b) in given else (b, a)
    if fixed.ndim != 2 or id(fixed) in given:
        raise ValueError("only products with a constant matrix are known here")
    norm = of_matrix(fixed)
    places = moving.numel() // fixed.shape[0 if fixed is b else 1]
    return given[id(moving)].times(norm.upper, norm.frobenius * math.sqrt(places))


def _largest(values: Any) -> float:
    return float(torch.as_tensor(values, dtype=torch.float64).abs().max())


Join = Callable[[list[Any], Mapping[str, Any], Tensor, Given], Bound]
JOINS: Mapping[str, Join] = {
    **dict.fromkeys(("add", "sub", "__add__", "__radd__", "__iadd__"), _added),
    **dict.fromkeys(("__sub__", "__rsub__", "__isub__"), _added),
    "rsub": _taken_from,
    **dict.fromkeys(("cat", "concat", "stack", "hstack", "vstack"), _joined),
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin"), _larger),
    **dict.fromkeys(("repeat", "expand", "expand_as", "tile"), _repeated),
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "__imul__"), _scaled),
    **dict.fromkeys(("div", "__truediv__", "__itruediv__", "true_divide"), _divided),
    **dict.fromkeys(("matmul", "__matmul__", "__rmatmul__", "mm"), _multiplied),
}
