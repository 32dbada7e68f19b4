"""The inversion-regularised objectives, for any network that gives logits `[N, K]`.

A sample has a label in `0 … K−1` or `UNLABELED`. Every term is taken per sample and then averaged
over the samples it applies to: the cross-entropy over the labelled, the entropy over the
unlabelled, the reconstruction over all of them. Terms without weight are not computed.

All objectives are called alike, `objective(model, x, y)`, give `Terms`, and share these options:

    distance: "squared", "cosine", or a function `(ẑ, z) → [N]` in place of the squared norm.
    balance: κ or a `Balance`, to keep the entropy from emptying classes.
    consistency: what another method asks of unlabelled samples, from `birdinv.consistency`.
    ramp: factor from 0 to 1, a number or a schedule, on the entropy, balance and consistency: a
        network that knows nothing yet has no answers worth being sure of.
    exact: go back to the input by autograd even where the first layer's Gram matrices would do.

A weight is a number, a schedule (see `loss_weights`) or a tensor, which on a GPU is not checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from birdinv.balance import Balance
from birdinv.consistency import Consistency
from birdinv.loss_weights import Weight, check_weight, weight_at
from birdinv.objective import Objective, Weighing
from birdinv.terms import Distance

Reduction = Literal["mean", "sum"]


class WeightedObjective(Objective):
    """`1[y≠∅] α CE + (1−α)[ β R + (1−β) 1[y=∅] E ]` (INV 10), or one of its two variants.

    `alpha = 1` is plain supervised training and costs no reconstruction; `alpha = 0` learns without
    labels.

    Args:
        alpha: weight of the labels, in [0, 1].
        beta: weight of the reconstruction against the entropy, in [0, 1].
        variant: "inv10"; "spl82" takes the entropy of all samples, not of the unlabelled alone
            (SPL 82); "ms5" swaps β and 1 − β (MS 5).
        reduction: `R = ‖A[x]ᵀf(x) − x‖²` as the mean over the elements of `x` (the first author's
            later code) or as the sum (INV 8 as printed). The mean holds templates in check; it is
            too weak beside the labels to make reconstructions good, and may even rise.
        distance, balance, consistency, ramp, exact: see the module.

    Example:
        >>> import birdinv, torch
        >>> model = birdinv.networks.build("bird10", classes=3, shape=(1, 8192))
        >>> objective = birdinv.WeightedObjective(alpha=0.7, beta=0.3)
        >>> terms = objective(model, torch.randn(2, 1, 8192), torch.tensor([2, birdinv.UNLABELED]))
        >>> terms.total.backward()
    """

    def __init__(
        self,
        alpha: Weight,
        beta: Weight,
        *,
        variant: Literal["inv10", "spl82", "ms5"] = "inv10",
        reduction: Reduction = "mean",
        distance: Literal["squared", "cosine"] | Distance = "squared",
        balance: Weight | Balance | None = None,
        consistency: Consistency | None = None,
        ramp: Weight = 1.0,
        exact: bool = False,
    ) -> None:
        super().__init__(
            reduction=reduction,
            distance=distance,
            balance=balance,
            consistency=consistency,
            ramp=ramp,
            exact=exact,
        )
        check_weight("alpha", alpha, most=1)
        check_weight("beta", beta, most=1)
        if variant not in ("inv10", "spl82", "ms5"):
            raise ValueError(f"variant is {variant!r}; expected 'inv10', 'spl82' or 'ms5'")
        self.alpha, self.beta, self.variant = alpha, beta, variant

    def _weighing(self, model: nn.Module, step: int | None) -> Weighing:
        alpha = weight_at("alpha", self.alpha, step, most=1)
        beta = weight_at("beta", self.beta, step, most=1)
        first, second = (1 - alpha) * beta, (1 - alpha) * (1 - beta)
        return Weighing(
            label=alpha,
            reconstruction=second if self.variant == "ms5" else first,
            entropy=first if self.variant == "ms5" else second,
            entropy_of_all=self.variant == "spl82",
        )


class ParameterFreeObjective(Objective):
    """`(1/log K)(1[y≠∅] CE + 1[y=∅] E) + Γ`, or `… + λ` (MS 6, 8–10); inputs have `‖x‖∞ = 1`.

    `Γ = R / D` reconstructs the input alone, `λ = (1/L) Σ_{l<L} R^(l) / D^(l)` the input and every
    layer, with gradients through both sides of each distance.

    Args:
        scale: "global" (Γ), "multiscale" (λ), or None for an ablation without reconstruction.
        entropy: False for an ablation without the entropy.
        layers: names from `model.named_modules()` of the layers 1 … L−1 for λ; None takes the
            network's own `model.layers`.
        distance, balance, consistency, ramp, exact: see the module.

    Example:
        >>> import birdinv, torch
        >>> from torch.nn import Linear, ReLU, Sequential
        >>> model = Sequential(Linear(4, 8), ReLU(), Linear(8, 3))
        >>> objective = birdinv.ParameterFreeObjective("multiscale", layers=["1"])
        >>> x = torch.rand(2, 4)
        >>> terms = objective(model, x / x.abs().amax(1, keepdim=True), torch.tensor([2, -1]))
        >>> terms.total.backward()
    """

    def __init__(
        self,
        scale: Literal["global", "multiscale"] | None,
        *,
        entropy: bool = True,
        layers: Sequence[str] | None = None,
        distance: Literal["squared", "cosine"] | Distance = "squared",
        balance: Weight | Balance | None = None,
        consistency: Consistency | None = None,
        ramp: Weight = 1.0,
        exact: bool = False,
    ) -> None:
        super().__init__(
            reduction="mean",
            distance=distance,
            balance=balance,
            consistency=consistency,
            ramp=ramp,
            exact=exact,
        )
        if scale not in ("global", "multiscale", None):
            raise ValueError(f"scale is {scale!r}; expected 'global', 'multiscale' or None")
        if scale != "multiscale" and layers:
            raise ValueError(f"with scale={scale!r} no layer is reconstructed: leave layers out")
        _check_layers(layers)
        self.scale, self.entropy, self.layers = scale, entropy, layers

    def _weighing(self, model: nn.Module, step: int | None) -> Weighing:
        layers = _layers(model, self.layers) if self.scale == "multiscale" else ()
        levels = 1 + len(layers)
        return Weighing(
            label=1.0,
            entropy=float(self.entropy),
            reconstruction=0.0 if self.scale is None else 1.0,
            levels=[1 / levels] * levels,
            layers=layers,
            scale=_one_over_log,
        )


class LayerWeightedObjective(Objective):
    """`α 1[y≠∅] CE + β E + Σ_l γ^(l) R^(l)`, the entropy of all samples (INV 11, SPL 83).

    Args:
        alpha, beta: weights of labels and entropy, at least 0.
        gamma: `γ^(0), γ^(1) …` for the input and then each of `layers`, or one weight for all.
        layers: names from `model.named_modules()`; None takes the network's own `model.layers`,
            and `[]` reconstructs the input alone.
        reduction: `R^(l)` as the mean over the elements of `z^(l)`, or as the sum.
        distance, balance, consistency, ramp, exact: see the module.

    Example:
        >>> import birdinv, torch
        >>> model = birdinv.networks.build("bird10", classes=3, shape=(1, 8192))
        >>> objective = birdinv.LayerWeightedObjective(
        ...     alpha=1.0, beta=0.1, gamma=[0.2, 0.5], layers=["block1"])
        >>> terms = objective(model, torch.randn(2, 1, 8192), torch.tensor([2, birdinv.UNLABELED]))
        >>> sorted(terms.levels)
        ['block1', 'input']
    """

    def __init__(
        self,
        alpha: Weight,
        beta: Weight,
        gamma: Weight | Sequence[Weight] | nn.ParameterList,
        *,
        layers: Sequence[str] | None = None,
        reduction: Reduction = "mean",
        distance: Literal["squared", "cosine"] | Distance = "squared",
        balance: Weight | Balance | None = None,
        consistency: Consistency | None = None,
        ramp: Weight = 1.0,
        exact: bool = False,
    ) -> None:
        super().__init__(
            reduction=reduction,
            distance=distance,
            balance=balance,
            consistency=consistency,
            ramp=ramp,
            exact=exact,
        )
        _check_layers(layers)
        if isinstance(gamma, nn.ParameterList):
            gamma = list(gamma)
        check_weight("alpha", alpha)
        check_weight("beta", beta)
        for level, weight in enumerate(gamma if isinstance(gamma, Sequence) else [gamma]):
            check_weight(f"gamma[{level}]", weight)
        self.alpha, self.beta, self.gamma, self.layers = alpha, beta, gamma, layers

    def _weighing(self, model: nn.Module, step: int | None) -> Weighing:
        layers = _layers(model, self.layers)
        levels = 1 + len(layers)
        gamma = self.gamma if isinstance(self.gamma, Sequence) else [self.gamma] * levels
        if len(gamma) != levels:
            raise ValueError(
                f"gamma has {len(gamma)} weights for the input and {len(layers)} layers; expected "
                f"{levels}, the input's first"
            )
        return Weighing(
            label=weight_at("alpha", self.alpha, step),
            entropy=weight_at("beta", self.beta, step),
            entropy_of_all=True,
            levels=[weight_at(f"gamma[{i}]", weight, step) for i, weight in enumerate(gamma)],
            layers=layers,
        )


def _one_over_log(classes: int) -> float:
    if classes < 2:
        raise ValueError("the model gave one logit; expected at least two, for 1 / log K")
    return 1 / math.log(classes)


def _check_layers(layers: Sequence[str] | None) -> None:
    if isinstance(layers, str):
        raise ValueError(f"layers is the string {layers!r}; expected a list: [{layers!r}]")


def _layers(model: nn.Module, layers: Sequence[str] | None) -> Sequence[str]:
    if layers is not None:
        return layers
    while isinstance(model, DistributedDataParallel):
        model = model.module
    own = getattr(model, "layers", None)
    if isinstance(own, Sequence) and all(isinstance(name, str) for name in own):
        return own
    raise ValueError(  # `layers` often is a list of modules, or their number
        "this network does not name its layers: pass layers=[…], names from model.named_modules()"
    )
