"""The terms of the objectives, one number a sample (equation sheet §3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

UNLABELED = -1

Distance = Callable[[Tensor, Tensor], Tensor]
"""`(ẑ, z) → [N]`, differentiable in both: how far reconstructions are from what they rebuild."""


@dataclass(frozen=True)
class Terms:
    """An objective's value and, detached, what it is made of; None = not part of it.

    Attributes:
        total: scalar to call `backward` on.
        cross_entropy, entropy, reconstruction, balance, consistency, sparsity: scalars, before
            their weights; the reconstruction is the sum over levels, each with its own: `γ^(l)`,
            `1/L`, or `λ_rec` and `λ_M`.
        levels: `R^(l)` by layer, "input" first, as they enter `reconstruction`.
        histogram: predicted classes of the unlabelled samples, counts `[K]`.
        logits: `[N, K]`.
    """

    total: Tensor
    cross_entropy: Tensor | None
    entropy: Tensor | None
    reconstruction: Tensor | None
    balance: Tensor | None
    levels: dict[str, Tensor]
    histogram: Tensor
    logits: Tensor = field(repr=False)
    consistency: Tensor | None = None
    sparsity: Tensor | None = None


def log_probabilities(logits: Tensor) -> Tensor:
    """`log ŷ [N, K]` in at least float32: under autocast the logits come in bfloat16."""
    return functional.log_softmax(_at_least_single(logits), dim=1)


def cross_entropy(log_probs: Tensor, y: Tensor) -> Tensor:
    """`−log ŷ_y [N]`, 0 where there is no label (SPL 16)."""
    return functional.nll_loss(log_probs, y, ignore_index=UNLABELED, reduction="none")


def entropy(log_probs: Tensor) -> Tensor:
    """`−Σ_c ŷ_c log ŷ_c [N]`, `0 log 0 = 0` (INV 9)."""
    least = torch.finfo(log_probs.dtype).min  # a class may be masked by a logit of −∞
    return -(log_probs.exp() * log_probs.clamp(min=least)).sum(dim=1)


def entropy_of(probs: Tensor) -> Tensor:
    """The same `[N]` of distributions `[N, K]` that have no logits, such as means of others."""
    # A share can underflow to 0, where a logarithm has no gradient.
    return -(probs * probs.clamp(min=torch.finfo(probs.dtype).tiny).log()).sum(dim=1)


def squared(z_hat: Tensor, z: Tensor) -> Tensor:
    """`‖ẑ − z‖² [N]` (INV 8 and 12, MS 7)."""
    pair = _at_least_single(z_hat), _at_least_single(z)
    return functional.mse_loss(*pair, reduction="none").flatten(1).sum(dim=1)


def cosine(z_hat: Tensor, z: Tensor) -> Tensor:
    """`1 − cos(ẑ, z) [N]`, blind to the size of the reconstruction (named by INV §2.3).

    1 with a gradient of zero where one of the two is zero.
    """
    rows = _at_least_single(z_hat).flatten(1), _at_least_single(z).flatten(1)
    # Near zero torch divides by 1e-8 instead of the length: a gradient of up to 1e8.
    there = rows[0].any(dim=1) & rows[1].any(dim=1)
    return 1 - torch.where(there, functional.cosine_similarity(*rows, dim=1), 0.0)


def _at_least_single(z: Tensor) -> Tensor:
    """In float32 where it is less: sums of squares leave the range of float16."""
    return z.to(torch.promote_types(z.dtype, torch.float32))
