"""The convolutional networks of the papers' image experiments (SPL table 6, MS §3.1)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from birdinv.networks.images import ImageNetwork, Options, Window
from birdinv.networks.layers import draw_weights
from birdinv.networks.lean import Conv2d

WHOLE = 0  # pooling over all that is left
Plan = tuple[tuple[int, int, str, int], ...]  # filters, kernel, border, pooling


class ConvNet(ImageNetwork):
    """A convolution a layer, by the `plan` of the class; see the networks below.

    Args:
        classes: K, the number of logits.
        shape: `(channels, height, width)` of one image.
        pooling, activation, batch_norm, dropout: see `networks.images.Options`.

    Shape:
        `[N, channels, height, width]` to `[N, classes]`.

    Raises:
        BirdinvError: an image too small for the network, or sizes out of range.
        ValueError: an option out of range.
    """

    plan: ClassVar[Plan]

    def __init__(
        self,
        *,
        classes: int,
        shape: tuple[int, int, int],
        pooling: str = "mean",
        activation: str = "leaky",
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        options = Options(pooling, activation, batch_norm, dropout)
        super().__init__(type(self).__name__, classes, shape, options, self._left)
        inputs, *size = shape
        for number, (outputs, kernel, border, pool) in enumerate(self.plan, 1):
            padding = _padding(kernel, border)
            size = [side + 2 * padding - kernel + 1 for side in size]
            windows: dict[int, Window | None] = {1: None, WHOLE: (size[0], size[1])}
            window = windows.get(pool, (pool, pool))
            layer = options.layer(inputs, outputs, kernel, padding=padding, window=window)
            self.add_layer(f"block{number}", layer)
            size = [side // pool if pool else 1 for side in size]
            inputs = outputs
        self.head = self._head(inputs, classes)
        draw_weights(self)

    def _head(self, inputs: int, classes: int) -> nn.Module:
        return nn.Sequential(Conv2d(inputs, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    @classmethod
    def _left(cls, side: int) -> int:
        for _, kernel, border, pool in cls.plan:
            side = (side + 2 * _padding(kernel, border) - kernel + 1) // (pool or 1)
        return side


class SmallCNN(ConvNet):
    """Logits of an image: four convolutions, 131 402 parameters (SPL table 6).

    ======= =================================================== ============
    layer   what                                                28 × 28
    ======= =================================================== ============
    input   image                                               1 × 28 × 28
    block1  conv 5, full padding, 32; LeakyReLU; pool 2         32 × 16 × 16
    block2  conv 3, no padding, 64; LeakyReLU                   64 × 14 × 14
    block3  conv 3, full padding, 64; LeakyReLU; pool 2         64 × 8 × 8
    block4  conv 3, no padding, 128; LeakyReLU                  128 × 6 × 6
    head    conv 1, classes; mean over what is left             classes
    ======= =================================================== ============

    SPL's own count of 131 512 is this and 110 for a last dense layer from 10 to 10 classes, which
    its table does not show and this network lacks. With inhibitor connections two layers lose their
    biases, which leaves 131 306. Images have at least 20 × 20 pixels.

    Arguments, shapes and errors: see `ConvNet`.
    """

    plan = ((32, 5, "full", 2), (64, 3, "valid", 1), (64, 3, "full", 2), (128, 3, "valid", 1))


class LargeCNN(ConvNet):
    """Logits of an image: eight convolutions, 1 368 010 parameters (SPL table 6).

    ======= =================================================== ============
    layer   what                                                28 × 28
    ======= =================================================== ============
    input   image                                               1 × 28 × 28
    block1  conv 3, same padding, 96; LeakyReLU                 96 × 28 × 28
    block2  conv 3, full padding, 96; LeakyReLU                 96 × 30 × 30
    block3  conv 3, full padding, 96; LeakyReLU; pool 2         96 × 16 × 16
    block4  conv 3, no padding, 192; LeakyReLU                  192 × 14 × 14
    block5  conv 3, full padding, 192; LeakyReLU                192 × 16 × 16
    block6  conv 3, no padding, 192; LeakyReLU; pool 2          192 × 7 × 7
    block7  conv 3, no padding, 192; LeakyReLU                  192 × 5 × 5
    block8  conv 1, 192; LeakyReLU                              192 × 5 × 5
    head    conv 1, classes; mean over what is left             classes
    ======= =================================================== ============

    The paper's mean over 6 × 6 is that of 32 × 32 pixels; it states no count (three channels:
    1 369 738). With inhibitor connections two layers lose their biases, which leaves 1 367 722.
    Images have at least 24 × 24 pixels.

    Arguments, shapes and errors: see `ConvNet`.
    """

    plan = (
        (96, 3, "same", 1),
        (96, 3, "full", 1),
        (96, 3, "full", 2),
        (192, 3, "valid", 1),
        (192, 3, "full", 1),
        (192, 3, "valid", 2),
        (192, 3, "valid", 1),
        (192, 1, "valid", 1),
    )


class MSCNN(ConvNet):
    """Logits of an image: eight convolutions and a dense layer, 1 370 986 parameters (MS §3.1).

    ======= =================================================== ============
    layer   what                                                32 × 32
    ======= =================================================== ============
    input   image                                               3 × 32 × 32
    block1  conv 3, same padding, 96                            96 × 32 × 32
    block2  conv 3, full padding, 96                            96 × 34 × 34
    block3  conv 3, full padding, 96; pool 2                    96 × 18 × 18
    block4  conv 3, no padding, 192                             192 × 16 × 16
    block5  conv 3, full padding, 192                           192 × 18 × 18
    block6  conv 3, no padding, 192; pool 2                     192 × 8 × 8
    block7  conv 3, no padding, 192                             192 × 6 × 6
    block8  conv 1, 192; pool all that is left                  192 × 1 × 1
    head    dense                                               classes
    ======= =================================================== ============

    After every convolution come batch norm, LeakyReLU and dropout 0.2, in this order; then the
    pooling. The paper says 1M3. Where it pools 6 × 6, all that is left of an image is pooled;
    images have at least 24 × 24 pixels.

    Arguments, shapes and errors: see `ConvNet`.
    """

    plan = (*LargeCNN.plan[:-1], (192, 1, "same", WHOLE))

    def __init__(
        self,
        *,
        classes: int,
        shape: tuple[int, int, int],
        pooling: str = "mean",
        activation: str = "leaky",
        batch_norm: bool = True,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(
            classes=classes,
            shape=shape,
            pooling=pooling,
            activation=activation,
            batch_norm=batch_norm,
            dropout=dropout,
        )

    def _head(self, inputs: int, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes))


def _padding(kernel: int, border: str) -> int:
    return {"full": kernel - 1, "same": (kernel - 1) // 2, "valid": 0}[border]
