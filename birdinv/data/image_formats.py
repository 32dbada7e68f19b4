"""One reader a file format: `(paths, manifest, split) → (pixels [N, C, H, W], labels [N])`.

The files are not trusted: none can run code, and none is unpacked beyond the size it should have.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdinv.data.cifar_pickle import read_batch
from birdinv.data.manifests import Manifest, refusal
from birdinv.data.svhn_mat import read_mat

Pair = tuple[NDArray[np.uint8], NDArray[np.int64]]
GRID = (40, 25)  # images down and across a tile
IDX_UNSIGNED = 0x08


def _labels(values: NDArray[Any]) -> NDArray[np.int64]:
    return np.ascontiguousarray(values, dtype=np.int64)


def _bytes(path: Path, size: int, manifest: Manifest) -> bytes:
    """The bytes of a file, or what a .gz unpacks to, which must be `size`."""
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            data = file.read(size + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise refusal(path, f"damaged .gz ({error})", "a whole one", manifest) from error
    if len(data) != size:
        found = f"more than {size}" if len(data) > size else str(len(data))
        unpacked = " unpacked" if packed else ""
        raise refusal(path, f"holds {found} bytes{unpacked}", f"{size}", manifest)
    return data


def read_idx(paths: Sequence[Path], manifest: Manifest, split: str) -> Pair:
    """MNIST: idx files of images and of labels, plain or .gz."""
    count = manifest.splits[split].count
    images, labels = paths
    pixels = _idx(images, (count, *manifest.shape[1:]), manifest)
    return pixels.reshape(count, *manifest.shape), _labels(_idx(labels, (count,), manifest))


def _idx(path: Path, shape: tuple[int, ...], manifest: Manifest) -> NDArray[np.uint8]:
    head = 4 + 4 * len(shape)
    data = _bytes(path, head + int(np.prod(shape)), manifest)
    magic = bytes([0, 0, IDX_UNSIGNED, len(shape)])
    if data[:4] != magic:
        found = f"begins with {data[:4].hex()}, which is no idx file of {len(shape)} dimensions"
        raise refusal(path, found, magic.hex(), manifest)
    found_shape = tuple(np.frombuffer(data[4:head], ">u4").tolist())
    if found_shape != shape:
        raise refusal(path, f"holds an array of {found_shape}", f"{shape}", manifest)
    return np.frombuffer(bytearray(data), np.uint8, offset=head).reshape(shape)


def read_cifar_python(paths: Sequence[Path], manifest: Manifest, split: str) -> Pair:
    """CIFAR-10: pickled batches of 10 000, unpickled without the power to run anything."""
    return _cifar_python(paths, manifest, split, "labels")


def read_cifar100_python(paths: Sequence[Path], manifest: Manifest, split: str) -> Pair:
    """CIFAR-100: one such batch a split, with fine labels and coarse ones, which are not read."""
    return _cifar_python(paths, manifest, split, "fine_labels")


def _cifar_python(paths: Sequence[Path], manifest: Manifest, split: str, key: str) -> Pair:
    each = manifest.splits[split].count // len(paths)
    batches = [read_batch(path, manifest, each, key) for path in paths]
    pixels = np.concatenate([pixels for pixels, _ in batches])
    return pixels.reshape(-1, *manifest.shape), np.concatenate([labels for _, labels in batches])


def read_cifar_binary(paths: Sequence[Path], manifest: Manifest, split: str) -> Pair:
    """CIFAR-10: records of one byte of label and C·H·W of pixels."""
    return _cifar_binary(paths, manifest, split, 1)


def read_cifar100_binary(paths: Sequence[Path], manifest: Manifest, split: str) -> Pair:
    """CIFAR-100: the same with two bytes of label, first the coarse one, which is not read."""
    return _cifar_binary(paths, manifest, split, 2)


def _cifar_binary(paths: Sequence[Path], manifest: Manifest, split: str, head: int) -> Pair:
    """Records of `head` bytes, the last of them the label, and C·H·W of pixels."""
    each, record = manifest.splits[split].count // len(paths), head + int(np.prod(manifest.shape))
    rows = np.concatenate(
        [
            np.frombuffer(_bytes(path, each * record, manifest), np.uint8).reshape(each, record)
            for path in paths
        ]
    )
    pixels = np.ascontiguousarray(rows[:, head:]).reshape(-1, *manifest.shape)
    return pixels, _labels(rows[:, head - 1])


def read_tiles(paths: Sequence[Path], manifest: Manifest, split: str) -> Pair:
    """CIFAR-10: WebP tiles of 40 × 25 images and a .npy of labels uint8 `[tile, 1000]`."""
    *tiles, table = paths
    channels, height, width = manifest.shape
    rows, columns = GRID
    labels = _npy(table, (len(tiles), rows * columns), manifest)
    pixels = np.empty((len(tiles), rows, columns, *manifest.shape), np.uint8)
    for into, path in zip(pixels, tiles, strict=True):
        picture = _webp(path, (rows * height, columns * width), manifest)
        cells = picture.reshape(rows, height, columns, width, channels)
        into[:] = cells.transpose(0, 2, 4, 1, 3)
    return pixels.reshape(-1, *manifest.shape), _labels(labels.reshape(-1))


def _webp(path: Path, size: tuple[int, int], manifest: Manifest) -> NDArray[np.uint8]:
    """An RGB picture `[H, W, 3]`; its size is looked at before it is decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=["WEBP"]) as picture:
            if picture.size != size[::-1]:
                found = f"is a picture of {picture.size[0]} × {picture.size[1]} pixels"
                raise refusal(path, found, f"a tile of {size[1]} × {size[0]}", manifest)
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise refusal(path, "is no picture in WebP", "a whole one", manifest) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise refusal(path, f"damaged WebP ({error})", "a whole one", manifest) from error


def _npy(path: Path, shape: tuple[int, ...], manifest: Manifest) -> NDArray[Any]:
    with open(path, "rb") as file:
        return _array(file, path, shape, manifest)


def _array(file: Any, what: Path, shape: tuple[int, ...], manifest: Manifest) -> NDArray[Any]:
    """The uint8 array of a .npy; its header is looked at before anything is allocated."""
    from numpy.lib import format as npy

    try:
        if npy.read_magic(file) != (1, 0):  # the later ones may have headers of gigabytes
            raise ValueError("its version is not 1.0")
        found, fortran, dtype = npy.read_array_header_1_0(file)
        if found != shape or dtype != np.uint8 or fortran:
            text = f"holds an array {found} of {dtype}"
            raise refusal(what, text, f"{shape} of uint8", manifest)
        size = int(np.prod(shape))
        data = file.read(size + 1)
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise refusal(what, f"damaged array ({error})", f"{shape} of uint8", manifest) from error
    if len(data) != size:
        raise refusal(what, f"holds {len(data)} bytes of pixels", f"{size}", manifest)
    return np.frombuffer(bytearray(data), np.uint8).reshape(shape)


def read_npz(paths: Sequence[Path], manifest: Manifest, split: str) -> Pair:
    """A .npz with x uint8 `[N, H, W, C]` and y `[N]`."""
    (path,) = paths
    count, (channels, height, width) = manifest.splits[split].count, manifest.shape
    arrays = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name, shape in (("x", (count, height, width, channels)), ("y", (count,))):
                with archive.open(f"{name}.npy") as file:
                    arrays.append(_array(file, path, shape, manifest))
    # A member may be packed or encrypted in a way that Python cannot undo.
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:
        text = f"is no .npz of x and y ({error})"
        raise refusal(path, text, "the arrays x and y", manifest) from error
    pixels, labels = arrays
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), _labels(labels)


def read_stl(paths: Sequence[Path], manifest: Manifest, split: str) -> Pair:
    """STL-10: pixels [N, C, W, H], memory-mapped, and labels 1 to 10 or none at all."""
    count, (channels, height, width) = manifest.splits[split].count, manifest.shape
    images, *tables = paths
    size, expected = images.stat().st_size, count * channels * height * width
    if size != expected:
        raise refusal(images, f"holds {size} bytes", f"{expected}", manifest)
    columns = np.memmap(images, np.uint8, mode="r", shape=(count, channels, width, height))
    labels = np.full(count, -1, np.int64)
    if tables:
        values = np.frombuffer(_bytes(tables[0], count, manifest), np.uint8)
        labels = values.astype(np.int64) - 1
    return columns.transpose(0, 1, 3, 2), labels


READERS: dict[str, Callable[[Sequence[Path], Manifest, str], Pair]] = {
    "idx": read_idx,
    "mat": read_mat,
    "cifar-python": read_cifar_python,
    "cifar-binary": read_cifar_binary,
    "cifar100-python": read_cifar100_python,
    "cifar100-binary": read_cifar100_binary,
    "tiles": read_tiles,
    "npz": read_npz,
    "stl": read_stl,
}
