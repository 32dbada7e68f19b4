"""The convolutional networks of the papers' image experiments (SPL table 6)."""

from __future__ import annotations

from torch import Tensor, nn

from birdinv.errors import BirdinvError
from birdinv.networks.bird10 import SLOPE
from birdinv.networks.lean import Conv2d, LeakyReLU


class SmallCNN(nn.Module):
    """Logits of an image: four convolutions with mean pooling, 131 402 parameters (SPL table 6).

    ======= =================================================== ===========
    layer   what                                                28 × 28
    ======= =================================================== ===========
    input   image                                               1 × 28 × 28
    block1  conv 5, full padding, 32; LeakyReLU; mean 2         32 × 16 × 16
    block2  conv 3, no padding, 64; LeakyReLU                   64 × 14 × 14
    block3  conv 3, full padding, 64; LeakyReLU; mean 2         64 × 8 × 8
    block4  conv 3, no padding, 128; LeakyReLU                  128 × 6 × 6
    head    conv 1, classes; mean over what is left             classes
    ======= =================================================== ===========

    Args:
        classes: K, the number of logits.
        shape: `(channels, height, width)` of one image.

    Shape:
        `[N, channels, height, width]` to `[N, classes]`.

    Raises:
        BirdinvError: an image too small for the convolutions.
    """

    layers = ("block1", "block2", "block3", "block4")  # reconstructed, after the input

    def __init__(self, *, classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        if classes < 1 or channels < 1 or min(height, width) < 8:
            raise BirdinvError(
                f"smallcnn with classes={classes} and shape={tuple(shape)}: give at least one "
                "class, one channel and 8 × 8 pixels"
            )
        self.sizes = {"classes": classes, "shape": [channels, height, width]}
        self.block1 = _block(channels, 32, 5, padding=4, pool=True)
        self.block2 = _block(32, 64, 3)
        self.block3 = _block(64, 64, 3, padding=2, pool=True)
        self.block4 = _block(64, 128, 3)
        self.head = nn.Sequential(Conv2d(128, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Logits; see the class."""
        logits: Tensor = self.head(self.block4(self.block3(self.block2(self.block1(x)))))
        return logits


def _block(
    inputs: int, outputs: int, kernel: int, *, padding: int = 0, pool: bool = False
) -> nn.Module:
    layers = [Conv2d(inputs, outputs, kernel, padding=padding), LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, *([nn.AvgPool2d(2)] if pool else []))
