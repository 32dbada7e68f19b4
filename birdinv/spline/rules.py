"""What each operation does to a distance: the constants of single layers (SPL 67–71).

A rule is given a call and says by how much it stretches a difference of its argument at the most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional

from birdinv.spline.norms import Norm, of_convolution, of_matrix, of_nonnegative


class Constant(NamedTuple):
    """Of one operation.

    Attributes:
        upper: it stretches no difference by more.
        spectral: the norm of a matrix or kernel, by iteration or from singular values.
        frobenius: and its Frobenius norm.
        bends: it is a nonlinearity or takes maxima.
    """

    upper: float
    spectral: float | None = None
    frobenius: float | None = None
    bends: bool = False


Rule = Callable[..., Constant]


def softmax_constant(classes: int) -> float:
    """Of `softmax` on K logits: 1/2 from two classes on.

    Its derivative is `diag(p) − ppᵀ`, the covariance of a draw, whose norm is largest where two
    classes have half each. SPL theorem 11 has `(K−1)/K²`, of squares, and takes the uniform p to
    be the worst: that holds for K = 2, where it gives 1/2 as well, and not beyond.

    Raises:
        ValueError: no class.
    """
    if classes < 1:
        raise ValueError(f"{classes} classes; expected one at least")
    return 0.5 if classes > 1 else 0.0


def _affine(norm: Norm, places: int = 1) -> Constant:
    """The same map at each of some places."""
    return Constant(norm.upper, norm.spectral, norm.frobenius * math.sqrt(places))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Constant:
    return _affine(of_matrix(weight), x[0].numel() // weight.shape[1])


def _conv(x: Tensor, weight: Tensor, bias: Any = None, *args: Any, **kw: Any) -> Constant:
    names = ("stride", "padding", "dilation", "groups")
    return _affine(
        of_convolution(weight, x.shape[2:], **dict(zip(names, args, strict=False)), **kw)
    )


def _transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Constant:
    """The transpose of a convolution, on maps of the size that it gives."""
    dims = weight.ndim - 2
    each = [
        (value,) * dims if isinstance(value, int) else tuple(value)
        for value in (stride, padding, output_padding, dilation)
    ]
    size = [
        (side - 1) * s - 2 * p + d * (k - 1) + extra + 1
        for side, s, p, extra, d, k in zip(x.shape[2:], *each, weight.shape[2:], strict=True)
    ]
    return _affine(
        of_convolution(
            weight, size, stride=stride, padding=padding, dilation=dilation, groups=groups
        )
    )


def batch_norm_scale(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """What each channel is multiplied by, `[C]`.

    Raises:
        ValueError: statistics of a batch.
    """
    if training or running_var is None:
        raise ValueError("batch norm by the statistics of a batch, which couples its samples")
    scale = 1 / (running_var + eps).sqrt()
    return scale if weight is None else weight * scale


def _batch_norm(x: Tensor, *args: Any, **kwargs: Any) -> Constant:
    scale = batch_norm_scale(*args, **kwargs)
    places = x[0].numel() // len(scale)
    largest = float(scale.abs().max())
    return Constant(largest, largest, float(scale.double().norm()) * math.sqrt(places))


def _elementwise(constant: float) -> Rule:
    def rule(x: Tensor, *_args: Any, **_kwargs: Any) -> Constant:
        return Constant(constant, bends=True)

    return rule


def _sloped(default: float) -> Rule:
    """A slope of its own below zero, 1 above."""

    def rule(x: Tensor, slope: float = default, *_args: Any, **kwargs: Any) -> Constant:
        slope = kwargs.get("negative_slope", kwargs.get("alpha", slope))
        return Constant(max(1.0, abs(slope)), bends=True)

    return rule


def _prelu(x: Tensor, weight: Tensor) -> Constant:
    return Constant(max(1.0, float(weight.abs().max())), bends=True)


def _softmax(x: Tensor, dim: int | None = None, *_args: Any, **_kwargs: Any) -> Constant:
    if dim is None or dim % x.ndim == 0:
        raise ValueError("softmax over no axis of a sample; give it a dim")
    return Constant(softmax_constant(x.shape[dim]), bends=True)


def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Constant:
    if threshold < 20:  # beyond, the jump is less than rounding in single precision
        raise ValueError(f"softplus jumps at its threshold of {threshold:g}")
    return Constant(1.0, bends=True)


def _threshold(x: Tensor, threshold: float, value: float, inplace: bool = False) -> Constant:
    if value != threshold:
        raise ValueError(f"threshold jumps from {value:g} to {threshold:g}")
    return Constant(1.0, bends=True)


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Constant:
    if training and p:
        raise ValueError("dropout in training, which is no function of its input")
    return Constant(1.0)


def _pool(dims: int) -> Rule:
    """Maxima: each place of the input is in so many windows at the most."""

    def rule(
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        *_args: Any,
        **_kwargs: Any,
    ) -> Constant:
        windows, strides, steps = (
            (value,) * dims if isinstance(value, int) else tuple(value)
            for value in (kernel_size, stride or kernel_size, dilation)
        )
        # A place of a window with gaps is in those windows only whose gaps do not skip it.
        shared = 1
        for k, s, d in zip(windows, strides, steps, strict=True):
            shared *= max(sum((place - tap * d) % s == 0 for tap in range(k)) for place in range(s))
        return Constant(math.sqrt(shared), bends=True)

    return rule


def _adaptive_maximum(dims: int) -> Rule:
    def rule(x: Tensor, output_size: Any, *_args: Any, **_kwargs: Any) -> Constant:
        outputs = (output_size,) * dims if isinstance(output_size, int) else tuple(output_size)
        shared = 1
        for side, out in zip(x.shape[2:], outputs, strict=True):
            out = out or side
            starts = [i * side // out for i in range(out)]
            ends = [-(-(i + 1) * side // out) for i in range(out)]
            shared *= max(
                sum(a <= place < b for a, b in zip(starts, ends, strict=True))
                for place in range(side)
            )
        return Constant(math.sqrt(shared), bends=True)

    return rule


def _nonnegative(function: Callable[..., Tensor]) -> Rule:
    """Means over windows."""

    def rule(x: Tensor, *args: Any, **kwargs: Any) -> Constant:
        return Constant(of_nonnegative(lambda v: function(v, *args, **kwargs), x.shape[1:]))

    return rule


def _mean(x: Tensor, dim: Any = None, keepdim: bool = False, **_kwargs: Any) -> Constant:
    return Constant(_count(x, dim) ** -0.5)


def _sum(x: Tensor, dim: Any = None, keepdim: bool = False, **_kwargs: Any) -> Constant:
    return Constant(_count(x, dim) ** 0.5)


def _count(x: Tensor, dim: Any) -> int:
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    if any(d % x.ndim == 0 for d in dims):
        raise ValueError("a sum over the samples of a batch, which couples them")
    return math.prod(x.shape[d] for d in dims)


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Constant:
    if mode != "constant":
        raise ValueError(f"padding of mode {mode!r}; only constants are known here")
    return Constant(1.0)


def _picks(x: Tensor, index: Any) -> Constant:
    parts = index if isinstance(index, tuple) else (index,)
    if not all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in parts):
        raise ValueError("indexing by tensors, which may take a number twice")
    return Constant(1.0)


_SAME = (  # the same numbers in another shape or order, or some of them
    *("flatten", "view", "reshape", "transpose", "permute", "contiguous", "squeeze", "unsqueeze"),
    *("unflatten", "movedim", "swapaxes", "flip", "roll", "clone", "detach", "chunk", "split"),
    *("unbind", "narrow", "select", "to", "double", "float", "neg", "t", "view_as", "__get__"),
)
_GENTLE = (
    *("relu", "relu6", "hardtanh", "tanh", "softsign", "softshrink"),
    *("clamp", "clamp_min", "clamp_max", "abs", "logsigmoid", "log_sigmoid", "sin", "cos"),
)
_STEEPEST: Mapping[str, float] = {  # slopes, rounded up
    **dict.fromkeys(_GENTLE, 1.0),
    "sigmoid": 0.25,
    "hardsigmoid": 1 / 6,
    "selu": 1.0507009873554805 * 1.6732632423543772,
    "gelu": 1.1290,
    "silu": 1.0999,
    "mish": 1.0886,
    "hardswish": 1.5,
}
_MEANS = ("avg_pool1d", "avg_pool2d", "avg_pool3d")
_ADAPTIVE = ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")

AFFINE = {"linear": 2, "conv1d": 3, "conv2d": 4, "conv3d": 5}
"""Operations whose weight has a row for each channel, where what they give has so many axes."""

KEEPS = frozenset((*_SAME, "__getitem__", "pad", "dropout", "dropout1d", "dropout2d", "dropout3d"))
"""Operations that are no layer of their own."""

RULES: Mapping[str, Rule] = {
    "linear": _linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "batch_norm": _batch_norm,
    "leaky_relu": _sloped(0.01),
    "elu": _sloped(1.0),
    "celu": _elementwise(1.0),
    "prelu": _prelu,
    **{name: _elementwise(slope) for name, slope in _STEEPEST.items()},
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), _dropout),
    **{f"max_pool{d}d": _pool(d) for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": _adaptive_maximum(d) for d in (1, 2, 3)},
    **{name: _nonnegative(getattr(functional, name)) for name in (*_MEANS, *_ADAPTIVE)},
    "mean": _mean,
    "sum": _sum,
    "pad": _pad,
    "__getitem__": _picks,
    "softmax": _softmax,
    "softplus": _softplus,
    "threshold": _threshold,
    **dict.fromkeys(_SAME, lambda *_args, **_kwargs: Constant(1.0)),
}
