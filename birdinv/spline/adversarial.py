"""How a network could be fooled: the smallest steps that change its prediction (SPL §4.3).

Within a region `f_k − f_c` is affine, so the shortest way to where class k overtakes the predicted
class c is known: along the difference of their templates, by `(f_c − f_k) / ‖A_k − A_c‖`. Regions
end, so the step is taken again from where it led (DeepFool, Moosavi-Dezfooli et al. 2016). The
paper's direction, `dŷ_k/dx` (SPL 64), is tried beside it, for every class k. Along each way that
flips the prediction the first place where it flips is sought, and the shortest of all is the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from birdinv.refusals import check_logits
from birdinv.spline.jacobian import jacobian_rows
from birdinv.spline.modes import checked, judged
from birdinv.spline.templates import CHUNK, class_count

_ITERATIONS = 30  # of the step from region to region
_BEYOND = 1.002  # how far a step goes past the plane that it is to cross
_PLACES = 24  # looked at along a way, closer near its start, to find the first flip
_HALVINGS = 18  # of the stretch that it lies in: its place to 10⁻⁶ of the way
_FURTHEST = 10.0  # lengths of the input that a way is followed


@dataclass(frozen=True)
class Flips:
    """For each input the smallest step that was found to change the prediction.

    Attributes:
        step: `[N, C, *S]`; added to the input it changes the prediction. Zero where none was found.
        norm: its length `[N]`, in the units of the input; infinite where none was found.
        level_db: `20 log₁₀(‖step‖ / ‖x‖) [N]`: how loud it is beside the input; infinite where
            none was found, and for an input that is zero.
        before, after: the classes `[N]`; equal where none was found.
    """

    step: Tensor
    norm: Tensor
    level_db: Tensor
    before: Tensor
    after: Tensor


def adversarial_direction(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """`dŷ_k / dx` for the target class k of each input, like `x` (SPL 64).

    Args:
        target: classes `[N]`.

    Raises:
        TypeError, ValueError, RuntimeError: as `birdinv.reconstruct`; a class out of range.
    """
    with judged(model):
        share, rows = _softmax_rows(model, checked(model, x), target[None])
    return share[0].view(-1, *[1] * (x.ndim - 1)) * rows[0]


def smallest_flips(model: nn.Module, x: Tensor, *, chunk: int = CHUNK) -> Flips:
    """The smallest step for each input that makes the network predict another class.

    It is the smallest that was found, an upper bound of the smallest there is. The network is
    looked at in eval mode; the input that was stepped to is not normalised again.

    Args:
        model: gives logits `[N, K]` for `x`.
        x: inputs `[N, C, *S]`.
        chunk: how many templates are computed at a time.

    Raises:
        TypeError, ValueError, RuntimeError: as `birdinv.reconstruct`.

    Reference: SPL 64; DeepFool (Moosavi-Dezfooli et al. 2016).
    """
    start = checked(model, x)
    if chunk < 1:
        raise ValueError(f"chunk={chunk}; expected how many templates to compute at a time")
    with judged(model):
        classes = class_count(model, start[:1])
        parts = [_flips(model, part) for part in torch.split(start, max(1, chunk // classes))]
    step, norm, level, before, after = (torch.cat(column) for column in zip(*parts, strict=True))
    return Flips(step, norm, level, before, after)


def robustness_curve(flips: Flips, y: Tensor, levels_db: Sequence[float]) -> list[float]:
    """The share of inputs that are named right whatever step of that level is added.

    Args:
        flips: of those inputs.
        y: their classes `[N]`.
        levels_db: of the steps beside the input, in dB.

    Returns:
        For each level an upper bound of the accuracy under the worst such step; `−inf` dB, no step
        at all, gives the accuracy.

    Raises:
        ValueError: classes of other inputs.
    """
    if y.shape != flips.before.shape:
        raise ValueError(f"y of shape {tuple(y.shape)}; expected {tuple(flips.before.shape)}")
    right, never = flips.before == y, torch.isinf(flips.norm)
    return [
        float((right & (never | (flips.level_db > level))).double().mean()) for level in levels_db
    ]


_Part = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _flips(model: nn.Module, x: Tensor) -> _Part:
    with torch.no_grad():
        logits = model(x.clone())
    check_logits(logits, x)
    before = logits.argmax(dim=1)
    classes = logits.shape[1]
    shape = (-1, *[1] * (x.ndim - 1))
    length = _length(x)
    best = torch.zeros_like(x)
    norm = torch.full_like(length, torch.inf)
    after = before.clone()
    ways = []
    if classes > 1:
        ways.append(_from_region_to_region(model, x, before))
        every = torch.arange(classes, device=x.device)[:, None].expand(-1, len(x))
        rows = _softmax_rows(model, x, every)[1]
        furthest = _FURTHEST * length.view(shape)
        ways += [furthest * row / _length(row).clamp(min=1e-30).view(shape) for row in rows]
    for way in ways:
        # The shortest way so far says how far along this one it is worth looking.
        reach = torch.minimum(_length(way), norm)
        way = way / _length(way).clamp(min=1e-30).view(shape) * reach.view(shape)
        share, found = _first_flip(model, x, way, before)
        step = share.view(shape) * way
        shorter = torch.isfinite(share) & (_length(step) < norm)
        best = torch.where(shorter.view(shape), step, best)
        norm = torch.where(shorter, _length(step), norm)
        after = torch.where(shorter, found, after)
    level = torch.where(length > 0, 20 * torch.log10(norm / length), torch.inf)
    return best, norm, level, before, after


def _from_region_to_region(model: nn.Module, x: Tensor, before: Tensor) -> Tensor:
    """A step for each input to where another class overtakes, along differences of templates."""
    at = x.clone()
    samples = torch.arange(len(x), device=x.device)
    shape = (-1, *[1] * (x.ndim - 1))
    for _ in range(_ITERATIONS):
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            start = at.clone().requires_grad_()
            logits = model(start.clone())  # it may be changed in place
            behind = logits[samples, before][:, None] - logits
        there = logits.detach().argmax(dim=1) != before
        if bool(there.all()):
            break
        count, classes = behind.shape
        every = torch.eye(classes, dtype=x.dtype, device=x.device)[:, None].expand(-1, count, -1)
        rows = jacobian_rows(behind, start, every)  # A_c − A_k for each k
        slopes = rows.flatten(2).norm(dim=2).T
        away = behind.detach() / slopes.clamp(min=1e-30)
        away[samples, before] = torch.inf
        away = torch.where(slopes > 0, away, torch.inf)
        distance, nearest = away.min(dim=1)
        row = rows[nearest, samples]
        slope = slopes[samples, nearest].clamp(min=1e-30)
        # As far as the plane and a little on; where rounding hides it, a little more.
        size = _BEYOND * distance + 1e-6 * _length(x)
        move = -row * torch.where(torch.isfinite(size), size / slope, 0.0).view(shape)
        at = torch.where(there.view(shape), at, at + move)
    return (at - x) * 1.01  # whose end may be on a border


def _first_flip(model: nn.Module, x: Tensor, way: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """(share of the way at which the prediction first changes, the class it changes to).

    Infinite where it does not. Between two places that are looked at a change back and forth may
    be missed.
    """
    shape = (-1, *[1] * (x.ndim - 1))

    def predicted(share: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = model(x + share.view(shape) * way).argmax(dim=1)
        return found

    high = torch.full_like(_length(x), torch.inf)
    # A way of many lengths is looked at more closely near its start.
    for place in torch.linspace(1 / _PLACES, 1, _PLACES, dtype=torch.float64).square().tolist():
        open_ = torch.isinf(high)
        if not bool(open_.any()):
            break
        flipped = predicted(torch.full_like(high, place)) != before
        high = torch.where(open_ & flipped, place, high)
    low = (high.sqrt() - 1 / _PLACES).clamp(min=0).square()
    found = before.clone()
    if not bool(torch.isfinite(high).any()):
        return high, found
    for _ in range(_HALVINGS):
        middle = torch.where(torch.isfinite(high), (low + high) / 2, 0.0)
        flipped = predicted(middle) != before
        high = torch.where(torch.isfinite(high) & flipped, middle, high)
        low = torch.where(flipped, low, middle)
    at = predicted(torch.where(torch.isfinite(high), high, 0.0))
    return high, torch.where(torch.isfinite(high), at, found)


def _softmax_rows(model: nn.Module, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(ŷ_k `[R, N]`, `dŷ_k/dx / ŷ_k [R, N, C, *S]`) for the classes k in `targets [R, N]`.

    The second is the way of `dŷ_k/dx`, which for a class that is all but excluded is rounded away.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        start = x.clone().requires_grad_()
        logits = model(start.clone())
        check_logits(logits, x)
    p = logits.detach().softmax(dim=1)
    most = p.shape[1] - 1
    if targets.shape[1:] != x.shape[:1] or int(targets.min()) < 0 or int(targets.max()) > most:
        raise ValueError(f"target is {targets.tolist()}; expected a class from 0 to {most} each")
    one = torch.nn.functional.one_hot(targets, p.shape[1]).to(p)
    # dŷ_k = ŷ_k (e_k − ŷ)ᵀ df
    shares: Tensor = p.gather(1, targets.T).T
    return shares, jacobian_rows(logits, start, one - p)


def _length(x: Tensor) -> Tensor:
    length: Tensor = x.flatten(1).norm(dim=1)
    return length
