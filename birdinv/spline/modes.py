"""How the network is run when it is looked at: in eval mode, and as a function of its input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from birdinv.refusals import check_input, survey


def checked(model: nn.Module, x: Tensor) -> Tensor:
    """The inputs, detached; refuses what cannot be looked at.

    Raises:
        TypeError, RuntimeError, ValueError: as `birdinv.reconstruct`, and inputs that are not
            finite.
    """
    check_input(x)
    survey(model)
    if not bool(torch.isfinite(x).all()):
        raise ValueError("the inputs hold numbers that are not finite: leave those samples out")
    return x.detach()


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
