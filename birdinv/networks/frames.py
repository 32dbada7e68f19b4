"""Strided convolution over the frames of a waveform, and its reconstruction error by a Gram matrix.

Write the kernel as `m` pieces of one stride each, stacked as `W = [W_0; …; W_{m−1}]`, and the input
as blocks of one stride, so that frame `t` is `Σ_j W_j block_{t+j}`: one matrix product `W block_b`
for every block, and `m` shifted sums. The adjoint rebuilds block `b` from the frames that touch it,

    e_b = [δ_b; δ_{b−1}; …; δ_{b−m+1}],   block'_b = Wᵀ e_b = Σ_j W_jᵀ δ_{b−j},

so the error of the reconstruction is, with the Gram matrix `Γ = WWᵀ`,

    Σ_b ‖Wᵀ e_b − block_b‖² = Σ_b e_bᵀ Γ e_b − 2 Σ_t ⟨δ_t, (frame − bias)_t⟩ + ‖x‖².

The input is never reconstructed, and neither a transposed convolution nor its double backward runs.
Samples after the last block are in `‖x‖²` alone. (The Gram identity of the equation sheet, §5, with
neighbouring frames side by side in place of its `G₀` and `G₁`.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv1d_input


@dataclass(frozen=True)
class Taken:
    """An input that has gone through the first layers of a network already, up to `last`.

    The network takes it in place of its input: layers before `last` pass it on, `last` gives
    `values`, and what knows nothing of it, a skip connection from the input say, fails.
    """

    values: Tensor
    last: nn.Module

    def through(self, layer: nn.Module) -> Any:
        """What `layer` gives: the values, if it is the last one."""
        return self.values if layer is self.last else self


GATHERED = 8  # kernels up to this length have their frames copied for one matrix product


class FrameConv1d(nn.Conv1d):
    """Strided convolution over frames of a waveform; the same weights and output as `nn.Conv1d`.

    Where the stride divides the kernel, frames are one matrix product over blocks that are views of
    the input, then `m` shifted sums. Its backward and double backward are matrix products too,
    which on a CPU are several times faster than those of `conv1d`. Other short kernels are one
    matrix product over copied frames.

    Shape:
        input `[N, C, T]`, output `[N, out_channels, F]`, `F = (T − kernel) // stride + 1`; in
        memory the channels of a frame lie side by side.
    """

    plain = nn.Conv1d.forward  # the same, as torch computes it

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=bias)
        if min(kernel_size, stride) < 1:
            raise ValueError(f"kernel_size={kernel_size} and stride={stride}; expected at least 1")

    def forward(self, x: Tensor | Taken) -> Tensor:
        """Frames of `x`; see the class."""
        if isinstance(x, Taken):
            taken: Tensor = x.through(self)
            return taken
        kernel, stride = self.kernel_size[0], self.stride[0]
        if x.ndim == 3 and x.shape[1] == self.in_channels and x.shape[-1] >= kernel:
            if kernel % stride == 0:
                return self._of_blocks(x)
            if kernel <= GATHERED:
                return self._of_copies(x)
        return functional.conv1d(x, self.weight, self.bias, stride)

    def adjoint(self, x: Tensor, delta: Tensor, weight: Tensor) -> Tensor:
        """`Wᵀδ` like `x [N, C, T]`, for `delta [N, out_channels, F]`."""
        back: Tensor = conv1d_input(x.shape, weight, delta, self.stride)  # type: ignore[no-untyped-call]
        return back

    def squared_error(
        self, x: Tensor, out: Tensor, delta: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor | None:
        """`‖Wᵀδ − x‖² [N]` from `out = Wx + b` and `delta`, both `[N, out_channels, F]`.

        None where the Gram matrix would cost more than going back to the input: too many channels
        for the stride, or a stride that does not divide the kernel.
        """
        kernel, stride = self.kernel_size[0], self.stride[0]
        if kernel % stride or kernel // stride * self.out_channels > self.in_channels * stride:
            return None
        if bias is None:
            bias = out.new_zeros(self.out_channels)
        error: Tensor = _GramError.apply(  # type: ignore[no-untyped-call]
            delta, out, weight, bias, x, stride
        )
        return error

    def _of_blocks(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pieces = kernel // stride
        frames = (x.shape[-1] - kernel) // stride + 1
        count = frames + pieces - 1
        blocks = x[..., : count * stride].reshape(*x.shape[:-1], count, stride)
        blocks = blocks.transpose(1, 2).flatten(2)  # [N, blocks, C·s]; a view for one channel
        products = functional.linear(blocks, _stacked(self.weight, stride))
        products = products.reshape(len(x), count, pieces, self.out_channels).permute(2, 0, 3, 1)
        out = products[0, ..., :frames]
        for j in range(1, pieces):
            out = out + products[j, ..., j : j + frames]
        # Under autocast the products come in half precision, and so does what `conv1d` gives.
        return out if self.bias is None else out + self.bias[:, None].to(out.dtype)

    def _of_copies(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        last = x.shape[-1] - kernel + 1
        samples = x.transpose(1, 2)
        copies = torch.cat([samples[:, j : j + last : stride] for j in range(kernel)], dim=2)
        weight = self.weight.transpose(1, 2).flatten(1)
        return functional.linear(copies, weight, self.bias).transpose(1, 2)


def _stacked(weight: Tensor, stride: int) -> Tensor:
    """The pieces of a kernel `[O, C, m·s]` one under the other, `[m·O, C·s]`."""
    channels = weight.shape[1]
    return (
        weight.reshape(len(weight), channels, -1, stride)
        .permute(2, 0, 1, 3)
        .flatten(2)
        .flatten(0, 1)
    )


class _GramError(torch.autograd.Function):
    """`‖Wᵀδ − x‖² [N]`; see the module. Its gradients are written out, for `E` with the rows `e_b`:

    ∂/∂δ_t = 2 (Σ_j (EΓ)_{t+j, j} − (Wx)_t),   ∂/∂(Wx) = −2δ,   ∂/∂W = 2 EᵀE W
    """

    @staticmethod
    def forward(
        ctx: Any, delta: Tensor, out: Tensor, weight: Tensor, bias: Tensor, x: Tensor, stride: int
    ) -> Tensor:
        stacked = _stacked(weight, stride)
        channels, frames = delta.shape[1:]
        pieces = len(stacked) // channels
        delta = delta.transpose(1, 2)
        heard = out.transpose(1, 2) - bias
        beside = delta.new_zeros(len(delta), frames + pieces - 1, pieces, channels)
        for j in range(pieces):
            beside[:, j : j + frames, j] = delta
        beside = beside.flatten(2)
        seen = beside @ (stacked @ stacked.T)
        surplus = seen[:, :frames, :channels] - heard
        for j in range(1, pieces):
            surplus += seen[:, j : j + frames, j * channels : (j + 1) * channels]
        ctx.save_for_backward(beside, surplus, stacked)
        ctx.stride = stride
        norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
        return (delta * (surplus - heard)).flatten(1).sum(dim=1) + norm.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # what was saved has no graph: it would be wrong in silence
            raise RuntimeError(
                "the gradients of the Gram error cannot be differentiated again (create_graph=True)"
                ": use exact=True"
            )
        beside, surplus, stacked = ctx.saved_tensors
        frames, channels = surplus.shape[1:]
        # The gradient of a sum or a mean comes as one number, repeated: that scales small matrices.
        alike = gradient.stride() == (0,)
        twice = 2 * gradient[0] if alike else 2 * gradient[:, None, None]
        weighed = beside if alike else twice * beside
        gram = weighed.flatten(0, 1).T @ beside.flatten(0, 1)
        of_weight = ((twice * gram if alike else gram) @ stacked).view(
            -1, channels, stacked.shape[1] // ctx.stride, ctx.stride
        )
        of_heard = beside[:, :frames, :channels] * -twice
        return (
            (surplus * twice).transpose(1, 2),
            of_heard.transpose(1, 2),
            of_weight.permute(1, 2, 0, 3).flatten(2),
            -of_heard.sum((0, 1)),
            None,
            None,
        )
