"""What bends a network: nonlinearities with a kink and maxima, caught as they are called."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from birdinv.spline.calls import name_of, watched


@dataclass(frozen=True)
class Bend:
    """A nonlinearity that changes its slope at some points.

    Attributes:
        layer: name of the module that calls it, "" in the network's own `forward`.
        z: its argument `[N, …]`.
        points: where it bends, in order.
        slopes: between them, one more than points.
    """

    layer: str
    z: Tensor
    points: tuple[float, ...]
    slopes: Tensor
    kind: str = "sign"

    @property
    def ways(self) -> int:
        """How many choices a unit has: one more than points."""
        return len(self.points) + 1

    def choices(self) -> Tensor:
        """What each unit chooses, `[N, U]`: how many of the points lie below its argument."""
        z = self.z.flatten(1)
        above = [z > point for point in self.points]
        return above[0] if len(above) == 1 else torch.stack(above).long().sum(dim=0)

    def margins(self) -> Tensor:
        """By how much each unit keeps its choice, `[N, U · points]`, with the graph to the input.

        The zeros of a margin are a side of the region.
        """
        z = self.z.flatten(1)
        # Not `abs`, which torch gives no slope at zero: on a side of the region.
        sides = [torch.where(z.detach() >= point, 1.0, -1.0) for point in self.points]
        parts = [(z - point) * side for point, side in zip(self.points, sides, strict=True)]
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class Maximum:
    """Max-pooling: each window chooses the largest of its places.

    Attributes:
        layer: as of a `Bend`.
        z: its argument `[N, C, *S]`.
        window, stride, padding, dilation: as torch's, one number for each dimension.
        ceil: windows that begin inside and end outside count.
    """

    layer: str
    z: Tensor
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil: bool
    kind: str = "maximum"
    slopes: None = None

    @property
    def ways(self) -> int:
        """How many choices a window has: its places."""
        return math.prod(self.window)

    def choices(self) -> Tensor:
        """The place of the winner in its window; of equal ones the first."""
        return self._windows().argmax(dim=-1).flatten(1)

    def margins(self) -> Tensor:
        """Winner less each other place, `[N, windows · places]`; infinite for the winner itself."""
        values = self._windows()
        best, place = values.max(dim=-1, keepdim=True)
        outside = values == -torch.inf
        itself = torch.zeros_like(outside).scatter(-1, place, True)
        margin = best - values.masked_fill(outside, 0.0)
        return margin.masked_fill(outside | itself, torch.inf).flatten(1)

    def _windows(self) -> Tensor:
        """`[N, C, *S', places]`, −∞ for places of the padding."""
        z = self.z
        dims = z.ndim - 2
        pads: list[int] = []
        counts = []
        for d in range(dims):
            reach = self.dilation[d] * (self.window[d] - 1) + 1
            room = z.shape[2 + d] + 2 * self.padding[d] - reach
            count = (-(-room // self.stride[d]) if self.ceil else room // self.stride[d]) + 1
            # torch leaves a window out that would begin in the padding behind.
            if (count - 1) * self.stride[d] >= z.shape[2 + d] + self.padding[d]:
                count -= 1
            counts.append(count)
            needed = (count - 1) * self.stride[d] + reach
            after = max(0, needed - z.shape[2 + d] - self.padding[d])
            pads = [self.padding[d], after, *pads]
        z = functional.pad(z, pads, value=-torch.inf)
        for d in range(dims):
            reach = self.dilation[d] * (self.window[d] - 1) + 1
            z = z.unfold(2 + d, reach, self.stride[d]).narrow(2 + d, 0, counts[d])
            z = z[..., :: self.dilation[d]]
        return z.flatten(2 + dims) if dims > 1 else z


Kink = Bend | Maximum


@contextmanager
def kinks(model: nn.Module, keep: Callable[[Kink], None], count: int) -> Iterator[None]:
    """While open, `keep` is given every call that chooses by the input, before it is made.

    The network is to be run by `modes.of_input_alone`, on `count` inputs.

    Raises:
        ValueError: a call that chooses and is none of those known here: of a recurrent layer of
            torch with ReLUs, say, whose steps cannot be seen.
    """

    def watcher(
        layer: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        name = name_of(function)
        # Where a weight is clamped, say, the input chooses nothing.
        if any(isinstance(z, Tensor) and z.requires_grad for z in (*args, *kwargs.values())):
            if name in _HIDDEN:
                raise _unseen(name, layer, _HIDDEN[name])
            kink = _kink(layer, name, args, kwargs)
            if kink is not None:
                if len(kink.z) != count:
                    raise _unseen(name, layer, "keep the batch in the first dimension")
                keep(kink)
        return function(*args, **kwargs)

    with watched(model, watcher):
        yield


def _unseen(name: str, layer: str, instead: str) -> ValueError:
    return ValueError(
        f"{name} in layer {layer or 'forward'!r} chooses in a way that cannot be looked into: "
        f"{instead}"
    )


_POOLS = "write it as relu, leaky_relu or max_pool"
_HIDDEN: Mapping[str, str] = {
    **dict.fromkeys(("rnn_relu", "rnn_relu_cell"), "write it as a loop over nn.Linear and relu"),
    **dict.fromkeys(("prelu", "rrelu"), "write it as leaky_relu"),
    **dict.fromkeys(("max", "min", "amax", "amin", "maximum", "minimum"), _POOLS),
    **dict.fromkeys(("fmax", "fmin", "sort", "topk", "fractional_max_pool2d"), _POOLS),
    **dict.fromkeys(("aminmax", "median", "kthvalue", "cummax", "cummin", "hardshrink"), _POOLS),
    **dict.fromkeys(("where", "sign", "sgn", "heaviside", "gt", "ge", "lt", "le"), _POOLS),
    **dict.fromkeys(("__gt__", "__ge__", "__lt__", "__le__", "masked_fill"), _POOLS),
}


def _kink(layer: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Kink | None:
    z = args[0] if args else kwargs.get("input")
    if not isinstance(z, Tensor) or not z.requires_grad:
        return None
    others = {key: value for key, value in kwargs.items() if key != "input"}
    if name in _BENDS:
        points, slopes = _BENDS[name](*args[1:], **others)
        as_slopes = torch.as_tensor(slopes, dtype=z.dtype, device=z.device)
        return Bend(layer, z, tuple(points), as_slopes)
    if name in _MAX_POOLS:
        return _maximum(layer, z, _MAX_POOLS[name], *args[1:], **others)
    if name in _ADAPTIVE:
        return _adaptive(layer, z, _ADAPTIVE[name], *args[1:], **others)
    return None


def _maximum(
    layer: str,
    z: Tensor,
    dims: int,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Maximum:
    window = _each(kernel_size, dims)
    strides = window if stride is None or stride == [] else _each(stride, dims)
    return Maximum(
        layer, z, window, strides, _each(padding, dims), _each(dilation, dims), ceil_mode
    )


def _adaptive(
    layer: str, z: Tensor, dims: int, output_size: Any, return_indices: bool = False
) -> Maximum:
    """Windows side by side, where they are all alike."""
    outputs = _each(output_size, dims)
    sides = [(side, out or side) for side, out in zip(z.shape[-dims:], outputs, strict=True)]
    if any(side % out for side, out in sides):
        raise ValueError(
            f"adaptive_max_pool in layer {layer or 'forward'!r} makes {list(outputs)} of "
            f"{list(z.shape[-dims:])}, by windows of different sizes: {_POOLS}"
        )
    window = tuple(side // out for side, out in sides)
    return _maximum(layer, z, dims, window)


def _each(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


_MAX_POOLS = {f"max_pool{d}d": d for d in (1, 2, 3)}
_ADAPTIVE = {f"adaptive_max_pool{d}d": d for d in (1, 2, 3)}

_Pieces = tuple[Sequence[float], Sequence[float]]  # where it bends, and the slopes between


def _relu(inplace: bool = False) -> _Pieces:
    return (0.0,), (0.0, 1.0)


def _leaky(negative_slope: float = 0.01, inplace: bool = False) -> _Pieces:
    return (0.0,), (negative_slope, 1.0)


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> _Pieces:
    return (min_val, max_val), (0.0, 1.0, 0.0)


def _clamp(min: Any = None, max: Any = None) -> _Pieces:  # torch's names
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        raise ValueError(f"clamp by tensors chooses in a way that cannot be looked into: {_POOLS}")
    if max is None:
        return (min,), (0.0, 1.0)
    return ((max,), (1.0, 0.0)) if min is None else ((min, max), (0.0, 1.0, 0.0))


_BENDS: Mapping[str, Callable[..., _Pieces]] = {
    "relu": _relu,
    "leaky_relu": _leaky,
    "relu6": lambda inplace=False: ((0.0, 6.0), (0.0, 1.0, 0.0)),
    "hardtanh": _hardtanh,
    "threshold": lambda threshold, value, inplace=False: ((threshold,), (0.0, 1.0)),
    "softshrink": lambda lambd=0.5: ((-lambd, lambd), (1.0, 0.0, 1.0)),
    "hardsigmoid": lambda inplace=False: ((-3.0, 3.0), (0.0, 1 / 6, 0.0)),
    **dict.fromkeys(("abs", "absolute"), lambda: ((0.0,), (-1.0, 1.0))),
    **dict.fromkeys(("clamp", "clip"), _clamp),
    "clamp_min": lambda min: ((min,), (0.0, 1.0)),
    "clamp_max": lambda max: ((max,), (1.0, 0.0)),
}
