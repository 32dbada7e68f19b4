"""The project's networks, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from birdinv.errors import BirdinvError
from birdinv.networks.bird10 import Bird10
from birdinv.networks.convnets import SmallCNN

NETWORKS: dict[str, Callable[..., nn.Module]] = {"bird10": Bird10, "smallcnn": SmallCNN}


def build(name: str, *, classes: int, shape: tuple[int, ...], **sizes: Any) -> nn.Module:
    """A network with fresh weights from torch's global generator.

    Args:
        name: a key of `NETWORKS`.
        classes: K, the number of logits.
        shape: of one input, without the batch: `(1, 11025)` for half a second at 22 050 Hz.
        sizes: the network's own options, see its class.

    Raises:
        BirdinvError: an unknown name, option or size.
    """
    if name not in NETWORKS:
        raise BirdinvError(f"there is no network {name!r}; there are {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](classes=classes, shape=shape, **sizes)
    except (TypeError, ValueError) as error:
        raise BirdinvError(f"the network {name} cannot be built: {error}") from error


__all__ = ["NETWORKS", "Bird10", "SmallCNN", "build"]
