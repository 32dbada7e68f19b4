"""Strided convolution over the frames of a waveform, and its reconstruction error by Gram matrices.

Write the kernel as `m` pieces of one stride each, `W = [W_0 … W_{m−1}]`, and the input as blocks of
one stride, so that frame `t` is `(Wx)_t = Σ_j W_j block_{t+j}`. The adjoint puts `Σ_j W_jᵀ δ_{b−j}`
into block `b`, and two frames `q` apart share the blocks `j + q` of the one and `j` of the other:

    (WWᵀδ)_t = Σ_q C_q δ_{t+q},   C_q = Σ_j W_{j+q} W_jᵀ,   C_{−q} = C_qᵀ,   |q| < m

Hence `‖Wᵀδ − x‖² = ⟨δ, WWᵀδ⟩ − 2⟨δ, Wx⟩ + ‖x‖²` takes small matrices and `Wx`, which the forward
pass has made already: the input is never reconstructed, and neither a transposed convolution nor
its double backward runs. Samples after the last frame are in `‖x‖²` alone (equation sheet §5).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv1d_input

GATHERED = 8  # blocks a frame: up to here overlapping frames are copied for one matrix product


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

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Frames of `x`; see the class."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if x.ndim == 3 and x.shape[-1] >= kernel:
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

        None where the Gram matrices would cost more than going back to the input: too many
        channels for the stride, or a stride that does not divide the kernel.
        """
        kernel, stride = self.kernel_size[0], self.stride[0]
        pieces = kernel // stride
        if kernel % stride or (2 * pieces - 1) * self.out_channels > self.in_channels * kernel:
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
        products = products.reshape(len(x), count, pieces, self.out_channels)
        out = products[:, :frames, 0]
        for j in range(1, pieces):
            out = out + products[:, j : j + frames, j]
        if self.bias is not None:
            out = out + self.bias
        return out.transpose(1, 2)

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
    """`‖Wᵀδ − x‖² [N]`; see the module. Its own gradients are written out:

        ∂/∂δ = 2(WWᵀδ − Wx),   ∂/∂(Wx) = −2δ,   ∂/∂W_i = 2 Σ_j A_{i−j} W_j

    with `A_q = Σ_t δ_t δ_{t+q}ᵀ`, `A_{−q} = A_qᵀ`, from `⟨δ, WWᵀδ⟩ = Σ_q ⟨C_q, A_q⟩`.
    """

    @staticmethod
    def forward(
        ctx: Any, delta: Tensor, out: Tensor, weight: Tensor, bias: Tensor, x: Tensor, stride: int
    ) -> Tensor:
        channels = len(weight)
        stacked = _stacked(weight, stride)
        pieces = len(stacked) // channels
        delta = delta.transpose(1, 2).contiguous()  # [N, F, O]
        gram = (stacked @ stacked.T).view(pieces, channels, pieces, channels)
        # C_q for q = 1 − m … m − 1, side by side.
        coupling = torch.cat(
            [
                torch.stack([gram[j + q, :, j] for j in range(max(0, -q), pieces - max(0, q))]).sum(
                    dim=0
                )
                for q in range(1 - pieces, pieces)
            ],
            dim=1,
        )
        shifted = _shifted(delta, pieces)
        heard = out.transpose(1, 2) - bias
        surplus = functional.linear(shifted, coupling) - heard
        ctx.save_for_backward(delta, shifted, surplus, stacked)
        ctx.stride = stride
        rows = [part.flatten(1) for part in (delta, surplus - heard, x)]
        return _dot(rows[0], rows[1]) + _dot(rows[2], rows[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        delta, shifted, surplus, stacked = ctx.saved_tensors
        channels = delta.shape[-1]
        pieces = len(stacked) // channels
        twice = 2 * gradient[:, None, None]
        scaled = twice * delta
        # Â with the block A_{i−j} at (i, j), from A_q = Σ_t δ_t δ_{t+q}ᵀ side by side.
        beside = (scaled.flatten(0, 1).T @ shifted.flatten(0, 1)).unflatten(1, (-1, channels))
        lags = torch.tensor(
            [[i - j + pieces - 1 for j in range(pieces)] for i in range(pieces)],
            device=delta.device,
        )
        toeplitz = beside[:, lags].permute(1, 0, 2, 3).reshape(len(stacked), len(stacked))
        of_weight = (toeplitz @ stacked).view(pieces, channels, -1, ctx.stride)
        return (
            (twice * surplus).transpose(1, 2),
            -scaled.transpose(1, 2),
            of_weight.permute(1, 2, 0, 3).flatten(2),
            scaled.sum((0, 1)),
            None,
            None,
        )


def _shifted(delta: Tensor, pieces: int) -> Tensor:
    """`δ_{t+q}` for `q = 1 − m … m − 1` side by side, zeros beyond the ends, `[N, F, (2m−1)·O]`."""
    frames = delta.shape[1]
    shifted = delta.new_zeros(*delta.shape[:2], 2 * pieces - 1, delta.shape[2])
    for q in range(max(1 - pieces, -frames), min(pieces, frames + 1)):
        there = slice(max(0, -q), frames - max(0, q))
        shifted[:, there, q + pieces - 1] = delta[:, there.start + q : there.stop + q]
    return shifted.flatten(2)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """`⟨a_n, b_n⟩ [N]` of rows, without a product in memory."""
    return torch.bmm(a[:, None], b[:, :, None])[:, 0, 0]
