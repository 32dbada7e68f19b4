"""The layer that hears the input, taken out of the backward pass where its adjoint is known.

A linear first layer `a = Wx + b` is the last step of a reconstruction: `x̂ = Wᵀδ` with
`δ = ∂(½‖f(x)‖²)/∂a`. Applied by name instead of by autograd, the input needs no gradient, neither
here nor in the backward pass of a loss, and a layer that knows `‖Wᵀδ − x‖²` from `δ` and `Wx` alone
(the Gram identity, see `networks.frames`) need not go back to the input at all.

The cut is exact for any network: the layer is given the input detached, so whatever gradient still
arrives at the input came another way (a skip connection, say) and is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.grad import conv1d_input, conv2d_input
from torch.nn.modules import module as every_module
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class FirstLayer:
    """A linear layer as it was called on the input: `out = Wx + b`."""

    module: nn.Module
    weight: Tensor
    bias: Tensor | None
    out: Tensor
    edge: GradientEdge  # of `out`, also where what follows changes it in place
    versions: tuple[int, int]  # of `weight` and `out` when the layer was called
    rounded: bool  # `out` is known to half precision only

    def detached(self) -> FirstLayer:
        """The same without a graph."""
        bias = None if self.bias is None else self.bias.detach()
        return replace(self, weight=self.weight.detach(), bias=bias, out=self.out.detach())

    def adjoint(self, x: Tensor, delta: Tensor) -> Tensor:
        """`Wᵀδ` like `x`, for `δ` like `out`; RuntimeError where `W` has changed since."""
        if self.weight._version != self.versions[0]:
            raise RuntimeError(
                "the weights of the first layer have changed since this pass: take x_hat before "
                "the optimiser's step, or reconstruct with exact=True"
            )
        own: Callable[..., Tensor] | None = getattr(self.module, "adjoint", None)
        with torch.autocast(x.device.type, enabled=False):
            delta = delta.to(self.weight.dtype)
            if own is not None:
                back = own(x, delta, self.weight)
            elif isinstance(self.module, nn.Linear):
                back = delta @ self.weight
            else:
                back = _conv_adjoint(self.module, x, delta, self.weight)
            return back.to(x.dtype)

    def squared_error(self, x: Tensor, delta: Tensor) -> Tensor | None:
        """`‖Wᵀδ − x‖² [N]` without `Wᵀδ`; None where the layer does not know it, or not cheaply."""
        own: Callable[..., Tensor | None] | None = getattr(self.module, "squared_error", None)
        if own is None or (self.weight._version, self.out._version) != self.versions:
            return None
        if self.rounded:  # what is lost in `Wx` is lost from a small difference of large sums
            return None
        return own(x, self.out, delta, self.weight, self.bias)


@contextmanager
def first_layer(modules: Sequence[nn.Module], x: Tensor) -> Iterator[list[FirstLayer]]:
    """While open, detaches `x` for the first of `modules` that is called on it and keeps that call.

    Nothing is kept where the saved tensors of the forward pass are packed (activation checkpoints,
    offloading): a detached input is not the one that would be recomputed. Nor where hooks for every
    module are registered: they see what a layer gave before the ones of this layer do.
    """
    kept: list[FirstLayer] = []
    cut: list[nn.Module] = []
    handles: list[RemovableHandle] = []

    def before(module: nn.Module, args: tuple[object, ...]) -> tuple[Tensor] | None:
        if cut or len(args) != 1 or args[0] is not x or _packs_saved_tensors():
            return None
        # Without the input nothing would ask for a gradient, and no graph would lead to the layer.
        if not module.weight.requires_grad or not torch.is_grad_enabled():
            return None
        cut.append(module)
        handles.append(x.register_hook(_refuse))  # type: ignore[no-untyped-call]
        return (x.detach(),)

    def after(module: nn.Module, _args: object, out: Tensor) -> Tensor | None:
        if cut != [module] or kept:
            return None
        if out._is_view():  # changed in place, a view would hang from its base, not from the edge
            out = out.clone()
        weight: Any = module.weight
        bias: Any = module.bias
        versions = (weight._version, out._version)
        half = out.dtype in (torch.bfloat16, torch.float16)
        rounded = half or torch.is_autocast_enabled(x.device.type)
        edge = get_gradient_edge(out)
        kept.append(FirstLayer(module, weight, bias, out, edge, versions, rounded))
        return out

    try:
        if every_module._global_forward_hooks or every_module._global_backward_hooks:
            modules = []
        for module in modules:
            if _has_adjoint(module, x):
                handles.append(module.register_forward_pre_hook(before))
                # Before other hooks, which may change what the layer gave.
                handles.append(module.register_forward_hook(after, prepend=True))
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _refuse(_gradient: Tensor) -> None:
    # Its forward pass takes a gradient in the input, which would lack what goes through the cut.
    raise RuntimeError(
        "this network takes gradients in its input while it computes its logits: use exact=True"
    )


def _has_adjoint(module: nn.Module, x: Tensor) -> bool:
    # A backward hook may ask for the gradient of the input, a forward of the object's own may
    # compute something else.
    if module._backward_hooks or "forward" in vars(module):
        return False
    # So may the forward of a subclass, unless it is written beside its own adjoint.
    kind = type(module)
    if kind is nn.Linear:
        return True
    if isinstance(module, nn.Conv1d | nn.Conv2d) and {"forward", "adjoint"} <= vars(kind).keys():
        return True
    return (
        (kind is nn.Conv1d or kind is nn.Conv2d)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and x.ndim == len(module.kernel_size) + 2  # type: ignore[arg-type]  # both convolutions
    )


def _conv_adjoint(layer: nn.Module, x: Tensor, delta: Tensor, weight: Tensor) -> Tensor:
    inverse: Callable[..., Tensor] = conv1d_input if x.ndim == 3 else conv2d_input
    return inverse(
        x.shape, weight, delta, layer.stride, layer.padding, layer.dilation, layer.groups
    )


def _packs_saved_tensors() -> bool:
    """Whether saved-tensor hooks are active; torch has no public way to ask."""
    top: Callable[[bool], object] | None = getattr(
        torch._C._autograd, "_top_saved_tensors_default_hooks", None
    )
    return top is None or top(False) is not None
