"""Stacked what-where auto-encoders: a convolutional network with a decoder of its own (SW §3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from birdinv.networks.layers import draw_weights
from birdinv.networks.notation import Conv, Dense, Layer, Pool, parse
from birdinv.networks.same import Deconv, same_conv
from birdinv.networks.what_where import SoftSwitches, Switches, Upsampling, WhatWhere

LARGEST = 1 << 22  # numbers of one map of one sample
HEAVIEST = 1 << 30  # weights of encoder and decoder

POOLINGS: Mapping[str, Callable[[Sequence[int], float], WhatWhere]] = {
    "switches": lambda window, beta: Switches(window),
    "soft": SoftSwitches,
    "upsampling": lambda window, beta: Upsampling(window),
}


class Decoded(NamedTuple):  # which DistributedDataParallel looks into, as not into a dataclass
    """One pass through encoder and decoder.

    Attributes:
        logits: `[N, K]`.
        x_tilde: `x̃`, shaped like the input.
        levels: of each name in `SWWAE.layers` the pair (`x_m`, `x̃_m`), shaped alike; the decoder
            begins with the last one, whose two are the same tensor.
    """

    logits: Tensor
    x_tilde: Tensor
    levels: dict[str, tuple[Tensor, Tensor]]


class Stage(nn.Module):
    """Convolutions, each with its ReLU, and the pooling after them, if there is one."""

    def __init__(self, convs: nn.Module, pool: WhatWhere | None) -> None:
        super().__init__()
        self.convs, self.pool = convs, pool

    def forward(self, x: Tensor) -> Tensor:
        """The what of `x [N, C, *S]`."""
        z: Tensor = self.convs(x)
        return z if self.pool is None else self.pool(z)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(what, where) of `x [N, C, *S]`."""
        z = self.convs(x)
        return (z, None) if self.pool is None else self.pool.split(z)


class SWWAE(nn.Module):
    """Logits of an image or a waveform, by the encoder, and its reconstruction, by the decoder.

    Encoder: convolutions that keep the size (with a stride s: a place every s, `⌈size / s⌉` of
    them), each followed by batch norm if asked for and ReLU; poolings that split what from where;
    fully connected layers on the last what, a ReLU between two of them. Decoder: the encoder's
    convolutions the other way round with weights of their own, from the last what down; where the
    encoder pooled, it unpools with the encoder's where. Its last convolution, which makes the
    input, has neither batch norm nor ReLU, as inputs have either sign. The paper leaves open where
    the decoder begins: here below the fully connected layers, which it leaves out where there are
    no labels (SW §3.2).

    Args:
        notation: the encoder as SW §4 writes it, see `networks.notation`. Without a fully connected
            layer, one from the last what to the logits is added.
        shape: of one input, `(channels, height, width)` or `(channels, samples)`.
        classes: K, the number of logits; None takes it from the notation.
        pooling: "switches" for maxima and their places, "soft" for SW 3 and 4, "upsampling" for
            maxima that are copied all over their windows on the way back.
        beta: β of soft pooling.
        batch_norm: after every convolution but the last one of the decoder.
        dropout: fraction dropped in training of what each fully connected layer hears.
        conv_dropout: fraction dropped of what each convolution of the encoder gives.

    Shape:
        `[N, *shape]` to `[N, classes]`, or to `Decoded`.

    Raises:
        ValueError: a notation that cannot be read or does not fit `shape` and `classes`, an option
            out of range, or inputs of another shape.

    Example:
        >>> import birdinv, torch
        >>> model = birdinv.networks.build("swwae:(8)5c-2p-(8)3c-2p-10fc", shape=(1, 32, 32))
        >>> model(torch.zeros(2, 1, 32, 32), decode=True).x_tilde.shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self,
        *,
        notation: str,
        shape: tuple[int, ...],
        classes: int | None = None,
        pooling: str = "switches",
        beta: float = 100.0,
        batch_norm: bool = False,
        dropout: float = 0.0,
        conv_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, ok, given, expected in (
            ("pooling", pooling in POOLINGS, pooling, f"one of {', '.join(POOLINGS)}"),
            ("beta", _is_number(beta) and 0 <= beta < math.inf, beta, "a number from 0"),
            ("batch_norm", isinstance(batch_norm, bool), batch_norm, "True or False"),
            *(
                (name, _is_number(value) and 0 <= value < 1, value, "a fraction from 0 to below 1")
                for name, value in (("dropout", dropout), ("conv_dropout", conv_dropout))
            ),
            (
                "shape",
                isinstance(shape, Sequence)
                and 2 <= len(shape) <= 3
                and all(type(n) is int and 1 <= n <= LARGEST for n in shape),
                shape,
                "(channels, samples) or (channels, height, width)",
            ),
        ):
            if not ok:
                raise ValueError(f"{name} is {given!r}; expected {expected}")
        layers = parse(notation)
        dense = [layer.units for layer in layers if isinstance(layer, Dense)]
        classes = _classes(dense, classes)
        self.sizes = {
            "classes": classes,
            "shape": list(shape),
            "pooling": pooling,
            "beta": beta,
            "batch_norm": batch_norm,
            "dropout": dropout,
            "conv_dropout": conv_dropout,
        }
        self.shape = tuple(shape)
        channels, *size = shape
        weights = 0
        self.layers: tuple[str, ...] = ()
        self.unpooled: list[tuple[int, ...]] = []  # of each stage the size that it pools
        for number, (convs, window) in enumerate(_stages(layers), 1):
            there: list[nn.Module] = []
            back: list[nn.Module] = []
            for conv in convs:
                weights += 2 * channels * conv.filters * conv.kernel ** len(size)
                _require_room(weights)
                there += [
                    same_conv(channels, conv.filters, conv.kernel, conv.stride, size),
                    *([_norm(conv.filters, size)] if batch_norm else []),
                    nn.ReLU(),
                    *([nn.Dropout(conv_dropout)] if conv_dropout else []),
                ]
                last = number == 1 and not back  # of the decoder
                after: list[nn.Module] = [] if last else [nn.ReLU()]
                if batch_norm and not last:
                    after.insert(0, _norm(channels, size))
                deconv = Deconv(conv.filters, channels, conv.kernel, conv.stride, size)
                back = [deconv, *after, *back]
                channels, size = conv.filters, [-(-side // conv.stride) for side in size]
                if channels * math.prod(size) > LARGEST:
                    raise ValueError(f"a map of {channels} × {size} numbers is beyond {LARGEST}")
            self.unpooled.append(tuple(size))
            pool = None
            if window is not None:
                if window > min(size):
                    raise ValueError(
                        f"{window}p pools over {window} places and a map of {_by(size)} is left of "
                        f"an input of {_by(shape[1:])}; give a smaller window or larger inputs"
                    )
                pool = POOLINGS[pooling]([window] * len(size), beta)
                size = [side // window for side in size]
            self.add_module(f"stage{number}", Stage(nn.Sequential(*there), pool))
            self.add_module(f"back{number}", nn.Sequential(*back))
            self.layers = (*self.layers, f"stage{number}")
        head: list[nn.Module] = [nn.Flatten()]
        inputs = channels * math.prod(size)
        for units in (classes if each is None else each for each in dense or [None]):
            weights += inputs * units
            _require_room(weights)
            head += [nn.Dropout(dropout), nn.Linear(inputs, units), nn.ReLU()]
            inputs = units
        self.head = nn.Sequential(*head[:-1])
        draw_weights(self)

    def forward(self, x: Tensor, *, decode: bool = False) -> Any:
        """Logits of `x`, or all of `Decoded`; see the class."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"inputs of shape {tuple(x.shape)}; expected [N, *{self.shape}]")
        if not decode:
            for name in self.layers:
                x = getattr(self, name)(x)
            return self.head(x)
        split, z = [], x
        for name in self.layers:
            z, where = getattr(self, name).split(z)
            split.append((z, where))
        logits = self.head(z)
        levels = {}
        for i in reversed(range(len(self.layers))):
            what, where = split[i]
            name, size = self.layers[i], self.unpooled[i]
            levels[name] = (what, z)
            pool = getattr(self, name).pool
            if pool is not None:
                z = pool.unpool(z, where, size)
            z = getattr(self, f"back{i + 1}")(z)
        return Decoded(logits, z, {name: levels[name] for name in self.layers})

    def freeze_encoder(self, frozen: bool = True) -> None:
        """Lets what the fully connected layers hear through learn no more, or learn again.

        Its dropout and the statistics of its batch norm are off then, as in eval mode, until
        `train()` is called.
        """
        for name in self.layers:
            stage: nn.Module = getattr(self, name)
            stage.requires_grad_(not frozen).train(self.training and not frozen)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require_room(weights: int) -> None:
    """Before they are allocated."""
    if weights > HEAVIEST:
        raise ValueError(f"{weights:,} weights; at most {HEAVIEST:,} are made")


def _classes(dense: Sequence[int | None], classes: int | None) -> int:
    """K, from the notation or as it was asked for."""
    last = dense[-1] if dense else None
    if last is not None and classes is not None and last != classes:
        raise ValueError(
            f"its last layer is {last}fc, and there are {classes} classes; end it in {classes}fc, "
            "or in Kfc, which is as many as there are"
        )
    found = last if classes is None else classes
    if found is None:
        raise ValueError(
            "the notation does not say how many classes there are; end it in 10fc, say, or give "
            "classes"
        )
    if not 1 <= found <= 100_000:
        raise ValueError(f"classes={found}: give a number from 1 to 100000")
    return found


def _stages(layers: Sequence[Layer]) -> Iterator[tuple[list[Conv], int | None]]:
    """Convolutions up to a pooling and its window, or up to the end of them."""
    convs: list[Conv] = []
    for layer in layers:
        if isinstance(layer, Conv):
            convs.append(layer)
        elif isinstance(layer, Pool):
            yield convs, layer.window
            convs = []
    if convs:
        yield convs, None


def _norm(channels: int, size: Sequence[int]) -> nn.Module:
    return nn.BatchNorm1d(channels) if len(size) == 1 else nn.BatchNorm2d(channels)


def _by(size: Sequence[int]) -> str:
    return " × ".join(map(str, size))
