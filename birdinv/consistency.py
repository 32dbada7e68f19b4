"""What other semi-supervised methods ask of unlabelled samples: the same answer under a change.

They are the rivals of the reconstruction, and can be added to it: every objective takes one as
`consistency`. Some need a second `view` of the samples, or a `teacher` whose weights follow the
model's, both given where the objective is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from birdinv.loss_weights import Weight, check_weight
from birdinv.terms import log_probabilities


@dataclass(frozen=True)
class Pass:
    """What a consistency has to go on: a network, its inputs and its `log ŷ [N, K]` for them."""

    model: nn.Module
    x: Tensor
    log_probs: Tensor
    view_or_none: Tensor | None = None
    teacher_or_none: nn.Module | None = None

    @property
    def view(self) -> Tensor:
        """The same samples, changed in another way; ValueError where none was given."""
        view = self.view_or_none
        if view is None or view.shape != self.x.shape:
            got = "none" if view is None else f"one of shape {tuple(view.shape)}"
            raise ValueError(
                f"the consistency compares two views of the same samples, and got {got}; call the "
                f"objective with view=…, of shape {tuple(self.x.shape)}"
            )
        return view

    @property
    def teacher(self) -> nn.Module:
        """A network whose weights follow the model's; ValueError where none was given."""
        if self.teacher_or_none is None:
            raise ValueError(
                "the consistency needs a teacher; call the objective with teacher=…, a copy of the "
                "network whose weights are a moving average of the network's"
            )
        return self.teacher_or_none


class Consistency(ABC):
    """A term for each sample, and its weight.

    Attributes:
        weight: a number, a schedule or a tensor.
        of_all: whether it is the mean over all samples, or over the unlabelled ones.
    """

    of_all = False

    def __init__(self, weight: Weight = 1.0) -> None:
        check_weight("weight", weight)
        self.weight = weight

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"

    @abstractmethod
    def each(self, at: Pass) -> Tensor:
        """The term `[N]`; ValueError where the view or the teacher it needs is missing."""


class PseudoLabels(Consistency):
    """`−log ŷ_c` of the network's own most probable class c, where that has `threshold` at least.

    Reference: Lee 2013, who has no threshold.
    """

    def __init__(self, weight: Weight = 1.0, threshold: float = 0.95) -> None:
        super().__init__(weight)
        _check_fraction("threshold", threshold)
        self.threshold = threshold

    def each(self, at: Pass) -> Tensor:
        """See the class."""
        return _sure_labels(at.log_probs.detach(), at.log_probs, self.threshold)


class FixMatch(Consistency):
    """Pseudo-labels of a weakly changed `view`, learnt on the strongly changed inputs.

    Reference: Sohn et al. 2020.
    """

    def __init__(self, weight: Weight = 1.0, threshold: float = 0.95) -> None:
        super().__init__(weight)
        _check_fraction("threshold", threshold)
        self.threshold = threshold

    def each(self, at: Pass) -> Tensor:
        """See the class."""
        return _sure_labels(_answers(at.model, at.view), at.log_probs, self.threshold)


class PiModel(Consistency):
    """`‖ŷ(x) − ŷ(view)‖² / K`, each with dropout of its own, gradients through both.

    Reference: Laine and Aila 2017.
    """

    of_all = True

    def each(self, at: Pass) -> Tensor:
        """See the class."""
        other = log_probabilities(at.model(at.view))
        return (at.log_probs.exp() - other.exp()).square().mean(dim=1)


class MeanTeacher(Consistency):
    """`‖ŷ(x) − ŷ'(view)‖² / K`, ŷ' being the teacher's answer, without dropout.

    Reference: Tarvainen and Valpola 2017.
    """

    of_all = True

    def each(self, at: Pass) -> Tensor:
        """See the class."""
        return (at.log_probs.exp() - _answers(at.teacher, at.view).exp()).square().mean(dim=1)


class VirtualAdversarial(Consistency):
    """`KL(ŷ(x) ‖ ŷ(x + r))`, r the step of a given length that changes the answer most.

    Dropout is left out of both answers: the direction would be that of its noise.

    Args:
        radius: length of r as a fraction of the length of x, so that one number serves all rates.
        step: length, likewise, of the step that the direction is measured with, once.

    Reference: Miyato et al. 2018.
    """

    of_all = True

    def __init__(self, weight: Weight = 1.0, radius: float = 0.1, step: float = 1e-3) -> None:
        super().__init__(weight)
        for name, value in (("radius", radius), ("step", step)):
            if not 0 < value < 1e6:
                raise ValueError(f"{name} is {value}; expected a number above 0")
        self.radius, self.step = radius, step

    def each(self, at: Pass) -> Tensor:
        """See the class."""
        model, x = at.model, at.x.detach()
        length = _lengths(x)
        # In bfloat16 the step that the direction is measured with would be rounded off.
        with without_dropout(model), torch.autocast(x.device.type, enabled=False):
            with torch.no_grad():
                target = log_probabilities(model(x))
            direction = torch.randn_like(x)
            direction = (direction / _lengths(direction) * self.step * length).requires_grad_()
            with torch.enable_grad():
                moved = _divergence(target, log_probabilities(model(x + direction))).sum()
            (direction,) = torch.autograd.grad(moved, direction)
            # Where an answer is very sure the squares of its gradient underflow, so that its
            # length would be 0. An input of zeros stays one.
            small = torch.finfo(x.dtype).tiny
            largest = direction.flatten(1).abs().amax(dim=1).view_as(length)
            direction = direction / largest.clamp(min=small)
            step = self.radius * length * direction / _lengths(direction).clamp(min=small)
            return _divergence(target, log_probabilities(model(x + step)))


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Leaves dropout out meanwhile, and the rest of the network in its mode."""
    layers = [m for m in model.modules() if isinstance(m, _DropoutNd) and m.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


@torch.no_grad()
def _answers(model: nn.Module, x: Tensor) -> Tensor:
    """`log ŷ [N, K]` as targets: no gradient, no dropout."""
    with without_dropout(model):
        return log_probabilities(model(x))


def _sure_labels(target: Tensor, log_probs: Tensor, threshold: float) -> Tensor:
    """`−log ŷ_c` of the class c that `target` has, 0 where that is less sure than `threshold`."""
    sure, label = target.exp().max(dim=1)
    loss = functional.nll_loss(log_probs, label, reduction="none")
    return torch.where(sure >= threshold, loss, 0.0)


def _divergence(target: Tensor, log_probs: Tensor) -> Tensor:
    """`KL(target ‖ ŷ) [N]` of two `log ŷ [N, K]`."""
    least = torch.finfo(target.dtype).min  # a class may be masked by a logit of −∞
    pair = log_probs.clamp(min=least), target.clamp(min=least)
    return functional.kl_div(*pair, reduction="none", log_target=True).sum(dim=1)


def _lengths(x: Tensor) -> Tensor:
    """`‖x‖ [N, 1, …]`."""
    lengths: Tensor = x.flatten(1).norm(dim=1)
    return lengths.view(-1, *[1] * (x.ndim - 1))


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; expected a fraction from 0 to 1")
