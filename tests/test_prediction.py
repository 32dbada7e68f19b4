"""`predict`: a table for every recording whatever lies beside it, a row for every input."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little_disk import refuse_writes
from small import RATE, contents, make_run, sound, write, write_bad

from birdinv.audio.sources import Source
from birdinv.audio.windows import Windows
from birdinv.errors import BirdinvError, Interrupted, NothingReadable
from birdinv.files import safe_name, whole_file
from birdinv.prediction import batch as batches
from birdinv.prediction import journal as journals
from birdinv.prediction import run as prediction
from birdinv.prediction.job import FileResult, Heard, Job, Settings, table_path
from birdinv.prediction.listener import Listener
from birdinv.prediction.run import predict
from birdinv.prediction.tables import Choice, detections
from birdinv.progress import Progress

ALL = Settings(Choice(0))
TABLES = ("combined.csv", "files.csv", "marked.csv")
RECORDS = ("run.json", "journal.jsonl")  # of one call: they know when it was, and in what order


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("prediction"))


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of good recordings with the names people have."""
    folder = tmp_path_factory.mktemp("field")
    for key, name in enumerate(
        ("a.wav", "a.flac", "site 1, north/b.wav", "Žďár/ночь/鳥.wav", "z/rate.wav", "z/stereo.ogg")
    ):
        write(folder / name, sound(key, 2.0))
    write(folder / "z/rate.wav", sound(9, 2.0, rate=48000), 48000)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tables(output: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(output).items() if name not in RECORDS}


def test_the_tree_of_the_inputs_is_mirrored(run: Path, field: Path, tmp_path: Path) -> None:
    result = predict(run, [field], tmp_path / "out", settings=ALL)
    names = sorted(p.relative_to(field).as_posix() for p in field.rglob("*") if p.is_file())
    expected = {f"{name}.birdinv.csv" for name in names} | {*TABLES, *RECORDS}
    assert set(contents(tmp_path / "out")) == expected
    files = rows(tmp_path / "out/files.csv")
    assert [row["file"] for row in files] == names == [file.file for file in result.files]
    combined = []
    for row in files:
        own = rows(tmp_path / "out" / f"{row['file']}.birdinv.csv")
        assert len(own) == int(row["detections"]) > 0
        assert {r["file"] for r in own} == {row["file"]} and row["status"] == "ok"
        combined += own
    assert rows(tmp_path / "out/combined.csv") == combined
    assert {row["label"] for row in combined} == {"robin", "wren"}  # noise is no bird
    header = (tmp_path / "out/combined.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "file,start_s,end_s,label,score"


def test_the_rows_are_the_detections_of_each_recording(
    run: Path, field: Path, tmp_path: Path
) -> None:
    choice = Choice(0.3, merge=3)
    settings = Settings(choice, overlap=0.75, exact_hop=True)
    predict(run, [field], tmp_path / "out", settings=settings)
    listener = Listener.load(run)
    windows = Windows(listener.windows.segment, round(listener.windows.segment * 0.25))
    listener = Listener.load(run, overlap=0.75, exact_hop=True)
    assert listener.windows == windows
    heard = listener.hear(field / "z/rate.wav")
    expected = [
        (f"{a * windows.hop / RATE:.3f}", label, f"{score:.4f}")
        for a, _, label, score in detections(heard, listener.classes, ["noise"], choice)
    ]
    got = rows(tmp_path / "out/z/rate.wav.birdinv.csv")
    assert [(row["start_s"], row["label"], row["score"]) for row in got] == expected
    # The last window is padded, but nothing is heard after the recording has ended.
    assert max(float(row["end_s"]) for row in got) == pytest.approx(2.0, abs=1e-3)
    info = json.loads((tmp_path / "out/run.json").read_text())
    assert (info["segment_samples"], info["hop_samples"]) == (windows.segment, windows.hop)


def test_two_workers_write_the_same_bytes(run: Path, field: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(field, mixed)
    write_bad(mixed / "bad")
    one = predict(run, [mixed], tmp_path / "one", settings=ALL)
    two = predict(run, [mixed], tmp_path / "two", settings=ALL, workers=2)
    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    assert one.files == two.files


def test_damaged_files_change_no_byte_of_the_good_ones(
    run: Path, field: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(field, mixed)
    expected = write_bad(mixed / "m")  # in the middle of the names
    write_bad(mixed / "0")
    predict(run, [field], tmp_path / "good", settings=ALL)
    result = predict(run, [mixed], tmp_path / "both", settings=ALL)
    good, both = tables(tmp_path / "good"), tables(tmp_path / "both")
    for name, data in good.items():
        if name not in TABLES:
            assert both[name] == data
    for name in TABLES:
        lines = [x for x in both[name].splitlines() if not x.startswith((b"m/", b"0/"))]
        assert lines == good[name].splitlines()
    statuses = {file.file: file.status for file in result.files if file.file.startswith("m/")}
    assert statuses == {f"m/{name}": status for name, status in expected.items()}
    assert all(file.reason for file in result.files if file.status != "ok")
    assert result.statuses == Counter(ok=6) + Counter(list(expected.values()) * 2)
    info = json.loads((tmp_path / "both/run.json").read_text())
    assert info["inputs"] == len(result.files) == sum(info["statuses"].values())
    assert (info["outcome"], info["settings"]["min_conf"]) == ("finished", 0)
    for file in result.files:  # a table each, be it empty
        assert (tmp_path / "both" / f"{file.file}.birdinv.csv").is_file()


def test_the_file_alone_gives_the_rows_it_has_in_a_batch(
    run: Path, field: Path, tmp_path: Path
) -> None:
    predict(run, [field], tmp_path / "batch", settings=ALL)
    predict(run, [field / "a.flac"], tmp_path / "alone", settings=ALL)
    name = "a.flac.birdinv.csv"
    assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "batch" / name).read_bytes()


def test_a_copied_model_folder_is_enough(run: Path, field: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "a model")
    predict(tmp_path / "a model", [field], tmp_path / "copy", settings=ALL)
    predict(run, [field], tmp_path / "run", settings=ALL)
    assert tables(tmp_path / "copy") == tables(tmp_path / "run")
    infos = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("copy", "run")]
    assert infos[0]["model_sha256"] == infos[1]["model_sha256"]


def test_several_inputs_keep_their_own_names(run: Path, field: Path, tmp_path: Path) -> None:
    for night in ("mon", "tue"):
        write(tmp_path / night / "r.wav", sound(1))
    result = predict(run, [tmp_path / "tue", tmp_path / "mon"], tmp_path / "out")
    assert [file.file for file in result.files] == ["mon/r.wav", "tue/r.wav"]


def test_a_very_long_name_has_its_table(run: Path, tmp_path: Path) -> None:
    names = [letter + "鳥" * 82 + ".wav" for letter in "ab"]  # 251 bytes of the 255 there are
    for name in names:
        write(tmp_path / "rec" / name, sound(1))
    result = predict(run, [tmp_path / "rec"], tmp_path / "out", settings=ALL)
    assert [file.file for file in result.files] == names
    assert {row["file"] for row in rows(tmp_path / "out/combined.csv")} == set(names)
    assert len(list((tmp_path / "out").glob("*.birdinv.csv"))) == 2


class Stopped(Job):
    """Is interrupted at the third file."""

    done = 0

    def work(self, source: Source, heard: Heard) -> FileResult:
        Stopped.done += 1
        if Stopped.done == 3:
            raise KeyboardInterrupt
        return super().work(source, heard)


def test_what_is_done_is_kept_when_interrupted_and_the_rest_follows(
    run: Path, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "Job", Stopped)
    with pytest.raises(Interrupted, match="the tables of 2 files are in"):
        predict(run, [field], tmp_path / "out", settings=ALL)
    predict(run, [field], tmp_path / "whole", settings=ALL)
    whole, part = tables(tmp_path / "whole"), tables(tmp_path / "out")
    assert len([name for name in part if name not in TABLES]) == 2
    assert all(part[name] == whole[name] for name in part if name not in TABLES)
    for name in TABLES:
        assert set(part[name].splitlines()) <= set(whole[name].splitlines())
    assert json.loads((tmp_path / "out/run.json").read_text())["outcome"] == "interrupted"
    Stopped.done = 10
    result = predict(run, [field], tmp_path / "out", settings=ALL)
    assert Stopped.done == 10 + 4 and result.resumed == 2  # nothing is scored twice
    assert tables(tmp_path / "out") == whole
    records = [(tmp_path / name / "run.json").read_bytes() for name in ("out", "whole")]
    assert records[0] == records[1]  # it does not tell how often one had to ask


class Deadly(Job):
    """`a.wav` kills its process, `a.flac` the first one that tries, `b.wav` never ends."""

    def work(self, source: Source, heard: Heard) -> FileResult:
        once = self._output / "once"
        if source.name == "a.wav" or (source.name == "a.flac" and not once.exists()):
            once.touch()
            with whole_file(self._output / "half"):
                os.kill(os.getpid(), signal.SIGKILL)
        if source.name.endswith("b.wav"):
            time.sleep(3600)
        return super().work(source, heard)


def begin_deadly(*arguments: Any) -> Job:
    return Deadly(*arguments)


def test_files_that_kill_or_stall_their_process_cost_themselves_alone(
    run: Path, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(run, [field], tmp_path / "whole", settings=ALL)
    monkeypatch.setattr(Job, "in_a_process", begin_deadly)
    result = predict(run, [field], tmp_path / "out", settings=ALL, workers=2, stall_s=1.5)
    lost = {file.file: file for file in result.files if file.status != "ok"}
    assert set(lost) == {"a.wav", "site 1, north/b.wav"}
    assert {file.status for file in lost.values()} == {"unreadable"}
    assert lost["a.wav"].reason == "it crashed the decoder (the process died)"
    assert lost["site 1, north/b.wav"].reason == ("it made no progress for 1.5 s and was given up")
    assert [row["file"] for row in rows(tmp_path / "out/files.csv")] == [
        file.file for file in result.files
    ]
    whole, out = tables(tmp_path / "whole"), tables(tmp_path / "out")
    assert out.pop("once") == b"" and set(out) == set(whole)  # nothing half-written is left
    for name, data in out.items():
        if name in TABLES:
            kept = [x for x in whole[name].splitlines() if not x.startswith((b"a.wav", b'"site'))]
            assert [x for x in data.splitlines() if b"unreadable" not in x] == kept
        elif name.removesuffix(".birdinv.csv") in lost:
            assert rows(tmp_path / "out" / name) == []
        else:
            assert data == whole[name]
    assert json.loads((tmp_path / "out/run.json").read_text())["outcome"] == "finished"


class Surprised(Job):
    """Finds something in `a.wav` that nobody foresaw."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        hear = self._listener.hear
        listener: Any = self._listener
        object.__setattr__(listener, "hear", lambda path: hear(path) if path.name != "a.wav" else 7)


def test_an_error_nobody_foresaw_costs_one_file(
    run: Path, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(run, [field], tmp_path / "whole", settings=ALL)
    monkeypatch.setattr(prediction, "Job", Surprised)
    result = predict(run, [field], tmp_path / "out", settings=ALL)
    assert [f.file for f in result.files if f.status == "unreadable"] == ["a.wav"]
    assert "it cannot be scored: TypeError" in result.files[1].reason
    whole, out = tables(tmp_path / "whole"), tables(tmp_path / "out")
    assert set(whole) == set(out)
    for name in set(whole) - {*TABLES, "a.wav.birdinv.csv"}:
        assert out[name] == whole[name]


def test_a_line_end_in_a_name_stays_in_its_cell(run: Path, tmp_path: Path) -> None:
    names = ["a\rb.wav", "c\nd.wav", 'e"f,.wav', "05:30.wav", "CON.wav"]
    for name in names:
        write(tmp_path / "rec" / name, sound(1))
    predict(run, [tmp_path / "rec"], tmp_path / "out", settings=ALL)
    for table in TABLES[:2]:
        assert {row["file"] for row in rows(tmp_path / "out" / table)} == set(names)
    for name in names:
        table = table_path(tmp_path / "out", name)
        assert {row["file"] for row in rows(table)} == {name}
        assert table.name == safe_name(table.name)  # on Windows too


def test_the_model_says_what_is_no_bird(run: Path, field: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "model")
    info = json.loads((tmp_path / "model/model.json").read_text())
    info["non_events"] = ["robin"]
    (tmp_path / "model/model.json").write_text(json.dumps(info))
    predict(tmp_path / "model", [field], tmp_path / "out", settings=ALL)
    assert {row["label"] for row in rows(tmp_path / "out/combined.csv")} == {"noise", "wren"}


@pytest.mark.parametrize("workers", [0, 2])
def test_the_hours_to_come_are_guessed_from_the_bytes_to_come(
    run: Path, tmp_path: Path, workers: int
) -> None:
    """One long recording before many short ones: by their number the guess would be far off."""
    write(tmp_path / "rec/0.wav", sound(1, 60.0))
    for i in range(1, 9):
        write(tmp_path / "rec" / f"{i}.wav", sound(i, 1.0))
    totals = []

    class Noted(Progress):
        def update(
            self, amount: float, *, total: float | None = None, note: str | None = None
        ) -> None:
            totals.extend([] if total is None else [total])

    with Noted("predict", "h of audio") as progress:
        predict(run, [tmp_path / "rec"], tmp_path / "out", workers=workers, progress=progress)
    np.testing.assert_allclose(totals, 68 / 3600, rtol=0.02)


@pytest.mark.parametrize("overlap", [-0.1, 1.0, float("nan")])
def test_an_impossible_overlap_is_refused(
    run: Path, field: Path, tmp_path: Path, overlap: float
) -> None:
    with pytest.raises(BirdinvError, match="the overlap is"):
        predict(run, [field], tmp_path / "out", settings=Settings(overlap=overlap))
    assert not (tmp_path / "out").exists()


def test_inputs_without_audio_are_refused_before_anything_is_written(
    run: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingReadable, match=r"no audio file in .*empty"):
        predict(run, [tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(BirdinvError, match=r"gone does not exist"):
        predict(run, [tmp_path / "gone"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_odd_audio_of_the_field_ends_in_a_status_each(
    run: Path, data: Path, tmp_path: Path
) -> None:
    result = predict(run, [data / "odd_audio"], tmp_path / "out")
    audio = {p.name for p in (data / "odd_audio").iterdir() if p.suffix.lower() != ".csv"}
    assert {file.file for file in result.files} == audio
    assert len(result.files) == sum(result.statuses.values())


class FullDisk(Job):
    """Has no space for the table of the third file."""

    done = 0

    def work(self, source: Source, heard: Heard) -> FileResult:
        FullDisk.done += 1
        if FullDisk.done == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._output / "c.csv"))
        return super().work(source, heard)


@pytest.mark.parametrize("nothing_fits", [False, True])
def test_a_full_disk_is_a_sentence_and_what_is_done_is_kept(
    run: Path, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_fits: bool
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    FullDisk.done = 0
    with monkeypatch.context() as patched:
        patched.setattr(prediction, "Job", FullDisk)
        if nothing_fits:  # not even the tables about all files
            patched.setattr(batches, "write_combined", full)
        with pytest.raises(
            BirdinvError, match=r"c.csv: No space left.*tables of 2 files are in"
        ) as e:
            predict(run, [field], tmp_path / "out", settings=ALL)
    assert e.value.exit_code == 1
    result = predict(run, [field], tmp_path / "out", settings=ALL)
    assert result.resumed == 2
    predict(run, [field], tmp_path / "whole", settings=ALL)
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


def test_a_disk_that_fills_up_late_leaves_whole_tables(
    run: Path, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(run, [field], tmp_path / "whole", settings=ALL)
    whole = tables(tmp_path / "whole")
    with monkeypatch.context() as patch:
        refuse_writes(patch, errno.ENOSPC, sum(map(len, whole.values())) // 3)
        with pytest.raises(BirdinvError, match="No space left on device; mend that"):
            predict(run, [field], tmp_path / "out", settings=ALL)
    part = contents(tmp_path / "out")
    done = {name for name in part if name.endswith(".birdinv.csv")}
    assert 1 <= len(done) < 6 and all(part[name] == whole[name] for name in done)
    assert json.loads(part["run.json"])["outcome"] != "finished"
    assert not [name for name in part if name.endswith(".tmp")]
    assert predict(run, [field], tmp_path / "out", settings=ALL).resumed == len(done)
    assert tables(tmp_path / "out") == whole


def test_a_disk_that_fills_up_within_a_line_of_the_journal(
    run: Path, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes, lines = os.write, []

    def filling(descriptor: int, data: bytes) -> int:
        lines.append(data)
        if len(lines) == 4:
            return write_bytes(descriptor, data[:50])
        if len(lines) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(journals.os, "write", filling)
        with pytest.raises(BirdinvError, match="No space left"):
            predict(run, [field], tmp_path / "out", settings=ALL)
    assert predict(run, [field], tmp_path / "out", settings=ALL).resumed == 2
    predict(run, [field], tmp_path / "whole", settings=ALL)
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


@pytest.mark.parametrize("leaves_a_mount_point", [False, True])
def test_the_disk_of_the_tables_goes_and_comes_back(
    run: Path,
    field: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    leaves_a_mount_point: bool,
) -> None:
    class Unplugged(Job):
        def work(self, source: Source, heard: Heard) -> FileResult:
            if source.name == "a.flac" and not (tmp_path / "away").exists():
                (tmp_path / "out").rename(tmp_path / "away")
                if leaves_a_mount_point:
                    (tmp_path / "out").mkdir()
            return super().work(source, heard)

    with monkeypatch.context() as patched:
        patched.setattr(prediction, "Job", Unplugged)
        with pytest.raises(BirdinvError, match=r"out: the folder is gone.* mend that") as caught:
            predict(run, [field], tmp_path / "out", settings=ALL)
    assert caught.value.exit_code == 1
    if leaves_a_mount_point:  # one table at most went to the wrong place, and no other was written
        assert set(contents(tmp_path / "out")) <= {"a.flac.birdinv.csv"}
        shutil.rmtree(tmp_path / "out")
    (tmp_path / "away").rename(tmp_path / "out")
    assert predict(run, [field], tmp_path / "out", settings=ALL).resumed > 0
    predict(run, [field], tmp_path / "whole", settings=ALL)
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


def test_the_disk_of_the_recordings_goes_and_comes_back(
    run: Path, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(field, tmp_path / "disk/field")

    class Unplugged(Job):
        def work(self, source: Source, heard: Heard) -> FileResult:
            if source.name == "a.flac" and (tmp_path / "disk").exists():
                (tmp_path / "disk").rename(tmp_path / "away")
            return super().work(source, heard)

    with monkeypatch.context() as patched:
        patched.setattr(prediction, "Job", Unplugged)
        result = predict(run, [tmp_path / "disk/field"], tmp_path / "out", settings=ALL)
    lost = [file for file in result.files if file.status == "unreadable"]
    assert lost and all("No such file" in file.reason for file in lost)
    (tmp_path / "away").rename(tmp_path / "disk")
    result = predict(run, [tmp_path / "disk/field"], tmp_path / "out", settings=ALL)
    assert result.statuses == Counter(ok=6) and result.resumed == 6 - len(lost)
    predict(run, [field], tmp_path / "whole", settings=ALL)
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


def test_what_changed_is_scored_again_and_what_is_gone_is_told(
    run: Path, field: Path, tmp_path: Path
) -> None:
    shutil.copytree(field, tmp_path / "field")
    predict(run, [tmp_path / "field"], tmp_path / "out", settings=ALL)
    write(tmp_path / "field/a.wav", sound(30, 3.0))
    (tmp_path / "field/a.flac").unlink()
    write(tmp_path / "field/new.wav", sound(31, 2.0))
    result = predict(run, [tmp_path / "field"], tmp_path / "out", settings=ALL)
    assert result.resumed == 4
    assert "since they have changed: 1 file" in result.warnings[0]
    assert "no longer there: 1 file, left out" in result.warnings[1]
    predict(run, [tmp_path / "field"], tmp_path / "whole", settings=ALL)
    out = tables(tmp_path / "out")
    assert out.pop("a.flac.birdinv.csv") and out == tables(tmp_path / "whole")


def test_other_settings_need_another_folder(run: Path, field: Path, tmp_path: Path) -> None:
    predict(run, [field], tmp_path / "out", settings=ALL)
    before = contents(tmp_path / "out")
    for settings, words in (
        (Settings(Choice(0.1)), "min conf: 0 there, 0.1 now"),
        (Settings(Choice(0), overlap=0.3), "overlap: null there, 0.3 now"),
        (Settings(Choice(0), absolute_time=True), "absolute time: false there, true now"),
    ):
        with pytest.raises(BirdinvError, match=words):
            predict(run, [field], tmp_path / "out", settings=settings)
    shutil.copytree(run / "model", tmp_path / "model")
    info = json.loads((tmp_path / "model/model.json").read_text())
    info["non_events"] = []
    (tmp_path / "model/model.json").write_text(json.dumps(info))
    with pytest.raises(BirdinvError, match="description: "):
        predict(tmp_path / "model", [field], tmp_path / "out", settings=ALL)
    with pytest.raises(BirdinvError, match=r"inputs: .*field\d.* there, .*z.* now.*--moved"):
        predict(run, [field / "z"], tmp_path / "out", settings=ALL)
    assert contents(tmp_path / "out") == before


def test_a_folder_with_something_else_in_it_is_left_alone(
    run: Path, field: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").touch()
    with pytest.raises(BirdinvError, match="already exists; give -o a new folder"):
        predict(run, [field], tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {"thesis.tex"}


def test_formats_and_times_can_be_asked_for_later_and_come_out_the_same(
    run: Path, tmp_path: Path
) -> None:
    for name in ("20260501_235959.wav", "S4A_20260502_053000.wav", "noon.wav"):
        write(tmp_path / "in" / name, sound(3, 3.0))
    settings = Settings(Choice(0), absolute_time=True)
    every = ("raven", "audacity", "kaleidoscope", "birdnet", "parquet")
    first = predict(run, [tmp_path / "in"], tmp_path / "out", settings=settings)
    assert any("no time in the name of 1 file:" in text for text in first.warnings)
    predict(run, [tmp_path / "in"], tmp_path / "out", settings=settings, rtypes=every)
    predict(run, [tmp_path / "in"], tmp_path / "whole", settings=settings, rtypes=every, workers=2)
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")
    table = rows(tmp_path / "out/combined.csv")
    times = {row["file"]: row["absolute_time"] for row in reversed(table)}
    assert times == {
        "20260501_235959.wav": "2026-05-01T23:59:59.000",
        "S4A_20260502_053000.wav": "2026-05-02T05:30:00.000",
        "noon.wav": "",
    }
    later = [row for row in table if row["file"].startswith("2026") and row["start_s"] > "1"]
    assert later and all(row["absolute_time"].startswith("2026-05-02T00:00:0") for row in later)


def test_the_largest_files_go_first(run: Path, tmp_path: Path) -> None:
    for seconds in (2, 5, 1, 4, 3):
        write(tmp_path / "in" / f"{seconds}.wav", sound(1, float(seconds)))
    predict(run, [tmp_path / "in"], tmp_path / "out", settings=ALL)
    lines = (tmp_path / "out/journal.jsonl").read_text().splitlines()[1:]
    assert [json.loads(line)["file"] for line in lines] == [f"{n}.wav" for n in (5, 4, 3, 2, 1)]


def test_the_report_is_written_when_asked_for(run: Path, field: Path, tmp_path: Path) -> None:
    predict(run, [field], tmp_path / "out", settings=ALL, report=True)
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "robin" in page and "<audio" in page


def test_only_the_workers_import_torch(run: Path, tmp_path: Path) -> None:
    """It takes seconds, and the first row waits for one of them alone."""
    write(tmp_path / "in/a.wav", sound(1, 2.0))
    script = (
        "import sys\nfrom pathlib import Path\nfrom birdinv.prediction.run import predict\n"
        "if __name__ == '__main__':\n"
        "    run, inputs, out = map(Path, sys.argv[1:])\n"
        "    assert predict(run, [inputs], out, workers=1).files[0].windows\n"
        "    assert 'torch' not in sys.modules\n"
    )
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, tmp_path / "script.py", run, tmp_path / "in", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_recording_that_grows_while_it_is_scored_is_scored_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "in/a.wav", sound(1, 2.0))

    class Growing(Job):
        def work(self, source: Source, heard: Heard) -> FileResult:
            result = super().work(source, heard)
            write(path, sound(1, 5.0))
            return result

    with monkeypatch.context() as patched:
        patched.setattr(prediction, "Job", Growing)
        predict(run, [tmp_path / "in"], tmp_path / "out", settings=ALL)
    result = predict(run, [tmp_path / "in"], tmp_path / "out", settings=ALL)
    assert result.resumed == 0 and result.files[0].read_s == "5.000000"


def test_no_table_of_another_format_and_no_page_tells_old_news(run: Path, tmp_path: Path) -> None:
    write(tmp_path / "in/a.wav", sound(1, 2.0))
    write(tmp_path / "in/b.wav", sound(2, 2.0))
    predict(run, [tmp_path / "in"], tmp_path / "out", settings=ALL, rtypes=["raven"], report=True)
    write(tmp_path / "in/a.wav", sound(3, 4.0))
    predict(run, [tmp_path / "in"], tmp_path / "out", settings=ALL)  # of neither a word
    predict(run, [tmp_path / "in"], tmp_path / "whole", settings=ALL, rtypes=["raven"], report=True)
    assert tables(tmp_path / "out").keys() == tables(tmp_path / "whole").keys()
    for name, data in tables(tmp_path / "whole").items():
        if name != "report.html":  # which bears the name of its folder
            assert (tmp_path / "out" / name).read_bytes() == data, name


def test_two_memory_cards_of_the_same_names_are_told_apart(run: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        path = write(tmp_path / f"card{number}/DATA/20260501_053000.WAV", sound(number, 2.0))
        os.utime(path, ns=(0, 0))
    predict(run, [tmp_path / "card1/DATA"], tmp_path / "out", settings=ALL)
    with pytest.raises(BirdinvError, match=r"card1.* there, .*card2.* now"):
        predict(run, [tmp_path / "card2/DATA"], tmp_path / "out", settings=ALL)
    (tmp_path / "card1").rename(tmp_path / "card3")
    result = predict(run, [tmp_path / "card3/DATA"], tmp_path / "out", settings=ALL, moved=True)
    assert result.resumed == 1


def test_a_folder_that_cannot_be_listed_is_an_input_that_cannot_be_read(
    run: Path, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(field, tmp_path / "in")
    write(tmp_path / "in/lost+found/x.wav", sound(1))  # of the file system, and nobody's
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if os.fspath(path).endswith("z"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        result = predict(run, [tmp_path / "in"], tmp_path / "out", settings=ALL)
    assert result.statuses == Counter(ok=4, unreadable=1)
    locked = next(file for file in result.files if file.status == "unreadable")
    assert (locked.file, locked.reason) == ("z/", "the folder cannot be listed: Permission denied")
    assert "z/" in [row["file"] for row in rows(tmp_path / "out/files.csv")]


def test_a_table_that_cannot_be_written_costs_one_file(
    run: Path, field: Path, tmp_path: Path
) -> None:
    shutil.copytree(field, tmp_path / "in")
    write(tmp_path / "in/a.wav.birdinv.csv/y.wav", sound(1, 2.0))  # a folder where a table goes
    result = predict(run, [tmp_path / "in"], tmp_path / "out", settings=ALL, rtypes=["raven"])
    (lost,) = [file for file in result.files if file.status != "ok"]
    assert lost.reason.startswith("its table cannot be written: ")
    assert len(result.files) == 7 and {r["file"] for r in rows(tmp_path / "out/combined.csv")} == {
        file.file for file in result.files if file is not lost
    }
