"""Lists of images as ranks in a class: drawn from the counts of the classes, committed, read back.

A rank is a place in the order of the SHA-256 of the images' bytes (`birdinv.data.subsets`), so that
lists are drawn without the images. They are committed, in `data_manifests/subsets/`, because NumPy
does not promise the same random numbers in every version to come.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from birdinv.data.manifests import PACKAGE, Manifest
from birdinv.errors import BirdinvError

DRAWS = 10
SEED = 20180511  # of every list; changing it changes all of them
Ranks = tuple[tuple[int, ...], ...]  # of each class, ascending


@dataclass(frozen=True)
class RankList:
    """A list of images.

    Attributes:
        ranks: of each class, ascending.
        images_sha256: `birdinv.data.subsets.images_hash` of the images they pick, None where the
            data set was not at hand when the list was made.
    """

    ranks: Ranks
    images_sha256: str | None = None


def subset_sizes(name: str) -> tuple[int, ...]:
    """The numbers of labels for which there are committed lists of a data set, ascending."""
    stems = (entry.name.removesuffix(".json").rpartition("-") for entry in _folder().iterdir())
    return tuple(sorted(int(size) for owner, _, size in stems if owner == name and size.isdigit()))


def rank_list(manifest: Manifest, size: int | None, draw: int) -> RankList:
    """The committed list of `size` labels, or of the validation images if None.

    A data set without committed lists has its own drawn here by the same rule.

    Raises:
        BirdinvError: the committed list is not as it was made.
    """
    if not subset_sizes(manifest.name):
        return RankList(valid_ranks(manifest) if size is None else draw_ranks(manifest, size, draw))
    stored = read_lists(manifest.name, size)[draw]
    ranks = tuple(tuple(of) for of in stored["ranks"])
    if ranks_hash(ranks) != stored["sha256"]:
        raise BirdinvError(
            f"draw {draw} of {list_name(manifest.name, size)} was changed after it was made; "
            "install birdinv anew"
        )
    return RankList(ranks, stored["images_sha256"])


def read_lists(name: str, size: int | None) -> list[dict[str, Any]]:
    """`sha256`, `images_sha256` and `ranks` of each draw of a committed file."""
    text = (_folder() / list_name(name, size)).read_text(encoding="utf-8")
    draws: list[dict[str, Any]] = json.loads(text)["draws"]
    return draws


def list_name(name: str, size: int | None) -> str:
    """The name of a file of committed lists."""
    return f"{name}-{'valid' if size is None else size}.json"


def _folder() -> Any:
    return resources.files(PACKAGE) / "subsets"


def ranks_hash(ranks: Ranks) -> str:
    """SHA-256 of the ranks as text: a line for each class, spaces between."""
    text = "".join(" ".join(map(str, of)) + "\n" for of in ranks)
    return hashlib.sha256(text.encode()).hexdigest()


def valid_ranks(manifest: Manifest) -> Ranks:
    """Draws the validation images: `manifest.valid`, in proportion to the counts of the classes."""
    counts = class_counts(manifest)
    rng = np.random.default_rng([SEED, 0, 0])
    drawn = (
        rng.choice(count, take, replace=False)
        for count, take in zip(counts, proportional(counts, manifest.valid), strict=True)
    )
    return tuple(tuple(np.sort(of).tolist()) for of in drawn)


def draw_ranks(manifest: Manifest, labels: int, draw: int) -> Ranks:
    """Draws `labels` images, the same number of each class, of those not to validate on."""
    rng = np.random.default_rng([SEED, labels, draw])
    each, drawn = labels // len(manifest.classes), []
    for count, kept in zip(class_counts(manifest), valid_ranks(manifest), strict=True):
        free = np.setdiff1d(np.arange(count), kept)
        drawn.append(tuple(np.sort(rng.choice(free, each, replace=False)).tolist()))
    return tuple(drawn)


def class_counts(manifest: Manifest) -> tuple[int, ...]:
    """Images of each class in the training split."""
    counts = manifest.splits["train"].per_class
    if counts is None:
        raise BirdinvError(
            f"the manifest of {manifest.name} does not say how many images each class has; take "
            "all its labels (None)"
        )
    return counts


def labelled_at_most(manifest: Manifest) -> list[int]:
    """Images of each class that are not to validate on."""
    counts = class_counts(manifest)
    return [a - b for a, b in zip(counts, proportional(counts, manifest.valid), strict=True)]


def proportional(counts: Sequence[int], total: int) -> list[int]:
    """Whole numbers near total · counts / sum(counts) that sum to `total`: largest remainders."""
    quotients = [divmod(total * count, sum(counts)) for count in counts]
    shares = [whole for whole, _ in quotients]
    by_rest = sorted(range(len(counts)), key=lambda c: (-quotients[c][1], c))
    for c in by_rest[: total - sum(shares)]:
        shares[c] += 1
    return shares
