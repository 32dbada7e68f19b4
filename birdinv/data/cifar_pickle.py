"""The pickled batches of CIFAR-10 and CIFAR-100, read without the power to run anything.

The batches name three things of NumPy. Each is replaced by a stand-in that only keeps what it is
given, so that not even NumPy's own unpickling sees a file; any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdinv.data.manifests import Manifest, refusal
from birdinv.errors import BirdinvError

SPARE = 1 << 21  # bytes of labels and file names beside the pixels: officially up to 1.7 MB


class _Kept:
    """Keeps the arguments it was made with and the state it was given."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _DType(_Kept):
    """Stands for `numpy.dtype`."""


class _NDArray(_Kept):
    """Stands for `numpy.ndarray`, and for the function that makes one."""


STAND_INS = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _NDArray,
    ("numpy.core.multiarray", "_reconstruct"): _NDArray,
    ("numpy._core.multiarray", "_reconstruct"): _NDArray,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no batch needs"
            ) from None


def _bounded(data: bytes) -> None:
    """Raises unless every slot of the memory that a pickle fills is one it can have got to.

    Unpickling makes room up to the slot that is named: one instruction of six bytes can ask for
    64 GB. All other sizes in a pickle are of bytes that must follow, which this looks at as well.
    """
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        slot = argument if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") else None
        if slot is not None and slot > number:
            raise pickle.UnpicklingError(f"it asks for {slot} slots of memory at once")


def read_batch(
    path: Path, manifest: Manifest, count: int, key: str = "labels"
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(pixels `[count, C·H·W]`, labels `[count]`) of a batch.

    Args:
        key: what the labels are called in it.

    Raises:
        BirdinvError: it is damaged, asks for code, or is a batch of another data set.
    """
    width = int(np.prod(manifest.shape))

    def refuse(found: str) -> BirdinvError:
        expected = f"a batch of {count} images of {width} bytes and their labels"
        return refusal(path, found, expected, manifest)

    if (size := path.stat().st_size) > count * width + SPARE:
        raise refuse(f"holds {size} bytes")
    data = path.read_bytes()
    try:
        _bounded(data)
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise refuse(f"cannot be unpickled ({error})") from error
    if not isinstance(batch, dict):
        raise refuse("holds no batch")
    known = {name if isinstance(name, bytes) else str(name).encode(): batch[name] for name in batch}
    if key.encode() not in known or b"data" not in known:
        names = ", ".join(sorted(name.decode("utf-8", "backslashreplace") for name in known))
        raise refuse(f"holds {names or 'nothing'} but not data and {key}, as another data set has")
    pixels, labels = _pixels(known[b"data"]), known[key.encode()]
    if pixels is None:
        raise refuse("its data is no array of bytes")
    if pixels.shape != (count, width):
        raise refuse(f"its data is an array {pixels.shape}")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise refuse("its labels are no list of whole numbers")
    if len(labels) != count:
        raise refuse(f"holds {len(labels)} labels")
    return pixels, np.array([min(max(label, -(2**31)), 2**31) for label in labels], np.int64)


def _pixels(kept: Any) -> NDArray[np.uint8] | None:
    """The uint8 array that a stand-in was given the state of, None where it is none."""
    if not isinstance(kept, _NDArray) or not isinstance(kept.state, tuple) or len(kept.state) != 5:
        return None
    _version, shape, dtype, fortran, data = kept.state
    if not isinstance(dtype, _DType) or dtype.args[:1] not in ((b"u1",), ("u1",)):
        return None
    whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or not isinstance(data, bytes) or fortran not in (False, 0):
        return None
    if len(shape) != 2 or shape[0] * shape[1] != len(data):
        return None
    return np.frombuffer(data, np.uint8).reshape(shape)
