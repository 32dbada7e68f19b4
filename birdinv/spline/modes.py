"""How the network is run when it is looked at: in eval mode, and as a function of its input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.func import functional_call


@contextmanager
def judged(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode while open; each has its own mode back after, however it ends."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def of_input_alone(model: nn.Module, x: Tensor) -> Tensor:
    """The logits for `x`, where nothing but what depends on `x` requires a gradient.

    `x` itself is left alone, also by a network that begins with a change in place.
    """
    fixed = {name: value.detach() for name, value in model.named_parameters()}
    logits: Tensor = functional_call(model, fixed, (x.clone(),))
    return logits
