"""The inversion-regularised objectives, for any network that gives logits `[N, K]`.

A sample has a label in `0 … K−1` or `UNLABELED`. Every term is taken per sample and then averaged
over the samples it applies to: the cross-entropy over the labelled, the entropy over the
unlabelled, the reconstruction over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from birdinv.inversion import reconstruct

UNLABELED = -1


@dataclass(frozen=True)
class Terms:
    """An objective's value and, detached, what it is made of; None = not part of it.

    `total` is a scalar to call `backward` on; `logits` are `[N, K]`.
    """

    total: Tensor
    cross_entropy: Tensor | None
    entropy: Tensor | None
    reconstruction: Tensor | None
    logits: Tensor


def cross_entropy(log_probs: Tensor, y: Tensor) -> Tensor:
    """`−log ŷ_y`, the mean over labelled samples; 0 without any (SPL 16)."""
    labelled = (y != UNLABELED).sum().clamp(min=1)
    return functional.nll_loss(log_probs, y, ignore_index=UNLABELED, reduction="sum") / labelled


def entropy(log_probs: Tensor, y: Tensor) -> Tensor:
    """`−Σ_c ŷ_c log ŷ_c`, the mean over unlabelled samples; 0 without any (INV 9)."""
    unlabelled = y == UNLABELED
    each = -(log_probs.exp() * log_probs).sum(dim=1)
    return torch.where(unlabelled, each, 0.0).sum() / unlabelled.sum().clamp(min=1)


def squared_distance(z_hat: Tensor, z: Tensor, *, reduction: Literal["mean", "sum"]) -> Tensor:
    """`‖ẑ − z‖²` per sample, summed or averaged over its elements, then the mean over samples."""
    square = (z_hat - z).square()
    return square.mean() if reduction == "mean" else square.flatten(1).sum(dim=1).mean()


class WeightedObjective:
    """`1[y≠∅] α CE + (1−α)[ β R + (1−β) 1[y=∅] E ]` (INV 10).

    `alpha = 1` is plain supervised training and costs no reconstruction; `alpha = 0` learns without
    labels.

    Args:
        alpha: weight of the labels, in [0, 1].
        beta: weight of the reconstruction against the entropy, in [0, 1].
        reduction: `R = ‖A[x]ᵀf(x) − x‖²` as the mean over the elements of `x` (the first author's
            later code) or as the sum (INV 8 as printed).

    Example:
        >>> import birdinv, torch
        >>> model = birdinv.networks.build("bird10", classes=3, shape=(1, 8192))
        >>> objective = birdinv.WeightedObjective(alpha=0.7, beta=0.3)
        >>> terms = objective(model, torch.randn(2, 1, 8192), torch.tensor([2, birdinv.UNLABELED]))
        >>> terms.total.backward()
    """

    def __init__(
        self, alpha: float, beta: float, *, reduction: Literal["mean", "sum"] = "mean"
    ) -> None:
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; expected a number from 0 to 1")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction is {reduction!r}; expected 'mean' or 'sum'")
        self.alpha, self.beta, self.reduction = alpha, beta, reduction

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Terms:
        """The objective on inputs `x [N, C, *S]` with labels `y [N]`, int64 in `−1 … K−1`.

        Raises:
            ValueError: labels of another shape, type or range, or what `reconstruct` refuses.
            RuntimeError: in inference mode, or where the logits do not depend on the input.
        """
        _check(x, y)
        alpha, beta = self.alpha, self.beta
        rebuilt = None
        if (1 - alpha) * beta > 0:
            back = reconstruct(model, x)
            logits = back.logits
            rebuilt = squared_distance(back.x_hat, x, reduction=self.reduction)
        else:
            logits = model(x)
        _check_range(y, logits)
        log_probs = _log_probs(logits)
        ce, e = cross_entropy(log_probs, y), entropy(log_probs, y)
        total = alpha * ce + (1 - alpha) * (1 - beta) * e
        if rebuilt is not None:
            total = total + (1 - alpha) * beta * rebuilt
        return _terms(
            total,
            ce if alpha > 0 else None,
            e if (1 - alpha) * (1 - beta) > 0 else None,
            rebuilt,
            logits,
        )


class ParameterFreeObjective:
    """`(1/log K)(1[y≠∅] CE + 1[y=∅] E) + Γ`, or `… + λ` (MS 6, 8–10); inputs have `‖x‖∞ = 1`.

    `Γ = R / D` reconstructs the input alone, `λ = (1/L) Σ_{l<L} R^(l) / D^(l)` the input and every
    layer, with gradients through both sides of each distance.

    Args:
        scale: "global" (Γ) or "multiscale" (λ).
        layers: names from `model.named_modules()` of the layers 1 … L−1 for λ; None takes the
            network's own `model.layers`.

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
        self, scale: Literal["global", "multiscale"], *, layers: Sequence[str] | None = None
    ) -> None:
        if scale not in ("global", "multiscale"):
            raise ValueError(f"scale is {scale!r}; expected 'global' or 'multiscale'")
        if scale == "global" and layers:
            raise ValueError("the global objective reconstructs the input alone: leave layers out")
        self.scale, self.layers = scale, layers

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Terms:
        """The objective on inputs `x [N, C, *S]` with labels `y [N]`, int64 in `−1 … K−1`.

        Raises:
            ValueError: labels of another shape, type or range, or what `reconstruct` refuses.
            RuntimeError: in inference mode, or where the logits do not depend on the input.
        """
        _check(x, y)
        back = reconstruct(model, x, self._layers(model))
        _check_range(y, back.logits)
        if back.logits.shape[1] < 2:
            raise ValueError("the model gave one logit; expected at least two, for 1 / log K")
        log_probs = _log_probs(back.logits)
        ce, e = cross_entropy(log_probs, y), entropy(log_probs, y)
        pairs = [(x, back.x_hat), *back.layers.values()]
        errors = [squared_distance(z_hat, z, reduction="mean") for z, z_hat in pairs]
        rebuilt = torch.stack(errors).mean()
        total = (ce + e) / math.log(back.logits.shape[1]) + rebuilt
        return _terms(total, ce, e, rebuilt, back.logits)

    def _layers(self, model: nn.Module) -> Sequence[str]:
        if self.scale == "global":
            return ()
        if self.layers is not None:
            return self.layers
        own: Sequence[str] | None = getattr(model, "layers", None)
        if own is None:
            raise ValueError(
                "this network does not name its layers: pass layers=[…], names from "
                "model.named_modules()"
            )
        return own


def _log_probs(logits: Tensor) -> Tensor:
    """`log ŷ` in at least float32: under autocast the logits come in bfloat16."""
    return functional.log_softmax(
        logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1
    )


def _terms(
    total: Tensor, ce: Tensor | None, e: Tensor | None, rebuilt: Tensor | None, logits: Tensor
) -> Terms:
    return Terms(
        total,
        None if ce is None else ce.detach(),
        None if e is None else e.detach(),
        None if rebuilt is None else rebuilt.detach(),
        logits.detach(),
    )


def _check(x: Tensor, y: Tensor) -> None:
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise ValueError(
            f"labels of shape {tuple(y.shape)} and type {y.dtype} for {len(x)} inputs; expected "
            f"int64 [{len(x)}], {UNLABELED} where there is no label"
        )


def _check_range(y: Tensor, logits: Tensor) -> None:
    # On a GPU looking would mean waiting; there `nll_loss` itself stops on such a label.
    classes = logits.shape[1]
    if y.device.type == "cpu" and len(y) and not UNLABELED <= y.min() <= y.max() < classes:
        raise ValueError(
            f"labels from {int(y.min())} to {int(y.max())} for {classes} logits; expected 0 to "
            f"{classes - 1}, {UNLABELED} where there is no label"
        )
