"""How far an input is from the nearest side of its region (SPL §3.4, A.5).

Inside a region every argument of a nonlinearity and every difference of a maximum is affine in the
input, `m_i(x') = m_i(x) + ⟨∇m_i, x' − x⟩`, and the region is where all of them keep their sign. So
the distance to its nearest side is `min_i |m_i(x)| / ‖∇m_i‖`, exactly.

There are as many units as the network is wide, and a gradient in the input for each is dear. The
norms of all gradients are estimated first, from products with some random vectors, which cost a
backward pass each for all units together; then units are looked at in the order of their estimated
distance, until the next one is estimated at more than `_SAFE` times the smallest that was found.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from birdinv.refusals import check_logits
from birdinv.spline.jacobian import jacobian_rows
from birdinv.spline.kinks import Kink, kinks
from birdinv.spline.modes import checked, judged, of_input_alone
from birdinv.spline.templates import CHUNK

_PROBES = 16
_SAFE = 4.0  # an estimate is too small by that with a probability of 6·10⁻⁸ (χ², 16 degrees)


def boundary_distance(
    model: nn.Module, x: Tensor, *, every: bool = False, chunk: int = CHUNK, seed: int = 0
) -> Tensor:
    """The distance of each input to the nearest side of its region, `[N]`, in its own units.

    The network is looked at in eval mode. It has to be piecewise affine: between two units the
    sides of the region of a smooth network are not planes.

    Args:
        model: gives logits `[N, K]` for `x`.
        x: inputs `[N, C, *S]`.
        every: look at every unit; else at those that random probes do not rule out, which misses
            the nearest with a probability of at most 6·10⁻⁸ for each unit.
        chunk: how many gradients in the input are computed at a time.
        seed: of the probes.

    Returns:
        Zero on a side; infinite where the network has none.

    Raises:
        TypeError, ValueError, RuntimeError: as `codes` and `birdinv.reconstruct`.
    """
    x = checked(model, x)
    if chunk < 1:
        raise ValueError(f"chunk={chunk}; expected how many gradients to compute at a time")
    generator = torch.Generator().manual_seed(seed)
    probes = torch.randn(_PROBES, *x.shape[1:], generator=generator).to(x)
    at_once = min(chunk, _AT_ONCE)
    with judged(model):
        parts = [
            _distance(model, part, every, probes, at_once)
            for part in torch.split(x, chunk // at_once)
        ]
    return torch.cat(parts)


_AT_ONCE = 16  # gradients of a sample, by one backward pass


def _distance(model: nn.Module, x: Tensor, every: bool, probes: Tensor, at_once: int) -> Tensor:
    start = x.clone().requires_grad_()
    kept: list[Tensor] = []

    def keep(kink: Kink) -> None:
        with torch.enable_grad():
            kept.append(kink.margins())

    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        with kinks(model, keep, len(x)):
            logits = of_input_alone(model, start)
        check_logits(logits, x)
        kept = [margins for margins in kept if margins.requires_grad]
        if not kept:
            return torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        margins = torch.cat(kept, dim=1)
    values = margins.detach()
    if every:
        guess = torch.where(values < torch.inf, values, torch.inf)
        reach = torch.inf
    else:
        norms = _estimated_norms(margins, start, probes)
        # A gradient that is zero, of a unit that the input does not reach, has no side.
        guess = torch.where((values < torch.inf) & (norms > 0), values / norms, torch.inf)
        reach = _SAFE
    return _nearest(margins, start, guess, reach, at_once)


def _nearest(margins: Tensor, x: Tensor, guess: Tensor, reach: float, at_once: int) -> Tensor:
    """The least distance among units in the order of `guess`, to `reach` times what is found."""
    order = guess.argsort(dim=1)
    sorted_guess = guess.gather(1, order)
    values = margins.detach()
    best = torch.full_like(values[:, 0], torch.inf)
    samples = torch.arange(len(values), device=values.device)
    for first in range(0, order.shape[1], at_once):
        ahead = sorted_guess[:, first]
        # On a side, as where a maximum is of equal numbers, there is nothing nearer.
        if not bool(((ahead < torch.inf) & (ahead <= reach * best) & (best > 0)).any()):
            break
        units = order[:, first : first + at_once]
        weights = values.new_zeros(units.shape[1], *values.shape)
        for r, unit in enumerate(units.T):
            weights[r, samples, unit] = 1.0
        norms = jacobian_rows(margins, x, weights).flatten(2).norm(dim=2).T
        margin = values.gather(1, units)
        there = (margin < torch.inf) & (norms > 0)
        found = torch.where(there, margin / torch.where(there, norms, 1.0), torch.inf)
        best = torch.minimum(best, found.amin(dim=1))
    return best


def _estimated_norms(margins: Tensor, x: Tensor, probes: Tensor) -> Tensor:
    """`√(mean of ⟨∇m_i, v⟩²)` over random `v`, for all units at once: backwards twice."""
    weights = torch.zeros_like(margins, requires_grad=True)
    (back,) = torch.autograd.grad(margins, x, weights, create_graph=True)
    total = torch.zeros_like(margins)
    for probe in probes:
        (along,) = torch.autograd.grad(back, weights, probe.expand_as(x), retain_graph=True)
        total += along.square()
    return (total / len(probes)).sqrt()
