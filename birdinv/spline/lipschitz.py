"""How much a network stretches a difference of its inputs: a bracket (SPL 67–72).

    lower · ‖x − y‖ ≤ max ‖f(x) − f(y)‖ ≤ upper · ‖x − y‖

Upper bounds go through the network with the numbers, call by call: a layer multiplies by its
constant, what is added adds, what is put side by side adds in squares. So residual networks and
loops are bounded as they run. The lower bound is what the network does to two inputs that were
found.

The constants here are of norms; the paper's are of their squares (K of SPL 67 is the square).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from birdinv.refusals import check_logits, survey
from birdinv.spline.ascent import stretched_most
from birdinv.spline.joins import NOTHING
from birdinv.spline.tracing import Layer, Tracer


@dataclass(frozen=True)
class Lipschitz:
    """What is known of a network's Lipschitz constant, from its inputs to its logits.

    Attributes:
        lower: two inputs were found that are stretched by that.
        upper: no two are stretched by more.
        paper: the upper bound of SPL 72, from the constants of SPL 68–71.
        layers: a row for each operation, in the order of their calls.
        x, direction: where the lower bound was found, each `[C, *S]`.
    """

    lower: float
    upper: float
    paper: float
    layers: tuple[Layer, ...]
    x: Tensor = field(repr=False)
    direction: Tensor = field(repr=False)


def lipschitz(
    model: nn.Module,
    shape: Sequence[int],
    *,
    points: Tensor | None = None,
    steps: int = 100,
    seed: int = 0,
) -> Lipschitz:
    """Bounds of `‖f(x) − f(y)‖ / ‖x − y‖` over all inputs, in eval mode, in double precision.

    A copy of the network is looked at, on the CPU. A module of one's own in it whose forward is
    beyond the rules can state its constant as an attribute `lipschitz_constant`, or a forward of
    torch's functions that gives the same as a method `plain`.

    Args:
        model: gives logits `[N, K]`.
        shape: of one input, without the batch.
        points: inputs to begin the search for the lower bound at, `[N, C, *S]`; None = random ones.
        steps: of that search.
        seed: of random inputs and vectors.

    Raises:
        TypeError, RuntimeError: as `birdinv.reconstruct`.
        ValueError: an operation without a constant or without a rule here, such as the product of
            two layers, which stretches without bound; logits that are not `[N, K]`.

    Reference: SPL theorem 6, eqs. 67–72.
    """
    survey(model)
    if isinstance(model, DistributedDataParallel):
        model = model.module
    try:
        model = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    except RuntimeError as error:
        raise ValueError(
            f"the network cannot be copied ({error}); if it is pruned, make that permanent first, "
            "with torch.nn.utils.prune.remove"
        ) from error
    for module in model.modules():
        if plain := getattr(type(module), "plain", None):
            module.forward = MethodType(plain, module)
    generator = torch.Generator().manual_seed(seed)
    if points is None:
        points = torch.randn(_POINTS, *shape, generator=generator, dtype=torch.float64)
    points = points.detach().cpu().double()
    if not len(points) or tuple(points.shape[1:]) != tuple(shape):
        raise ValueError(f"points of shape {tuple(points.shape)}; expected [N, *{tuple(shape)}]")
    tracer = Tracer()
    x = points[:1].clone().requires_grad_()
    with torch.enable_grad(), tracer.following(model, x):
        logits = model(x)
        check_logits(logits, x)
        bound = tracer.bound_of(logits) or NOTHING
    lower, at, direction = stretched_most(model, points, steps, generator)
    return Lipschitz(lower, bound.upper, bound.paper, tuple(tracer.layers), at, direction)


_POINTS = 8
