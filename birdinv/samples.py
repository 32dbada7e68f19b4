"""Which samples of a batch a term applies to, and how many there are, wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from birdinv.terms import UNLABELED


class Samples:
    """Means over the labelled, the unlabelled or all samples of a batch.

    Under `DistributedDataParallel` the counts are those of all ranks together. That averages
    gradients over the ranks, so a rank's sum is divided by its fair share of the count: averaged
    over the ranks, values and gradients are those of the whole batch in one process, however the
    labels are spread.

    Args:
        y: labels `[N]`.
        whole: the labels of the whole batch where this is a part of it (gradient accumulation):
            then the means of the parts add up to the means of the whole.
    """

    def __init__(self, modules: Sequence[nn.Module], y: Tensor, whole: Tensor | None) -> None:
        self.unlabelled = y == UNLABELED
        counted = self.unlabelled if whole is None else whole == UNLABELED
        self._group: Any = None
        self._ranks = 1
        for module in modules:
            if isinstance(module, DistributedDataParallel):
                self._group = module.process_group
                self._ranks = self._group.size()
                break
        counts = torch.stack([(~counted).sum(), counted.sum()])
        if self._ranks > 1:
            torch.distributed.all_reduce(counts, group=self._group)
        self.any_unlabelled = counts[1] > 0
        self.labelled_count, self.unlabelled_count = (counts.clamp(min=1) / self._ranks).unbind()
        self.count: Tensor | int = len(counted)
        if self._ranks > 1:
            self.count = counts.sum() / self._ranks
        self.part = None if whole is None else self.unlabelled.sum() / self.unlabelled_count

    def mean(self, each: Tensor) -> Tensor:
        """Of all samples."""
        return each.sum() / self.count

    def mean_of_labelled(self, each: Tensor) -> Tensor:
        """Of the labelled samples, 0 without any."""
        return torch.where(self.unlabelled, 0.0, each).sum() / self.labelled_count

    def mean_of_unlabelled(self, each: Tensor) -> Tensor:
        """Of the unlabelled samples, 0 without any; `each` is `[N]`."""
        return torch.where(self.unlabelled, each, 0.0).sum() / self.unlabelled_count

    def mean_row_of_unlabelled(self, rows: Tensor) -> Tensor:
        """Of the rows `[N, K]` of the unlabelled samples of this batch or part, on all ranks."""
        count = self.unlabelled_count if self.part is None else self.unlabelled.sum().clamp(min=1)
        mean = torch.where(self.unlabelled[:, None], rows, 0.0).sum(dim=0) / count
        if self._ranks == 1:
            return mean
        everywhere = mean.detach().clone()
        torch.distributed.all_reduce(everywhere, group=self._group)
        # The value of all ranks with the gradient of this one.
        return mean + (everywhere / self._ranks - mean.detach())
