"""Each official format is read as it was written, and what is not it is refused in a sentence."""

import gzip
import io
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_images as small

from birdinv.data.image_formats import READERS
from birdinv.data.manifests import Manifest
from birdinv.errors import BirdinvError

GREY, COLOUR = (1, 4, 5), (3, 4, 5)
WRITERS: dict[str, tuple[str, tuple[int, int, int], int, Callable[..., list[str]]]] = {
    "idx": ("idx", GREY, 12, lambda *of: small.write_idx(*of, packed=False)),
    "idx.gz": ("idx", GREY, 12, lambda *of: small.write_idx(*of, packed=True)),
    "mat": ("mat", COLOUR, 12, small.write_mat),
    "cifar-python": ("cifar-python", COLOUR, 12, small.write_cifar_python),
    "cifar-binary": ("cifar-binary", COLOUR, 12, small.write_cifar_binary),
    "cifar100-python": ("cifar100-python", COLOUR, 12, small.write_cifar100_python),
    "cifar100-binary": ("cifar100-binary", COLOUR, 12, small.write_cifar100_binary),
    "tiles": ("tiles", COLOUR, 3000, small.write_tiles),
    "npz": ("npz", COLOUR, 12, small.write_npz),
    "stl": ("stl", COLOUR, 12, small.write_stl),
}


@pytest.fixture(params=WRITERS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Manifest, Path, Any, Any]:
    """(manifest, folder, pixels, labels) of a small data set in one of the formats."""
    form, shape, count, write = WRITERS[request.param]
    pixels, labels = small.images(shape, count)
    files = write(tmp_path, pixels, labels)
    return small.manifest(form, shape, count, files), tmp_path, pixels, labels


def read(manifest: Manifest, folder: Path) -> Any:
    (form,) = manifest.forms
    paths = [folder / file.path for file in form.files]
    return READERS[form.format](paths, manifest, "train")


def test_what_was_written_is_read(written: tuple[Manifest, Path, Any, Any]) -> None:
    manifest, folder, pixels, labels = written
    found, of = read(manifest, folder)
    assert found.dtype == np.uint8 and of.dtype == np.int64
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(of, labels)


def test_every_file_cut_short_is_refused_by_name(written: tuple[Manifest, Path, Any, Any]) -> None:
    manifest, folder, _, _ = written
    for file in manifest.forms[0].files:
        path = folder / file.path
        whole = path.read_bytes()
        for kept in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:kept])
            with pytest.raises(BirdinvError, match=path.name) as error:
                read(manifest, folder)
            assert "expected" in str(error.value) and "birdinv data prepare small" in str(
                error.value
            )
        path.write_bytes(whole)
    read(manifest, folder)


def test_every_file_of_another_count_is_refused(written: tuple[Manifest, Path, Any, Any]) -> None:
    manifest, folder, _, labels = written
    form = manifest.forms[0].format
    if form == "tiles":
        return  # as many as there are files, which `read_images` counts
    other = small.manifest(
        form, manifest.shape, len(labels) * 2, [f.path for f in manifest.forms[0].files]
    )
    with pytest.raises(BirdinvError, match="expected"):
        read(other, folder)


def test_every_file_of_noise_is_refused(written: tuple[Manifest, Path, Any, Any]) -> None:
    manifest, folder, _, _ = written
    rng = np.random.default_rng(1)
    for file in manifest.forms[0].files:
        path = folder / file.path
        whole = path.read_bytes()
        path.write_bytes(rng.bytes(len(whole) + 7))
        with pytest.raises(BirdinvError, match=path.name):
            read(manifest, folder)
        path.write_bytes(whole)


def test_images_of_another_shape_are_refused(written: tuple[Manifest, Path, Any, Any]) -> None:
    manifest, folder, _, labels = written
    form, (channels, height, width) = manifest.forms[0].format, manifest.shape
    files = [file.path for file in manifest.forms[0].files]
    other = small.manifest(form, (channels, height + 1, width), len(labels), files)
    with pytest.raises(BirdinvError, match="expected"):
        read(other, folder)


# ---------------------------------------------------------------- nothing runs, nothing swells


class Evil:
    def __reduce__(self) -> Any:
        return eval, ("print('ran')",)


@pytest.mark.parametrize(
    "payload",
    [
        pickle.dumps({b"data": Evil(), b"labels": []}, protocol=2),
        pickle.dumps({b"data": np.float64, b"labels": []}, protocol=4),
        b"cos\nsystem\n(S'echo ran'\ntR.",
        b"\x80\x02cnumpy\ndtype\n}b.",  # a state for the class itself
    ],
)
def test_a_batch_cannot_run_code(
    payload: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "batch").write_bytes(payload)
    with pytest.raises(BirdinvError, match="cannot be unpickled"):
        read(small.manifest("cifar-python", COLOUR, 6, ["batch"]), tmp_path)
    assert "ran" not in capfd.readouterr().out


def test_a_batch_cannot_ask_for_memory(tmp_path: Path) -> None:
    slot = b"\x80\x02}r" + struct.pack("<I", 2**31) + b"."
    long = b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"."  # bytes that do not follow
    for payload, said in (
        (slot, "asks for 2147483648 slots of memory"),
        (long, "cannot be unpick"),
    ):
        (tmp_path / "batch").write_bytes(payload)
        with pytest.raises(BirdinvError, match=said):
            read(small.manifest("cifar-python", COLOUR, 6, ["batch"]), tmp_path)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({b"data": 1, b"fine_labels": []}, "holds data, fine_labels but not data and labels"),
        ([], "holds no batch"),
        ({b"data": [1], b"labels": []}, "its data is no array of bytes"),
        ({b"data": np.zeros((6, 60), np.int16), b"labels": []}, "its data is no array of bytes"),
        ({b"data": np.zeros((5, 60), np.uint8), b"labels": []}, r"an array \(5, 60\)"),
        ({b"data": np.zeros((6, 60), np.uint8), b"labels": [0] * 5}, "holds 5 labels"),
        ({b"data": np.zeros((6, 60), np.uint8), b"labels": [0.5] * 6}, "no list of whole numbers"),
        ({b"data": np.zeros((6, 60), np.uint8), b"labels": None}, "no list of whole numbers"),
    ],
)
def test_a_batch_of_something_else_is_told_apart(batch: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=3))
    with pytest.raises(BirdinvError, match=said):
        read(small.manifest("cifar-python", COLOUR, 6, ["batch"]), tmp_path)


def test_the_files_of_cifar10_and_cifar100_are_told_apart(tmp_path: Path) -> None:
    pixels, labels = small.images(COLOUR, 12)
    for form, write, said in (
        ("cifar100-python", small.write_cifar_python, "not data and fine_labels, as another"),
        ("cifar-python", small.write_cifar100_python, "not data and labels, as another"),
        ("cifar100-binary", small.write_cifar_binary, "holds 366 bytes; expected 372"),
        ("cifar-binary", small.write_cifar100_binary, "holds more than 732 bytes; expected 732"),
    ):
        files = write(tmp_path, pixels, labels)
        with pytest.raises(BirdinvError, match=said):
            read(small.manifest(form, COLOUR, 12, files), tmp_path)


def test_a_batch_far_too_large_is_not_opened(tmp_path: Path) -> None:
    with open(tmp_path / "batch", "wb") as file:
        file.truncate(1 << 30)  # takes no room on the disk
    with pytest.raises(BirdinvError, match=f"holds {1 << 30} bytes"):
        read(small.manifest("cifar-python", COLOUR, 6, ["batch"]), tmp_path)


def peak(work: Callable[[], Any]) -> int:
    """Bytes that NumPy and Python had at most while `work` failed as it should."""
    tracemalloc.start()
    try:
        with pytest.raises(BirdinvError):
            work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


SWOLLEN = 200_000_000


def test_no_packed_file_unpacks_beyond_its_size(tmp_path: Path) -> None:
    zeros = bytes(SWOLLEN)
    head = small.idx(np.zeros((12, 4, 5), np.uint8))[:16]
    (tmp_path / "images.gz").write_bytes(gzip.compress(head + zeros, 1))
    (tmp_path / "labels.gz").write_bytes(gzip.compress(small.idx(np.zeros(12, np.uint8))))
    idx = small.manifest("idx", GREY, 12, ["images.gz", "labels.gz"])
    assert peak(lambda: read(idx, tmp_path)) < SWOLLEN / 10

    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        member, {"descr": "|u1", "fortran_order": False, "shape": (12, 4, 5, 3)}
    )
    with zipfile.ZipFile(tmp_path / "train.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member.getvalue() + zeros)
        archive.writestr("y.npy", b"")
    npz = small.manifest("npz", COLOUR, 12, ["train.npz"])
    assert peak(lambda: read(npz, tmp_path)) < SWOLLEN / 10

    packed = zlib.compress(struct.pack("<II", 14, SWOLLEN) + zeros, 1)
    header = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    (tmp_path / "train.mat").write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    mat = small.manifest("mat", COLOUR, 12, ["train.mat"])
    assert peak(lambda: read(mat, tmp_path)) < SWOLLEN / 10
    with pytest.raises(BirdinvError, match="unpacks to more than it should hold"):
        read(mat, tmp_path)


def test_a_picture_of_another_size_is_not_decoded(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (4000, 4000)).save(tmp_path / "tile.webp", lossless=True)
    np.save(tmp_path / "labels.npy", np.zeros((1, 1000), np.uint8))
    tiles = small.manifest("tiles", COLOUR, 1000, ["tile.webp", "labels.npy"], classes=10)
    with pytest.raises(
        BirdinvError, match="is a picture of 4000 × 4000 pixels; expected a tile of 125"
    ):
        read(tiles, tmp_path)
    Image.new("RGB", (125, 160)).save(tmp_path / "tile.webp", format="PNG")
    with pytest.raises(BirdinvError, match="no picture in WebP"):
        read(tiles, tmp_path)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=np.array([Evil()], object), y=np.zeros(12, np.uint8))
    with pytest.raises(BirdinvError, match="holds an array"):
        read(small.manifest("npz", COLOUR, 12, ["train.npz"]), tmp_path)


def test_a_mat_that_holds_an_array_twice_is_refused(tmp_path: Path) -> None:
    pixels, labels = small.images(COLOUR, 12)
    files = small.write_mat(tmp_path, pixels, labels)
    path = tmp_path / files[0]
    whole = path.read_bytes()
    path.write_bytes(whole + whole[128:])  # the arrays once more behind the header and the arrays
    with pytest.raises(BirdinvError, match="holds an array twice"):
        read(small.manifest("mat", COLOUR, 12, files), tmp_path)


def test_a_mat_of_other_things_says_which(tmp_path: Path) -> None:
    from scipy import io as mat

    manifest = small.manifest("mat", COLOUR, 12, ["train.mat"])
    pixels, labels = np.zeros((4, 5, 3, 12), np.uint8), np.ones((12, 1), np.uint8)
    for arrays, said in (
        ({"digitStruct": labels}, "holds digitStruct but no X"),
        ({"X": pixels}, "holds X but no y"),
        ({"X": pixels.astype(float), "y": labels}, "its X is .* of double"),
        ({"X": pixels[..., :6], "y": labels}, r"its X is \(4, 5, 3, 6\) of uint8"),
        ({"X": pixels, "y": labels[:6]}, r"its y is \(6, 1\) of uint8"),
        ({"X": pixels, "y": labels * 0.5}, "its y holds fractions"),
    ):
        mat.savemat(tmp_path / "train.mat", arrays)
        with pytest.raises(BirdinvError, match=said):
            read(manifest, tmp_path)
    mat.savemat(tmp_path / "train.mat", {"X": pixels, "y": labels * 10.0})
    assert read(manifest, tmp_path)[1].tolist() == [0] * 12  # the official y of extra is double
    mat.savemat(tmp_path / "train.mat", {"X": pixels, "y": labels * 0})
    assert read(manifest, tmp_path)[1].tolist() == [10] * 12  # no label 0 there: out of range here
