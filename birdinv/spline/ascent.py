"""Two inputs that a network stretches far: the lower side of the bracket."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from birdinv.spline.templates import iter_templates

_RATE = 0.02  # of an input's length, a step
_SCALES = (0.3, 1.0, 3.0)  # of the points, at which the search begins
_BEST = 8  # of the places it begins at that are followed
_NEAR = 0.5  # of an input's length, between the two inputs at the start
_LOOKS = 10  # steps between looks at the templates on the way
_ROUNDING = 1e-8  # of a quotient, through that of the two inputs
_TINY = 1e-6  # of an input's length: a difference within one region, mostly


def stretched_most(
    model: nn.Module, points: Tensor, steps: int, generator: torch.Generator
) -> tuple[float, Tensor, Tensor]:
    """What the network does to a small difference, at the best place found from `points`.

    Inside a region the stretch is that of its templates, and its slope is zero: nothing there says
    which way a steeper region lies. So the templates are looked at in many places first, the
    points, shrunk and blown up, and random ones as long; from the best, two inputs that are some
    way apart ascend `log ‖f(x) − f(y)‖ − log ‖x − y‖`, and where they pass the templates are looked
    at again.

    Args:
        model: in double precision and eval mode.
        points: inputs `[N, C, *S]`.
        steps: of the ascent.
        generator: of the random places.

    Returns:
        (`‖f(x + εv) − f(x − εv)‖ / 2ε`, x, v), a bound that holds whatever the templates say; the
        two are `[C, *S]`, and v is of unit length.
    """
    shape = (-1, *[1] * (points.ndim - 1))
    places = torch.cat([scale * points for scale in _SCALES])
    length = _length(places).view(shape)
    random = torch.randn(places.shape, generator=generator, dtype=places.dtype)
    random = random / _length(random).view(shape) * length
    places = torch.cat([places, random])
    norms, directions = _steepest(model, places)
    first = norms.argsort(descending=True)[:_BEST]
    best, best_x, best_v = norms[first], places[first], directions[first]
    length = _length(best_x).view(shape)
    x = best_x.clone()
    # Half of the way from where it is steepest, half of it any way: within one region there is no
    # slope along the steepest direction.
    any_way = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    y = x + _NEAR * length * (best_v + any_way / _length(any_way).view(shape)) / 2
    for step in range(1, steps + 1):
        pair = torch.cat([x, y]).requires_grad_()
        with torch.enable_grad():
            here, there = model(pair).chunk(2)
            a, b = pair.chunk(2)
            far = (here - there).norm(dim=1).clamp(min=1e-300).log()
            near = _length(a - b).log()
            (up,) = torch.autograd.grad((far - near).sum(), pair)
        move = _RATE * torch.cat([length, length]) * up / _length(up).view(shape)
        x, y = (pair.detach() + move).chunk(2)
        if step % _LOOKS == 0 or step == steps:
            for at in (x, y, (x + y) / 2):
                norms, v = _steepest(model, at)
                better = (norms > best).view(shape)
                best_x = torch.where(better, at, best_x)
                best_v = torch.where(better, v, best_v)
                best = torch.maximum(best, norms)
    tiny = _TINY * _length(best_x).view(shape)
    with torch.no_grad():
        ends = model(best_x + tiny * best_v), model(best_x - tiny * best_v)
    rounding = 8 * torch.finfo(ends[0].dtype).eps * sum(end.norm(dim=1) for end in ends)
    quotients = ((ends[0] - ends[1]).norm(dim=1) - rounding) / (2 * tiny.flatten())
    quotients = (quotients * (1 - _ROUNDING)).clamp(min=0.0)
    n = int(quotients.argmax())
    return float(quotients[n]), best_x[n], best_v[n]


def _length(x: Tensor) -> Tensor:
    length: Tensor = x.flatten(1).norm(dim=1).clamp(min=1e-300)
    return length


def _steepest(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The norm of the templates at each input `[N]`, and the direction they stretch most."""
    norms, directions = [], []
    for found in iter_templates(model, x):
        flat = found.A.flatten(2)
        values, vectors = torch.linalg.eigh(flat @ flat.mT)
        norms.append(values[:, -1].clamp(min=0).sqrt())
        v = torch.einsum("nkd,nk->nd", flat, vectors[..., -1])
        v = v / v.norm(dim=1, keepdim=True).clamp(min=1e-300)
        directions.append(v.view(len(v), *x.shape[1:]))
    return torch.cat(norms), torch.cat(directions)
