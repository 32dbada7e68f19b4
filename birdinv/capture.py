"""Outputs of named layers, caught by hooks while a network runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Outputs = dict[str, list[tuple[Tensor, int]]]
"""By layer, of each call: the output, and its version, which tells changes in place."""


@contextmanager
def captured(model: nn.Module, layers: Sequence[str]) -> Iterator[Outputs]:
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
    outputs: Outputs = {name: [] for name in layers}
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


def only_output(outputs: Outputs, name: str) -> Tensor:
    """The one output of a layer, unchanged since."""
    calls = outputs[name]
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
