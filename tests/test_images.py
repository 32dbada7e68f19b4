"""`read_images`: real data sets as their manifests say, and what is not them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_images as small

from birdinv.data import images as module
from birdinv.data.images import Images, read_images
from birdinv.data.manifests import Manifest, load_manifest
from birdinv.errors import BirdinvError

SHAPE = (3, 4, 5)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Manifest:
    """A small data set, written into `tmp_path`, in place of every known one."""
    pixels, labels = small.images(SHAPE, 12)
    manifest = small.manifest(
        "cifar-binary", SHAPE, 12, small.write_cifar_binary(tmp_path, pixels, labels)
    )
    monkeypatch.setattr(module, "load_manifest", lambda name: manifest)
    return manifest


def rewrite(folder: Path, labels: Any) -> None:
    small.write_cifar_binary(folder, small.images(SHAPE, 12)[0], np.array(labels))


def test_a_root_may_be_the_folder_or_hold_it(known: Manifest, tmp_path: Path) -> None:
    here = read_images("small", tmp_path, "train")
    (tmp_path / "small").mkdir()
    for file in known.forms[0].files:
        (tmp_path / file.path).rename(tmp_path / "small" / file.path)
    there = read_images("small", tmp_path, "train")
    np.testing.assert_array_equal(here.pixels, there.pixels)
    assert len(there) == 12 and there.pixels.flags.c_contiguous


def test_a_label_out_of_range_is_named(known: Manifest, tmp_path: Path) -> None:
    rewrite(tmp_path, [0, 1, 2, 7, *[0, 1, 2, 0, 1, 2, 0, 1]])
    with pytest.raises(BirdinvError, match="the label of image 3 is 7; expected 0 to 2; run"):
        read_images("small", tmp_path, "train")


def test_counts_of_classes_that_are_not_the_official_ones_are_named(
    known: Manifest, tmp_path: Path
) -> None:
    rewrite(tmp_path, [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    with pytest.raises(BirdinvError, match="5 images of class '0', expected 4 in small"):
        read_images("small", tmp_path, "train")


def test_what_is_missing_is_named(known: Manifest, tmp_path: Path) -> None:
    (tmp_path / "batch_1.bin").unlink()
    with pytest.raises(BirdinvError, match=r"batch_1.bin is missing of its train split") as error:
        read_images("small", tmp_path, "train")
    assert "birdinv data prepare small" in str(error.value)
    (tmp_path / "batch_0.bin").unlink()
    with pytest.raises(BirdinvError, match=r"batch_0.bin and 1 more is missing"):
        read_images("small", tmp_path, "train")
    with pytest.raises(BirdinvError, match="nowhere is not a folder; expected the folder of small"):
        read_images("small", tmp_path / "nowhere", "train")


def test_names_and_splits_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BirdinvError, match=r"'mnits' is not a data set .* did you mean mnist"):
        read_images("mnits", tmp_path, "train")
    with pytest.raises(BirdinvError, match=r"mnist has no split 'valid'; .* train, test"):
        read_images("mnist", tmp_path, "valid")
    with pytest.raises(BirdinvError, match="fsdd is a data set of recordings"):
        read_images("fsdd", tmp_path, "train")


def test_images_without_label_are_minus_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dataclasses import replace

    pixels, labels = small.images(SHAPE, 12)
    small.write_stl(tmp_path, pixels, labels)
    manifest = small.manifest("stl", SHAPE, 12, ["X.bin"])
    splits = {"train": replace(manifest.splits["train"], per_class=None)}
    monkeypatch.setattr(module, "load_manifest", lambda name: replace(manifest, splits=splits))
    found = read_images("small", tmp_path, "train")
    assert found.labels.tolist() == [-1] * 12
    np.testing.assert_array_equal(found.pixels, pixels)
    assert isinstance(found.pixels.base, np.memmap) or isinstance(found.pixels, np.memmap)


def test_a_label_that_is_missing_where_all_have_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels, labels = small.images(SHAPE, 12)
    labels[5] = -1  # written as 0, of labels that begin with 1
    manifest = small.manifest("stl", SHAPE, 12, small.write_stl(tmp_path, pixels, labels))
    monkeypatch.setattr(module, "load_manifest", lambda name: manifest)
    with pytest.raises(BirdinvError, match="the label of image 5 is -1; expected 0 to 2"):
        read_images("small", tmp_path, "train")


def test_a_digest_is_of_the_pixels_alone() -> None:
    import hashlib

    pixels, labels = small.images(SHAPE, 5)
    turned = np.asfortranarray(pixels)
    one, two = Images(pixels, labels).digests(), Images(turned, labels).digests()
    np.testing.assert_array_equal(one, two)
    assert one[3].tobytes() == hashlib.sha256(pixels[3].tobytes()).digest()


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn_small"])
def test_the_real_data_is_as_its_manifest_says(name: str, data: Path) -> None:
    if not (data / name).is_dir():
        pytest.skip(f"BIRDINV_DATA holds no {name}")
    manifest = load_manifest(name)
    for split, expected in manifest.splits.items():
        found = read_images(name, data, split)
        assert found.pixels.shape == (expected.count, *manifest.shape)
        assert tuple(np.bincount(found.labels)) == expected.per_class
        assert found.pixels.dtype == np.uint8 and found.labels.dtype == np.int64
        assert found.pixels.flags.c_contiguous


def test_a_real_digit_is_where_it_is_known_to_be(data: Path) -> None:
    if not (data / "mnist").is_dir():
        pytest.skip("BIRDINV_DATA holds no mnist")
    found = read_images("mnist", data / "mnist", "train")
    assert found.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert found.pixels[0, 0, 5, 12:16].tolist() == [3, 18, 18, 18]  # the first row of the first 5
