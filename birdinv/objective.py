"""What the objectives share: one pass, the terms over the right samples, their weighted sum."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from birdinv.arguments import check_arguments, check_labels
from birdinv.balance import Balance, ClassWatch, predicted_classes
from birdinv.consistency import Consistency, Pass
from birdinv.inversion import Reconstruction, reconstruct
from birdinv.loss_weights import Weight, check_weight, weight_at
from birdinv.refusals import check_logits
from birdinv.samples import Samples
from birdinv.terms import (
    Distance,
    Terms,
    cosine,
    cross_entropy,
    entropy,
    entropy_of,
    log_probabilities,
    squared,
)

_DISTANCES: dict[str, Distance] = {"squared": squared, "cosine": cosine}


@dataclass(frozen=True)
class Weighing:
    """`scale(K) (label CE + entropy E) + reconstruction Σ_l levels[l] R^(l)` at one step.

    And `sparsity` times the sum over `layers` of the mean `|z^(l)|`.
    """

    label: float | Tensor
    entropy: float | Tensor
    reconstruction: float | Tensor = 1.0
    levels: Sequence[float | Tensor] = (1.0,)  # of the input, then of each of `layers`
    layers: Sequence[str] = ()
    sparsity: float | Tensor = 0.0
    entropy_of_all: bool = False  # also of the labelled samples
    scale: Callable[[int], float] = lambda classes: 1.0


class Objective(ABC):
    """One pass through a network and back, and what came of it as `Terms`.

    A kind of objective says how it weighs them, in `_weighing`.

    Attributes:
        watch: warns of classes that empty; None keeps silent.
    """

    def __init__(
        self,
        *,
        reduction: Literal["mean", "sum"],
        distance: Literal["squared", "cosine"] | Distance,
        balance: Weight | Balance | None,
        consistency: Consistency | None,
        ramp: Weight,
        exact: bool,
    ) -> None:
        check_weight("ramp", ramp, most=1)
        if isinstance(distance, str):
            if distance not in _DISTANCES:
                raise ValueError(
                    f"distance is {distance!r}; expected 'squared', 'cosine' or a function"
                )
            distance = _DISTANCES[distance]
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction is {reduction!r}; expected 'mean' or 'sum'")
        if balance is not None and not isinstance(balance, Balance):
            balance = Balance(balance)
        if consistency is not None and not isinstance(consistency, Consistency):
            raise TypeError(
                f"consistency is a {type(consistency).__name__}; expected one of "
                "birdinv.consistency, such as MeanTeacher()"
            )
        self.reduction, self.distance, self.exact = reduction, distance, exact
        self.balance, self.consistency, self.ramp = balance, consistency, ramp
        self.watch: ClassWatch | None = ClassWatch()

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        groups: Tensor | None = None,
        view: Tensor | None = None,
        teacher: nn.Module | None = None,
        step: int | None = None,
        whole: Tensor | None = None,
    ) -> Terms:
        """The objective on inputs `x [N, C, *S]` with labels `y [N]`, int64 in `−1 … K−1`.

        Args:
            groups: int64 `[N]`, the recording that each sample is a piece of, −1 for none: the
                entropy of an unlabelled sample is then that of its group's mean prediction, and
                a balance counts every group once (equation sheet §4.7).
            view: the same samples as `x`, changed in another way, for a consistency.
            teacher: a network whose weights follow the model's, for a consistency.
            step: from 0, for weights that follow a schedule.
            whole: the labels of the whole batch where this is a part of it (gradient
                accumulation): the totals of the parts then add up to that of the whole, except for
                a balance, which sees one part at a time.

        Raises:
            TypeError, ValueError: inputs or labels of another shape, type or range, a schedule
                without a step, or what `reconstruct` refuses.
            RuntimeError: in inference mode, or where the logits do not depend on the input, if a
                reconstruction is needed.
        """
        check_arguments(x, y, whole, groups)
        weighing = self._weighing(model, step)
        if "input" in weighing.layers:
            raise ValueError(
                "a layer is named 'input', as the level of the input is called: rename it"
            )
        samples = Samples(model, y, whole, groups)
        levels: dict[str, Tensor] = {}
        back = None
        rebuilds = _counts(weighing.reconstruction) and any(map(_counts, weighing.levels))
        if rebuilds or _counts(weighing.sparsity):
            back = self.reconstruct(model, x, weighing.layers)
            logits = back.logits
            if rebuilds:
                levels = self._levels(back, x, samples, weighing.levels)
        else:
            logits = model(x)
            check_logits(logits, x)
        check_labels(y, whole, logits.shape[1])
        log_probs = log_probabilities(logits)
        scale = weighing.scale(logits.shape[1])
        ramp = weight_at("ramp", self.ramp, step, most=1)
        parts: list[Tensor] = []
        ce = e = rebuilt = kept = agreed = active = None
        if _counts(weighing.label):
            ce = samples.mean_of_labelled(cross_entropy(log_probs, y))
            parts.append(_weighed(scale * weighing.label, ce))
        if _counts(weighing.entropy):
            mean = samples.mean if weighing.entropy_of_all else samples.mean_of_unlabelled
            e = mean(_entropies(log_probs, samples, groups))
            parts.append(_weighed(ramp * scale * weighing.entropy, e))
        if levels:
            weights = filter(_counts, weighing.levels)
            pairs = zip(weights, levels.values(), strict=True)
            rebuilt = _sum([_weighed(weight, error) for weight, error in pairs])
            parts.append(_weighed(weighing.reconstruction, rebuilt))
        if back is not None and _counts(weighing.sparsity):
            outputs = [z for z, _ in back.layers.values()]
            active = _sum([samples.mean(z.abs().flatten(1).mean(dim=1)) for z in outputs])
            parts.append(weighing.sparsity * active)
        if self.balance is not None:
            kept = self.balance.penalty(
                samples.mean_row_of_unlabelled(log_probs.exp()), seen=samples.any_unlabelled
            )
            kappa = ramp * weight_at("kappa", self.balance.kappa, step)
            parts.append(kappa * kept if samples.part is None else kappa * samples.part * kept)
        if self.consistency is not None:
            weight = weight_at("weight of the consistency", self.consistency.weight, step)
            if _counts(weight):
                each = self.consistency.each(Pass(model, x, log_probs, view, teacher))
                mean = samples.mean if self.consistency.of_all else samples.mean_of_unlabelled
                agreed = mean(each)
                parts.append(_weighed(ramp * weight, agreed))
        watched = (e is not None or agreed is not None) and torch.is_grad_enabled()
        histogram = (
            predicted_classes(logits, samples.unlabelled)
            if self.watch is None
            else self.watch.count(logits, samples.unlabelled, training=watched)
        )
        return Terms(
            total=_sum(parts) if parts else 0 * log_probs.sum(),
            cross_entropy=_detached(ce),
            entropy=_detached(e),
            reconstruction=_detached(rebuilt),
            balance=_detached(kept),
            consistency=_detached(agreed),
            sparsity=_detached(active),
            levels={name: error.detach() for name, error in levels.items()},
            histogram=histogram,
            logits=logits.detach(),
        )

    def reconstruct(
        self, model: nn.Module, x: Tensor, layers: Sequence[str] = ()
    ) -> Reconstruction:
        """Logits and what this objective penalises the reconstructions of; see `inversion`."""
        return reconstruct(model, x, layers, exact=self.exact)

    def __repr__(self) -> str:
        shown = {k: v for k, v in vars(self).items() if k != "watch"}
        shown["distance"] = getattr(self.distance, "__name__", self.distance)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    @abstractmethod
    def _weighing(self, model: nn.Module, step: int | None) -> Weighing:
        """The weights at a step."""

    def _levels(
        self, back: Reconstruction, x: Tensor, samples: Samples, weights: Sequence[float | Tensor]
    ) -> dict[str, Tensor]:
        """`R^(l)` of the input and the layers that have a weight, `/ D^(l)` if to be meant."""
        levels: dict[str, Tensor] = {}
        for name, weight in zip(["input", *back.layers], weights, strict=True):
            if not _counts(weight):
                continue
            z, z_hat = back.layers[name] if name != "input" else (x, None)
            if z_hat is None and self.distance is squared:
                each = back.squared_error()
            else:
                each = self.distance(back.x_hat if z_hat is None else z_hat, z)
            if not isinstance(each, Tensor) or each.shape != x.shape[:1]:
                got = list(each.shape) if isinstance(each, Tensor) else type(each).__name__
                raise ValueError(
                    f"the distance gave {got}; expected one number a sample, [{len(x)}]"
                )
            divided = self.distance is squared and self.reduction == "mean"
            levels[name] = samples.mean(each, z[0].numel() if divided else 1)
        return levels


def _counts(weight: float | Tensor) -> bool:
    """Whether a term is needed; one whose weight is being learned is, also at 0."""
    return isinstance(weight, Tensor) or weight != 0


def _weighed(weight: float | Tensor, value: Tensor) -> Tensor:
    # On small networks every operation saved shows.
    return value if isinstance(weight, float) and weight == 1 else weight * value


def _sum(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _entropies(log_probs: Tensor, samples: Samples, groups: Tensor | None) -> Tensor:
    """`E [N]` of every sample, or of the mean prediction of its group where it is in one."""
    own = entropy(log_probs)
    if groups is None:
        return own
    shared = entropy_of(samples.mean_of_group(log_probs.exp()))
    return torch.where(samples.unlabelled & (groups >= 0), shared, own)


def _detached(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach()
