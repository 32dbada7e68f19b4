"""The inverse a network carries: `A[x]ᵀ f(x)`, one backward pass (INV 5, 6; SPL 77, 78).

`A[x]ᵀ f(x) = ∇ₓ ½‖f(x)‖²`, so the gradient of one scalar, summed over the batch, is every sample's
reconstruction, and by the same pass `ẑ^(l) = ∂(½‖f(x)‖²)/∂z^(l)` is that of every layer l.
Nothing is detached: parameters receive gradients through `f` and through `A`.

Batch normalisation in training mode couples the samples of a batch; the reconstruction is then the
gradient through the batch statistics. In eval mode it is exact per sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from birdinv.capture import captured, only_output
from birdinv.first_layer import FirstLayer, first_layer
from birdinv.refusals import (
    check_input,
    check_logits,
    independent,
    require_second_backward,
    survey,
)
from birdinv.terms import squared


@dataclass(frozen=True)
class Reconstruction:
    """One pass through a network and back.

    `logits [N, K]`; `layers` maps each asked name to `(z, ẑ)`, both shaped like the layer's output.
    """

    logits: Tensor
    layers: dict[str, tuple[Tensor, Tensor]]
    _x: Tensor = field(repr=False)
    _gradient: Tensor | None = field(repr=False)  # what autograd brought back to the input
    _first: tuple[FirstLayer, Tensor] | None = field(repr=False)  # the layer cut off, and its δ

    @cached_property
    def x_hat(self) -> Tensor:
        """`A[x]ᵀ f(x)`, shaped like the input."""
        parts = [] if self._gradient is None else [self._gradient]
        if self._first is not None:
            layer, delta = self._first
            # With the graph of the pass it belongs to, whoever asks for it first.
            with torch.inference_mode(False), torch.enable_grad():
                parts.append(layer.adjoint(self._x, delta))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def squared_error(self) -> Tensor:
        """`‖A[x]ᵀ f(x) − x‖² [N]`, by the Gram identity where the first layer has it (INV 8)."""
        if self._first is not None and self._gradient is None:
            layer, delta = self._first
            error = layer.squared_error(self._x, delta)
            if error is not None:
                return error
        return squared(self.x_hat, self._x)


def invert(model: nn.Module, x: Tensor) -> Tensor:
    """`A[x]ᵀ f(x)`, the network's own reconstruction of its input.

    Args:
        model: gives logits `[N, K]` for `x`.
        x: inputs `[N, C, *S]`.

    Returns:
        A tensor like `x`, differentiable in the parameters where gradients are enabled.

    Raises:
        TypeError, ValueError, RuntimeError: what `reconstruct` refuses.

    Reference: INV 5, 6.
    """
    return reconstruct(model, x).x_hat


def reconstruct(
    model: nn.Module, x: Tensor, layers: Sequence[str] = (), *, exact: bool = False
) -> Reconstruction:
    """Logits and the reconstructions of the input and of named layers, by one backward pass.

    Args:
        model: gives logits `[N, K]` for `x`.
        x: inputs `[N, C, *S]`; neither its values nor its `requires_grad` and `.grad` are touched.
        layers: names from `model.named_modules()` whose outputs are to be reconstructed too.
        exact: go back to the input by autograd alone. Else, where the input needs no gradient and
            meets a linear layer first, that layer's adjoint is applied by itself: same numbers up
            to rounding, less work.

    Raises:
        TypeError: `x` is not a tensor of floating point, the model no `nn.Module`.
        RuntimeError: in inference mode; where the output does not depend on `x` or a layer; a
            network that is compiled, sharded, or has no second backward pass.
        ValueError: an empty batch; an unknown or repeated layer, one that was not called exactly
            once with a tensor as output or whose output was then changed in place; or logits that
            are not `[N, K]`.

    Reference: INV 5, 6 and 12, MS 7.
    """
    check_input(x)
    modules = survey(model)
    create_graph = torch.is_grad_enabled()
    tangent = forward_ad.unpack_dual(x).tangent  # type: ignore[no-untyped-call]
    differentiable = x.requires_grad and create_graph
    wants_input = differentiable or tangent is not None
    # Fused attention has no second backward pass; the plain one has.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        start = x if differentiable else x.detach().requires_grad_()
        if start is not x and tangent is not None:  # forward over reverse; detach() loses it
            start = forward_ad.make_dual(start, tangent)  # type: ignore[no-untyped-call]
        with (
            captured(model, layers) as outputs,
            first_layer([] if wants_input or exact else modules, start) as calls,
        ):
            logits = model(start)
        check_logits(logits, x)
        zs = [only_output(outputs, name) for name in layers]
        for name, z in zip(layers, zs, strict=True):
            if z is logits:
                raise ValueError(
                    f"layer {name!r} gives the logits, which are no target: leave it out"
                )
            if not z.requires_grad:
                raise independent(f"layer {name!r}")
        first = calls[0] if calls else None
        points: list[Any] = [start, *zs, *(call.edge for call in calls)]
        of_points: Sequence[Tensor | None] = [None] * len(points)
        if logits.requires_grad:  # else they depend on nothing that is asked for
            of_points = torch.autograd.grad(
                logits, points, logits, create_graph=create_graph, allow_unused=True
            )
    of_input, *of_layers = of_points
    delta = of_layers.pop() if first is not None else None
    if of_input is None and delta is None:
        raise independent("the input")
    if create_graph:
        require_second_backward(model, of_points)
    else:
        logits, first = logits.detach(), first and first.detached()
    cut = None if first is None or delta is None else (first, delta)
    back = Reconstruction(logits, {}, x if wants_input else x.detach(), of_input, cut)
    for name, z, z_hat in zip(layers, zs, of_layers, strict=True):
        if z is start:  # an identity, say
            z_hat = back.x_hat
        if z_hat is None:
            raise independent(f"layer {name!r}")
        back.layers[name] = (z, z_hat) if create_graph else (z.detach(), z_hat)
    return back
