"""What an objective is called with, and the sentences for what cannot be right."""

from __future__ import annotations

import torch
from torch import Tensor

from birdinv.terms import UNLABELED


def check_arguments(x: Tensor, y: Tensor, whole: Tensor | None, groups: Tensor | None) -> None:
    """Refuses inputs, labels and groups of another shape or type (TypeError, ValueError)."""
    if not isinstance(y, Tensor) or not isinstance(x, Tensor):
        raise TypeError(
            f"inputs and labels are {type(x).__name__} and {type(y).__name__}; expected tensors: "
            "torch.as_tensor makes one"
        )
    if not len(x):
        raise ValueError("an empty batch; expected at least one sample")
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise ValueError(
            f"labels of shape {tuple(y.shape)} and type {y.dtype} for {len(x)} inputs; expected "
            f"int64 [{len(x)}], {UNLABELED} where there is no label"
        )
    if whole is not None and not isinstance(whole, Tensor):
        raise TypeError(
            f"whole is a {type(whole).__name__}; expected a tensor: torch.as_tensor makes one"
        )
    if whole is not None and (whole.ndim != 1 or len(whole) < len(y)):
        raise ValueError(
            f"whole has shape {tuple(whole.shape)}; expected the labels of the whole batch of "
            f"which these {len(y)} samples are a part"
        )
    if groups is not None and (
        not isinstance(groups, Tensor) or groups.shape != y.shape or groups.dtype != torch.int64
    ):
        of = (
            f"shape {tuple(groups.shape)} and type {groups.dtype}"
            if isinstance(groups, Tensor)
            else f"type {type(groups).__name__}"
        )
        raise ValueError(
            f"groups of {of} for {len(y)} inputs; expected int64 [{len(y)}], the number of each "
            "one's recording, −1 for none"
        )


def check_labels(y: Tensor, whole: Tensor | None, classes: int) -> None:
    """Refuses labels out of range, and a whole that has fewer than its part (ValueError)."""
    # On a GPU looking would mean waiting; there `nll_loss` itself stops on such a label.
    for labels in (y,) if whole is None else (y, whole):
        if labels.device.type != "cpu":
            return
        low, high = (int(end) for end in labels.aminmax())
        if not UNLABELED <= low <= high < classes:
            raise ValueError(
                f"labels from {low} to {high} for {classes} logits; expected 0 to {classes - 1}, "
                f"{UNLABELED} where there is no label"
            )
    if whole is not None:
        without, less = (int((labels == UNLABELED).sum()) for labels in (y, whole))
        if without > less or len(y) - without > len(whole) - less:
            raise ValueError(
                f"whole has {len(whole) - less} labels and {less} samples without, and its part "
                f"{len(y) - without} and {without}; expected the labels of the whole batch"
            )
