"""Files: whole or not at all, tables and JSON that come back as they went."""

import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdinv import files
from birdinv.errors import BirdinvError
from birdinv.files import (
    csv_rows,
    read_csv,
    read_json,
    require_new,
    safe_name,
    whole_file,
    whole_folder,
    write_csv,
    write_json,
)

FULL = OSError(errno.ENOSPC, "No space left")
ERRORS = [ValueError("a bug"), KeyboardInterrupt(), FULL, SystemExit()]
errors = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)

CJK = "鳥" * 80 + ".csv"  # 244 bytes: close to the 255 that a name may have


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["a.csv", "a/b/c.csv", "é, ü.csv", "x" * 251 + ".csv", CJK])
def test_a_whole_file_appears_at_the_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with whole_file(path) as file:
        file.write("one\ntwö\n")
        assert not path.exists()
    assert path.read_bytes() == "one\ntwö\n".encode()
    assert [p for p in left(tmp_path) if p.endswith(".csv")] == [name]
    assert len(left(path.parent)) == 1


@errors
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_exception_leaves_what_was_there(
    tmp_path: Path, error: BaseException, before: bytes | None
) -> None:
    path = tmp_path / "a.bin"
    if before:
        path.write_bytes(before)
    with pytest.raises(type(error)), whole_file(path, "wb") as file:
        file.write(bytes(100_000))
        raise error
    assert left(tmp_path) == (["a.bin"] if before else [])
    assert not before or path.read_bytes() == before


def test_a_full_disk_leaves_what_was_there() -> None:
    # /dev/full takes no byte: the write fails when the buffer is flushed.
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "w") as file:
        file.write("x")


def test_a_disk_that_fills_up_at_the_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    path = tmp_path / "a.csv"
    path.write_text("old")

    def full(_: Path) -> Path:
        link = tmp_path / "temporary"
        link.symlink_to("/dev/full")
        return link

    monkeypatch.setattr(files, "_temporary", full)
    with pytest.raises(OSError, match="No space left"):
        write_csv(path, ["a"], [{"a": 1}])
    assert left(tmp_path) == ["a.csv"] and path.read_text() == "old"


def test_a_folder_that_takes_no_files_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(OSError, match="Read-only"):
        write_json(tmp_path / "a.json", {})
    assert left(tmp_path) == []


def test_two_files_at_a_time_do_not_meet(tmp_path: Path) -> None:
    same = tmp_path / "a"
    with whole_file(same) as one, whole_file(same) as two, whole_file(tmp_path / "b") as other:
        one.write("one")
        two.write("two")
        other.write("other")
    assert same.read_text() == "one"  # the outer one ends last
    assert left(tmp_path) == ["a", "b"]


# ---------------------------------------------------------------- folders


def test_a_whole_folder_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / ("鳥" * 84)
    with whole_folder(path) as folder:
        (folder / "a").write_text("a")
        assert not path.exists() and folder.parent == path.parent
    assert left(path) == ["a"] and left(path.parent) == [path.name, f"{path.name}/a"]


@errors
@pytest.mark.parametrize("there", [True, False])
def test_an_exception_leaves_no_folder(tmp_path: Path, error: BaseException, there: bool) -> None:
    path = tmp_path / "store"
    if there:
        path.mkdir()
    with pytest.raises(type(error)), whole_folder(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub/a").write_text("a")
        raise error
    assert left(tmp_path) == (["store"] if there else [])


def test_an_empty_folder_is_replaced_and_a_full_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("keep")
    with whole_folder(tmp_path / "empty") as folder:
        (folder / "a").write_text("a")
    said = r"full cannot be made \(.*\); all is done and kept in (.*): move it to where it"
    with pytest.raises(BirdinvError, match=said) as caught, whole_folder(tmp_path / "full") as own:
        (own / "a").write_text("a")
    assert left(tmp_path / "empty") == ["a"] and left(tmp_path / "full") == ["mine"]
    kept = re.search(said, str(caught.value))
    assert kept and left(Path(kept[1])) == ["a"]


def test_the_folder_one_stands_in_and_a_link_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    monkeypatch.chdir(tmp_path / "here")
    for path in (Path("."), tmp_path / "link"):
        with whole_folder(path) as folder:
            (folder / "a").write_text("a")
    monkeypatch.chdir(tmp_path)
    assert left(tmp_path) == ["here", "here/a", "link", "there", "there/a"]


def test_what_an_earlier_run_left_does_not_stop_this_one(tmp_path: Path) -> None:
    with pytest.raises(KeyError), whole_folder(tmp_path / "a") as first:
        name = first.name
        raise KeyError
    (tmp_path / name).mkdir()  # as if killed
    with whole_folder(tmp_path / "a"):
        pass
    assert (tmp_path / "a").is_dir()


def test_only_free_or_empty_places_are_new(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    require_new(tmp_path / "empty", "store")
    require_new(tmp_path / "free", "store")
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(BirdinvError, match=r"already exists; give -o a new folder for the run"):
            require_new(taken, "run")


# ---------------------------------------------------------------- tables and JSON

cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(cells, cells), max_size=5))
def test_tables_come_back_as_they_went(rows: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        write_csv(path, ["file", "b"], ({"file": f"x{a}", "b": b} for a, b in rows))
        columns, got = read_csv(path)
        assert list(csv_rows(path)) == got
    assert columns == ["file", "b"]
    assert [(row["file"][1:], row["b"]) for row in got] == rows


def test_tables_of_other_programs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufefffile,label\r\na.wav,"x, y"\r\nb.wav\r\nc.wav,z,more\r\n'.encode())
    columns, rows = read_csv(path)
    assert columns == ["file", "label"]
    assert rows == [
        {"file": "a.wav", "label": "x, y"},
        {"file": "b.wav", "label": ""},
        {"file": "c.wav", "label": "z"},
    ]


def test_none_is_an_empty_cell_and_an_unknown_column_an_error(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ["a", "b"], [{"a": None, "b": 1.5}])
    assert (tmp_path / "t.csv").read_bytes() == b"a,b\n,1.5\n"
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        write_csv(tmp_path / "t.csv", ["a", "b"], [{"c": 1}])
    assert (tmp_path / "t.csv").read_bytes() == b"a,b\n,1.5\n"


def test_rows_that_fail_half_way_leave_no_table(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, object]]:
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_csv(tmp_path / "t.csv", ["a"], rows())
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; expected a table"),
        (b"a,b,a\n1,2,3\n", "names a column twice: a, b, a"),
        ("a,b\ncafé,1\n".encode("latin-1"), "is not a UTF-8 CSV table"),
        ("a,b\n".encode("utf-16"), "is not a UTF-8 CSV table"),
        (b"a,b\n" + b"x" * 200_000 + b",1\n", "is not a UTF-8 CSV table: field larger"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(BirdinvError, match=rf"t\.csv {sentence}"):
        read_csv(tmp_path / "t.csv")
    with pytest.raises(BirdinvError, match=rf"t\.csv {sentence}"):
        list(csv_rows(tmp_path / "t.csv"))


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BirdinvError, match="cannot be read: "):
            read_csv(path)
        with pytest.raises(
            BirdinvError, match=r"(holds no missing|cannot be read .*); expected a store"
        ):
            read_json(path, "a store")


def test_json_comes_back_as_it_went(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, "é\n"], "b": {"c": True}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json", "it") == value
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_json_cannot_say_leaves_nothing(tmp_path: Path, value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", {"a": value})
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b"[1]", "holds no JSON object"),
        (b"null", "holds no JSON object"),
    ],
)
def test_json_that_is_none_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(BirdinvError, match=rf"a\.json {sentence}.*expected a run"):
        read_json(tmp_path / "a.json", "a run")


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("song thrush", "song thrush"),
        ("a/b\\c:d*e?f", "a_b_c_d_e_f"),
        ("..", "_"),
        ("", "_"),
        (" . ", "_"),
        ("x.", "x"),
        ("CON", "_CON"),
        ("nul.wav", "_nul.wav"),
        ("com1", "_com1"),
        ("console", "console"),
        ("a\x00b\nc", "a_b_c"),
        ("птица", "птица"),
    ],
)
def test_safe_names(text: str, name: str) -> None:
    assert safe_name(text) == name


@given(st.text(max_size=400))
def test_any_text_becomes_one_component_of_a_path(text: str) -> None:
    name = safe_name(text)
    assert 0 < len(name.encode("utf-8")) <= 204
    assert Path(name).parts == (name,) and name not in (".", "..")
    assert name == name.strip(" .") and not set(name) & set('\x00<>:"/\\|?*')
    assert safe_name(name) == name
    assert json.loads(json.dumps(name)) == name
