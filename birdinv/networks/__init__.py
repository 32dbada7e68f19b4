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
from birdinv.networks.swwae import SWWAE

NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "bird10": Bird10,
    "smallcnn": SmallCNN,
    "largecnn": LargeCNN,
    "mscnn": MSCNN,
}
RESNETS = ("resnet2-32", "resnet3-16", "resnet3-64", "resnet6-32")  # the papers', of any N and K


WHAT_WHERE = "swwae:"  # and the network in SW's notation


def build(
    name: str, *, shape: tuple[int, ...], classes: int | None = None, **sizes: Any
) -> nn.Module:
    """A network with fresh weights from torch's global generator.

    Args:
        name: a key of `NETWORKS`, or `resnetN-K`: N blocks a stage, K filters in the first, or
            `swwae:(64)5c-2p-(64)3c-2p-10fc`: a stacked what-where auto-encoder, `SWWAE`.
        shape: of one input, without the batch: `(1, 11025)` for half a second at 22 050 Hz,
            `(3, 32, 32)` for a colour image.
        classes: K, the number of logits; None only where the name says it, as that one does.
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
    if classes is None and maker is not SWWAE:
        raise BirdinvError(f"the network {name} cannot be built: say how many classes there are")
    try:
        return maker(classes=classes, shape=shape, **fixed, **sizes)
    except (TypeError, ValueError) as error:
        raise BirdinvError(f"the network {name} cannot be built: {error}") from error


def _maker(name: str) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """What makes the network of that name, and what the name says of its sizes."""
    if name in NETWORKS:
        return NETWORKS[name], {}
    if name.startswith(WHAT_WHERE):
        return SWWAE, {"notation": name.removeprefix(WHAT_WHERE)}
    if found := re.fullmatch(r"resnet([1-9][0-9]{0,5})-([1-9][0-9]{0,5})", name):
        return Resnet, {"blocks": int(found[1]), "width": int(found[2])}
    near = difflib.get_close_matches(name.lower(), [*NETWORKS, *RESNETS], 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise BirdinvError(
        f"there is no network {name!r}{hint} There are {', '.join(NETWORKS)}, resnetN-K, as "
        f"{RESNETS[0]}: N blocks a stage, K filters, and swwae: and a notation, as "
        "swwae:(64)5c-2p-10fc"
    )


__all__ = ["MSCNN", "NETWORKS", "SWWAE", "Bird10", "LargeCNN", "Resnet", "SmallCNN", "build"]
