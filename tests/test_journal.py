"""The journal: what is done is known, what has changed is not, whatever cut it off."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from birdinv.audio.sources import Source
from birdinv.errors import BirdinvError
from birdinv.prediction.job import FileResult, stamp_of, table_path
from birdinv.prediction.journal import Journal, inputs_of

IDENTITY = {"model": "abc", "min_conf": 0.5, "inputs": ["field"]}


def recording(folder: Path, name: str = "a.wav", content: bytes = b"RIFF") -> Source:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return Source(folder / name, name, folder)


def finished(output: Path, source: Source, status: str = "ok") -> FileResult:
    """A result whose table is in its place."""
    table_path(output, source.name).parent.mkdir(parents=True, exist_ok=True)
    table_path(output, source.name).write_bytes(b"file,start_s\n")
    marked = (("1.000", "2.500"),)
    stamp = stamp_of(source)
    return FileResult(source.name, status, "why", "1.0", "0.5", 7, 2, 3, marked, 13, stamp)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def noted(output: Path, *sources: Source) -> list[FileResult]:
    journal = Journal(output, IDENTITY)
    results = [finished(output, source) for source in sources]
    for source, result in zip(sources, results, strict=True):
        journal.add(source, result)
    journal.close()
    return results


def recalled(output: Path, source: Source) -> FileResult | None:
    journal = Journal(output, IDENTITY)
    journal.close()
    return journal.done(source)


def test_what_is_noted_is_recalled(output: Path, tmp_path: Path) -> None:
    sources = [recording(tmp_path / "in", name) for name in ("a.wav", "Ž 鳥\n,.wav", "b.wav")]
    results = noted(output, *sources)
    assert [recalled(output, source) for source in sources] == results


def test_a_name_that_is_no_unicode_is_recalled(output: Path, tmp_path: Path) -> None:
    source = recording(tmp_path / "in", os.fsdecode(b"\xff\xfe.wav"))
    (result,) = noted(output, source)
    assert recalled(output, source) == result


def test_a_changed_recording_or_table_is_not_done(output: Path, tmp_path: Path) -> None:
    a, b, c, d = (recording(tmp_path / "in", f"{n}.wav") for n in "abcd")
    noted(output, a, b, c, d)
    a.path.write_bytes(b"RIFF longer")
    os.utime(b.path, ns=(0, 0))
    table_path(output, "c.wav").unlink()
    assert [recalled(output, source) is None for source in (a, b, c, d)] == [1, 1, 1, 0]
    table_path(output, "d.wav").write_bytes(b"")
    assert recalled(output, d) is None


def test_every_place_where_it_can_be_cut_off_costs_one_line_at_most(
    output: Path, tmp_path: Path
) -> None:
    sources = [recording(tmp_path / "in", f"{n}.wav") for n in "abc"]
    noted(output, *sources)
    path = output / "journal.jsonl"
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        lines = sum(end <= length for end in ends)
        known = [recalled(output, source) is not None for source in sources]
        assert known == [number < lines - 1 for number in range(3)]
        assert path.read_bytes()[: ends[max(0, lines - 1)]] == whole[: ends[max(0, lines - 1)]]
    path.write_bytes(whole[: ends[1]] + bytes(500))  # what a power cut may leave
    assert recalled(output, sources[0]) is not None and recalled(output, sources[1]) is None


def test_what_is_no_fault_of_the_recording_is_not_noted(output: Path, tmp_path: Path) -> None:
    gone, grows, crashed, text = (
        recording(tmp_path / "in", f"{name}.wav") for name in ("gone", "grows", "crashed", "text")
    )
    journal = Journal(output, IDENTITY)
    results = [finished(output, source, "unreadable") for source in (gone, grows, crashed, text)]
    gone.path.unlink()
    grows.path.write_bytes(b"RIFF and more, while it was read")
    results[2] = replace(results[2], stamp=None)
    for source, result in zip((gone, grows, crashed, text), results, strict=True):
        journal.add(source, result)
    journal.close()
    recording(tmp_path / "in", "gone.wav")
    assert [recalled(output, source) for source in (gone, grows, crashed)] == [None] * 3
    assert recalled(output, text) == results[3]


def test_other_settings_are_refused_by_name(output: Path) -> None:
    Journal(output, IDENTITY).close()
    with pytest.raises(BirdinvError, match=r"min conf: 0\.5 there, 0\.7 now.*give -o a new"):
        Journal(output, {**IDENTITY, "min_conf": 0.7})
    Journal(output, IDENTITY).close()  # and nothing was written by the refusal


def test_a_journal_of_something_else_is_refused(output: Path) -> None:
    output.mkdir()
    for text in ("hello\n", json.dumps({"format": "other", "version": 1, "identity": {}}) + "\n"):
        (output / "journal.jsonl").write_text(text)
        with pytest.raises(BirdinvError, match=r"is damaged|another version"):
            Journal(output, IDENTITY)
        assert (output / "journal.jsonl").read_text() == text


def test_two_at_once_are_refused(output: Path) -> None:
    first = Journal(output, IDENTITY)
    with pytest.raises(BirdinvError, match="another birdinv predict is writing to"):
        Journal(output, IDENTITY)
    first.close()
    Journal(output, IDENTITY).close()


def test_inputs_are_known_by_where_they_really_are(tmp_path: Path) -> None:
    (tmp_path / "here/card").mkdir(parents=True)
    (tmp_path / "there").symlink_to(tmp_path / "here")
    names = [inputs_of([tmp_path / place / "card"]) for place in ("here", "there")]
    assert names == [[os.path.realpath(tmp_path / "here/card")]] * 2


def test_recordings_at_another_place_need_a_word(output: Path) -> None:
    Journal(output, IDENTITY).close()
    moved = {**IDENTITY, "inputs": ["elsewhere"]}
    with pytest.raises(BirdinvError, match=r'\["field"\] there, \["elsewhere"\] now.*--moved if'):
        Journal(output, moved)
    Journal(output, moved, moved=True).close()
    with pytest.raises(BirdinvError, match="the old ones to go on there"):
        Journal(output, {**moved, "min_conf": 0.7}, moved=True)
