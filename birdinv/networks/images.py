"""What the networks of images have in common: their options, and the layers these make."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from birdinv.errors import BirdinvError
from birdinv.networks.layers import SLOPE
from birdinv.networks.lean import Conv2d, LeakyReLU
from birdinv.networks.pooling import Inhibitor, MeanPool

HEAD = 4  # places a side, at least, that the mean before the logits runs over

Window = tuple[int, int]  # height and width

POOLINGS: Mapping[str, Callable[[Window], nn.Module]] = {
    "mean": MeanPool,
    "max": nn.MaxPool2d,
    "inhibitor": MeanPool,  # after an Inhibitor and the nonlinearity
}
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "leaky": lambda: LeakyReLU(SLOPE),
    "sigmoid": nn.Sigmoid,
}


@dataclass(frozen=True)
class Options:
    """How the layers of a network pool, bend and are regularised.

    Args:
        pooling: "mean", "max", or "inhibitor" for our construction of inhibitor connections, see
            `networks.pooling.Inhibitor`.
        activation: "leaky" for a LeakyReLU of slope 0.01, or "sigmoid".
        batch_norm: before every nonlinearity, in place of the biases of the convolutions.
        dropout: fraction of the numbers dropped after every nonlinearity in training.

    Raises:
        ValueError: an option out of its range.
    """

    pooling: str = "mean"
    activation: str = "leaky"
    batch_norm: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, ok, expected in (
            ("pooling", self.pooling in POOLINGS, ", ".join(POOLINGS)),
            ("activation", self.activation in ACTIVATIONS, ", ".join(ACTIVATIONS)),
            ("batch_norm", isinstance(self.batch_norm, bool), "True or False"),
            ("dropout", 0 <= self.dropout < 1, "a fraction from 0 to below 1"),
        ):
            if not ok:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    def layer(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        padding: int = 0,
        window: Window | None = None,
    ) -> nn.Sequential:
        """Convolution → batch norm → nonlinearity → dropout → pooling of `window` (MS §3.1)."""
        parts = self._bent(inputs, outputs, kernel, padding, window)
        if window is not None:
            # A maximum commutes with whatever increases, and the smaller map makes every pass of
            # the nonlinearity cheaper; it does not commute with dropout.
            first = self.pooling == "max" and not self.dropout
            parts.insert(len(parts) - first, self.pool(window))
        return nn.Sequential(*parts)

    def branch(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        padding: int = 0,
        window: Window | None = None,
    ) -> nn.Sequential:
        """The same without its pooling, for a sum that is pooled over `window`."""
        return nn.Sequential(*self._bent(inputs, outputs, kernel, padding, window))

    def pool(self, window: Window) -> nn.Module:
        """The pooling over windows side by side."""
        return POOLINGS[self.pooling](window)

    def _bent(
        self, inputs: int, outputs: int, kernel: int, padding: int, window: Window | None
    ) -> list[nn.Module]:
        inhibited = window is not None and self.pooling == "inhibitor"
        bias = not (inhibited or self.batch_norm)  # both cancel what is added to a channel
        parts: list[nn.Module] = [Conv2d(inputs, outputs, kernel, padding=padding, bias=bias)]
        if self.batch_norm:
            parts.append(norm := nn.BatchNorm2d(outputs))
            if inhibited:  # so does the projection with the shift of a batch norm
                norm.register_parameter("bias", None)
        if inhibited and window is not None:
            parts.append(Inhibitor(window))
        parts.append(ACTIVATIONS[self.activation]())
        if self.dropout:
            parts.append(nn.Dropout(self.dropout))
        return parts


class ImageNetwork(nn.Module):
    """Logits of an image: named layers one after the other, then a head.

    Args:
        title: for sentences.
        classes: K, the number of logits.
        shape: `(channels, height, width)` of one image.
        options: of the layers.
        left: places that are left of so many, of one side, before the last mean.

    Shape:
        `[N, channels, height, width]` to `[N, classes]`.

    Raises:
        BirdinvError: an image so small that the last mean would run over less than 4×4 places, or
            no shape of an image.
    """

    layers: tuple[str, ...] = ()  # the targets of layer reconstruction, after the input
    sizes: dict[str, Any]  # all that `build` needs to make the network again

    def __init__(
        self,
        title: str,
        classes: int,
        shape: tuple[int, int, int],
        options: Options,
        left: Callable[[int], int],
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise BirdinvError(
                f"{title} takes images; expected (channels, height, width), got {tuple(shape)}"
            )
        channels, height, width = shape
        for name, value, most in (("classes", classes, 100_000), ("channels", channels, 64)):
            if not 1 <= value <= most:
                raise BirdinvError(f"{title} with {name}={value}: give a number from 1 to {most}")
        smallest = next(side for side in itertools.count(1) if left(side) >= HEAD)
        if min(height, width) < smallest:
            raise BirdinvError(
                f"{title} needs at least {smallest}×{smallest} inputs; got {height}×{width} (on "
                f"smaller ones the mean before its logits runs over less than {HEAD}×{HEAD} places)"
            )
        self.sizes = {"classes": classes, "shape": [channels, height, width], **asdict(options)}

    def add_layer(self, name: str, layer: nn.Module) -> None:
        """Adds the next layer."""
        self.add_module(name, layer)
        self.layers = (*self.layers, name)

    def forward(self, x: Tensor) -> Tensor:
        """Logits; see the class."""
        for part in self.children():
            x = part(x)
        return x
