"""What a network does to a distance, followed call by call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from birdinv.spline.calls import name_of, watched
from birdinv.spline.joins import JOINS, NOTHING, Bound
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


class _Affine(NamedTuple):
    """A call of an affine layer, into which a batch norm that follows is multiplied."""

    out: Tensor
    version: int
    bound: Bound  # of its input
    x: Tensor  # like its input; only its shape matters
    weight: Tensor
    others: list[Any]
    named: Mapping[str, Any]
    rule: Rule
    row: int


class Tracer:
    """Bounds of what is computed, call by call.

    A tensor is known by itself and its version, so that what was changed in place under another
    name, a view of it say, is refused and not taken for what it was.
    """

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        # With the tensors themselves, so that no number is given to another one.
        self._bounds: dict[int, tuple[Tensor, int, Bound]] = {}
        self._given: dict[int, Bound] = {}  # of the arguments of the running call, before it
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

    def bound_of(self, z: Tensor) -> Bound | None:
        """Of what was computed; None for what does not depend on the input.

        Raises:
            ValueError: it does, and cannot be followed.
        """
        kept = self._bounds.get(id(z))
        if kept is not None and kept[0] is z:
            if kept[1] != z._version:
                raise ValueError(
                    "a tensor is changed in place by another name, such as a view of it: write "
                    "that out of place"
                )
            return kept[2]
        if z.requires_grad:
            raise ValueError(
                "a layer computes by something else than torch's functions, which cannot be "
                "followed: state its constant as an attribute lipschitz_constant"
            )
        return None

    def _set(self, z: Tensor, bound: Bound) -> None:
        self._bounds[id(z)] = (z, z._version, bound)

    def _enter(self, *_args: object) -> None:
        self._stated += 1

    def _leave(self, name: str, constant: float) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            if self._stated == 1:  # else it is part of one that states its own
                bound = (self.bound_of(args[0]) or NOTHING).times(constant)
                self._set(out, bound)
                kind = type(module).__name__.lower()
                self.layers.append(Layer(name, kind, constant, None, None, bound.upper))
            self._stated -= 1  # last: a look at a tensor is a call as well

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
        known = [(z, self.bound_of(z)) for z in _tensors((*args, *kwargs.values()))]
        given = {id(z): bound for z, bound in known if bound is not None}
        out = function(*args, **kwargs)
        name = name_of(function)
        if not given or name in _SHAPED:
            return out
        results = list(_tensors((out,)))
        self._given = given
        try:
            if name in _NUMBERS or not all(z.is_floating_point() for z in results):
                raise ValueError(f"{name} takes numbers out of it that may jump")
            if not results:  # its size, say
                return out
            bound = self._bound(layer, name, args, kwargs, results[0])
        except (ValueError, TypeError, RuntimeError) as error:
            where = f"layer {layer!r}" if layer else "the network's forward"
            raise ValueError(f"{where} has no Lipschitz constant here: {error}") from error
        for z in results:
            self._set(z, bound)
        return out

    def _bound(
        self, layer: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor
    ) -> Bound:
        if name in JOINS:
            return self._of_join(layer, name, args, kwargs, out)
        if name not in RULES:
            raise ValueError(f"there is no rule for {name}")
        named = dict(kwargs)
        x, *others = args or (named.pop("input"),)
        if any(id(z) in self._given for z in _tensors((*others, *named.values()))):
            raise ValueError(f"what {name} does to its input depends on the input")
        row, before = len(self.layers), self._given[id(x)]
        affine = self._affine.get(id(x)) if name == "batch_norm" else None
        if affine is not None and affine.out is x and affine.version == x._version:
            # One affine map with the one before it.
            scale = batch_norm_scale(*others, **named)
            shape = (-1, *[1] * (affine.weight.ndim - 1))
            weight = affine.weight * scale.to(affine.weight).view(shape)
            constant = affine.rule(affine.x, weight, *affine.others, **affine.named)
            before, row = affine.bound, affine.row
            layer, name = self.layers[row].name, f"{self.layers[row].operation} + batch_norm"
        else:
            constant = RULES[name](x.detach(), *others, **named)
        if others and out.ndim == AFFINE.get(name):
            weight, *rest = others
            now = (out, out._version, before, x.detach().clone())
            self._affine[id(out)] = _Affine(*now, weight, rest, named, RULES[name], row)
        paper = float(out[0].numel()) if constant.bends else constant.frobenius
        bound = before.times(constant.upper, paper)
        if name not in KEEPS:
            values = (constant.upper, constant.spectral, paper)
            self.layers[row : row + 1] = [Layer(layer, name, *values, bound.upper)]
        return bound

    def _of_join(
        self, layer: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor
    ) -> Bound:
        """Where paths meet, or one meets a constant."""
        named = dict(kwargs)
        parts = [*args, *(named.pop(key) for key in ("input", "other", "tensors") if key in named)]
        bound = JOINS[name](parts, named, out, self._given)
        paths = [self._given[id(z)] for z in _tensors(parts) if id(z) in self._given]
        operation = name.strip("_")
        if len(paths) > 1:
            self.layers.append(Layer(layer, operation, None, None, None, bound.upper))
        elif bound != paths[0] and paths[0].upper > 0:
            each = [after / before for after, before in zip(bound, paths[0], strict=True)]
            self.layers.append(Layer(layer, operation, each[0], None, each[1], bound.upper))
        return bound


# What makes numbers of Python of a tensor, or changes a part of it.
_NUMBERS = frozenset(
    (
        *("item", "tolist", "numpy", "__float__", "__int__", "__bool__", "__index__"),
        *("__complex__", "__array__", "__setitem__"),
    )
)
# New tensors that are only shaped like it.
_SHAPED = frozenset(
    f"{prefix}{kind}{suffix}"
    for kind in ("zeros", "ones", "full", "empty", "rand", "randn")
    for prefix, suffix in (("new_", ""), ("", "_like"))
)


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
