"""Images of the official splits of MNIST, SVHN, CIFAR and STL-10, whatever form they are in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdinv.data.checks import find_form
from birdinv.data.image_formats import READERS
from birdinv.data.manifests import Form, Manifest, load_manifest
from birdinv.errors import BirdinvError

UNLABELED = -1  # as `birdinv.terms.UNLABELED`, which torch would be imported for


@dataclass(frozen=True)
class Images:
    """Images of one official split with their labels.

    Attributes:
        pixels: uint8 `[N, C, H, W]`, C-contiguous; of STL-10 a view of the memory-mapped file,
            which is not contiguous, as its images lie there column by column.
        labels: int64 `[N]`, −1 (`birdinv.UNLABELED`) where there is none.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def digests(self) -> NDArray[np.uint8]:
        """SHA-256 of the C·H·W bytes of each image, uint8 `[N, 32]`.

        The same image has the same digest in every form that keeps its pixels, so lists of images
        by digest do not depend on the form, nor on the order, that the data is in.
        """
        digests = (hashlib.sha256(image.tobytes()).digest() for image in self.pixels)
        return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def read_images(name: str, root: Path, split: str) -> Images:
    """The images of a split, checked for size, shape, range of labels and counts of classes.

    Checksums are not read, which `birdinv data check` does.

    Args:
        name: of a manifest of images: mnist, svhn, cifar10, cifar100, stl10, svhn_small.
        root: the folder of the data set, or one with a folder `name` in it.
        split: "train", "test", or what else is official: "extra" of SVHN, "unlabeled" of STL-10.

    Raises:
        BirdinvError: there is no such data set, split or file, or a file is not what it should be.
    """
    manifest = load_manifest(name)
    if manifest.kind != "images":
        raise BirdinvError(
            f"{name} is a data set of {manifest.kind}, not of images; read it by `birdinv segment`"
        )
    if split not in manifest.splits:
        known = ", ".join(manifest.splits)
        raise BirdinvError(f"{name} has no split {split!r}; its official ones are {known}")
    form, folder = find_form(manifest, root, split)
    paths = [folder / file.path for file in form.files if file.split == split]
    pixels, labels = READERS[form.format](paths, manifest, split)
    found = Images(pixels, labels)
    _verify(found, manifest, form, folder, split)
    return found


def _verify(images: Images, manifest: Manifest, form: Form, folder: Path, split: str) -> None:
    """Raises unless the images are as many, of the shape and of the classes that they should be."""
    expected, what = manifest.splits[split], f"{folder} ({form.description}), {split}"
    hint = f"run `birdinv data check {manifest.name} --root {folder}`"
    shape = (expected.count, *manifest.shape)
    if images.pixels.shape != shape:
        raise BirdinvError(
            f"{what}: holds images of shape {images.pixels.shape}; expected {shape} of "
            f"{manifest.name}; {hint}"
        )
    if images.labels.shape != (expected.count,):
        raise BirdinvError(
            f"{what}: holds {images.labels.size} labels for {expected.count} images; {hint}"
        )
    classes = len(manifest.classes)
    outside = (images.labels < UNLABELED) | (images.labels >= classes)
    if expected.per_class:
        outside |= images.labels == UNLABELED
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise BirdinvError(
            f"{what}: the label of image {first} is {images.labels[first]}; expected 0 to "
            f"{classes - 1}; {hint}"
        )
    if expected.per_class is None:
        return
    counts = np.bincount(images.labels, minlength=classes)
    if wrong := np.flatnonzero(counts != expected.per_class).tolist():
        odd = wrong[0]
        raise BirdinvError(
            f"{what}: {counts[odd]} images of class {manifest.classes[odd]!r}, expected "
            f"{expected.per_class[odd]} in {manifest.name}; a file may belong to another data set "
            f"or be there twice; {hint}"
        )
