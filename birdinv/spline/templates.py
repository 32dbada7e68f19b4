"""What a network matches its input against: `f(x) = A[x] x + b[x]` (SPL theorem 1, §3.4.3).

Row c of `A[x] = df/dx` is the template of class c, shaped like `x`. The bias is what the network's
own biases become on their way to the logits (SPL 74): a network of affine layers, LeakyReLUs and
poolings is homogeneous in its input and its biases together, so by Euler's theorem

    f(x) = A[x] x + Σ_β (∂f/∂β) β,

exactly. `b[x]` is computed as that sum and not as the difference that is left, so that the identity
can fail, and does for a network that is no spline: what is missing then is its `gap`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

from birdinv.refusals import check_input, check_logits, independent, survey
from birdinv.spline.jacobian import jacobian_rows
from birdinv.spline.modes import judged

CHUNK = 256


@dataclass(frozen=True)
class Templates:
    """The affine map that a network is, at each of some inputs.

    Attributes:
        A: templates `[N, K, C, *S]`.
        b: biases `[N, K]`.
        logits: `f(x) [N, K]`.
        x: the inputs `[N, C, *S]`.
    """

    A: Tensor
    b: Tensor
    logits: Tensor
    x: Tensor

    @cached_property
    def match(self) -> Tensor:
        """`⟨A[x]_c, x⟩ [N, K]`: how much of each template is in the input."""
        return torch.einsum("nkd,nd->nk", self.A.flatten(2), self.x.flatten(1))

    @property
    def gap(self) -> Tensor:
        """`f(x) − (A[x] x + b[x]) [N, K]`, what is no part of the affine map.

        Zero, up to rounding, for a piecewise affine network whose constants are biases; those of a
        clamp that is off, or of a `+ 1` in a forward, are part of it.
        """
        return self.logits - self.match - self.b

    @property
    def gram(self) -> Tensor:
        """`⟨A[x]_c, A[x]_k⟩ [N, K, K]` (SPL figs. 9, 10)."""
        flat = self.A.flatten(2)
        return flat @ flat.mT

    @property
    def correlation(self) -> Tensor:
        """The Gram matrix of templates of unit length, `[N, K, K]`; 0 where one is zero."""
        gram = self.gram
        norm = gram.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        return _share(gram, norm[:, :, None] * norm[:, None])

    @property
    def cosine(self) -> Tensor:
        """Of the angle between each template and the input, `[N, K]`; 0 where one is zero."""
        norms = self.A.flatten(2).norm(dim=2) * self.x.flatten(1).norm(dim=1)[:, None]
        return _share(self.match, norms)

    @property
    def reconstruction(self) -> Tensor:
        """`A[x]ᵀ f(x)`, like `x` (SPL 77)."""
        return torch.einsum("nkd,nk->nd", self.A.flatten(2), self.logits).view_as(self.x)

    def distance_to_optimal(self, y: Tensor) -> Tensor:
        """`‖A[x] − A*‖ / ‖A[x]‖ [N]`, from 0 to 2, to the optimal templates of the same energy.

        NaN where the templates are zero.

        Args:
            y: the class of each input, `[N]`.

        Raises:
            ValueError: as `optimal_templates`, and for an input that is zero.
        """
        flat = self.A.flatten(1)
        norm = flat.norm(dim=1)
        best = optimal_templates(self.x, y, self.A.shape[1], norm.square()).flatten(1)
        distance: Tensor = (flat - best).norm(dim=1) / norm
        return distance


def templates(model: nn.Module, x: Tensor, *, chunk: int = CHUNK) -> Templates:
    """The templates and biases of all classes for a batch of inputs.

    The network is looked at in eval mode, and its mode is put back: statistics of a batch would
    couple the samples. Beside the result, which is K times the inputs, memory is that of one pass
    over `chunk / K` samples and one backward pass for `chunk` templates.

    Args:
        model: gives logits `[N, K]` for `x`.
        x: inputs `[N, C, *S]`.
        chunk: how many templates are computed at a time, at least one sample's or one class's.

    Returns:
        Detached tensors on the device of `x`. What counts as a bias are parameters named `bias…` or
        `…bias`, and the running mean of a norm; any other constant is part of the gap.

    Raises:
        TypeError, ValueError, RuntimeError: as `birdinv.reconstruct`; a chunk below 1.

    Reference: SPL theorem 1, eq. 74, §3.4.3.
    """
    parts = list(iter_templates(model, x, chunk=chunk))
    if len(parts) == 1:
        return parts[0]
    return Templates(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Templates)))


def iter_templates(model: nn.Module, x: Tensor, *, chunk: int = CHUNK) -> Iterator[Templates]:
    """The same a few samples at a time, for more inputs than there is memory for their templates.

    Returns:
        An iterator over `Templates` of `max(1, chunk / K)` samples, in order.
    """
    check_input(x)
    survey(model)
    if chunk < 1:
        raise ValueError(f"chunk={chunk}; expected how many templates to compute at a time")
    few = 1
    if len(x) > 1:
        with judged(model):
            few = max(1, chunk // class_count(model, x[:1]))
    return _each(model, x.detach(), few, chunk)


def optimal_templates(x: Tensor, y: Tensor, classes: int, energy: float | Tensor = 1.0) -> Tensor:
    """The templates that minimise the cross-entropy among those of one energy (SPL theorem 5).

        A*_c = √((K−1)/K · E) x/‖x‖   for c = y,      −√(E / (K(K−1))) x/‖x‖   otherwise,

    with K classes, so that `Σ_c ‖A*_c‖² = E`. (SPL 63 has `√((K−1)/K) E`, which breaks that
    constraint, the theorem's own, unless E = 1.) For E = 1 and no bias they reconstruct perfectly:
    `Σ_c ⟨A*_c, x⟩ A*_c = x` (SPL theorem 8).

    Args:
        x: inputs `[N, C, *S]`.
        y: the class of each, `[N]`.
        classes: K, at least 2.
        energy: E, one for all or `[N]`.

    Returns:
        `[N, K, C, *S]`.

    Raises:
        ValueError: a class out of range, fewer than two classes, an input that is zero,
            or a negative energy.
    """
    if classes < 2:
        raise ValueError(f"{classes} classes; templates compete where there are two at least")
    if y.shape != x.shape[:1] or bool(((y < 0) | (y >= classes)).any()):
        raise ValueError(f"y is {y.tolist()}; expected a class from 0 to {classes - 1} per input")
    norm = x.flatten(1).norm(dim=1)
    if not bool((norm > 0).all()):
        raise ValueError("an input is zero: no template is the best match for it")
    energy = torch.as_tensor(energy, dtype=x.dtype, device=x.device).expand_as(norm)
    if not bool((energy >= 0).all()):
        raise ValueError(f"the energy is {energy.tolist()}; expected numbers from 0")
    scale = -(energy / (classes * (classes - 1))).sqrt()[:, None].repeat(1, classes)
    scale[torch.arange(len(x), device=x.device), y] = ((classes - 1) / classes * energy).sqrt()
    unit = x / norm.view(-1, *[1] * (x.ndim - 1))
    best: Tensor = scale.view(*scale.shape, *[1] * (x.ndim - 1)) * unit[:, None]
    return best


def _each(model: nn.Module, x: Tensor, few: int, chunk: int) -> Iterator[Templates]:
    for part in torch.split(x, few):
        with judged(model):  # between two parts the network is in the caller's mode
            found = _templates(model, part, chunk)
        yield found


def _templates(model: nn.Module, x: Tensor, chunk: int) -> Templates:
    start = x.clone().requires_grad_()
    scale = torch.ones((), dtype=x.dtype, device=x.device, requires_grad=True)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        logits = _with_biases_times(scale, model, start.clone())  # it may be changed in place
        check_logits(logits, x)
        if not logits.requires_grad:
            raise independent("the input")
        b = _derivative(logits, scale)
    count, classes = logits.shape
    A = x.new_empty(count, classes, *x.shape[1:])
    every = torch.eye(classes, dtype=logits.dtype, device=x.device)
    step = max(1, chunk // count)
    for first in range(0, classes, step):
        which = every[first : first + step, None].expand(-1, count, -1)
        A[:, first : first + step] = jacobian_rows(logits, start, which).transpose(0, 1)
    return Templates(A, b, logits.detach(), x)


def _with_biases_times(scale: Tensor, model: nn.Module, x: Tensor) -> Tensor:
    """The logits, where every bias β is `scale · β`; `scale` is 1."""
    handles: list[RemovableHandle] = []
    normed: set[int] = set()
    for module in model.modules():
        if isinstance(module, _NormBase) and module.running_mean is not None:
            normed.add(id(module.bias))
            handles.append(module.register_forward_hook(_shift(scale)))
    biases = {
        name: scale.to(value.dtype) * value.detach()
        for name, value in model.named_parameters()
        if _is_bias(name) and id(value) not in normed
    }
    try:
        logits: Tensor = functional_call(model, biases, (x,))
    finally:
        for handle in handles:
            handle.remove()
    return logits


def _is_bias(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last.startswith("bias") or last.endswith("bias")


def _shift(scale: Tensor) -> Callable[..., Tensor]:
    """What a batch norm adds, `β − γ μ / √(σ² + ε)`, taken once more, less itself."""

    def hook(module: Any, _args: object, out: Tensor) -> Tensor:
        mean, weight, bias = module.running_mean, module.weight, module.bias
        added = -mean / (module.running_var + module.eps).sqrt()
        if weight is not None:
            added = weight * added
        if bias is not None:
            added = added + bias
        added = added.detach().view(1, -1, *[1] * (out.ndim - 2))
        shifted: Tensor = out + (scale - 1) * added
        return shifted

    return hook


def _derivative(logits: Tensor, scale: Tensor) -> Tensor:
    """`d logits / d scale [N, K]`: backwards twice, as a reconstruction is learned."""
    weights = torch.ones_like(logits, requires_grad=True)
    (total,) = torch.autograd.grad(logits, scale, weights, create_graph=True, allow_unused=True)
    if total is None or not total.requires_grad:
        return torch.zeros_like(logits)
    (each,) = torch.autograd.grad(total, weights, retain_graph=True)
    return each


def class_count(model: nn.Module, x: Tensor) -> int:
    """K, by what the network gives; ValueError where that is not `[N, K]`."""
    with torch.no_grad():
        logits = model(x.clone())
    check_logits(logits, x)
    return int(logits.shape[1])


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)
