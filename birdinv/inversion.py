"""The inverse a network carries: `A[x]ᵀ f(x)`, one backward pass (INV 5, 6; SPL 77, 78).

`A[x]ᵀ f(x) = ∇ₓ ½‖f(x)‖²`, so the gradient of one scalar, summed over the batch, is every sample's
reconstruction, and by the same pass `ẑ^(l) = ∂(½‖f(x)‖²)/∂z^(l)` is that of every layer l.
Nothing is detached: parameters receive gradients through `f` and through `A`.

Batch normalisation in training mode couples the samples of a batch; the reconstruction is then the
gradient through the batch statistics. In eval mode it is exact per sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from birdinv.first_layer import FirstLayer, first_layer
from birdinv.terms import squared

# Wrappers that cannot be right, by the names of their classes, which need not be imported for it.
_REFUSED = {
    "FullyShardedDataParallel": "FSDP gives each layer its weights for one forward and one backward"
    " pass, and a reconstruction needs them for two: use DistributedDataParallel",
    "OptimizedModule": "torch.compile has no second backward pass, and compiled reconstructions "
    "were seen to be wrong: give the network as it was before torch.compile",
}
_REFUSED["FSDPModule"] = _REFUSED["FullyShardedDataParallel"]

# Nodes that stop a second backward pass, by name.
_DEAD_ENDS = (
    "torch::autograd::NotImplemented",
    "torch::autograd::Error",
    "CudnnRnnBackwardBackward0",
)
_STATIC = (
    "DistributedDataParallel with static_graph=True takes the pass of the reconstruction for the "
    "backward pass and leaves the gradients of each process as they are: give static_graph=False"
)

# Networks whose reconstruction is known to have a backward pass of its own.
_differentiable: WeakSet[nn.Module] = WeakSet()


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
        TypeError: `x` is not a tensor of floating point.
        RuntimeError: in inference mode; where the output does not depend on `x` or a layer; a
            network that is compiled, sharded, or has no second backward pass.
        ValueError: an empty batch; an unknown or repeated layer, one that was not called exactly
            once with a tensor as output or whose output was then changed in place; or logits that
            are not `[N, K]`.

    Reference: INV 5, 6 and 12, MS 7.
    """
    _check_input(x)
    modules = _survey(model)
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
            _captured(model, layers) as outputs,
            first_layer([] if wants_input or exact else modules, start) as first,
        ):
            logits = model(start)
        _check_logits(logits, x)
        zs = [_only(name, outputs[name]) for name in layers]
        points: list[Any] = [start, *zs, *(layer.edge for layer in first)]
        gradients: Sequence[Tensor | None] = [None] * len(points)
        for name, z in zip(layers, zs, strict=True):
            if not z.requires_grad:
                raise _independent(f"layer {name!r}")
        if logits.requires_grad:  # else they depend on nothing that is asked for
            gradients = torch.autograd.grad(
                logits, points, logits, create_graph=create_graph, allow_unused=True
            )
    if gradients[0] is None and (not first or gradients[-1] is None):
        raise _independent("the input")
    if create_graph:
        _require_second_backward(model, gradients)
    else:
        logits, first = logits.detach(), [layer.detached() for layer in first]
    delta = gradients[-1] if first else None
    cut = None if delta is None else (first[0], delta)
    back = Reconstruction(logits, {}, x if wants_input else x.detach(), gradients[0], cut)
    for name, z, z_hat in zip(layers, zs, gradients[1:], strict=False):
        if z is start:  # an identity, say
            z_hat = back.x_hat
        if z_hat is None:
            raise _independent(f"layer {name!r}")
        back.layers[name] = (z, z_hat) if create_graph else (z.detach(), z_hat)
    return back


def _check_input(x: object) -> None:
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "a reconstruction is a gradient and inference mode forbids gradients: "
            "use torch.no_grad() instead of torch.inference_mode()"
        )
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"the inputs are {got}; expected a tensor of floating point [N, C, *S]")
    if x.ndim < 2 or not len(x):
        raise ValueError(
            f"inputs of shape {tuple(x.shape)}; expected a batch [N, C, *S] of at least one sample"
        )


def _survey(model: nn.Module) -> list[nn.Module]:
    """The network's modules; refuses the ones that cannot be right."""
    modules = list(model.modules())
    for module in modules:
        kind: Any = type(module)
        refusal = _refusal(kind)
        if module._compiled_call_impl is not None:
            refusal = _REFUSED["OptimizedModule"]
        if isinstance(module, DistributedDataParallel) and module.static_graph:
            refusal = _STATIC
        if refusal is not None:
            raise RuntimeError(refusal)
    return modules


@lru_cache(maxsize=1024)
def _refusal(kind: type) -> str | None:
    names = [base.__name__ for base in kind.__mro__]
    return next((_REFUSED[name] for name in names if name in _REFUSED), None)


def _check_logits(logits: object, x: Tensor) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model gave {got}; expected logits [N, K] with N = {len(x)}")


def _independent(what: str) -> RuntimeError:
    return RuntimeError(
        f"the logits do not depend on {what}: is something detached on the way, or computed under "
        "torch.no_grad(), or in a checkpoint that is not use_reentrant=False?"
    )


def _require_second_backward(model: nn.Module, gradients: Sequence[Tensor | None]) -> None:
    """Refuses gradients that cannot be differentiated; looks once at each network."""
    if model in _differentiable:
        return
    nodes = [g.grad_fn for g in gradients if g is not None and g.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node.name() in _DEAD_ENDS:
            raise RuntimeError(
                "a layer of this network has no second backward pass, which a loss on "
                "reconstructions needs; use its unfused form: torch.backends.cudnn.flags("
                "enabled=False) round the call for recurrent layers on CUDA, softmax(QKᵀ)V for a "
                "fused attention kernel, BatchNorm for SyncBatchNorm, no once_differentiable in "
                "functions of your own"
            )
        for after, _ in node.next_functions:
            if after is not None and after not in seen:
                seen.add(after)
                nodes.append(after)
    _differentiable.add(model)


def _only(name: str, calls: list[tuple[Tensor, int]]) -> Tensor:
    """The one output of a layer, unchanged since."""
    if len(calls) != 1:
        raise ValueError(
            f"layer {name!r} was called {len(calls)} times in one pass; expected once: name a "
            "layer that is"
        )
    z, version = calls[0]
    if z._version != version:
        raise ValueError(
            f"the output of layer {name!r} was changed in place by what follows it; use "
            "inplace=False there, or name the layer that changes it"
        )
    return z


@contextmanager
def _captured(
    model: nn.Module, layers: Sequence[str]
) -> Iterator[dict[str, list[tuple[Tensor, int]]]]:
    """Collects (output, its version) of named layers while open; hooks go away however it ends."""
    if isinstance(layers, str):
        raise ValueError(f"layers is the string {layers!r}; expected a list: [{layers!r}]")
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers are named twice in {list(layers)}; name each once")
    modules = dict(model.named_modules()) if layers else {}
    if isinstance(model, DistributedDataParallel) and layers:  # also by their names in the network
        modules |= dict(model.module.named_modules())
    unknown = [name for name in layers if name not in modules or not name]
    if unknown:
        raise ValueError(
            f"the model has no layers {unknown}; see model.named_modules() for their names"
        )
    outputs: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in layers}
    handles = []
    try:
        for name in outputs:

            def keep(_module: object, _args: object, z: object, name: str = name) -> None:
                if not isinstance(z, Tensor):
                    raise ValueError(
                        f"layer {name!r} gave a {type(z).__name__}; expected a tensor: name a "
                        "layer that gives one"
                    )
                outputs[name].append((z, z._version))

            handles.append(modules[name].register_forward_hook(keep))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
