"""The residual networks of the papers' image experiments (INV §3.1, MS §3.1)."""

from __future__ import annotations

from torch import Tensor, nn

from birdinv.errors import BirdinvError
from birdinv.networks.images import ImageNetwork, Options
from birdinv.networks.layers import draw_weights
from birdinv.networks.lean import Conv2d

STAGES = 3


class Resnet(ImageNetwork):
    """Logits of an image: a stem and `3·blocks` residual blocks, "Resnet*blocks*-*width*".

    =================== ========================================== ============================
    layer               what                                       Resnet2-32 on 28 × 28
    =================== ========================================== ============================
    input               image                                      1 × 28 × 28
    stem                conv 3, same padding, width; LeakyReLU     32 × 28 × 28
    block1 … n          residual, width; pool 2 after the last     32 × 28 × 28, 32 × 14 × 14
    block(n + 1) … 2n   residual, 2 width; pool 2 after the last   64 × 14 × 14, 64 × 7 × 7
    block(2n + 1) … 3n  residual, 4 width                          128 × 7 × 7, 128 × 7 × 7
    head                mean over what is left; dense              classes
    =================== ========================================== ============================

    A block is `f(z) = Wz + f_conv(z)` (MS §3.1): in every block a linear convolution of 1 × 1
    without bias, beside a convolution of 3 × 3 → (batch norm) → LeakyReLU → (dropout). The stem is
    bent as every first convolution of the papers is, and padded, unlike that of SPL table 7, so
    that the pooling leaves nothing out.

    ===================== ============ ==================== ==========
    network               shape        options              parameters
    ===================== ============ ==================== ==========
    Resnet2-32 (INV)      1 × 28 × 28                       329 738
    Resnet3-16 (INV)      1 × 28 × 28                       136 826
    Resnet3-64 (MS: 2M1)  3 × 32 × 32  batch norm, dropout  2 177 994
    Resnet6-32 (MS: 1M1)  3 × 32 × 32  batch norm, dropout  1 192 746
    ===================== ============ ==================== ==========

    The networks of MS are built with `batch_norm=True, dropout=0.2`. With inhibitor connections the
    convolution of the last block of a stage is projected before its nonlinearity and loses its
    bias, and the block is pooled by means: 329 642 parameters of Resnet2-32, 136 778 of Resnet3-16.
    Images have at least 16 × 16 pixels.

    Args:
        blocks: n, in each of the three stages.
        width: k, filters of the first stage; doubled from stage to stage.
        classes: K, the number of logits.
        shape: `(channels, height, width)` of one image.
        pooling, activation, batch_norm, dropout: see `networks.images.Options`.

    Shape:
        `[N, channels, height, width]` to `[N, classes]`.

    Raises:
        BirdinvError: an image too small for the network, or sizes out of range.
        ValueError: an option out of range.
    """

    def __init__(
        self,
        *,
        blocks: int,
        width: int,
        classes: int,
        shape: tuple[int, int, int],
        pooling: str = "mean",
        activation: str = "leaky",
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        title = f"Resnet{blocks}-{width}"
        for what, value, most in (("blocks a stage", blocks, 100), ("filters", width, 1024)):
            if not 1 <= value <= most:
                raise BirdinvError(f"{title} with {value} {what}: give a number from 1 to {most}")
        options = Options(pooling, activation, batch_norm, dropout)
        super().__init__(title, classes, shape, options, lambda side: side // 2 // 2)
        self.add_layer("stem", options.layer(shape[0], width, 3, padding=1))
        inputs = width
        for number in range(1, STAGES * blocks + 1):
            stage = (number - 1) // blocks
            outputs = width * 2**stage
            pooled = number % blocks == 0 and stage < STAGES - 1
            block = ResidualBlock(inputs, outputs, options, pooled=pooled)
            self.add_layer(f"block{number}", block)
            inputs = outputs
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
        self._draw_weights()

    def _draw_weights(self) -> None:
        """As other networks, but that both parts of a block add up to what came into it."""
        draw_weights(self)
        for block in self.children():
            if isinstance(block, ResidualBlock):
                # Of E[z²] a draw of variance 1/inputs keeps all by a linear map, and half through a
                # LeakyReLU: half is wanted of both.
                inputs = block.linear.in_channels
                nn.init.normal_(block.linear.weight, std=(2 * inputs) ** -0.5)
                nn.init.normal_(block.conv.weight, std=(9 * inputs) ** -0.5)


class ResidualBlock(nn.Module):
    """`Wz + f_conv(z)`, pooled 2 × 2 where a stage ends (MS §3.1).

    Shape:
        `[N, inputs, H, W]` to `[N, outputs, H, W]`, or half of it each way.
    """

    def __init__(self, inputs: int, outputs: int, options: Options, *, pooled: bool) -> None:
        super().__init__()
        window = (2, 2) if pooled else None
        self.linear = Conv2d(inputs, outputs, 1, bias=False)
        self.branch = options.branch(inputs, outputs, 3, padding=1, window=window)
        self.pool = None if window is None else options.pool(window)

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution of the branch."""
        return self.branch[0]  # type: ignore[return-value]

    def forward(self, z: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.linear(z) + self.branch(z)
        return out if self.pool is None else self.pool(out)
