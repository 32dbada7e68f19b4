"""Trained networks as a folder that people exchange: weights and a description, no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from birdinv.audio.windows import Windows
from birdinv.errors import BirdinvError
from birdinv.files import read_json, whole_file, write_json
from birdinv.networks import build

FORMAT = "birdinv-model"
VERSION = 1
NORMALISATION = "mean-peak"  # networks.layers.normalise


@dataclass(frozen=True)
class Hearing:
    """How a network that was trained on recordings hears them: half-second windows, say."""

    sample_rate: int
    segment_samples: int
    hop_samples: int
    non_events: list[str]  # classes that are no bird

    @property
    def windows(self) -> Windows:
        """The windows the network was trained on."""
        return Windows(self.segment_samples, self.hop_samples)


@dataclass(frozen=True)
class Description:
    """What a network is and what its logits mean; `hearing` is None for one of images."""

    network: str
    sizes: dict[str, Any]
    classes: list[str]
    hearing: Hearing | None = None


def save_model(folder: Path, weights: dict[str, Tensor], description: Description) -> None:
    """Writes `model.safetensors` and `model.json`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    info = {
        "format": FORMAT,
        "version": VERSION,
        "network": description.network,
        "sizes": description.sizes,
        "classes": description.classes,
        **(asdict(description.hearing) if description.hearing else {}),
        "normalisation": NORMALISATION,
    }
    write_json(folder / "model.json", info)
    with whole_file(folder / "model.safetensors", "wb") as file:
        file.write(save({name: tensor.contiguous().cpu() for name, tensor in weights.items()}))


def load_model(folder: Path) -> tuple[nn.Module, Description]:
    """(network in eval mode, its description) from a model folder or a run that holds one.

    Nothing in the folder can run code: weights are safetensors, the description is JSON whose
    sizes are checked by the network. It cannot claim memory beyond the size of its weights file
    either: the network is laid out without storage and filled with those weights.

    Raises:
        BirdinvError: not a model folder, a later version, or parts that do not fit each other.
    """
    if (folder / "model").is_dir():
        folder = folder / "model"
    elif (folder / "run.json").exists():
        raise BirdinvError(
            f"the run {folder} has no model yet: it was interrupted, or is not at its end; go on "
            "with `birdinv train … --resume`"
        )
    expected = "a model folder or a run made by `birdinv train`"
    info = read_json(folder / "model.json", expected)
    if info.get("format") != FORMAT:
        raise BirdinvError(f"{folder} is not {expected}: its model.json has another format")
    if info.get("version") != VERSION:
        raise BirdinvError(
            f"{folder} is a model of version {info.get('version')}; this birdinv reads version "
            f"{VERSION}: update birdinv"
        )
    try:
        if info["normalisation"] != NORMALISATION:
            raise ValueError(f"unknown normalisation {info['normalisation']!r}")
        description = Description(
            network=str(info["network"]),
            sizes=dict(info["sizes"]),
            classes=[str(name) for name in info["classes"]],
            hearing=_hearing(info) if "sample_rate" in info else None,
        )
        sizes = dict(description.sizes)
        shape = tuple(int(n) for n in sizes.pop("shape"))
        classes = int(sizes.pop("classes"))
        if classes != len(description.classes):
            raise ValueError(f"{len(description.classes)} class names for {classes} logits")
        if description.hearing and shape != (1, description.hearing.segment_samples):
            raise ValueError(f"the input shape {shape} is not one segment")
        with torch.device("meta"):
            model = build(description.network, classes=classes, shape=shape, **sizes)
        weights = load((folder / "model.safetensors").read_bytes())
        _require_fit(weights, model.state_dict())
        model.load_state_dict(weights, assign=True)
    except KeyError as error:
        raise BirdinvError(f"{folder} is damaged: its model.json has no {error}") from error
    except (TypeError, ValueError, OverflowError, SafetensorError, BirdinvError) as error:
        raise BirdinvError(f"{folder} is damaged: {error}") from error
    except OSError as error:
        raise BirdinvError(
            f"{folder / 'model.safetensors'} cannot be read: {error.strerror or error}"
        ) from error
    return model.eval(), description


def load_listener(folder: Path) -> tuple[nn.Module, Description, Hearing]:
    """`load_model` of a network that was trained on recordings, and how it hears them.

    Raises:
        BirdinvError: as `load_model`, and for a network of images.
    """
    model, description = load_model(folder)
    if description.hearing is None:
        raise BirdinvError(
            f"{folder} holds a network of images; expected one that `birdinv train` has trained on "
            "recordings"
        )
    return model, description, description.hearing


def _hearing(info: Mapping[str, Any]) -> Hearing:
    hearing = Hearing(
        sample_rate=int(info["sample_rate"]),
        segment_samples=int(info["segment_samples"]),
        hop_samples=int(info["hop_samples"]),
        non_events=[str(name) for name in info["non_events"]],
    )
    if not 1 <= hearing.hop_samples <= hearing.segment_samples <= 60 * 384_000:
        raise ValueError(f"hop of {hearing.hop_samples} samples")
    if not 1_000 <= hearing.sample_rate <= 384_000:
        raise ValueError(f"sample rate of {hearing.sample_rate} Hz")
    return hearing


def _require_fit(weights: Mapping[str, Tensor], layout: Mapping[str, Tensor]) -> None:
    for name in sorted({*weights, *layout}):
        expected, got = (
            f"{each[name].dtype} {list(each[name].shape)}" if name in each else "nothing"
            for each in (layout, weights)
        )
        if got != expected:
            raise ValueError(f"its weights hold {got} for {name}; expected {expected}")
        if not weights[name].isfinite().all():
            raise ValueError(f"its weights hold numbers in {name} that are not finite")
