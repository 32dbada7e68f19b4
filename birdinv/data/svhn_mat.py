"""The .mat files of SVHN, read by SciPy once they are known not to unpack beyond their size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdinv.data.manifests import Manifest, refusal
from birdinv.errors import BirdinvError

HEADER, TAG, COMPRESSED = 128, 8, 15  # of MAT 5: its bytes, those before an element, a kind
BLOCK, SPARE = 1 << 20, 1 << 20


def read_mat(
    paths: Sequence[Path], manifest: Manifest, split: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """SVHN: a .mat with X [32, 32, 3, N] and y [N, 1], in which 10 means the digit 0.

    Raises:
        BirdinvError: it is damaged, or holds something else.
    """
    from scipy import io

    (path,) = paths
    count, (channels, height, width) = manifest.splits[split].count, manifest.shape
    shapes = {"X": (height, width, channels, count), "y": (count, 1)}
    wanted = f"X {shapes['X']} of uint8 and y {shapes['y']}"
    try:
        _bounded(path, count * (channels * height * width + 8) + SPARE)
        with open(path, "rb") as file:  # by its name SciPy would also try it with .mat behind
            listed = io.whosmat(file)
            inside = {name: (tuple(shape), kind) for name, shape, kind in listed}
            if len(inside) < len(listed):  # which of the two would be read?
                raise refusal(path, "holds an array twice", wanted, manifest)
            for name, shape in shapes.items():
                if name not in inside:
                    names = ", ".join(sorted(inside)) or "nothing"
                    raise refusal(path, f"holds {names} but no {name}", wanted, manifest)
                found, kind = inside[name]
                if found != shape or kind not in (
                    ("uint8",) if name == "X" else ("uint8", "double")
                ):
                    raise refusal(path, f"its {name} is {found} of {kind}", wanted, manifest)
            file.seek(0)
            arrays = io.loadmat(file, variable_names=list(shapes))
    except (OSError, BirdinvError) as error:
        if isinstance(error, BirdinvError) or error.errno is not None:
            raise
        raise refusal(path, f"damaged .mat ({error})", "a whole one", manifest) from error
    except Exception as error:  # SciPy raises nearly anything
        damage = f"is damaged or no .mat ({error})"
        raise refusal(path, damage, wanted, manifest) from error
    pixels = np.ascontiguousarray(arrays["X"].transpose(3, 2, 0, 1))
    values = arrays["y"].reshape(-1)
    labels = values.astype(np.int64)
    if not np.array_equal(labels, values):
        raise refusal(path, "its y holds fractions", "whole numbers from 1 to 10", manifest)
    return pixels, np.where(labels == 10, 0, np.where(labels == 0, 10, labels))


def _bounded(path: Path, limit: int) -> None:
    """Raises ValueError unless the elements of the file are whole and unpack to `limit` at most."""
    with open(path, "rb") as file:
        header = file.read(HEADER)
        order = {b"IM": "<", b"MI": ">"}.get(header[-2:])
        if len(header) < HEADER or order is None:
            raise ValueError("it has no header of MAT 5")
        while tag := file.read(TAG):
            kind, left = struct.unpack(f"{order}II", tag.ljust(TAG, b"\0"))
            stream = zlib.decompressobj() if kind == COMPRESSED else None
            while left > 0 and (block := file.read(min(left, BLOCK))):
                left -= len(block)
                while block and limit >= 0:
                    limit -= len(stream.decompress(block, BLOCK) if stream else block)
                    block = stream.unconsumed_tail if stream else b""
                if limit < 0:
                    raise ValueError("it unpacks to more than it should hold")
            if left > 0 or len(tag) < TAG or (stream and not stream.eof):
                raise ValueError("it ends too early")
