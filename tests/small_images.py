"""A tiny data set in every official format of images, written as its authors write it."""

import gzip
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdinv.data.manifests import Manifest, parse_manifest

Pixels = NDArray[np.uint8]


def manifest(
    form: str, shape: Sequence[int], count: int, files: Sequence[str], *, classes: int = 3
) -> Manifest:
    """Of a data set `small` with one split, `train`, of `count` images, the same of each class."""
    listed = "\n".join(f'  {{ path = "{path}", split = "train" }},' for path in files)
    return parse_manifest(
        f"""
name = "small"
kind = "images"
description = "a test"
homepage = "http://127.0.0.1/"
licence = "none"
classes = {[str(label) for label in range(classes)]}
shape = {list(shape)}
instructions = "none"
[splits.train]
count = {count}
per_class = {[count // classes] * classes}
[[forms]]
name = "small"
description = "small files"
format = "{form}"
files = [
{listed}
]
"""
    )


def images(shape: Sequence[int], count: int, classes: int = 3) -> tuple[Pixels, NDArray[np.int64]]:
    """(pixels `[N, C, H, W]`, labels `[N]`), all images different."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return pixels, np.arange(count, dtype=np.int64) % classes


def idx(values: NDArray[np.uint8]) -> bytes:
    """The bytes of an idx file."""
    return (
        bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()
    )


def write_idx(folder: Path, pixels: Pixels, labels: NDArray[np.int64], packed: bool) -> list[str]:
    names = ["images.gz", "labels.gz"] if packed else ["images", "labels"]
    for name, values in zip(names, (pixels[:, 0], labels.astype(np.uint8)), strict=True):
        (folder / name).write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    return names


def write_mat(folder: Path, pixels: Pixels, labels: NDArray[np.int64]) -> list[str]:
    """As SVHN: images last, the digit 0 as 10."""
    from scipy import io

    values = np.where(labels == 0, 10, labels).astype(np.uint8).reshape(-1, 1)
    arrays = {"X": pixels.transpose(2, 3, 1, 0), "y": values}
    io.savemat(folder / "train.mat", arrays, do_compression=True)
    return ["train.mat"]


def python2_pickle(
    pixels: Pixels, labels: Sequence[int], coarse: Sequence[int] | None = None
) -> bytes:
    """A batch of CIFAR-10 as Python 2 pickled it, instruction by instruction.

    With labels `coarse`, one of CIFAR-100.
    """
    rows = pixels.reshape(len(pixels), -1)

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    data = b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87R"
    data += b"(K\x01" + integer(rows.shape[0]) + integer(rows.shape[1]) + b"\x86"
    data += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
    data += integer(-1) + integer(-1) + b"K\x00tb\x89"
    data += b"T" + struct.pack("<i", rows.nbytes) + rows.tobytes() + b"tb"

    def listed(values: Sequence[int]) -> bytes:
        return b"](" + b"".join(map(integer, values)) + b"e"

    numbers = b"U\x06labels" + listed(labels)
    if coarse is not None:
        numbers = b"U\x0bfine_labels" + listed(labels) + b"U\x0dcoarse_labels" + listed(coarse)
    names = b"](" + b"U\x05a.pngU\x05b.png" + b"e"
    batch = b"U\x0bbatch_labelU\x05batch" + numbers
    batch += b"U\x04data" + data + b"U\x09filenames" + names
    return b"\x80\x02}q\x01(" + batch + b"u."


def write_cifar_python(folder: Path, pixels: Pixels, labels: NDArray[np.int64]) -> list[str]:
    """Two batches, one of Python 2 and one of Python 3."""
    half = len(pixels) // 2
    (folder / "batch_1").write_bytes(python2_pickle(pixels[:half], labels[:half].tolist()))
    rest = {b"data": pixels[half:].reshape(half, -1), b"labels": labels[half:].tolist()}
    (folder / "batch_2").write_bytes(pickle.dumps(rest, protocol=3))
    return ["batch_1", "batch_2"]


def write_cifar_binary(folder: Path, pixels: Pixels, labels: NDArray[np.int64]) -> list[str]:
    rows = np.column_stack([labels.astype(np.uint8), pixels.reshape(len(pixels), -1)])
    for number, part in enumerate(np.split(rows, 2)):
        (folder / f"batch_{number}.bin").write_bytes(part.tobytes())
    return ["batch_0.bin", "batch_1.bin"]


def coarse_labels(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each label another number, which is never the label."""
    return (labels + 1) % 20


def write_cifar100_python(folder: Path, pixels: Pixels, labels: NDArray[np.int64]) -> list[str]:
    coarse = coarse_labels(labels).tolist()
    (folder / "train").write_bytes(python2_pickle(pixels, labels.tolist(), coarse))
    return ["train"]


def write_cifar100_binary(folder: Path, pixels: Pixels, labels: NDArray[np.int64]) -> list[str]:
    both = np.column_stack([coarse_labels(labels), labels]).astype(np.uint8)
    rows = np.column_stack([both, pixels.reshape(len(pixels), -1)])
    (folder / "train.bin").write_bytes(rows.tobytes())
    return ["train.bin"]


def write_tiles(folder: Path, pixels: Pixels, labels: NDArray[np.int64]) -> list[str]:
    from PIL import Image

    names = []
    for number, tile in enumerate(np.split(pixels, len(pixels) // 1000)):
        _, channels, height, width = tile.shape
        cells = tile.reshape(40, 25, channels, height, width).transpose(0, 3, 1, 4, 2)
        picture = Image.fromarray(cells.reshape(40 * height, 25 * width, channels))
        picture.save(folder / f"tile_{number}.webp", lossless=True)
        names.append(f"tile_{number}.webp")
    np.save(folder / "labels.npy", labels.astype(np.uint8).reshape(-1, 1000))
    return [*names, "labels.npy"]


def write_npz(folder: Path, pixels: Pixels, labels: NDArray[np.int64]) -> list[str]:
    np.savez(folder / "train.npz", x=pixels.transpose(0, 2, 3, 1), y=labels.astype(np.uint8))
    return ["train.npz"]


def write_stl(folder: Path, pixels: Pixels, labels: NDArray[np.int64]) -> list[str]:
    """As STL-10: columns first, labels from 1."""
    (folder / "X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())
    (folder / "y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    return ["X.bin", "y.bin"]
