"""The region of the input space that an input lies in (SPL §3.4.3, §4.3.2, A.5).

Where a network is piecewise affine, a region is where every nonlinearity and every maximum chooses
as it does at `x`. The choices of a layer are its code, bits: of a ReLU or LeakyReLU whether its
argument is above zero, of a maximum the place of the winner in its window.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from birdinv.capture import captured, only_output
from birdinv.refusals import check_logits
from birdinv.spline.kinks import Kink, kinks
from birdinv.spline.modes import checked, judged, of_input_alone


@dataclass(frozen=True)
class Code:
    """What one nonlinearity or maximum chooses for N inputs.

    Attributes:
        layer: name of the module that calls it, with `#2` and so on where it calls several.
        kind: "sign" for what bends at zero or elsewhere, "maximum" for a pooling.
        choices: int64 or bool `[N, U]`: on which side of its bend each of U units is, or which
            place of its window wins.
        slopes: what a unit multiplies its argument by, for each choice, `[choices]`; for a maximum
            None.
        ways: how many choices a unit has.
    """

    layer: str
    kind: str
    choices: Tensor
    slopes: Tensor | None
    ways: int

    @property
    def bits(self) -> int:
        """Per unit."""
        return max(1, math.ceil(math.log2(self.ways)))

    @property
    def packed(self) -> NDArray[np.uint8]:
        """The code, eight bits a byte, `[N, ⌈U · bits / 8⌉]`."""
        choices = self.choices.cpu().numpy().astype(np.int64)
        bits = (choices[:, :, None] >> np.arange(self.bits)) & 1
        return np.packbits(bits.astype(np.uint8).reshape(len(choices), -1), axis=1)

    @property
    def active(self) -> Tensor:
        """Share of the units of each input on the side where they pass their argument on, `[N]`.

        `‖A_σ z‖₀ / D`, the paper's activation sparsity (SPL §4.3.2), where a LeakyReLU counts as
        the ReLU that it leaks from; NaN for a maximum.
        """
        if self.slopes is None:
            return torch.full((len(self.choices),), torch.nan)
        steepest = self.slopes.abs() >= self.slopes.abs().amax()
        return steepest[self.choices.long()].double().mean(dim=1)

    def overlap(self) -> Tensor:
        """`m(ω₁ ∩ ω₂) [N, N]` for every two inputs (SPL 136).

        For units with slopes, A is diagonal and this is the Frobenius norm `‖A₁ᵀA₂‖`. A maximum
        chooses, its A has one 1 in a row, and in `A₁ᵀA₂` windows side by side all count, agree
        they or not; `‖A₁A₂ᵀ‖`, which is the same for diagonal ones, counts those that agree.
        """
        return self._agreement().clamp(min=0).sqrt()

    def distances(self) -> Tensor:
        """`1 − m(ω₁ ∩ ω₂)² / (m(ω₁) m(ω₂)) [N, N]`: 0 in one region, 1 with nothing in common.

        Here `m(ω) = m(ω ∩ ω)` (the matrices of SPL figs. 16 to 18). A unit counts by the squares of
        its two slopes: two LeakyReLUs that are both off have next to nothing in common by that, and
        slopes that differ by their sign alone, those of `abs`, all.
        """
        together = self._agreement()
        own = together.diagonal().clamp(min=0).sqrt()
        whole = own[:, None] * own
        # Where nothing is passed on, all is in common with what passes nothing on either.
        neither = (own[:, None] == own).to(whole)
        share = torch.where(whole > 0, together / torch.where(whole > 0, whole, 1.0), neither)
        return (1 - share).clamp(0, 1).fill_diagonal_(0)

    def _agreement(self) -> Tensor:
        if self.slopes is None:
            total = torch.zeros(len(self.choices), len(self.choices), dtype=torch.float64)
            for way in range(self.ways):
                chosen = (self.choices == way).double()
                total += (chosen @ chosen.T).cpu()
            return total
        squares = self.slopes.double().square()[self.choices.long()]
        return (squares @ squares.T).cpu()


@dataclass
class Regions:
    """How many different regions some inputs lie in, layer by layer.

    Attributes:
        inputs: how many there were.
        layers: of each code, how many regions of that layer alone.
        so_far: and of all codes up to it, which are regions of the input space.
    """

    inputs: int = 0
    layers: dict[str, int] = field(default_factory=dict)
    so_far: dict[str, int] = field(default_factory=dict)


def codes(model: nn.Module, x: Tensor) -> dict[str, Code]:
    """The code of every nonlinearity and maximum for each input, in the order of their calls.

    The network is looked at in eval mode.

    Args:
        model: gives logits `[N, K]` for `x`.
        x: inputs `[N, C, *S]`.

    Returns:
        Name → `Code`; nonlinearities that are not straight between their bends have none, be they
        smooth (tanh) or bent (SELU, Hardswish).

    Raises:
        TypeError: inputs that are no tensor of floating point.
        ValueError: logits that are not `[N, K]`; a call that chooses and cannot be looked into, as
            that of torch's recurrent layers with ReLUs: write them as a loop.

    Reference: SPL proposition 1, A.5.2.
    """
    x = checked(model, x)
    found: dict[str, Code] = {}

    def keep(kink: Kink) -> None:
        name = _numbered(kink.layer, found)
        found[name] = Code(name, kink.kind, kink.choices().detach(), kink.slopes, kink.ways)

    start = x.requires_grad_()
    with judged(model), torch.enable_grad(), kinks(model, keep, len(x)):
        logits = of_input_alone(model, start)
    check_logits(logits, x)
    return found


def count_regions(model: nn.Module, batches: Iterable[Tensor]) -> Regions:
    """How many different regions the inputs of a data set visit.

    Memory is 16 bytes an input and layer.

    Args:
        batches: inputs `[N, C, *S]`, any number of times.

    Raises:
        ValueError: as `codes`.

    Reference: SPL A.5.1.
    """
    seen: dict[str, tuple[set[bytes], set[bytes]]] = {}
    result = Regions()
    for x in batches:
        if not len(x):
            continue
        result.inputs += len(x)
        before = [b""] * len(x)
        for name, code in codes(model, x).items():
            alone, joint = seen.setdefault(name, (set(), set()))
            for n, row in enumerate(code.packed):
                digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
                before[n] = hashlib.blake2b(before[n] + digest, digest_size=16).digest()
                alone.add(digest)
                joint.add(before[n])
    result.layers = {name: len(alone) for name, (alone, _) in seen.items()}
    result.so_far = {name: len(joint) for name, (_, joint) in seen.items()}
    return result


def separations(model: nn.Module, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """`D^(l)[x, x'] = ‖z^(l)[x] − z^(l)[x']‖`, `[N, N]` for each named layer (SPL 130).

    Raises:
        ValueError: an unknown layer, or one that was not called once with a tensor as output.
    """
    with judged(model), torch.no_grad(), captured(model, layers) as outputs:
        model(x)
    flat = {name: only_output(outputs, name).flatten(1).double() for name in layers}
    # By differences, not by inner products: those of near points are lost in rounding.
    return {
        name: torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").cpu()
        for name, z in flat.items()
    }


def blocks(distances: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean distance (of two inputs of one class, of two inputs of different classes).

    Args:
        distances: `[N, N]`.
        y: classes `[N]`.

    Returns:
        NaN where there are no such two.

    Raises:
        ValueError: classes of another number of inputs.
    """
    if y.shape != distances.shape[:1]:
        raise ValueError(f"y of shape {tuple(y.shape)}; expected [{len(distances)}]")
    y = y.to(distances.device)
    same = y[:, None] == y
    apart = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    within, between = distances[same & apart], distances[~same]
    return tuple(float(part.mean()) if len(part) else math.nan for part in (within, between))  # type: ignore[return-value]


def _numbered(layer: str, taken: Mapping[str, Any]) -> str:
    """The name, or with a number where the layer has made such a call before."""
    name = layer or "forward"
    number = 2
    while name in taken:
        name = f"{layer or 'forward'}#{number}"
        number += 1
    return name
