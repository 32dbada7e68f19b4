"""What a network does to a distance, followed call by call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from birdinv.spline.calls import name_of, watched
from birdinv.spline.norms import of_matrix
from birdinv.spline.rules import AFFINE, KEEPS, RULES, Rule, batch_norm_scale


@dataclass(frozen=True)
class Layer:
    """One operation of a network.

    Attributes:
        name: of the module that calls it, "" in the network's own `forward`.
        operation: such as "conv1d"; "add" and "cat" where paths meet.
        upper: it stretches no difference by more; None where paths meet.
        spectral: the norm of its matrix or kernel, by iteration; None where it has none.
        paper: what SPL 68–71 bounds it by: the Frobenius norm of what is affine, D for D units
            that bend or take maxima. Of these the Frobenius norm is √D, and the norm 1 or so.
        so_far: the upper bound from the input to what it gives.
    """

    name: str
    operation: str
    upper: float | None
    spectral: float | None
    paper: float | None
    so_far: float


class Bound(NamedTuple):
    upper: float
    paper: float

    def times(self, upper: float, paper: float | None = None) -> Bound:
        return Bound(self.upper * upper, self.paper * (upper if paper is None else paper))


NOTHING = Bound(0.0, 0.0)


class _Affine(NamedTuple):
    """A call of an affine layer, into which a batch norm that follows is multiplied."""

    out: Tensor
    x: Tensor
    weight: Tensor
    others: list[Any]
    named: Mapping[str, Any]
    rule: Rule
    row: int


class Tracer:
    """Bounds of what is computed, call by call."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        # With the tensors themselves, so that no number is given to another one.
        self._bounds: dict[int, tuple[Tensor, Bound]] = {}
        self._affine: dict[int, _Affine] = {}
        self._stated = 0  # how many modules that state their constant are running

    @contextmanager
    def following(self, model: nn.Module, x: Tensor) -> Iterator[None]:
        """While open, follows what `model` makes of `x`."""
        self._set(x, Bound(1.0, 1.0))
        handles = []
        for name, module in model.named_modules():
            constant = getattr(module, "lipschitz_constant", None)
            if constant is not None:
                handles.append(module.register_forward_pre_hook(self._enter))
                handles.append(module.register_forward_hook(self._leave(name, float(constant))))
        try:
            with watched(model, self._call):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def bound_of(self, z: Tensor) -> Bound:
        """Of what was computed; what does not depend on the input does not stretch it."""
        kept = self._bounds.get(id(z))
        if kept is not None and kept[0] is z:
            return kept[1]
        if z.requires_grad:
            raise ValueError(
                "a layer computes by something else than torch's functions, which cannot be "
                "followed: state its constant as an attribute lipschitz_constant"
            )
        return NOTHING

    def _set(self, z: Tensor, bound: Bound) -> None:
        self._bounds[id(z)] = (z, bound)

    def _enter(self, *_args: object) -> None:
        self._stated += 1

    def _leave(self, name: str, constant: float) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            self._stated -= 1
            bound = self.bound_of(args[0]).times(constant)
            self._set(out, bound)
            kind = type(module).__name__.lower()
            self.layers.append(Layer(name, kind, constant, None, None, bound.upper))

        return hook

    def _call(
        self,
        layer: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        if self._stated:
            return function(*args, **kwargs)
        # Before the call, which may change its argument in place.
        bounds = [self.bound_of(z) for z in _tensors((*args, *kwargs.values()))]
        given = [bound for bound in bounds if bound != NOTHING]
        out = function(*args, **kwargs)
        results = list(_tensors((out,)))
        if not given or not results:
            return out
        name = name_of(function)
        try:
            bound = self._bound(layer, name, args, kwargs, results[0])
        except (ValueError, TypeError) as error:
            where = f"layer {layer!r}" if layer else "the network's forward"
            raise ValueError(f"{where} has no Lipschitz constant here: {error}") from error
        for z in results:
            self._set(z, bound)
        return out

    def _bound(
        self, layer: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor
    ) -> Bound:
        if name in _JOINS:
            bound = _JOINS[name](self, args, kwargs, out)
            if sum(self.bound_of(z) != NOTHING for z in _tensors(args)) > 1:
                self.layers.append(Layer(layer, name.strip("_"), None, None, None, bound.upper))
            return bound
        if name not in RULES:
            raise ValueError(f"there is no rule for {name}")
        named = dict(kwargs)
        x, *others = args or (named.pop("input"),)
        if any(self.bound_of(z) != NOTHING for z in _tensors((*others, *named.values()))):
            raise ValueError(f"what {name} does to its input depends on the input")
        row = len(self.layers)
        before = self._affine.get(id(x)) if name == "batch_norm" else None
        if before is not None and before.out is x:  # one affine map with the one before it
            scale = batch_norm_scale(*others, **named)
            shape = (-1, *[1] * (before.weight.ndim - 1))
            weight = before.weight * scale.to(before.weight).view(shape)
            constant = before.rule(before.x.detach(), weight, *before.others, **before.named)
            x, row = before.x, before.row
            layer, name = self.layers[row].name, f"{self.layers[row].operation} + batch_norm"
        else:
            constant = RULES[name](x.detach(), *others, **named)
        if name in AFFINE and others:
            weight, *rest = others
            self._affine[id(out)] = _Affine(out, x, weight, rest, named, RULES[name], row)
        paper = float(out[0].numel()) if constant.bends else constant.frobenius
        bound = self.bound_of(x).times(constant.upper, paper)
        if name not in KEEPS:
            values = (constant.upper, constant.spectral, paper)
            self.layers[row : row + 1] = [Layer(layer, name, *values, bound.upper)]
        return bound

    def spread(self, z: Any, out: Tensor) -> Bound:
        """Of a part of `out` that is repeated to its shape."""
        if not isinstance(z, Tensor):
            return NOTHING
        return self.bound_of(z).times(math.sqrt(max(1.0, out.numel() / max(1, z.numel()))))

    def _added(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor) -> Bound:
        alpha = abs(float(kwargs.get("alpha", 1)))
        a, b = (self.spread(z, out) for z in args[:2])
        return Bound(a.upper + alpha * b.upper, a.paper + alpha * b.paper)

    def _joined(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor) -> Bound:
        parts = [self.bound_of(z) for z in (args[0] if args else kwargs["tensors"])]
        return Bound(*(math.hypot(*values) for values in zip(*parts, strict=True)))

    def _scaled(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor) -> Bound:
        a, b = args[:2]
        if isinstance(a, Tensor) and self.bound_of(a) != NOTHING:
            a, b = b, a
        if isinstance(a, Tensor) and self.bound_of(a) != NOTHING:
            raise ValueError("the product of two layers stretches without bound")
        return self.spread(b, out).times(_largest(a))

    def _divided(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor) -> Bound:
        a, b = args[:2]
        if isinstance(b, Tensor) and self.bound_of(b) != NOTHING:
            raise ValueError("division by a layer stretches without bound")
        return self.spread(a, out).times(_largest(1 / torch.as_tensor(b, dtype=torch.float64)))

    def _multiplied(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor) -> Bound:
        a, b = args[:2]
        fixed = b if self.bound_of(b) == NOTHING else a
        moving = a if fixed is b else b
        if fixed.ndim != 2 or self.bound_of(fixed) != NOTHING:
            raise ValueError("only products with a constant matrix are known here")
        norm = of_matrix(fixed)
        return self.bound_of(moving).times(norm.upper, norm.frobenius)


_Join = Callable[[Tracer, tuple[Any, ...], Mapping[str, Any], Tensor], Bound]
_JOINS: Mapping[str, _Join] = {
    **dict.fromkeys(("add", "sub", "__add__", "__radd__", "__iadd__"), Tracer._added),
    **dict.fromkeys(("__sub__", "__rsub__", "__isub__", "rsub"), Tracer._added),
    **dict.fromkeys(("cat", "concat", "stack", "hstack", "vstack"), Tracer._joined),
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "__imul__"), Tracer._scaled),
    **dict.fromkeys(("div", "__truediv__", "__itruediv__", "true_divide"), Tracer._divided),
    **dict.fromkeys(("matmul", "__matmul__", "__rmatmul__", "mm"), Tracer._multiplied),
}


def _largest(values: Any) -> float:
    return float(torch.as_tensor(values, dtype=torch.float64).abs().max())


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
