"""The raw-waveform network of INV A.2."""

from __future__ import annotations

from torch import Tensor, nn

from birdinv.errors import BirdinvError
from birdinv.networks.frames import FrameConv1d
from birdinv.networks.layers import SLOPE
from birdinv.networks.pooling import FrameMaxPool1d


class Bird10(nn.Module):
    """Logits of a waveform segment: two convolutions, a dense layer, no batch norm (INV A.2).

    ======== ================================================ ==================
    layer    what                                             0.5 s at 22 050 Hz
    ======== ================================================ ==================
    input    waveform                                         1 × 11 025
    block1   conv 1024, stride 512, 42; max 4, 2; LeakyReLU   42 × 9
    block2   conv 3, stride 2, 42; LeakyReLU                  42 × 4
    hidden   dense 32; LeakyReLU; dropout 0.5                 32
    head     dense                                            classes
    ======== ================================================ ==================

    Args:
        classes: K, the number of logits.
        shape: `(channels, samples)` of one segment.
        width: filters of both convolutions.
        dense: units of the dense layer.
        dropout: fraction of its units dropped in training.

    Shape:
        `[N, channels, samples]` to `[N, classes]`.

    Raises:
        BirdinvError: sizes out of range, or a segment too short for the two convolutions.
    """

    layers = ("block1", "block2", "hidden")  # the targets of layer reconstruction, after the input

    def __init__(
        self,
        *,
        classes: int,
        shape: tuple[int, int],
        width: int = 42,
        dense: int = 32,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels, samples = shape
        for name, value, most in (
            ("classes", classes, 100_000),
            ("channels", channels, 64),
            ("width", width, 4096),
            ("dense", dense, 65_536),
        ):
            if not 1 <= value <= most:
                raise BirdinvError(f"bird10 with {name}={value}: give a number from 1 to {most}")
        if not 0 <= dropout < 1:
            raise BirdinvError(
                f"bird10 with dropout={dropout:g}: give a fraction from 0 to below 1"
            )
        frames = (samples - 1024) // 512 + 1
        pooled = (frames - 4) // 2 + 1
        steps = (pooled - 3) // 2 + 1
        if frames < 4 or pooled < 3:
            raise BirdinvError(
                f"bird10 needs segments of at least {1024 + 512 * 7} samples, and these have "
                f"{samples}; segment with a longer --segment or a higher --sample-rate"
            )
        self.sizes = {
            "classes": classes,
            "shape": [channels, samples],
            "width": width,
            "dense": dense,
            "dropout": dropout,
        }
        # Pooling before the nonlinearity: a maximum commutes with whatever increases, and the
        # smaller map makes every pass of the nonlinearity, forwards and back, cheaper.
        self.block1 = nn.Sequential(
            FrameConv1d(channels, width, 1024, 512), FrameMaxPool1d(4, 2), nn.LeakyReLU(SLOPE)
        )
        self.block2 = nn.Sequential(FrameConv1d(width, width, 3, 2), nn.LeakyReLU(SLOPE))
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(width * steps, dense), nn.LeakyReLU(SLOPE), nn.Dropout(dropout)
        )
        self.head = nn.Linear(dense, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits; see the class."""
        logits: Tensor = self.head(self.hidden(self.block2(self.block1(x))))
        return logits
