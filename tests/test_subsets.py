"""The lists of labelled images: committed, reproducible, balanced, and of the images they mean."""

import hashlib
import json
import runpy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinv.data import rank_lists
from birdinv.data.images import Images, read_images
from birdinv.data.manifests import load_manifest
from birdinv.data.rank_lists import (
    draw_ranks,
    proportional,
    rank_list,
    ranks_hash,
    read_lists,
    valid_ranks,
)
from birdinv.data.subsets import images_hash, split_images, subset_sizes
from birdinv.errors import BirdinvError, SettingError

FOLDER = Path(__file__).parent.parent / "data_manifests"
SIZES = {
    "mnist": (50, 100, 600, 1000, 3000),
    "svhn": (500, 1000),
    "cifar10": (4000, 8000),
    "stl10": (1000,),
}
LISTS = [(name, size) for name, sizes in SIZES.items() for size in sizes]


def invented(name: str, seed: int = 0) -> Images:
    """As many images of each class as the data set has, in any order, made of noise.

    They are windows into one array of noise, so that they differ but take no room.
    """
    known = load_manifest(name)
    train = known.splits["train"]
    assert train.per_class is not None
    rng = np.random.default_rng(seed)
    width = int(np.prod(known.shape))
    noise = rng.integers(0, 256, train.count + width, np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(noise, width)[: train.count]
    labels = rng.permutation(np.repeat(np.arange(len(known.classes)), train.per_class))
    return Images(windows.reshape(train.count, *known.shape), labels)


@pytest.fixture(scope="module")
def svhn() -> Images:
    return invented("svhn")


@pytest.fixture(scope="module")
def few() -> Images:
    return invented("svhn_small")


# ---------------------------------------------------------------- the committed lists


def test_the_sizes_are_those_of_the_papers() -> None:
    assert {name: subset_sizes(name) for name in SIZES} == SIZES
    assert subset_sizes("svhn_small") == subset_sizes("none") == ()


@pytest.mark.parametrize(("name", "size"), LISTS)
def test_ten_draws_the_same_number_of_each_class_none_to_validate_on(name: str, size: int) -> None:
    known = load_manifest(name)
    counts = known.splits["train"].per_class
    assert counts is not None
    kept = rank_list(known, None, 0).ranks
    draws = [rank_list(known, size, draw).ranks for draw in range(10)]
    assert len(read_lists(name, size)) == 10 and len(set(draws)) == 10
    for ranks in draws:
        assert [len(set(of)) for of in ranks] == [size // 10] * 10
        for of, valid, count in zip(ranks, kept, counts, strict=True):
            assert list(of) == sorted(of) and of[0] >= 0 and of[-1] < count
            assert not set(of) & set(valid)


@pytest.mark.parametrize("name", SIZES)
def test_one_list_to_validate_on_in_proportion(name: str) -> None:
    known = load_manifest(name)
    counts = known.splits["train"].per_class
    assert counts is not None and len(read_lists(name, None)) == 1
    kept = rank_list(known, None, 0).ranks
    assert sum(len(set(of)) for of in kept) == known.valid
    for of, count in zip(kept, counts, strict=True):
        assert abs(len(of) - known.valid * count / sum(counts)) < 1 and of[-1] < count


def test_without_committed_lists_the_images_to_validate_on_are_drawn_by_the_same_rule() -> None:
    known = load_manifest("cifar100")
    assert subset_sizes("cifar100") == ()
    assert [len(set(of)) for of in rank_list(known, None, 0).ranks] == [50] * 100
    images = invented("cifar100")
    split = split_images("cifar100", images, None)
    parts_are_right(images, split, None, 5000)
    assert np.bincount(images.labels[split.valid]).tolist() == [50] * 100


@pytest.mark.parametrize("name", SIZES)
def test_the_hash_of_the_images_is_there_where_the_data_was(name: str) -> None:
    hashes = [
        draw["images_sha256"] for size in (None, *SIZES[name]) for draw in read_lists(name, size)
    ]
    if name in ("svhn", "stl10"):
        assert set(hashes) == {None}
    else:
        assert len(set(hashes)) == len(hashes) and all(len(text) == 64 for text in hashes)


def make(output: Path, root: Path | None) -> dict[str, bytes]:
    runpy.run_path(str(FOLDER / "make_subsets.py"))["make"](output, root)
    return {path.name: path.read_bytes() for path in output.iterdir()}


def committed() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (FOLDER / "subsets").iterdir()}


def test_the_script_makes_the_lists_that_are_committed(tmp_path: Path) -> None:
    assert make(tmp_path / "new", None) == committed()


def test_the_script_finds_the_images_that_are_committed(data: Path, tmp_path: Path) -> None:
    for name in ("mnist", "cifar10"):
        if not (data / name).is_dir():
            pytest.skip(f"BIRDINV_DATA holds no {name}")
    assert make(tmp_path / "new", data) == committed()


def test_a_list_has_a_line_for_each_class_and_belongs_to_the_package() -> None:
    import tomllib

    lines = (FOLDER / "subsets/mnist-50.json").read_text().splitlines()
    assert len(lines) == 2 + 10 * 12 and max(map(len, lines)) < 200
    packages = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "subsets/*.json" in packages["package-data"]["birdinv_manifests"]


def test_a_list_that_was_changed_is_refused(
    svhn: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (FOLDER / "subsets").glob("svhn-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = json.loads((tmp_path / "svhn-500.json").read_text())
    content["draws"][3]["ranks"][2][0] += 1
    (tmp_path / "svhn-500.json").write_text(json.dumps(content))
    monkeypatch.setattr(rank_lists, "_folder", lambda: tmp_path)
    with pytest.raises(BirdinvError, match=r"draw 3 of svhn-500\.json was changed"):
        split_images("svhn", svhn, 500, 3)
    split_images("svhn", svhn, 500, 2)


# ---------------------------------------------------------------- the parts


def parts_are_right(images: Images, split: Any, labels: int | None, valid: int) -> None:
    parts = (split.labelled, split.unlabelled, split.valid)
    for part in parts:
        assert part.dtype == np.int64 and (np.diff(part) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(images)))
    assert len(split.valid) == valid
    if labels is None:
        assert len(split.unlabelled) == 0
    else:
        assert np.bincount(images.labels[split.labelled]).tolist() == [labels // 10] * 10


def test_the_parts_are_disjoint_and_all_there_is(svhn: Images) -> None:
    splits = [split_images("svhn", svhn, 500, 9), split_images("svhn", svhn, 1000, 0)]
    for split, labels in zip(splits, (500, 1000), strict=True):
        parts_are_right(svhn, split, labels, 5000)
        np.testing.assert_array_equal(split.valid, splits[0].valid)
    assert splits[0].hash != splits[1].hash


def test_all_labels_are_all_but_those_to_validate_on(few: Images) -> None:
    split = split_images("svhn_small", few, None)
    parts_are_right(few, split, None, 110)
    assert split.hash == split_images("svhn_small", few, None, 7).hash  # there is but one


def test_without_validation_its_images_count_with_the_rest(few: Images) -> None:
    apart = split_images("svhn_small", few, 50)
    together = split_images("svhn_small", few, 50, valid=False)
    parts_are_right(few, together, 50, 0)
    np.testing.assert_array_equal(together.labelled, apart.labelled)
    assert set(together.unlabelled) == set(apart.unlabelled) | set(apart.valid)
    assert len(split_images("svhn_small", few, None, valid=False).labelled) == len(few)


def test_the_same_images_in_another_order_are_picked(few: Images) -> None:
    order = np.random.default_rng(1).permutation(len(few))
    turned = Images(few.pixels[order], few.labels[order])
    one, two = split_images("svhn_small", few, 50, 4), split_images("svhn_small", turned, 50, 4)
    assert one.hash == two.hash
    for part in ("labelled", "unlabelled", "valid"):
        np.testing.assert_array_equal(np.sort(order[getattr(two, part)]), getattr(one, part))


def test_the_hash_is_of_images_and_labels(few: Images) -> None:
    hashes = {split_images("svhn_small", few, 50, draw).hash for draw in range(3)}
    assert len(hashes | {split_images("svhn_small", invented("svhn_small", 1), 50, 0).hash}) == 4
    digests = few.digests()[:50]
    assert images_hash(digests) == images_hash(digests[::-1])
    labels = few.labels[:50].copy()
    before = images_hash(digests, labels)
    assert before == images_hash(digests[::-1], labels[::-1]) != images_hash(digests)
    labels[7] += 1
    assert images_hash(digests, labels) != before


def test_equal_images_are_told_apart_by_position() -> None:
    known = load_manifest("svhn_small")
    images = invented("svhn_small")
    same = Images(np.zeros_like(images.pixels), images.labels)
    split = split_images("svhn_small", same, 50)
    parts_are_right(same, split, 50, known.valid)
    of_class = np.flatnonzero(same.labels == 4)
    expected = of_class[list(draw_ranks(known, 50, 0)[4])]
    np.testing.assert_array_equal(split.labelled[same.labels[split.labelled] == 4], expected)


def test_a_rank_is_a_place_by_digest() -> None:
    """The same by the slow obvious way."""
    known, images = load_manifest("svhn_small"), invented("svhn_small")
    split = split_images("svhn_small", images, 100, 6)
    picked = []
    for label, ranks in enumerate(draw_ranks(known, 100, 6)):
        own = [i for i in range(len(images)) if images.labels[i] == label]
        own.sort(key=lambda i: hashlib.sha256(images.pixels[i].tobytes()).hexdigest())
        picked += [own[rank] for rank in ranks]
    assert split.labelled.tolist() == sorted(picked)


@pytest.mark.parametrize(("name", "size"), [("mnist", 50), ("cifar10", 4000)])
def test_the_real_images_are_split(name: str, size: int, data: Path) -> None:
    if not (data / name).is_dir():
        pytest.skip(f"BIRDINV_DATA holds no {name}")
    images = read_images(name, data, "train")
    started = time.process_time()
    images.digests()
    assert time.process_time() - started < 3  # 0.3 s on an idle machine
    split = split_images(name, images, size, 9)
    parts_are_right(images, split, size, 5000)
    order = np.random.default_rng(2).permutation(len(images))
    turned = Images(images.pixels[order], images.labels[order])
    assert split_images(name, turned, size, 9).hash == split.hash


# ---------------------------------------------------------------- drawn on the fly


def test_a_small_set_without_lists_has_them_drawn(data: Path) -> None:
    if not (data / "svhn_small").is_dir():
        pytest.skip("BIRDINV_DATA holds no svhn_small")
    images = read_images("svhn_small", data, "train")
    split = split_images("svhn_small", images, 50, 3)
    parts_are_right(images, split, 50, 110)
    assert split.hash == split_images("svhn_small", images, 50, 3).hash
    assert split.hash != split_images("svhn_small", images, 50, 4).hash


def test_the_rule_is_the_same_for_both() -> None:
    known = load_manifest("mnist")
    assert draw_ranks(known, 50, 3) == rank_list(known, 50, 3).ranks
    assert valid_ranks(known) == rank_list(known, None, 0).ranks
    assert ranks_hash(((1, 2), (3,))) == hashlib.sha256(b"1 2\n3\n").hexdigest()


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12), st.integers(0, 1000))
def test_shares_in_proportion_are_whole_and_near(counts: list[int], total: int) -> None:
    total = min(total, sum(counts))
    shares = proportional(counts, total)
    assert sum(shares) == total
    for share, count in zip(shares, counts, strict=True):
        assert share <= count and abs(share - total * count / sum(counts)) < 1


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("labels", "draw", "said"),
    [
        (70000, 0, "70000 labels of svhn, which has 68257 images beside those to validate on"),
        (60, 0, "no list of 60 labels of svhn; there are lists of 500, 1000"),
        (0, 0, "no list of 0 labels of svhn"),
        (500, 10, "draw 10 of svhn; there are draws 0 to 9"),
        (500, -1, "draw -1 of svhn"),
    ],
)
def test_a_size_or_draw_that_is_not_there(svhn: Images, labels: int, draw: int, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        split_images("svhn", svhn, labels, draw)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (445, "445 labels of svhn_small, which has 444 images"),
        (
            7,
            "each of 10 classes, 3 of which would be missing; give a multiple of 10 from 10 to 260",
        ),
        (55, "not the same number of each of 10 classes; give a multiple of 10"),
        (270, "give a multiple of 10 from 10 to 260"),
    ],
)
def test_a_size_that_cannot_be_balanced(labels: int, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        split_images("svhn_small", invented("svhn_small"), labels)


def test_images_that_are_not_the_training_split(svhn: Images) -> None:
    fewer = Images(svhn.pixels[:100], svhn.labels[:100])
    with pytest.raises(
        BirdinvError, match=r"100 images, .* are not the official training split of sv"
    ):
        split_images("svhn", fewer, 500)
    unknown = svhn.labels.copy()
    unknown[np.flatnonzero(unknown == 0)[0]] = -1
    with pytest.raises(BirdinvError, match="are not the official training split"):
        split_images("svhn", Images(svhn.pixels, unknown), 500)
    beyond = svhn.labels.copy()
    beyond[0] = 12
    with pytest.raises(BirdinvError, match="are not the official training split"):
        split_images("svhn", Images(svhn.pixels, beyond), 500)
    with pytest.raises(BirdinvError, match=r"images of shape \(1, 32, 32\); those of svhn are \(3"):
        split_images("svhn", Images(svhn.pixels[:, :1], svhn.labels), 500)
    with pytest.raises(BirdinvError, match="fsdd is a data set of recordings"):
        split_images("fsdd", svhn, 500)


def test_a_class_that_is_missing_is_seen(svhn: Images) -> None:
    with pytest.raises(BirdinvError, match="are not the official training split"):
        split_images("svhn", Images(svhn.pixels, np.where(svhn.labels == 3, 4, svhn.labels)), 500)


def test_other_images_in_the_same_numbers_are_seen() -> None:
    with pytest.raises(
        BirdinvError, match="the images are not those of mnist, though as many"
    ) as e:
        split_images("mnist", invented("mnist"), 50)
    assert "run `birdinv data check mnist`" in str(e.value)


def test_an_image_that_was_touched_is_seen(data: Path) -> None:
    if not (data / "mnist").is_dir():
        pytest.skip("BIRDINV_DATA holds no mnist")
    images = read_images("mnist", data, "train")
    first = int(split_images("mnist", images, 50).labelled[0])
    pixels = images.pixels.copy()
    pixels[first, 0, 0, 0] ^= 1
    with pytest.raises(BirdinvError, match="the images are not those of mnist"):
        split_images("mnist", replace(images, pixels=pixels), 50)
