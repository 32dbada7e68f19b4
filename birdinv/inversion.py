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

import torch
from torch import Tensor, nn

# How autograd words that an output does not depend on an input.
_INDEPENDENT = ("appears to not have been used", "does not require grad")


@dataclass(frozen=True)
class Reconstruction:
    """One pass through a network and back.

    `logits [N, K]`, `x_hat` like the input; `layers` maps each asked name to `(z, ẑ)`, both shaped
    like the layer's output.
    """

    logits: Tensor
    x_hat: Tensor
    layers: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def invert(model: nn.Module, x: Tensor) -> Tensor:
    """`A[x]ᵀ f(x)`, the network's own reconstruction of its input.

    Args:
        model: gives logits `[N, K]` for `x`.
        x: inputs `[N, C, *S]`.

    Returns:
        A tensor like `x`, differentiable in the parameters where gradients are enabled.

    Raises:
        RuntimeError: in inference mode, or where the output does not depend on the input.
        ValueError: the output is not `[N, K]`.

    Reference: INV 5, 6.
    """
    return reconstruct(model, x).x_hat


def reconstruct(model: nn.Module, x: Tensor, layers: Sequence[str] = ()) -> Reconstruction:
    """Logits and the reconstructions of the input and of named layers, by one backward pass.

    Args:
        model: gives logits `[N, K]` for `x`.
        x: inputs `[N, C, *S]`; neither its values nor its `requires_grad` and `.grad` are touched.
        layers: names from `model.named_modules()` whose outputs are to be reconstructed too.

    Raises:
        RuntimeError: in inference mode, or where the output does not depend on `x` or a layer.
        ValueError: an unknown layer, one that was not called exactly once with a tensor as output
            or whose output was then changed in place, or logits that are not `[N, K]`.

    Reference: INV 5, 6 and 12, MS 7.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "a reconstruction is a gradient and inference mode forbids gradients: "
            "use torch.no_grad() instead of torch.inference_mode()"
        )
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad(), _captured(model, layers) as outputs:
        start = x if x.requires_grad and create_graph else x.detach().requires_grad_()
        logits = model(start)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"the model gave {got}; expected logits [N, K] with N = {len(x)}")
        for name in layers:
            if len(outputs[name]) != 1:
                raise ValueError(
                    f"layer {name!r} was called {len(outputs[name])} times in one pass; expected "
                    "once: name a layer that is"
                )
            z, version = outputs[name][0]
            if z._version != version:
                raise ValueError(
                    f"the output of layer {name!r} was changed in place by what follows it; use "
                    "inplace=False there, or name the layer that changes it"
                )
        points = [start, *(outputs[name][0][0] for name in layers)]
        try:
            gradients = torch.autograd.grad(
                0.5 * logits.square().sum(), points, create_graph=create_graph
            )
        except RuntimeError as error:
            if not any(text in str(error) for text in _INDEPENDENT):
                raise
            raise RuntimeError(
                f"the logits do not depend on the input or on one of the layers {list(layers)}: "
                "is something detached on the way, or computed under torch.no_grad()?"
            ) from error
    if not create_graph:
        logits, points = logits.detach(), [point.detach() for point in points]
    pairs = dict(zip(layers, zip(points[1:], gradients[1:], strict=True), strict=True))
    return Reconstruction(logits, gradients[0], pairs)


@contextmanager
def _captured(
    model: nn.Module, layers: Sequence[str]
) -> Iterator[dict[str, list[tuple[Tensor, int]]]]:
    """Collects (output, its version) of named layers while open; hooks go away however it ends."""
    modules = dict(model.named_modules())
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
