"""Sources: every recording once, under a name of its own, in an order that does not depend."""

import os
from pathlib import Path

import pytest

from birdinv.audio import sources
from birdinv.audio.sources import find_sources
from birdinv.errors import BirdinvError, NothingReadable


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(*inputs: Path) -> list[str]:
    return [source.name for source in find_sources(inputs).found]


def test_folders_are_searched_to_their_depths_and_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b/z.wav", "b/a/x.FLAC", "a.mp3", "c d,é/ü.Opus", "b.wav", "b/notes.txt")
    sources = find_sources([tmp_path])
    assert [s.name for s in sources.found] == [
        "a.mp3", "b.wav", "b/a/x.FLAC", "b/z.wav", "c d,é/ü.Opus",
    ]  # fmt: skip
    assert sources.others == 1
    assert all(s.root == tmp_path and s.path == tmp_path / s.name for s in sources.found)


def test_audio_that_cannot_be_read_is_listed_too(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.m4a", "c.WMA", "d.csv")
    (tmp_path / "gone.wav").symlink_to("nowhere")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert names(tmp_path) == ["a.wav", "b.m4a", "c.WMA", "gone.wav", "loop.wav", "pipe.wav"]


def test_hidden_files_and_folders_are_not_searched(tmp_path: Path) -> None:
    touch(tmp_path, "._a.wav", ".git/b.wav", ".hidden.wav", "c.wav", "d/._c.wav")
    sources = find_sources([tmp_path])
    assert [s.name for s in sources.found] == ["c.wav"] and sources.others == 0
    assert names(tmp_path / ".hidden.wav") == [".hidden.wav"]  # named outright
    assert names(tmp_path / ".git") == ["b.wav"]


def test_a_file_named_outright_counts_whatever_its_ending(tmp_path: Path) -> None:
    touch(tmp_path, "a.dat", "b", "c.wav")
    assert names(tmp_path / "b", tmp_path / "c.wav", tmp_path / "a.dat") == ["a.dat", "b", "c.wav"]


def test_the_same_stem_with_two_endings_is_two_recordings(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a.flac", "a.WAV")
    assert names(tmp_path) == ["a.WAV", "a.flac", "a.wav"]


def test_with_several_inputs_names_begin_with_the_input(tmp_path: Path) -> None:
    touch(tmp_path, "north/a.wav", "south/a.wav", "b.wav")
    assert names(tmp_path / "north") == ["a.wav"]
    assert names(tmp_path / "north", tmp_path / "south") == ["north/a.wav", "south/a.wav"]
    assert names(tmp_path / "south", tmp_path / "b.wav") == ["b.wav", "south/a.wav"]


def test_files_of_one_name_begin_with_their_folders(tmp_path: Path) -> None:
    touch(tmp_path, "north/a.wav", "south/a.wav")
    both = names(tmp_path / "north/a.wav", tmp_path / "south/a.wav")
    assert both == ["north/a.wav", "south/a.wav"]


def test_the_root_of_a_disk_has_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "day/x")
    monkeypatch.setattr(sources, "_walk", lambda root: ([root / "a.wav"], 0, []))
    assert names(Path("/"), tmp_path / "day") == ["day/a.wav", "root/a.wav"]


@pytest.mark.parametrize("prefix", ["", "..", "a/../.."])
def test_no_name_leads_out_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    touch(tmp_path, "a.wav")
    monkeypatch.setattr(sources, "_unique_names", lambda inputs: [(tmp_path, (prefix,))])
    with pytest.raises(BirdinvError, match="which leads out of a folder"):
        find_sources([tmp_path])


def test_the_order_of_the_inputs_does_not_matter(tmp_path: Path) -> None:
    touch(tmp_path, "north/a.wav", "south/a.wav", "b.wav", "c.wav")
    inputs = [tmp_path / name for name in ("c.wav", "south", "b.wav", "north")]
    assert find_sources(inputs).found == find_sources(inputs[::-1]).found


def test_two_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1/day/a.wav", "2/day/b.wav")
    with pytest.raises(BirdinvError, match=r"two inputs are both called day; give the folder"):
        find_sources([tmp_path / "1/day", tmp_path / "2/day"])
    touch(tmp_path, "1/day/b.wav")
    with pytest.raises(BirdinvError, match=r"two inputs are both called b\.wav"):
        find_sources([tmp_path / "1/day/b.wav", tmp_path / "2/day/b.wav"])


def test_the_same_input_twice_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "day/a.wav")
    monkeypatch.chdir(tmp_path / "day")
    (tmp_path / "link").symlink_to("day")
    assert names(Path("."), tmp_path / "day", tmp_path / "link") == ["a.wav"]
    assert names(Path("../day/.."), tmp_path) == ["day/a.wav"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("all", "all/part"), ("all/part", "all"), ("all", "all/part/a.wav"), ("all", "link")],
)
def test_a_recording_reached_through_two_inputs_is_refused(
    tmp_path: Path, first: str, second: str
) -> None:
    touch(tmp_path, "all/part/a.wav", "all/b.wav")
    (tmp_path / "link").symlink_to("all/part")
    with pytest.raises(BirdinvError, match=r"would be read twice: it lies in .* overlap") as caught:
        find_sources([tmp_path / first, tmp_path / second])
    assert str(tmp_path / first) in str(caught.value)
    assert str(tmp_path / second) in str(caught.value)


def test_inputs_whose_links_lead_into_each_other_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "north/a.wav", "south/b.wav")
    (tmp_path / "south/linked.wav").symlink_to("../north/a.wav")
    with pytest.raises(BirdinvError, match="would be read twice"):
        find_sources([tmp_path / "north", tmp_path / "south"])
    assert names(tmp_path / "south") == ["b.wav", "linked.wav"]


def test_links_within_one_input_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.wav", "elsewhere/b.wav")
    (tmp_path / "real/same.wav").symlink_to("a.wav")
    (tmp_path / "real/folder").symlink_to("../elsewhere")
    assert names(tmp_path / "real") == ["a.wav", "folder/b.wav", "same.wav"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b/c.wav")
    (tmp_path / "b/up").symlink_to("..")
    (tmp_path / "b/here").symlink_to(".")
    (tmp_path / "b/self").symlink_to("self")
    (tmp_path / "ab").symlink_to("b")
    found = names(tmp_path)
    assert found == ["a.wav", "ab/c.wav"]  # each folder once, by the first of its names


def test_names_that_are_not_utf_8_can_be_written_to_a_table(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    try:
        Path(os.fsdecode(raw)).write_bytes(b"")
    except OSError:
        pytest.skip("this file system allows only UTF-8")
    assert names(tmp_path) == ["caf\\udce9.wav"]
    touch(tmp_path, "caf\\udce9.wav")
    with pytest.raises(BirdinvError, match="would both be called"):
        find_sources([tmp_path])


def test_missing_inputs_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    with pytest.raises(BirdinvError, match=r"nowhere does not exist; give a recording or a folder"):
        find_sources([tmp_path, tmp_path / "nowhere"])


def test_nothing_to_read_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(NothingReadable, match=r"no audio file in .* \(0 other files\); expected"):
        find_sources([tmp_path])
    touch(tmp_path, "notes.txt", "a/.b.wav")
    with pytest.raises(NothingReadable, match=r"1 other files.*\.flac .*\.wav"):
        find_sources([tmp_path])


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.wav", "locked/b.wav")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    sources = find_sources([tmp_path])
    assert [source.name for source in sources.found] == ["a.wav"]
    assert sources.unlisted == (("locked", "Permission denied"),)
    with pytest.raises(NothingReadable, match="locked cannot be listed: Permission denied"):
        find_sources([tmp_path / "locked"])
