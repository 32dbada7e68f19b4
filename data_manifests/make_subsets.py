"""Writes the lists in `subsets/`: which images are labelled and which are kept to validate on.

    python data_manifests/make_subsets.py [--root DIR] [-o FOLDER]

The ranks follow from the counts of the classes in the manifests and from SEED of
`birdinv.data.rank_lists`: NumPy's `default_rng([SEED, labels, draw])`, and `[SEED, 0, 0]` for the
validation images. The hash of the images they pick is computed from the data sets in --root, or
carried over, without it, from the lists that are there. For SVHN and STL-10, whose official files
were not at hand, there is none.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from birdinv.data.images import Images, read_images
from birdinv.data.manifests import load_manifest
from birdinv.data.rank_lists import (
    DRAWS,
    SEED,
    Ranks,
    draw_ranks,
    list_name,
    ranks_hash,
    read_lists,
    valid_ranks,
)
from birdinv.data.subsets import images_hash, order_images, pick
from birdinv.files import whole_file

SIZES = {
    "mnist": (50, 100, 600, 1000, 3000),
    "svhn": (500, 1000),
    "cifar10": (4000, 8000),
    "stl10": (1000,),
}
AT_HAND = ("mnist", "cifar10")


def make(output: Path, root: Path | None) -> None:
    """Writes all lists into `output`, a line for each class."""
    for name, sizes in SIZES.items():
        manifest = load_manifest(name)
        images = read_images(name, root, "train") if root and name in AT_HAND else None
        for size in (None, *sizes):
            lists = [valid_ranks(manifest)] if size is None else []
            lists += [draw_ranks(manifest, size, draw) for draw in range(DRAWS) if size]
            hashes: list[str | None] = [None] * len(lists)
            if images is not None:
                hashes = picked_hashes(images, lists)
            elif name in AT_HAND:
                hashes = [stored["images_sha256"] for stored in read_lists(name, size)]
            with whole_file(output / list_name(name, size)) as file:
                file.write(as_text(name, size, lists, hashes))


def picked_hashes(images: Images, lists: list[Ranks]) -> list[str | None]:
    """`images_hash` of what each list picks."""
    digests = images.digests()
    order = order_images(images.labels, digests, len(lists[0]))
    return [images_hash(digests[pick(order, ranks)]) for ranks in lists]


def as_text(name: str, size: int | None, lists: list[Ranks], hashes: list[str | None]) -> str:
    """The JSON of a file of lists."""
    draws = []
    for ranks, images in zip(lists, hashes, strict=True):
        rows = ",\n".join(json.dumps(of, separators=(",", ":")) for of in ranks)
        head = json.dumps({"sha256": ranks_hash(ranks), "images_sha256": images})
        draws.append(f'{head[:-1]}, "ranks": [\n{rows}\n]}}')
    head = json.dumps({"name": name, "labels": size, "seed": SEED})
    return f'{head[:-1]}, "draws": [\n' + ",\n".join(draws) + "\n]}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, help="folder of the data sets")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "subsets")
    arguments = parser.parse_args()
    make(arguments.output, arguments.root)
