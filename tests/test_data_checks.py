"""What `check` finds of a copy: whole, incomplete, damaged, another form, in another place."""

import gzip
import hashlib
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from birdinv.data import checks
from birdinv.data.checks import check, check_file, find_form
from birdinv.data.manifests import File, Manifest, load_manifest, manifests, parse_manifest
from birdinv.errors import BirdinvError

TEXT = """
name = "small"
kind = "recordings"
description = "a test"
homepage = "http://127.0.0.1/"
licence = "none"
classes = ["a"]
instructions = "none"
[splits.train]
count = 1
[splits.extra]
count = 1
optional = true
[[forms]]
name = "one"
description = "two files"
format = "recordings"
files = [
  {{ path = "a.bin", split = "train", size = 3, sha256 = "{abc}" }},
  {{ path = "b/b.bin", split = "train", size = 3, md5 = "900150983cd24fb0d6963f7d28e17f72" }},
  {{ path = "c.bin", split = "extra", size = 3 }},
]
[[forms]]
name = "two"
description = "an archive of one file"
format = "recordings"
files = [{{ path = "z.bin", split = "train", size = 3 }}]
archive = {{ path = "z.tar.gz", size = 9 }}
"""


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Manifest:
    manifest = parse_manifest(TEXT.format(abc=hashlib.sha256(b"abc").hexdigest()))
    monkeypatch.setattr(checks, "load_manifest", lambda name: manifest)
    for path in ("a.bin", "b/b.bin", "c.bin"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"abc")
    return manifest


def states(root: Path) -> dict[str, str]:
    return {finding.path: finding.state for finding in check("small", root).findings}


def test_a_whole_copy_is_whole(known: Manifest, tmp_path: Path) -> None:
    found = check("small", tmp_path)
    assert found.whole and set(states(tmp_path).values()) == {"ok"}
    assert found.sentence == f"small is whole in {tmp_path}: two files"


def test_it_may_lie_in_a_folder_of_its_name(known: Manifest, tmp_path: Path) -> None:
    assert check("small", tmp_path).folder == tmp_path
    (tmp_path / "small").mkdir()  # an empty one does not hide the files beside it
    assert check("small", tmp_path).folder == tmp_path
    for path in ("a.bin", "b", "c.bin"):
        (tmp_path / path).rename(tmp_path / "small" / path)
    assert check("small", tmp_path).folder == tmp_path / "small"


def test_every_fault_has_its_name(known: Manifest, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abcd")
    (tmp_path / "b/b.bin").write_bytes(b"abd")
    (tmp_path / "c.bin").unlink()
    assert states(tmp_path) == {
        "a.bin": "wrong size",
        "b/b.bin": "wrong checksum",
        "c.bin": "optional, not there",
    }
    found = check("small", tmp_path)
    assert not found.whole and found.findings[0].detail == "4 bytes, expected 3"
    assert (
        "2 of 3 are not as they should be, first a.bin (wrong size); run `birdinv data prepare"
        in (found.sentence)
    )
    (tmp_path / "a.bin").write_bytes(b"abd")
    (tmp_path / "b/b.bin").unlink()
    assert list(states(tmp_path).values())[:2] == ["wrong checksum", "missing"]


def test_an_optional_file_that_is_wrong_is_wrong(known: Manifest, tmp_path: Path) -> None:
    (tmp_path / "c.bin").unlink()
    assert check("small", tmp_path).whole
    (tmp_path / "c.bin").write_bytes(b"ab")
    assert not check("small", tmp_path).whole


def test_a_file_of_which_no_checksum_is_known_says_so(known: Manifest, tmp_path: Path) -> None:
    details = {finding.path: finding.detail for finding in check("small", tmp_path).findings}
    assert "no checksum is known" in details["c.bin"] and details["a.bin"] == ""


def test_the_nearest_form_is_the_one_that_is_spoken_of(known: Manifest, tmp_path: Path) -> None:
    assert find_form(known, tmp_path)[0].name == "one"
    (tmp_path / "a.bin").unlink()
    with pytest.raises(BirdinvError, match=r"a\.bin is missing \(two files\); run `birdinv data"):
        find_form(known, tmp_path)
    assert find_form(known, tmp_path, "extra")[0].name == "one"
    (tmp_path / "z.bin").write_bytes(b"abc")
    assert find_form(known, tmp_path)[0].name == "two"


def test_an_archive_that_is_not_unpacked_is_seen(known: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "z.tar.gz").write_bytes(b"packed")
    with pytest.raises(BirdinvError, match=r"z\.tar\.gz is there but not unpacked; run"):
        find_form(known, folder)


def test_a_gz_packed_anew_counts_by_what_is_inside(tmp_path: Path) -> None:
    inside = b"abc" * 1000
    official = gzip.compress(inside, 9, mtime=0)
    file = File(
        "x.gz",
        len(official),
        hashlib.sha256(official).hexdigest(),
        payload_size=len(inside),
        payload_sha256=hashlib.sha256(inside).hexdigest(),
    )
    for content, state in (
        (official, "ok"),
        (gzip.compress(inside, 1, mtime=5), "ok"),
        (gzip.compress(inside + b"d"), "wrong"),
        (gzip.compress(inside[:-1]), "wrong"),
        (gzip.compress(bytes(50_000_000)), "wrong size"),
        (official[:-9], "wrong size"),
        (b"no gz at all", "wrong size"),
    ):
        (tmp_path / "x.gz").write_bytes(content)
        tracemalloc.start()
        assert check_file(tmp_path, file).state.startswith(state)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000  # also of what unpacks to 50 MB
        tracemalloc.stop()


def test_a_folder_of_numbered_recordings(tmp_path: Path) -> None:
    known = load_manifest("bird10")
    for ids in known.forms[0].ids:
        (tmp_path / ids.folder).mkdir()
        for number in range(ids.first, ids.last + 1):
            (tmp_path / ids.folder / f"nips4b_ID{number:04}.wav").touch()
    assert check("bird10", tmp_path).whole
    (tmp_path / "05/nips4b_ID0043.wav").rename(tmp_path / "05/._nips4b_ID0043.wav")
    for path in (tmp_path / "45").iterdir():
        path.unlink()
    found = check("bird10", tmp_path)
    assert not found.whole
    assert [(f.path, f.state, f.detail) for f in found.findings if f.state != "ok"] == [
        ("05/", "wrong count", "missing 1 IDs, first 43"),
        ("45/", "missing", "expected files with the IDs 842 to 871"),
    ]


def test_a_folder_of_files_too_many_to_list(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = load_manifest("fsdd")
    form = known.forms[0]
    assert form.tree is not None
    lines = b""
    for name in ("a.flac", "b.flac"):
        (tmp_path / name).write_bytes(name.encode())
        lines += f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n".encode()
    tree = replace(form.tree, count=2, size=12, sha256=hashlib.sha256(lines).hexdigest())
    small = replace(known, forms=(replace(form, tree=tree),))
    monkeypatch.setattr(checks, "load_manifest", lambda name: small)
    assert check("fsdd", tmp_path).whole
    (tmp_path / "._a.flac").touch()  # macOS
    assert check("fsdd", tmp_path).whole
    (tmp_path / "b.flac").write_bytes(b"b.flaC")
    assert check("fsdd", tmp_path).findings[0].state == "wrong checksum"
    (tmp_path / "b.flac").write_bytes(b"b")
    assert check("fsdd", tmp_path).findings[0].state == "wrong size"
    (tmp_path / "b.flac").unlink()
    assert check("fsdd", tmp_path).findings[0].detail == "1 files, expected 2"


@pytest.mark.parametrize("name", manifests())
def test_the_real_copies_are_whole(name: str, data: Path) -> None:
    if not (data / name).is_dir():
        pytest.skip(f"BIRDINV_DATA holds no {name}")
    found = check(name, data)
    assert found.whole, found.sentence
    assert found.folder == data / name


@pytest.mark.parametrize("name", manifests())
def test_nothing_at_all_is_a_copy_of_nothing(name: str, tmp_path: Path) -> None:
    found = check(name, tmp_path)
    assert not found.whole and {f.state for f in found.findings} <= {
        "missing",
        "optional, not there",
    }
    with pytest.raises(BirdinvError, match="gone is not a folder"):
        check(name, tmp_path / "gone")
