"""What keeps the entropy term from emptying classes (equation sheet §4.6; ours, not the papers').

The entropy of single predictions falls just as well when all samples are sure of the same class.
Mutual-information maximisation (Bridle et al. 1992; RIM, Gomes et al. 2010; IMSAT, Hu et al. 2017)
asks besides that the mean prediction `ȳ` keep its entropy, or stay near a known prior.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from birdinv.loss_weights import Weight, check_weight


class Balance:
    """`−H(ȳ)`, or `KL(prior ‖ ȳ)`, for the mean predicted distribution `ȳ` of unlabelled samples.

    One balance serves one network. With memory it changes with every batch that gradients are
    enabled for, and its `state_dict` belongs in a checkpoint.

    Args:
        kappa: its weight κ in an objective: a number, a schedule or a tensor.
        memory: fraction of `ȳ` that is kept from the batches before, in [0, 1): 0 is the mean of
            the batch alone, 0.9 an exponential moving average over about ten. The gradient goes
            through the batch's part only, and so is `1 − memory` as large.
        prior: `[K]`, how common the classes are known to be; None: as common as each other.
    """

    def __init__(
        self,
        kappa: Weight = 1.0,
        *,
        memory: float = 0.0,
        prior: Sequence[float] | Tensor | None = None,
    ) -> None:
        check_weight("kappa", kappa)
        if not 0 <= memory < 1:
            raise ValueError(f"memory is {memory}; expected a fraction from 0 to below 1")
        if prior is not None:
            prior = torch.as_tensor(prior, dtype=torch.float64)
            if prior.ndim != 1 or not (prior >= 0).all() or abs(float(prior.sum()) - 1) > 1e-4:
                raise ValueError(
                    f"the prior is {prior.tolist()}; expected one share a class, none below 0, "
                    "that add up to 1"
                )
        self.kappa, self.memory, self.prior = kappa, memory, prior
        self._average: Tensor | None = None

    def __repr__(self) -> str:
        prior = None if self.prior is None else self.prior.tolist()
        return f"Balance({self.kappa}, memory={self.memory}, prior={prior})"

    def penalty(self, mean: Tensor, *, seen: Tensor) -> Tensor:
        """`−H(ȳ)` or `KL(prior ‖ ȳ)` without κ; 0 before the first unlabelled sample.

        Args:
            mean: of the predictions of the batch's unlabelled samples, `[K]`.
            seen: whether there were any; a batch without leaves the average as it is.
        """
        if self.prior is not None and len(self.prior) != len(mean):
            raise ValueError(
                f"the prior has {len(self.prior)} classes and the network {len(mean)}; give a "
                "share for each class of the network"
            )
        if self._average is not None and len(self._average) != len(mean):
            raise ValueError(
                f"the balance remembers {len(self._average)} classes and the network has "
                f"{len(mean)}; give each network a Balance of its own"
            )
        if self.memory:
            before = mean.new_zeros(mean.shape) if self._average is None else self._average
            before = before.to(mean)
            started = before.sum() > 0
            kept = self.memory * started.to(mean.dtype)
            mean = torch.where(seen, kept * before + (1 - kept) * mean, before)
            if torch.is_grad_enabled():  # an evaluation leaves it as it is
                # One batch that is not finite must not spoil all that come after it.
                finite = mean.isfinite().all()
                self._average = torch.where(finite, mean, before).detach()
            seen = seen | started
        # A share can underflow to 0, where a logarithm has no gradient.
        log_mean = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        if self.prior is None:
            penalty = (mean * log_mean).sum()
        else:
            prior = self.prior.to(mean)
            penalty = torch.special.xlogy(prior, prior).sum() - (prior * log_mean).sum()
        return torch.where(seen, penalty, 0.0)

    def state_dict(self) -> dict[str, Tensor]:
        """The moving average, to be kept in a checkpoint; empty without one."""
        return {} if self._average is None else {"average": self._average}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Goes on from what `state_dict` gave.

        Raises:
            ValueError: it is no such state, or one of a balance with memory for one without.
        """
        if state_dict.keys() - {"average"} or (state_dict and not self.memory):
            raise ValueError(
                f"the state has {sorted(state_dict)}; expected what state_dict gave, and of a "
                "Balance with the same memory"
            )
        self._average = state_dict.get("average")


def predicted_classes(logits: Tensor, unlabelled: Tensor) -> Tensor:
    """How many of the unlabelled samples are predicted to be of each class, int64 `[K]`."""
    predicted = logits.detach().argmax(dim=1)
    histogram = torch.zeros(logits.shape[1], dtype=torch.int64, device=logits.device)
    return histogram.index_add_(0, predicted, unlabelled.long())


class ClassWatch:
    """Counts predicted classes of unlabelled samples, of this process, and warns of empty ones.

    It looks every `every` batches, once `100·K` samples have been counted: that none of them was
    predicted to be of a class is then no matter of chance. A class that was there before is named
    at once, one that has never been after three looks, and none again until it has returned.
    """

    def __init__(self, every: int = 50) -> None:
        self._every = every
        self._begin(0)

    def _begin(self, classes: int) -> None:
        self._classes = classes
        self._batches = self._looks = 0
        self._counts: Tensor | None = None
        self._seen: set[int] = set()
        self._named: set[int] = set()

    def count(self, logits: Tensor, unlabelled: Tensor, *, training: bool = True) -> Tensor:
        """The histogram `[K]` of this batch's predictions for unlabelled samples.

        Args:
            training: whether the batch counts; one of an evaluation does not.
        """
        histogram = predicted_classes(logits, unlabelled)
        if not training:
            return histogram
        if len(histogram) != self._classes:  # another network
            self._begin(len(histogram))
        before = 0 if self._counts is None else self._counts.to(histogram.device)
        self._counts = histogram + before
        self._batches += 1
        if self._batches % self._every == 0:  # now and then: on a GPU looking means waiting
            self._look(self._counts.tolist())
        return histogram

    def _look(self, counts: list[int]) -> None:
        total = sum(counts)
        if total < 100 * len(counts):
            return
        self._counts = None
        self._looks += 1
        there = {c for c, count in enumerate(counts) if count}
        self._named -= there
        self._seen |= there
        expected = set(range(len(counts))) if self._looks >= 3 else self._seen
        empty = sorted(expected - there - self._named)
        self._named |= set(empty)
        if empty:
            which = f"class {empty[0]} has" if len(empty) == 1 else f"the classes {empty} have"
            warnings.warn(
                f"{which} emptied: none of the last {total} unlabelled samples is predicted to be "
                "there; give the objective a balance (or more of it), or weigh its entropy less",
                stacklevel=4,
            )
