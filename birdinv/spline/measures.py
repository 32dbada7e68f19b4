"""Generalisation, encodings and sparse activations, as the spline view has them (SPL §3, §4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from birdinv.refusals import check_logits, survey
from birdinv.spline.modes import judged
from birdinv.spline.regions import Code, codes
from birdinv.spline.templates import CHUNK, iter_templates

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Generalisation:
    """How alike a network does on what it has learned and on what it has not.

    Attributes:
        train_error, test_error: shares of wrong answers, the paper's `L_AC`.
    """

    train_error: float
    test_error: float

    @property
    def gap(self) -> float:
        """`|L_AC(train) − L_AC(test)|` (SPL definition 6), 0 at best."""
        return abs(self.train_error - self.test_error)

    @property
    def objective(self) -> float:
        """`L_AC(train) + gap`, what the optimal network makes least (SPL definition 7)."""
        return self.train_error + self.gap


def generalisation(model: nn.Module, train: Batches, test: Batches) -> Generalisation:
    """The paper's measure of a network, by the errors it makes in eval mode.

    Args:
        train, test: batches of inputs `[N, C, *S]` and their classes `[N]`.

    Raises:
        ValueError: no samples, or logits that are not `[N, K]`.

    Reference: SPL definitions 6, 7.
    """
    survey(model)
    with judged(model), torch.no_grad():
        return Generalisation(_error(model, train), _error(model, test))


@dataclass(frozen=True)
class Encoding:
    """What a network keeps of its inputs, as amplitude and phase (SPL proposition 1).

    Attributes:
        amplitude: `A[x] x [N, K]`, how much of each template is there.
        phase: the codes of all layers, which say which templates these are.
    """

    amplitude: Tensor
    phase: dict[str, Code]


def encode(model: nn.Module, x: Tensor, *, chunk: int = CHUNK) -> Encoding:
    """The encoding of each input.

    Args:
        model: gives logits `[N, K]` for `x`.
        x: inputs `[N, C, *S]`.
        chunk: how many templates are computed at a time.

    Raises:
        TypeError, ValueError, RuntimeError: as `templates` and `codes`.

    Reference: SPL proposition 1.
    """
    amplitude = torch.cat([part.match for part in iter_templates(model, x, chunk=chunk)])
    return Encoding(amplitude, codes(model, x))


def sparsity(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The share of units that pass their argument on, for each nonlinearity and input, `[N]`.

    `‖A_σ z‖₀ / D` of SPL §4.3.2, where a LeakyReLU counts as the ReLU that it leaks from.

    Raises:
        TypeError, ValueError, RuntimeError: as `codes`.
    """
    found = codes(model, x)
    return {name: code.active for name, code in found.items() if code.slopes is not None}


def _error(model: nn.Module, batches: Batches) -> float:
    wrong = count = 0
    for x, y in batches:
        logits = model(x)
        check_logits(logits, x)
        if y.shape != x.shape[:1]:
            raise ValueError(f"y of shape {tuple(y.shape)}; expected a class each, [{len(x)}]")
        wrong += int((logits.argmax(dim=1) != y).sum())
        count += len(y)
    if not count:
        raise ValueError("there are no samples to measure errors on; give one batch at least")
    return wrong / count
