"""Every manifest loads, and what it says holds together."""

import re
from pathlib import Path, PurePosixPath

import pytest

from birdinv.data.image_formats import READERS
from birdinv.data.manifests import data_root, load_manifest, manifests
from birdinv.errors import BirdinvError

FOLDER = Path(__file__).parent.parent / "data_manifests"
NAMES = (
    *("bird10", "bird_kenya6", "cifar10", "cifar100", "fsdd", "mnist", "stl10", "svhn"),
    "svhn_small",
)
OFFICIAL = {  # images and the shape of one, by the papers that introduce them
    "mnist": ({"train": 60000, "test": 10000}, (1, 28, 28), 5000),
    "svhn": ({"train": 73257, "test": 26032, "extra": 531131}, (3, 32, 32), 5000),
    "cifar10": ({"train": 50000, "test": 10000}, (3, 32, 32), 5000),
    "cifar100": ({"train": 50000, "test": 10000}, (3, 32, 32), 5000),
    "stl10": ({"train": 5000, "test": 8000, "unlabeled": 100000}, (3, 96, 96), 1000),
}


def test_all_are_there() -> None:
    assert manifests() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_together(name: str) -> None:
    known = load_manifest(name)
    assert known.name == name and known.kind in ("images", "recordings")
    assert known.description and known.licence
    assert known.homepage.startswith("http") or (name, known.homepage) == ("bird10", "not known")
    assert known.instructions and known.classes and known.samples > 0 and known.forms
    assert len(set(known.classes)) == len(known.classes)
    for split in known.splits.values():
        if split.per_class is not None:
            assert (
                len(split.per_class) == len(known.classes) and sum(split.per_class) == split.count
            )
    if known.kind == "images":
        assert len(known.shape) == 3 and known.valid < known.splits["train"].count
    for form in known.forms:
        assert form.description and (form.files or form.tree or form.ids)
        assert form.format in (READERS if known.kind == "images" else ("recordings",))
        for file in (*form.files, *filter(None, [form.archive])):
            path = PurePosixPath(file.path)
            assert not path.is_absolute() and ".." not in path.parts and "\\" not in file.path
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.md5 is None or re.fullmatch("[0-9a-f]{32}", file.md5)
            assert file.split is None or file.split in known.splits
            if file.url is not None:  # a download must have an end and a proof
                assert file.size and (file.sha256 or file.md5) and file.url.startswith("http")
            if form.archive is not None:
                assert file.size  # an archive is unpacked up to it
        if known.kind == "images":
            assert {file.split for file in form.files} == set(known.splits)


@pytest.mark.parametrize("name", OFFICIAL)
def test_it_is_the_official_set(name: str) -> None:
    known = load_manifest(name)
    counts, shape, valid = OFFICIAL[name]
    assert {split: of.count for split, of in known.splits.items()} == counts
    assert known.shape == shape and known.valid == valid
    assert len(known.classes) == (100 if name == "cifar100" else 10)


def test_cifar100_has_its_fine_classes_in_order() -> None:
    known = load_manifest("cifar100")
    assert known.classes == tuple(sorted(known.classes))
    numbered = {0: "apple", 23: "cloud", 39: "keyboard", 52: "oak_tree", 67: "ray", 99: "worm"}
    assert {i: known.classes[i] for i in numbered} == numbered
    assert {count for of in known.splits.values() for count in of.per_class or ()} == {500, 100}


@pytest.mark.parametrize(("name", "head"), [("cifar10", 1), ("cifar100", 2)])
def test_binary_files_of_cifar_are_as_large_as_their_records(name: str, head: int) -> None:
    known = load_manifest(name)
    (form,) = [form for form in known.forms if form.name == "binary"]
    for split, of in known.splits.items():
        sizes = [file.size or 0 for file in form.files if file.split == split]
        assert sum(sizes) == of.count * (head + 3072)


def test_svhn_counts_the_digit_zero_first() -> None:
    known = load_manifest("svhn")
    per_class = [split.per_class for split in known.splits.values()]
    assert per_class[0] == (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)
    assert per_class[1] == (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595)
    assert known.optional("extra") and not known.optional("train")


def test_svhn_small_says_what_it_is_not() -> None:
    assert "never to be reported as SVHN error" in load_manifest("svhn_small").notes


def test_bird10_says_what_is_known_of_it() -> None:
    known = load_manifest("bird10")
    assert known.samples == 326 and len(known.forms[0].ids) == 10
    assert "is inferred" in known.notes and "Species names, the split" in known.instructions
    for ids in known.forms[0].ids:
        assert f"{ids.folder}: {ids.first}–{ids.last}" in known.instructions


def test_no_file_of_theirs_names_a_place_on_a_machine() -> None:
    for path in FOLDER.rglob("*"):
        if path.suffix in (".toml", ".json", ".py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w/.:])/(home|work|tmp|root|usr|mnt|data)/", text), path


def test_a_name_that_is_nearly_right_is_guessed() -> None:
    for wrong, said in (("MNIST", "did you mean mnist"), ("zzz", "known are bird10, bird_kenya6")):
        with pytest.raises(BirdinvError, match=said):
            load_manifest(wrong)


def test_a_root_is_given_or_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BIRDINV_DATA", raising=False)
    with pytest.raises(BirdinvError, match=r"give --root DIR or set .* BIRDINV_DATA"):
        data_root()
    monkeypatch.setenv("BIRDINV_DATA", str(tmp_path))
    assert data_root() == tmp_path
    with pytest.raises(BirdinvError, match="gone is not a folder"):
        data_root(tmp_path / "gone")
    monkeypatch.setenv("BIRDINV_DATA", str(tmp_path / "gone"))
    with pytest.raises(BirdinvError, match=r"gone \(BIRDINV_DATA\) is not a folder"):
        data_root()
