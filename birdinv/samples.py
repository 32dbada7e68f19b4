"""Which samples of a batch a term applies to, and how many there are, wherever they are."""

from __future__ import annotations

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

    def __init__(self, model: nn.Module, y: Tensor, whole: Tensor | None = None) -> None:
        self.unlabelled = y == UNLABELED
        counted = self.unlabelled if whole is None else whole == UNLABELED
        unlabelled = counted.sum()
        labelled = len(counted) - unlabelled
        here = unlabelled if whole is None else self.unlabelled.sum()
        self.count: Tensor | int = len(counted)
        self._group = _group(model)
        self._ranks = 1
        if self._group is not None:
            self._ranks = torch.distributed.get_world_size(self._group)
            counts = torch.stack([labelled, unlabelled, here])
            torch.distributed.all_reduce(counts, group=self._group)
            labelled, unlabelled, here = counts.unbind()
            self.count = (labelled + unlabelled) / self._ranks
        self.any_unlabelled = here > 0
        self.labelled_count = labelled.clamp(min=1)
        self.unlabelled_count = unlabelled.clamp(min=1)
        self.part = None if whole is None else here / self.unlabelled_count
        self._here = here.clamp(min=1)
        if self._ranks > 1:
            self.labelled_count = self.labelled_count / self._ranks
            self.unlabelled_count = self.unlabelled_count / self._ranks
            self._here = self._here / self._ranks

    def mean(self, each: Tensor, size: int = 1) -> Tensor:
        """Of all samples, and of the `size` elements that each is a sum over."""
        return each.sum() / (self.count * size)

    def mean_of_labelled(self, each: Tensor) -> Tensor:
        """Of the labelled samples, 0 without any."""
        return torch.where(self.unlabelled, 0.0, each).sum() / self.labelled_count

    def mean_of_unlabelled(self, each: Tensor) -> Tensor:
        """Of the unlabelled samples, 0 without any; `each` is `[N]`."""
        return torch.where(self.unlabelled, each, 0.0).sum() / self.unlabelled_count

    def mean_row_of_unlabelled(self, rows: Tensor) -> Tensor:
        """Of the rows `[N, K]` of the unlabelled samples of this batch or part, on all ranks."""
        mean = torch.where(self.unlabelled[:, None], rows, 0.0).sum(dim=0) / self._here
        if self._ranks == 1:
            return mean
        everywhere = mean.detach().clone()
        torch.distributed.all_reduce(everywhere, group=self._group)
        # The value of all ranks with the gradient of this one.
        return mean + (everywhere / self._ranks - mean.detach())


def _group(model: nn.Module) -> Any:
    """The processes that share the network; None where it is in one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for module in model.modules():
            if isinstance(module, DistributedDataParallel):
                return module.process_group
    return None
