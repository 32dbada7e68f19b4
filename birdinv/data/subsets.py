"""Which images of a training set are labelled, unlabelled and kept to validate on.

A list names, for each class, *ranks*: places in the order of the SHA-256 of the images' bytes.
That order, and so the images picked, is the same in whatever form and order the data set lies; and
ranks can be drawn from the counts of the classes alone, without the images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birdinv.data.images import Images
from birdinv.data.manifests import Manifest, load_manifest
from birdinv.data.rank_lists import (
    DRAWS,
    Ranks,
    class_counts,
    labelled_at_most,
    list_name,
    rank_list,
    subset_sizes,
)
from birdinv.errors import BirdinvError, SettingError

__all__ = ["ImageSplit", "images_hash", "order_images", "pick", "split_images", "subset_sizes"]

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class ImageSplit:
    """Where in a training set the images of each part are.

    Attributes:
        labelled, unlabelled, valid: int64 positions, ascending, disjoint, together all images.
        hash: SHA-256 of the images in each part and of the labels that are used of them; it does
            not depend on the form and the order the data set is in.
    """

    labelled: Positions
    unlabelled: Positions
    valid: Positions
    hash: str


def split_images(
    name: str, images: Images, labels: int | None, draw: int = 0, *, valid: bool = True
) -> ImageSplit:
    """The parts of the official training split of a data set.

    Args:
        name: of a manifest of images with the counts of its classes.
        images: its split "train", whole, in any order.
        labels: how many are labelled, the same number of each class; None: all but the validation
            images. A size with committed lists (`subset_sizes`); a data set without any, such as
            svhn_small, has its lists drawn here by the same rule.
        draw: which of the ten lists, 0 to 9; without a meaning if `labels` is None.
        valid: whether the validation images, the same for all sizes and draws, are set apart; else
            they count with the rest.

    Raises:
        SettingError: there is no such size or draw.
        BirdinvError: the images are not those of the data set.
    """
    manifest = load_manifest(name)
    _require_whole(manifest, images)
    if labels is not None and not 0 <= draw < DRAWS:
        raise SettingError(f"draw {draw} of {name}; there are draws 0 to {DRAWS - 1}")
    digests = images.digests()
    order = order_images(images.labels, digests, len(manifest.classes))
    kept = _resolve(manifest, None, 0, order, digests) if valid else np.empty(0, np.int64)
    rest = np.setdiff1d(np.arange(len(images)), kept)
    picked = rest
    if labels is not None:
        _require_size(manifest, labels)
        picked = _resolve(manifest, labels, draw, order, digests)
    unlabelled = np.setdiff1d(rest, picked)
    hashes = [images_hash(digests[part], images.labels[part]) for part in (picked, kept)]
    hashes.append(images_hash(digests[unlabelled]))  # of whose labels no use is made
    total = hashlib.sha256(" ".join([name, *hashes]).encode()).hexdigest()
    return ImageSplit(picked, unlabelled, kept, total)


def images_hash(digests: NDArray[np.uint8], labels: NDArray[np.int64] | None = None) -> str:
    """SHA-256 of the sorted digests uint8 `[N, 32]`, each with its label behind it if given."""
    values = np.zeros(len(digests), np.int64) if labels is None else labels
    order = np.lexsort([values, *_keys(digests)])
    rows = digests if labels is None else np.column_stack([digests, values.astype(np.uint8)])
    return hashlib.sha256(rows[order].tobytes()).hexdigest()


def order_images(
    labels: NDArray[np.int64], digests: NDArray[np.uint8], classes: int
) -> tuple[Positions, ...]:
    """Of each class the positions of its images by digest; equal images stay in their order."""
    order = np.lexsort([*_keys(digests), labels])
    return tuple(np.split(order, np.searchsorted(labels[order], np.arange(1, classes))))


def pick(order: Sequence[Positions], ranks: Ranks) -> Positions:
    """The positions, ascending, of the images that have `ranks` in the `order` of their class."""
    return np.sort(np.concatenate([own[list(of)] for own, of in zip(order, ranks, strict=True)]))


def _keys(digests: NDArray[np.uint8]) -> list[NDArray[np.uint64]]:
    """Digests as numbers for `np.lexsort`, whose last key counts most."""
    return list(np.ascontiguousarray(digests).view(">u8").astype(np.uint64).T[::-1])


def _require_whole(manifest: Manifest, images: Images) -> None:
    if manifest.kind != "images":
        raise BirdinvError(
            f"{manifest.name} is a data set of {manifest.kind}, which `birdinv segment` splits"
        )
    counts = list(class_counts(manifest))
    shape = images.pixels.shape[1:]
    if shape != manifest.shape:
        raise BirdinvError(
            f"images of shape {shape}; those of {manifest.name} are {manifest.shape}"
        )
    found = np.bincount(np.maximum(images.labels, 0), minlength=len(counts)).tolist()
    if found != counts or images.labels.min() < 0:
        raise BirdinvError(
            f"{len(images)} images, of the classes {found}, are not the official training split of "
            f"{manifest.name} ({sum(counts)}, of the classes {counts}); take it whole, as "
            '`read_images(…, "train")` gives it'
        )


def _require_size(manifest: Manifest, labels: int) -> None:
    name, classes, left = manifest.name, len(manifest.classes), labelled_at_most(manifest)
    if labels > sum(left):
        raise SettingError(
            f"{labels} labels of {name}, which has {sum(left)} images beside those to validate on; "
            "ask for fewer, or for all (None)"
        )
    if sizes := subset_sizes(name):
        if labels not in sizes:
            known = ", ".join(map(str, sizes))
            raise SettingError(f"no list of {labels} labels of {name}; there are lists of {known}")
        return
    most = min(left) * classes
    if labels < classes or labels % classes or labels > most:
        missing = f", {classes - labels} of which would be missing" if labels < classes else ""
        raise SettingError(
            f"{labels} labels of {name} are not the same number of each of {classes} classes"
            f"{missing}; give a multiple of {classes} from {classes} to {most}"
        )


def _resolve(
    manifest: Manifest,
    size: int | None,
    draw: int,
    order: Sequence[Positions],
    digests: NDArray[np.uint8],
) -> Positions:
    """The positions of the images that a list picks, ascending."""
    chosen = rank_list(manifest, size, draw)
    picked = pick(order, chosen.ranks)
    if chosen.images_sha256 not in (None, images_hash(digests[picked])):
        raise BirdinvError(
            f"the images are not those of {manifest.name}, though as many: the list "
            f"{list_name(manifest.name, size)} picks others; run `birdinv data check "
            f"{manifest.name}`"
        )
    return picked
