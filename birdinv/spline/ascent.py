"""Two inputs that a network stretches far: the lower side of the bracket."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from birdinv.spline.templates import iter_templates

_RATE = 0.02  # of an input's length, a step
_NEAR = 0.1  # of an input's length, between the two inputs at the start
_LOOKS = 10  # steps between looks at the templates on the way
_TINY = 1e-6  # of an input's length: a difference within one region, mostly


def stretched_most(model: nn.Module, points: Tensor, steps: int) -> tuple[float, Tensor, Tensor]:
    """What the network does to a small difference, at the best place found from `points`.

    Inside a region the stretch is that of its templates, and its slope is zero: nothing there says
    which way a steeper region lies. So two inputs that are some way apart ascend
    `log ‖f(x) − f(y)‖ − log ‖x − y‖`; where they pass, the norm of the templates is looked at.

    Args:
        model: in double precision and eval mode.
        points: inputs `[N, C, *S]`.
        steps: of the ascent.

    Returns:
        (`‖f(x + εv) − f(x − εv)‖ / 2ε`, x, v), a bound that holds whatever the templates say; the
        two are `[C, *S]`, and v is of unit length.
    """
    norm, v = _steepest(model, points)
    best, best_x, best_v = norm, points.clone(), v
    length = points.flatten(1).norm(dim=1).clamp(min=1e-3).view(-1, *[1] * (points.ndim - 1))
    x = points.clone()
    y = points + _NEAR * length * v
    for step in range(1, steps + 1):
        pair = torch.cat([x, y]).requires_grad_()
        with torch.enable_grad():
            f = model(pair)
            here, there = f.chunk(2)
            a, b = pair.chunk(2)
            far = (here - there).norm(dim=1).clamp(min=1e-300).log()
            near = (a - b).flatten(1).norm(dim=1).clamp(min=1e-300).log()
            (up,) = torch.autograd.grad((far - near).sum(), pair)
        size = up.flatten(1).norm(dim=1).clamp(min=1e-300).view(-1, *[1] * (points.ndim - 1))
        moved = pair.detach() + _RATE * torch.cat([length, length]) * up / size
        x, y = moved.chunk(2)
        if step % _LOOKS == 0 or step == steps:
            for at in (x, y, (x + y) / 2):
                norm, v = _steepest(model, at)
                better = (norm > best).view(-1, *[1] * (points.ndim - 1))
                best_x = torch.where(better, at, best_x)
                best_v = torch.where(better, v, best_v)
                best = torch.maximum(best, norm)
    step_size = _TINY * length
    with torch.no_grad():
        ends = model(best_x + step_size * best_v), model(best_x - step_size * best_v)
    rounding = 8 * torch.finfo(ends[0].dtype).eps * sum(end.norm(dim=1) for end in ends)
    quotients = ((ends[0] - ends[1]).norm(dim=1) - rounding) / (2 * step_size.flatten())
    quotients = quotients.clamp(min=0.0)
    n = int(quotients.argmax())
    return float(quotients[n]), best_x[n], best_v[n]


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
