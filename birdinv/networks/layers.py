"""Small pieces shared by the project's networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SLOPE = 0.01  # of the LeakyReLU; in no paper, the first author's later code


def normalise(x: Tensor) -> Tensor:
    """`(x − mean(x)) / max|x − mean(x)|` per sample (MS §3.1, SPL B.2); a constant becomes zeros.

    Shape:
        `[N, C, *S]` to the same; mean and maximum run over all channels together.
    """
    flat = x.flatten(1)
    level = _peak(flat)
    # Of a share of the level no sum can overflow, and of halves no difference.
    half_mean = (flat / torch.where(level > 0, level, 1.0)).mean(dim=1, keepdim=True) * (level / 2)
    flat = flat / 2 - half_mean
    peak = _peak(flat)
    # The mean of a constant may be off by a rounding: what is that small is nothing.
    nothing = peak <= 4 * torch.finfo(x.dtype).eps * level
    flat = flat / torch.where(nothing, torch.inf, peak)
    # So may the mean of a quiet sound on a large offset, and that rounding is not small beside it.
    flat = flat - flat.mean(dim=1, keepdim=True)
    peak = _peak(flat)
    return (flat / torch.where(nothing, 1.0, peak)).view_as(x)


def _peak(flat: Tensor) -> Tensor:
    """`max|x|` of each row, without a copy of all of them: this runs for every batch."""
    return torch.maximum(flat.amax(dim=1, keepdim=True), -flat.amin(dim=1, keepdim=True))


def draw_weights(model: nn.Module) -> None:
    """Draws every weight by He et al. 2015 from torch's global generator; biases are zero.

    torch's own draw is 2.4 times smaller, and leaves the logits of a deep network so small that
    the first epochs go into nothing else. SPL B.2 has Glorot's, between the two.
    """
    for module in model.modules():
        weight, bias = (getattr(module, name, None) for name in ("weight", "bias"))
        if isinstance(weight, nn.Parameter) and weight.ndim > 1:  # that of a batch norm is not
            nn.init.kaiming_normal_(weight, SLOPE, nonlinearity="leaky_relu")
            if bias is not None:
                nn.init.zeros_(bias)
