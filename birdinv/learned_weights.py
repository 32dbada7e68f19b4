"""Weights of loss terms that are learned, by the derivative through the optimiser's step (INV 15).

The derivatives of the steps of SGD, Adam and AdamW are written out. Replaying the step with
torch's `differentiable=True` would not do: SGD's first momentum buffer is detached there, and
Adam's bias corrections are taken in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from birdinv.loss_weights import check_weight


class LearnedWeights:
    """Loss weights that descend on the loss after the step they led to (INV 14 and 15, MS §4).

    With `Θ(t+1)` the optimiser's step on `L(Θ(t); w)`, `w_j ← max(0, w_j − η g_j)` where `g_j` runs
    through that step, `J = dΘ(t+1)/d∇L` being known in closed form (`−λ` for plain SGD):

        g_j = dL(Θ(t+1))/dw_j = ∂L/∂w_j + ⟨∇L(Θ(t+1)), J ∂∇L(Θ(t); w)/∂w_j⟩

    With the training loss on both sides, as printed, weights are mostly driven down: `∂L/∂w_j` is
    their own term, `≥ 0`. Usually one wants `after=` another loss that does not depend on `w`, such
    as the cross-entropy of held out labelled samples; then that first part is absent.

    A step costs one backward pass more for each weight, and the pass through `after`. It takes the
    gradient as it is: one that is clipped or scaled would have another derivative.

    Args:
        weights: tensors of one number that require a gradient, the very ones that the objective
            was given; they are changed in place.
        optimiser: `torch.optim.SGD`, `Adam` or `AdamW` of the network's parameters, any options.
        rate: `η > 0`; INV prints 1.
        at_most: upper limit of the weights; 1 for those of `WeightedObjective`.

    Attributes:
        gradient: `g [W]` of the last step, for logging.

    Example:
        >>> import birdinv, torch
        >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(5, 4), torch.tensor([0, 2, -1, -1, -1])
        >>> held_out, labels = torch.rand(2, 4), torch.tensor([1, 2])
        >>> alpha, gamma = (torch.tensor(w, requires_grad=True) for w in (1.0, 0.5))
        >>> objective = birdinv.LayerWeightedObjective(alpha, 0.1, gamma, layers=[])
        >>> optimiser = torch.optim.Adam(model.parameters())
        >>> learned = birdinv.LearnedWeights([alpha, gamma], optimiser, rate=0.1)
        >>> loss = learned.step(  # in place of zero_grad, backward and step
        ...     lambda: objective(model, x, y).total,
        ...     after=lambda: torch.nn.functional.cross_entropy(model(held_out), labels))
        >>> learned.gradient.shape
        torch.Size([2])
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        optimiser: Optimizer,
        *,
        rate: float,
        at_most: float = math.inf,
    ) -> None:
        if isinstance(weights, Tensor) or not weights:
            raise ValueError("weights is a tensor or empty; expected a list of tensors")
        for name, number in (("rate", rate), ("at_most", at_most)):
            if not number > 0:
                raise ValueError(f"{name} is {number}; expected a number above 0")
        # A subclass may step otherwise, and then its derivative would be wrong without a word.
        if type(optimiser) not in (SGD, Adam, AdamW):
            raise ValueError(
                f"the optimiser is {type(optimiser).__name__}; expected torch.optim.SGD, Adam or "
                "AdamW, the derivatives of whose steps are known here"
            )
        if optimiser._optimizer_step_pre_hooks:
            raise ValueError(
                "the optimiser has hooks before its step, which may change the gradient in ways "
                "that are not known here; expected none"
            )
        taken = {p for group in optimiser.param_groups for p in group["params"]}
        for j, weight in enumerate(weights):
            name = f"weights[{j}]"
            if not isinstance(weight, Tensor) or not (weight.is_leaf and weight.requires_grad):
                raise ValueError(
                    f"{name} is no leaf that requires a gradient; expected a tensor such as "
                    "torch.tensor(0.5, requires_grad=True)"
                )
            check_weight(name, weight)
            check_weight(name, weight.item(), at_most)
            if weight in taken:
                raise ValueError(f"{name} is there twice, or is a parameter of the optimiser too")
            taken.add(weight)
        self.weights, self.optimiser = tuple(weights), optimiser
        self.rate, self.at_most = rate, at_most
        self.gradient = torch.zeros(len(weights)).to(weights[0])

    def step(self, loss: Callable[[], Tensor], after: Callable[[], Tensor] | None = None) -> Tensor:
        """One step of the optimiser and then of the weights; `L(Θ(t); w)`, detached.

        The parameters and their `.grad` become those of `zero_grad`, `backward` and `step`. A
        weight that a loss does not depend on has a derivative of 0.

        Args:
            loss: computes `L(Θ; w)`, a scalar, as `lambda: objective(model, x, y).total`.
            after: computes the loss at `Θ(t+1)`; None calls `loss` again, and so counts the batch
                twice in running statistics (batch norm, a balance's moving average).

        Raises:
            ValueError: a loss that is no scalar tensor, has no gradient or depends on no weight.
            RuntimeError: in one of several processes.
        """
        _check_alone()
        with torch.enable_grad():
            value, parameters, carried = self._step_parameters(loss)
            later = _scalar("after" if after else "loss", after or loss)
            pulls = torch.autograd.grad(
                later, [*self.weights, *parameters], allow_unused=True, materialize_grads=True
            )
        with torch.no_grad():
            derivatives = []
            for weight, own, carry in zip(self.weights, pulls, carried, strict=False):
                along = zip(pulls[len(self.weights) :], carry, strict=True)
                derivative = own + sum((pull * moved).sum().to(weight) for pull, moved in along)
                weight.copy_((weight - self.rate * derivative).clamp(0, self.at_most))
                derivatives.append(derivative.reshape(()).to(self.gradient))
            self.gradient = torch.stack(derivatives)
        return value

    def _step_parameters(
        self, loss: Callable[[], Tensor]
    ) -> tuple[Tensor, list[Tensor], list[list[Tensor | float]]]:
        """`L(Θ(t))`, the parameters, stepped, and by weight `dΘ(t+1)/dw_j`, one for each."""
        total = _scalar("loss", loss)
        groups = self.optimiser.param_groups
        owners = {p: group for group in groups for p in group["params"] if p.requires_grad}
        slopes = torch.autograd.grad(total, self.weights, create_graph=True, allow_unused=True)
        if all(slope is None for slope in slopes):
            raise ValueError(
                "the loss depends on none of the weights; give these very tensors to the objective"
            )
        # ∂∇L/∂w_j = ∇(∂L/∂w_j): one backward pass for each weight, while the graph of Θ(t) stands.
        turns: list[Sequence[Tensor | float]] = [
            torch.autograd.grad(
                slope, list(owners), retain_graph=True, allow_unused=True, materialize_grads=True
            )
            if slope is not None and slope.requires_grad
            else [0.0] * len(owners)
            for slope in slopes
        ]
        for parameter in owners:
            parameter.grad = None
        # Not `grad`: that may give two parameters one tensor, which some steps change in place.
        torch.autograd.backward(total, inputs=list(owners))
        with torch.no_grad():
            jacobians = [_jacobian(self.optimiser, group, p) for p, group in owners.items()]
            carried = [[a * b for a, b in zip(jacobians, turn, strict=True)] for turn in turns]
        self.optimiser.step()
        return total.detach(), list(owners), carried


def _check_alone() -> None:
    # Each rank would take the derivative of its own samples, and the weights drift apart.
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    if together and (ranks := torch.distributed.get_world_size()) > 1:
        raise RuntimeError(
            f"weights are learned in one process, and {ranks} run together: use numbers or "
            "schedules there"
        )


def _scalar(name: str, closure: Callable[[], Tensor]) -> Tensor:
    value = closure()
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise ValueError(
            f"{name} gave {value!r:.60}; expected a scalar tensor with a gradient, such as "
            "objective(model, x, y).total"
        )
    return value


def _jacobian(optimiser: Optimizer, group: dict[str, Any], parameter: Tensor) -> Tensor | float:
    """`dΘ(t+1)/d∇L`, element by element, of the step that the optimiser is about to take."""
    if parameter.grad is None:
        return 0.0
    sign = -1 if group["maximize"] else 1
    rate = sign * float(group["lr"])
    state = optimiser.state.get(parameter, {})
    if isinstance(optimiser, SGD):
        # b ← μb + (1 − d)g, but b = g in the first step; Θ ← Θ − λb, or λ(g + μb) with Nesterov.
        momentum = group["momentum"]
        begun = momentum and state.get("momentum_buffer") is not None
        b = 1 - group["dampening"] if begun else 1
        return -rate * (1 + momentum * b if group["nesterov"] else b)
    # m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², Θ ← Θ − (λ/c₁) m/q with q = √v/√c₂ + ε and
    # c = 1 − βᵗ, so that dΘ/dg = −(λ/c₁) ((1 − β₁) − (m/q) q')/q, q' = (1 − β₂)g/(√v √c₂).
    beta1, beta2 = map(float, group["betas"])
    t = float(state.get("step", 0)) + 1
    c1, c2 = 1 - beta1**t, 1 - beta2**t
    g = sign * parameter.grad
    if not group["decoupled_weight_decay"]:
        g = g + group["weight_decay"] * parameter
    m = beta1 * state.get("exp_avg", 0) + (1 - beta1) * g
    v = beta2 * state.get("exp_avg_sq", 0) + (1 - beta2) * g.square()
    half_dv = (1 - beta2) * g
    if group["amsgrad"] and state:
        # The largest v so far stands in its place, and does not move with g where it is an old one.
        half_dv = torch.where(v > state["max_exp_avg_sq"], half_dv, 0)
        v = torch.maximum(v, state["max_exp_avg_sq"])
    root = v.sqrt() / c2**0.5
    q = root + group["eps"]
    slope = -rate / c1 * (1 - beta1 - m / q * (half_dv / (root * c2))) / q
    # Where v = 0 no gradient ever came, and √v has no derivative. Such a parameter is beyond the
    # reach of every term, or all of their weights are 0: it stands still, and 0 says so.
    return torch.where(v > 0, slope, 0)
