"""Rows of a Jacobian, several at once."""

from __future__ import annotations

import torch
from torch import Tensor

from birdinv.refusals import independent

_FEW = 12  # samples


def jacobian_rows(outputs: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """`weightsᵀ d(outputs)/dx` for several weightings at once: `[R, N, …]` to `[R, N, C, *S]`.

    One backward pass over all of them where every operation of the network has a rule for that,
    else one for each. On a CPU the first is up to twice as quick for few samples, and what it moves
    about in memory is no gain for many. The graph stays.
    """
    if outputs.device.type == "cpu" and len(outputs) > _FEW:
        return _one_by_one(outputs, x, weights)
    try:
        (rows,) = torch.autograd.grad(
            outputs, x, weights, retain_graph=True, is_grads_batched=True, allow_unused=True
        )
    except (RuntimeError, NotImplementedError):  # an operation without a rule for batched gradients
        return _one_by_one(outputs, x, weights)
    if rows is None:
        raise independent("the input")
    batched: Tensor = rows
    return batched


def _one_by_one(outputs: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    rows: Tensor | None = None
    for r, weight in enumerate(weights):
        (row,) = torch.autograd.grad(outputs, x, weight, retain_graph=True, allow_unused=True)
        if row is None:
            raise independent("the input")
        if rows is None:
            rows = row.new_empty(len(weights), *row.shape)
        rows[r] = row
    if rows is None:
        raise ValueError("no weightings; give one at least")
    return rows
