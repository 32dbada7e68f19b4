"""What cannot be reconstructed, and the sentences that say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

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
_SYNCED = (
    "SyncBatchNorm has no second backward pass in training mode: use BatchNorm, whose statistics "
    "are those of each process"
)

# Networks, in eval (False) or training mode, whose reconstruction was seen to have a backward pass
# of its own. One that is changed later is not looked at again: torch then has its own words.
_differentiable: WeakKeyDictionary[nn.Module, set[bool]] = WeakKeyDictionary()


def check_input(x: object) -> None:
    """Refuses what no gradient can be taken in: no batch of floating point, or inference mode."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "a reconstruction is a gradient and inference mode forbids gradients: "
            "use torch.no_grad() instead of torch.inference_mode()"
        )
    if isinstance(x, Tensor) and x.is_inference():
        raise RuntimeError(
            "the inputs were made in inference mode, which forbids gradients: clone them outside it"
        )
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"the inputs are {got}; expected a tensor of floating point [N, C, *S]")
    if x.ndim < 2 or not len(x):
        raise ValueError(
            f"inputs of shape {tuple(x.shape)}; expected a batch [N, C, *S] of at least one sample"
        )


def survey(model: nn.Module) -> list[nn.Module]:
    """The network's modules; refuses the ones that cannot be right."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model is a {type(model).__name__}; expected a torch.nn.Module")
    modules = list(model.modules())
    for module in modules:
        kind: Any = type(module)
        refusal = _refusal(kind)
        if module._compiled_call_impl is not None:
            refusal = _REFUSED["OptimizedModule"]
        if isinstance(module, DistributedDataParallel) and module.static_graph:
            refusal = _STATIC
        if isinstance(module, nn.SyncBatchNorm) and module.training:
            refusal = _SYNCED
        if refusal is not None:
            raise RuntimeError(refusal)
    return modules


@lru_cache(maxsize=1024)
def _refusal(kind: type) -> str | None:
    names = [base.__name__ for base in kind.__mro__]
    return next((_REFUSED[name] for name in names if name in _REFUSED), None)


def check_logits(logits: object, x: Tensor) -> None:
    """Refuses outputs that are not `[N, K]` for `x [N, …]`."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model gave {got}; expected logits [N, K] with N = {len(x)}")


def independent(what: str) -> RuntimeError:
    """The error to raise where the logits do not depend on `what`."""
    return RuntimeError(
        f"the logits do not depend on {what}: is something detached on the way, or computed under "
        "torch.no_grad(), or in a checkpoint that is not use_reentrant=False?"
    )


def require_second_backward(model: nn.Module, gradients: Sequence[Tensor | None]) -> None:
    """Refuses gradients that cannot be differentiated; looks once at each network and mode."""
    if model.training in _differentiable.get(model, ()):
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
                "fused attention kernel, no once_differentiable in functions of your own"
            )
        for after, _ in node.next_functions:
            if after is not None and after not in seen:
                seen.add(after)
                nodes.append(after)
    _differentiable.setdefault(model, set()).add(model.training)
