"""The calls of torch functions that a network makes, one after the other, and who makes them.

Layers that are modules and `functional.relu` in the middle of a `forward` are seen alike, loops are
seen unrolled, and nothing in the network is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

Watcher = Callable[[str, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]
"""Given (layer, function, args, kwargs), calls the function and returns what it gives."""


@contextmanager
def watched(model: nn.Module, watcher: Watcher) -> Iterator[None]:
    """While open, `watcher` makes every call of a torch function.

    The layer that it is told is the innermost module that is running, "" in the network's own
    `forward`.
    """
    running: list[str] = []
    handles = []
    for name, module in model.named_modules():
        if not name:
            continue

        def enter(_module: object, _args: object, name: str = name) -> None:
            running.append(name)

        def leave(_module: object, _args: object, _out: object) -> None:
            running.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        with _Mode(running, watcher):
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Mode(TorchFunctionMode):
    def __init__(self, running: Sequence[str], watcher: Watcher) -> None:
        super().__init__()
        self._running, self._watcher = running, watcher

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        layer = self._running[-1] if self._running else ""
        return self._watcher(layer, func, args, kwargs or {})


def name_of(function: Callable[..., Any]) -> str:
    """`relu` for `torch.relu`, `Tensor.relu`, `torch.relu_` and `functional.relu`."""
    name = str(getattr(function, "__name__", function))
    name = name.removesuffix("_with_indices")
    return name if name.startswith("__") else name.strip("_")
