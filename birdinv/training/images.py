"""Images with few labels as something to learn from, and the test set, read once at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from birdinv.data.augmentation import Change
from birdinv.data.images import Images, read_images
from birdinv.data.manifests import load_manifest
from birdinv.data.subsets import split_images
from birdinv.errors import BirdinvError
from birdinv.networks.layers import normalise
from birdinv.terms import UNLABELED
from birdinv.training.task import Task


class ImageSamples:
    """Some images of a data set, whole: a `Source` of batches.

    Args:
        images: all of a split.
        positions: int64 `[S]`, those that take part.
        known: whether their labels may be used.
        pad: black pixels to put round them, before they are normalised.
    """

    def __init__(
        self, images: Images, positions: np.ndarray, *, known: bool = True, pad: int = 0
    ) -> None:
        self._pixels, self._positions, self._pad = images.pixels, positions, pad
        self.labels = (
            images.labels[positions]
            if known
            else np.full(len(positions), UNLABELED, images.labels.dtype)
        )

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def recordings(self) -> np.ndarray:
        """Every image is its own, int64 `[S]`."""
        return np.arange(len(self))

    @property
    def groups(self) -> np.ndarray:
        """No image has others that hold the same."""
        return np.full(len(self), -1)

    def inputs(self, which: np.ndarray, change: Change | None = None) -> Tensor:
        """Normalised float32 images `[B, C, H, W]` for int64 numbers `[B]`, changed before that."""
        pixels = torch.from_numpy(np.ascontiguousarray(self._pixels[self._positions[which]]))
        samples = functional.pad(pixels.to(torch.float32), [self._pad] * 4)
        return normalise(samples if change is None else change(samples))

    def classes(self, which: np.ndarray) -> Tensor:
        """Class numbers int64 `[B]`, −1 where unlabelled."""
        return torch.from_numpy(self.labels[which])


def images_task(dataset: str, root: Path, labels: int | None, draw: int, pad: int = 0) -> Task:
    """The training split of a data set of images, with a committed draw of labels.

    Of STL-10, which has a split of images without any label, that one is unlabelled, and training
    images whose label is not drawn take no part.

    Args:
        dataset: name of a manifest of images.
        root: as in `read_images`.
        labels, draw: as in `split_images`.
        pad: as in `ImageSamples`.

    Raises:
        BirdinvError: as `read_images` and `split_images`.
    """
    manifest = load_manifest(dataset)
    images = read_images(dataset, root, "train")
    split = split_images(dataset, images, labels, draw)
    others, unlabelled = images, split.unlabelled
    if "unlabeled" in manifest.splits:
        others = read_images(dataset, root, "unlabeled")
        unlabelled = np.arange(len(others))
    channels, *sides = manifest.shape
    return Task(
        origin=f"{dataset} in {root}",
        classes=list(manifest.classes),
        shape=(channels, *(side + 2 * pad for side in sides)),
        labelled=ImageSamples(images, split.labelled, pad=pad),
        unlabelled=ImageSamples(others, unlabelled, known=False, pad=pad),
        valid=ImageSamples(images, split.valid, pad=pad),
        identity={"dataset": dataset, "labels": labels, "draw": draw, "split_hash": split.hash},
        facts={
            "root": str(root.resolve()),
            "classes": list(manifest.classes),
            "counts": {
                "labelled_images": len(split.labelled),
                "unlabelled_images": len(unlabelled),
                "valid_images": len(split.valid),
            },
        },
        paced=True,
    )


def samples_to_judge(info: Mapping[str, Any], split: str, root: Path | None) -> ImageSamples:
    """The test, validation ("valid") or labelled images of the run that `run.json` tells of.

    Args:
        root: where the data set lies; None = where it lay when the run began.

    Raises:
        BirdinvError: the images are not there, or are not those of the run.
    """
    dataset, root = str(info["dataset"]), root or Path(str(info.get("root")))
    pad = int(info["config"].get("pad", 0))
    if split == "test":
        images = read_images(dataset, root, "test")
        return ImageSamples(images, np.arange(len(images)), pad=pad)
    task = images_task(dataset, root, info.get("labels"), int(info.get("draw", 0)), pad)
    if task.identity["split_hash"] != info.get("split_hash"):
        raise BirdinvError(
            f"{root} holds other images of {dataset} than the run was trained on (their hashes "
            f"differ); run `birdinv data check {dataset}`"
        )
    samples = task.labelled if split == "labelled" else task.valid
    if not isinstance(samples, ImageSamples) or not len(samples):
        raise BirdinvError(f"the run has no {split} images of {dataset}; look at its test set")
    return samples
