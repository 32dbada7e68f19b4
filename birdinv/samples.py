"""Which samples of a batch a term applies to, and how many there are, wherever they are."""

from __future__ import annotations

from typing import Any, cast

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
        groups: int64 `[N]`, which samples belong together (equation sheet §4.7), −1 for a sample
            that belongs to none. Only unlabelled samples are grouped, and a group ends at the
            border of a process or part.
    """

    def __init__(
        self,
        model: nn.Module,
        y: Tensor,
        whole: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> None:
        self.unlabelled = y == UNLABELED
        self._leaders = None if groups is None else _leaders(groups, self.unlabelled)
        counted = self.unlabelled if whole is None else whole == UNLABELED
        unlabelled = counted.sum()
        labelled = len(counted) - unlabelled
        here = unlabelled if whole is None else self.unlabelled.sum()
        if self._leaders is not None:  # how many groups, each one of a sample alone among them
            alone = self._leaders == torch.arange(len(y), device=y.device)
            here = (alone & self.unlabelled).sum()
        unlabelled_here = self.unlabelled.sum() if whole is not None else unlabelled
        self.count: Tensor | int = len(counted)
        self._group = _group(model)
        self._ranks = 1
        if self._group is not None:
            self._ranks = torch.distributed.get_world_size(self._group)
            counts = torch.stack([labelled, unlabelled, here, unlabelled_here])
            torch.distributed.all_reduce(counts, group=self._group)
            labelled, unlabelled, here, unlabelled_here = counts.unbind()
            self.count = (labelled + unlabelled) / self._ranks
        self.any_unlabelled = here > 0
        self.labelled_count = labelled.clamp(min=1)
        self.unlabelled_count = unlabelled.clamp(min=1)
        self.part = None if whole is None else unlabelled_here / self.unlabelled_count
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

    def mean_of_group(self, rows: Tensor) -> Tensor:
        """For each of the rows `[N, K]` the mean over its group; its own where it has none."""
        if self._leaders is None:
            return rows
        sums = torch.zeros_like(rows).index_add(0, self._leaders, rows)
        return (sums / self._sizes(rows)[:, None])[self._leaders]

    def mean_row_of_unlabelled(self, rows: Tensor) -> Tensor:
        """Of the rows `[N, K]` of the unlabelled samples of this batch or part, on all ranks.

        With groups it is the mean over groups: each counts once, however many samples it has.
        """
        if self._leaders is not None:
            rows = rows / self._sizes(rows)[self._leaders][:, None]
        mean = torch.where(self.unlabelled[:, None], rows, 0.0).sum(dim=0) / self._here
        if self._ranks == 1:
            return mean
        everywhere = mean.detach().clone()
        torch.distributed.all_reduce(everywhere, group=self._group)
        # The value of all ranks with the gradient of this one.
        return mean + (everywhere / self._ranks - mean.detach())

    def _sizes(self, rows: Tensor) -> Tensor:
        """How many samples the group has that each sample leads, `[N]`; 1 where it leads none."""
        leaders = cast(Tensor, self._leaders)
        ones = rows.new_ones(len(rows))
        return torch.zeros_like(ones).index_add(0, leaders, ones).clamp(min=1)


def _leaders(groups: Tensor, unlabelled: Tensor) -> Tensor:
    """The first sample of each one's group, `[N]`; itself for a sample without a group."""
    grouped = unlabelled & (groups >= 0)
    same = (groups[:, None] == groups) & grouped[:, None] & grouped
    itself = torch.arange(len(groups), device=groups.device)
    return torch.where(grouped, same.int().argmax(dim=1), itself)  # no waiting, as `unique` would


def _group(model: nn.Module) -> Any:
    """The processes that share the network; None where it is in one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for module in model.modules():
            if isinstance(module, DistributedDataParallel):
                return module.process_group
    return None
