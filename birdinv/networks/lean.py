"""torch's own layers with a leaner second backward pass; same weights, same numbers.

A reconstruction is a gradient, so training on it runs every layer's second backward pass. torch
writes zeros for the second derivative of a LeakyReLU and adds them, and takes a convolution's
weight gradient there by a convolution over the batch, with copies. These layers leave out the one
and use the kernel that was made for the other. Forward mode works, and `torch.func` but for two of
its transforms one in another over a `Conv2d` (`torch.func.hessian`), which torch then refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_aten = torch.ops.aten
_Sizes = tuple[tuple[int, ...], tuple[int, ...]]  # stride and padding


class LeakyReLU(nn.LeakyReLU):
    """`max(x, slope·x)`, as `nn.LeakyReLU(slope)`; its output must not be changed in place.

    Shape:
        any to the same.
    """

    plain = nn.LeakyReLU.forward  # the same, as torch computes it

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        """Of every element; see the class."""
        if self.negative_slope <= 0:  # the sign of the output would not be that of the input
            return super().forward(x)
        y: Tensor = _LeakyReLU.apply(x, self.negative_slope)  # type: ignore[no-untyped-call]
        return y


class Conv2d(nn.Conv2d):
    """Convolution of images, as `nn.Conv2d` without groups and dilation, zeros for padding.

    Shape:
        `[N, C, H, W]` to `[N, out_channels, H', W']`.
    """

    plain = nn.Conv2d.forward  # the same, as torch computes it

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Of every image; see the class."""
        if x.ndim != 4 or torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        out: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self._sizes()
        )
        return out

    def adjoint(self, x: Tensor, delta: Tensor, weight: Tensor) -> Tensor:
        """`Wᵀδ` like `x [N, C, H, W]`, for `delta` like the output."""
        back: Tensor = _Adjoint.apply(delta, weight, x, self._sizes())  # type: ignore[no-untyped-call]
        return back

    def _sizes(self) -> _Sizes:
        return self.stride, self.padding  # type: ignore[return-value]  # not a word: see __init__


class _LeakyReLU(torch.autograd.Function):
    """Piecewise linear: the second backward pass is the first one again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, slope: float) -> Tensor:
        return nn.functional.leaky_relu(x, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.slope = inputs[1]
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return _Mask.apply(gradient, y.detach(), ctx.slope), None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _slope: None) -> Tensor:
        (y,) = ctx.saved_tensors
        return _mask(tangent, y, ctx.slope)


class _Mask(torch.autograd.Function):
    """`g`, times the slope where `y` is not above 0: a linear function of `g` alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, y: Tensor, slope: float) -> Tensor:
        return _mask(g, y, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        ctx.slope = inputs[2]
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return _Mask.apply(gradient, y, ctx.slope), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _y: object, _slope: None) -> Tensor:
        (y,) = ctx.saved_tensors
        return _mask(tangent, y, ctx.slope)


class _Convolution(torch.autograd.Function):
    """`Wx + b`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, sizes: _Sizes) -> Tensor:
        return _forwards(x, weight, bias, sizes)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, _Sizes], output: Tensor
    ) -> None:
        x, weight, _, ctx.sizes = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[i] and _is_asked_for(ctx, i) for i in (1, 2)]
        if not torch.is_grad_enabled():  # the last pass: all of it by one call, which is quicker
            return (*_gradients(x, g, weight, ctx.sizes, ctx.needs_input_grad[0], *wanted), None)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _Adjoint.apply(g, weight, x, ctx.sizes)  # type: ignore[no-untyped-call]
        _, of_weight, of_bias = _gradients(x, g, weight, ctx.sizes, False, *wanted)
        return of_x, of_weight, of_bias, None

    @staticmethod
    def jvp(
        ctx: Any, dx: Tensor | None, dw: Tensor | None, db: Tensor | None, _sizes: None
    ) -> Tensor:
        x, weight = ctx.saved_tensors
        parts = [] if dx is None else [_forwards(dx, weight, None, ctx.sizes)]
        parts += [] if dw is None else [_forwards(x, dw, None, ctx.sizes)]
        parts += [] if db is None else [db[:, None, None]]
        return sum(parts[1:], parts[0])


class _Adjoint(torch.autograd.Function):
    """`Wᵀg` like `x`, whose values do not matter."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, weight: Tensor, x: Tensor, sizes: _Sizes) -> Tensor:
        return _backwards(g, weight, x, sizes)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, _Sizes], output: Tensor
    ) -> None:
        g, weight, x, ctx.sizes = inputs
        ctx.save_for_backward(g, weight)
        ctx.save_for_forward(g, weight, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        g, weight = ctx.saved_tensors
        of_g = None
        if ctx.needs_input_grad[0]:
            of_g = _Convolution.apply(  # type: ignore[no-untyped-call]
                gradient, weight, None, ctx.sizes
            )
        wanted = ctx.needs_input_grad[1] and _is_asked_for(ctx, 1)
        _, of_weight, _ = _gradients(gradient, g, weight, ctx.sizes, False, wanted, False)
        return of_g, of_weight, None, None

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, dw: Tensor | None, _x: object, _sizes: None) -> Tensor:
        g, weight, x = ctx.saved_tensors
        parts = [] if dg is None else [_backwards(dg, weight, x, ctx.sizes)]
        parts += [] if dw is None else [_backwards(g, dw, x, ctx.sizes)]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _mask(g: Tensor, y: Tensor, slope: float) -> Tensor:
    masked: Tensor = _aten.leaky_relu_backward(g, y, slope, True)
    return masked


def _forwards(x: Tensor, weight: Tensor, bias: Tensor | None, sizes: _Sizes) -> Tensor:
    out: Tensor = _aten.convolution(x, weight, bias, *sizes, (1, 1), False, (0, 0), 1)
    return out


def _gradients(
    x: Tensor,
    g: Tensor,
    weight: Tensor,
    sizes: _Sizes,
    of_x: bool,
    of_weight: bool,
    of_bias: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    mask = (of_x, of_weight, of_bias)
    if not any(mask):
        return None, None, None
    biases = [len(weight)] if of_bias else None
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None] = _aten.convolution_backward(
        g, x, weight, biases, *sizes, (1, 1), False, (0, 0), 1, mask
    )
    return gradients


def _backwards(g: Tensor, weight: Tensor, x: Tensor, sizes: _Sizes) -> Tensor:
    back: Tensor = _aten.convolution_backward(
        g, x, weight, None, *sizes, (1, 1), False, (0, 0), 1, (True, False, False)
    )[0]
    return back


def _is_asked_for(ctx: Any, number: int) -> bool:
    """Whether the running backward pass wants the gradient of an input; True where torch won't say.

    A reconstruction asks for gradients of layers and not of weights, which torch's own layers see.
    """
    says: Callable[[object], bool] | None = getattr(torch._C, "_will_engine_execute_node", None)
    node = ctx.next_functions[number][0]
    if says is None or node is None:
        return True
    try:
        return says(node)
    except RuntimeError:  # of a leaf that is asked for by name, and outside a backward pass
        return True
