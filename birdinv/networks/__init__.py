"""The project's networks, by name."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from birdinv.errors import BirdinvError
from birdinv.networks.bird10 import Bird10
from birdinv.networks.convnets import MSCNN, LargeCNN, SmallCNN
from birdinv.networks.resnet import Resnet

NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "bird10": Bird10,
    "smallcnn": SmallCNN,
    "largecnn": LargeCNN,
    "mscnn": MSCNN,
}
RESNETS = ("resnet2-32", "resnet3-16", "resnet3-64", "resnet6-32")  # the papers', of any N and K


def build(name: str, *, classes: int, shape: tuple[int, ...], **sizes: Any) -> nn.Module:
    """A network with fresh weights from torch's global generator.

    Args:
        name: a key of `NETWORKS`, or `resnetN-K`: N blocks a stage, K filters in the first.
        classes: K, the number of logits.
        shape: of one input, without the batch: `(1, 11025)` for half a second at 22 050 Hz,
            `(3, 32, 32)` for a colour image.
        sizes: the network's own options, see its class.

    Returns:
        A network with `layers`, the names of what can be reconstructed, and `sizes`: the network
        again is `build(name, **model.sizes)`.

    Raises:
        BirdinvError: an unknown name, option or size.

    Example:
        >>> import birdinv
        >>> model = birdinv.networks.build("resnet2-32", classes=10, shape=(1, 28, 28))
        >>> model.layers
        ('stem', 'block1', 'block2', 'block3', 'block4', 'block5', 'block6')
    """
    maker, fixed = _maker(name)
    reserved = {"classes", "shape", *fixed}
    options = [option for option in inspect.signature(maker).parameters if option not in reserved]
    for option in sizes:
        if option not in options:
            raise BirdinvError(
                f"the network {name} cannot be built: it has no option {option!r}, only "
                f"{', '.join(options)}"
            )
    try:
        return maker(classes=classes, shape=shape, **fixed, **sizes)
    except (TypeError, ValueError) as error:
        raise BirdinvError(f"the network {name} cannot be built: {error}") from error


def _maker(name: str) -> tuple[Callable[..., nn.Module], dict[str, int]]:
    """What makes the network of that name, and what the name says of its sizes."""
    if name in NETWORKS:
        return NETWORKS[name], {}
    if found := re.fullmatch(r"resnet([1-9][0-9]{0,5})-([1-9][0-9]{0,5})", name):
        return Resnet, {"blocks": int(found[1]), "width": int(found[2])}
    near = difflib.get_close_matches(name.lower(), [*NETWORKS, *RESNETS], 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise BirdinvError(
        f"there is no network {name!r}{hint} There are {', '.join(NETWORKS)} and resnetN-K, as "
        f"{RESNETS[0]}: N blocks a stage, K filters"
    )


__all__ = ["MSCNN", "NETWORKS", "Bird10", "LargeCNN", "Resnet", "SmallCNN", "build"]
