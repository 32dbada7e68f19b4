"""Spectral norms of linear maps: exact ones by iteration, and bounds that can be trusted.

The kernel of a convolution reshaped to a matrix is not its operator: that repeats the kernel at
every place, with what padding, stride, dilation and groups make of it. Here vectors go through the
convolution itself and through its transpose.

Iteration comes from below, and a product of norms that are a trifle too small bounds nothing. So a
convolution has a bound from above beside it: zero padding makes it a part of a circular convolution
on a grid that is larger by the kernel, whose norm is the largest among those of the kernel's
Fourier transform at each frequency, small matrices all. A stride is written as a convolution of as
many channels more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

LinearMap = Callable[[Tensor], Tensor]

_TOLERANCE = 1e-9  # of the largest eigenvalue, relative
_LONGEST = 400  # steps
_EVERY = 4  # of them the eigenvalues are looked at
_CONVS: dict[int, Callable[..., Tensor]] = {
    3: functional.conv1d,
    4: functional.conv2d,
    5: functional.conv3d,
}


class Norm(NamedTuple):
    """Of a linear map.

    Attributes:
        spectral: its largest singular value, to about 1e-6 of it.
        upper: what it is not above, however the iteration went.
        frobenius: the root of the sum of its squared elements (SPL 68, 69).
    """

    spectral: float
    upper: float
    frobenius: float


def spectral_norm(linear: LinearMap, shape: Sequence[int], *, seed: int = 0) -> float:
    """The largest singular value of a linear map, by Lanczos iteration on `WᵀW`.

    That is power iteration which keeps all of its vectors: where two singular values are nearly
    equal it needs the root of the steps. The transpose is autograd's: that of a convolution is the
    transposed convolution.

    Args:
        linear: of float64 tensors `[1, *shape]`; zero to zero.
        shape: of one input, without the batch.
        seed: of the vector to begin with.

    Returns:
        The norm from below, to about 1e-6 of it.

    Reference: SPL 67–69.
    """
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    longest = min(_LONGEST, v.numel())
    basis = torch.empty(min(longest, 32), v.numel(), dtype=torch.float64)
    matrix = torch.zeros(longest + 1, longest + 1, dtype=torch.float64)
    v = v / v.norm()
    top, last = 0.0, -1.0
    for k in range(longest):
        if k == len(basis):
            basis = torch.cat([basis, basis.new_empty(min(len(basis), longest - k), v.numel())])
        basis[k] = v.flatten()
        w = _normal(linear, v).flatten()
        matrix[k, k] = w @ basis[k]
        so_far = basis[: k + 1]
        for _twice in range(2):  # once leaves what rounding brought in
            w = w - so_far.T @ (so_far @ w)
        length = float(w.norm())
        scale = float(matrix.diagonal()[: k + 1].amax())
        ends = k + 1 == longest or length <= 1e-12 * max(scale, 1e-300)
        if ends or k % _EVERY == _EVERY - 1:
            values, vectors = torch.linalg.eigh(matrix[: k + 1, : k + 1])
            top = max(float(values[-1]), 0.0)
            # The residual of the best vector so far, which bounds its distance to an eigenvalue.
            residual = length * abs(float(vectors[-1, -1]))
            if ends or (top - last <= _TOLERANCE * top and residual <= 1e-6 * top):
                break
            last = top
        matrix[k, k + 1] = matrix[k + 1, k] = length
        v = (w / length).view(v.shape)
    return math.sqrt(top)


def of_matrix(weight: Tensor) -> Norm:
    """Of `x ↦ W x`, from the eigenvalues of `WWᵀ` or `WᵀW`, whichever is smaller.

    Args:
        weight: `[O, I]`.
    """
    weight = weight.detach().double()
    value = _largest_singular(weight) if weight.numel() else 0.0
    return Norm(value, value, float(weight.norm()))


def of_convolution(
    weight: Tensor,
    size: Sequence[int],
    *,
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int | str = 0,
    dilation: Sequence[int] | int = 1,
    groups: int = 1,
    seed: int = 0,
) -> Norm:
    """Of a convolution with zeros for padding, on maps of one size.

    Args:
        weight: `[O, I / groups, *kernel]`, of one to three dimensions.
        size: of the input, `*S`.
        stride, padding, dilation, groups: as torch's.
        seed: of the iteration.

    Returns:
        Its norm by iteration; the bound from above is that at all frequencies.
    """
    weight = weight.detach().double().cpu()
    dims = weight.ndim - 2
    strides, steps = _each(stride, dims), _each(dilation, dims)
    spans = [d * (k - 1) for d, k in zip(steps, weight.shape[2:], strict=True)]
    if isinstance(padding, str):
        pads: Any = padding
        added = spans if padding == "same" else [0] * dims
    else:
        pads = _each(padding, dims)
        added = [2 * pad for pad in pads]
    channels = weight.shape[1] * groups
    conv = _CONVS[weight.ndim]

    def through(v: Tensor, kernel: Tensor = weight) -> Tensor:
        return conv(v, kernel, None, strides, pads, steps, groups)

    shape = (channels, *size)
    norm = spectral_norm(through, shape, seed=seed)
    frobenius = float(through(torch.ones(1, *shape, dtype=torch.float64), weight.square()).sum())
    padded = [side + zeros for side, zeros in zip(size, added, strict=True)]
    above = max(_at_all_frequencies(part, padded, strides, steps) for part in weight.chunk(groups))
    root = math.sqrt(frobenius)
    # All three are bounds or the norm itself; rounding aside, so is the smallest of the two above.
    return Norm(norm, max(norm, min(above, root)), root)


def of_nonnegative(linear: LinearMap, shape: Sequence[int]) -> float:
    """A bound `√(‖W‖₁ ‖W‖_∞)` for a linear map without negative elements, such as a mean.

    Exact for means over windows side by side (Schur's test). Such a map shows its largest sum of a
    row where all of its input is 1, and that of a column by its transpose.

    Args:
        linear: of tensors `[1, *shape]`.
        shape: of one input, without the batch.
    """
    ones = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        out = linear(ones)
        (back,) = torch.autograd.grad(out.sum(), ones)
    return math.sqrt(float(out.detach().amax()) * float(back.amax()))


def _normal(linear: LinearMap, v: Tensor) -> Tensor:
    """`WᵀW v`."""
    v = v.detach().requires_grad_()
    with torch.enable_grad():
        out = linear(v)
        (back,) = torch.autograd.grad(out, v, out.detach())
    return back


def _at_all_frequencies(
    weight: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> float:
    """The norm of the circular convolution that a zero-padded one is a part of."""
    for d in range(weight.ndim - 2):
        axis = d + 2
        if dilation[d] > 1:  # zeros between the taps
            shape = list(weight.shape)
            shape[axis] = dilation[d] * (shape[axis] - 1) + 1
            spread = weight.new_zeros(shape)
            spread[(slice(None),) * axis + (slice(None, None, dilation[d]),)] = weight
            weight = spread
    kernel = weight.shape[2:]
    grid = []
    for d, (k, s) in enumerate(zip(kernel, stride, strict=True)):
        # Blocks of one stride, of which each place of the output reads `⌈k / s⌉` one after the
        # other: on a circle of all blocks and one kernel more none meets itself.
        pieces = -(-k // s)
        weight = _padded(weight, d + 2, pieces * s - k)
        blocks = -(-size[d] // s) + pieces - 1
        grid.append(blocks)
        # [O, I, …, pieces · s, …] to [O, I, s, …, pieces, …] with s in the channels.
        split = (*weight.shape[: d + 2], pieces, s, *weight.shape[d + 3 :])
        weight = weight.reshape(split).movedim(d + 3, 2).flatten(1, 2)
    spectrum = torch.fft.rfftn(weight, s=grid)
    matrices = spectrum.flatten(2).permute(2, 0, 1)
    return _largest_singular(matrices)


def _largest_singular(matrices: Tensor) -> float:
    """Of one or many `[…, O, I]`, the largest: only the smaller side is taken to pieces."""
    small = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mH
    return float(torch.linalg.eigvalsh(small @ small.mH).amax().clamp(min=0).sqrt())


def _padded(weight: Tensor, axis: int, zeros: int) -> Tensor:
    if not zeros:
        return weight
    pads = [0, 0] * (weight.ndim - 1 - axis) + [0, zeros]
    return functional.pad(weight, pads)


def _each(value: Sequence[int] | int, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)
