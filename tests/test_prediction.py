"""`predict`: a table for every recording whatever lies beside it, a row for every input."""

import csv
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small import RATE, contents, make_run, sound, write, write_bad

from birdinv.audio.windows import Windows
from birdinv.errors import BirdinvError, Interrupted, NothingReadable
from birdinv.files import whole_file
from birdinv.networks.saved import load_listener
from birdinv.prediction import run as prediction
from birdinv.prediction.pool import in_processes
from birdinv.prediction.run import predict
from birdinv.prediction.scoring import ScoredRecording
from birdinv.prediction.tables import Choice, detections
from birdinv.progress import Progress

ALL = Choice(0)
TABLES = ("combined.csv", "files.csv")


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
    return {name: data for name, data in contents(output).items() if name != "run.json"}


def test_the_tree_of_the_inputs_is_mirrored(run: Path, field: Path, tmp_path: Path) -> None:
    result = predict(run, [field], tmp_path / "out", choice=ALL)
    names = sorted(p.relative_to(field).as_posix() for p in field.rglob("*") if p.is_file())
    expected = {f"{name}.birdinv.csv" for name in names} | {*TABLES, "run.json"}
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
    predict(run, [field], tmp_path / "out", choice=choice, overlap=0.75)
    model, description, hearing = load_listener(run)
    windows = Windows(hearing.segment_samples, round(hearing.segment_samples * 0.25))
    scored = ScoredRecording(field / "z/rate.wav", model, RATE, windows)
    expected = [
        (f"{a * windows.hop / RATE:.3f}", label, f"{score:.4f}")
        for a, _, label, score in detections(scored, description.classes, ["noise"], choice)
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
    one = predict(run, [mixed], tmp_path / "one", choice=ALL)
    two = predict(run, [mixed], tmp_path / "two", choice=ALL, workers=2)
    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    assert one.files == two.files


def test_damaged_files_change_no_byte_of_the_good_ones(
    run: Path, field: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(field, mixed)
    expected = write_bad(mixed / "m")  # in the middle of the names
    write_bad(mixed / "0")
    predict(run, [field], tmp_path / "good", choice=ALL)
    result = predict(run, [mixed], tmp_path / "both", choice=ALL)
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
    predict(run, [field], tmp_path / "batch", choice=ALL)
    predict(run, [field / "a.flac"], tmp_path / "alone", choice=ALL)
    name = "a.flac.birdinv.csv"
    assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "batch" / name).read_bytes()


def test_a_copied_model_folder_is_enough(run: Path, field: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "a model")
    predict(tmp_path / "a model", [field], tmp_path / "copy", choice=ALL)
    predict(run, [field], tmp_path / "run", choice=ALL)
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
    result = predict(run, [tmp_path / "rec"], tmp_path / "out", choice=ALL)
    assert [file.file for file in result.files] == names
    assert {row["file"] for row in rows(tmp_path / "out/combined.csv")} == set(names)
    assert len(list((tmp_path / "out").glob("*.birdinv.csv"))) == 2


def test_what_is_done_is_kept_when_interrupted(
    run: Path, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, calls = prediction._score_file, []

    def interrupted(
        job: prediction._Job, source: prediction.Source, heard: Callable[[float], None]
    ) -> prediction.FileResult:
        calls.append(source)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(job, source, heard)

    monkeypatch.setattr(prediction, "_score_file", interrupted)
    with pytest.raises(Interrupted, match="the tables of the 2 files done so far are in"):
        predict(run, [field], tmp_path / "out", choice=ALL)
    monkeypatch.undo()
    predict(run, [field], tmp_path / "whole", choice=ALL)
    whole, part = tables(tmp_path / "whole"), tables(tmp_path / "out")
    assert len([name for name in part if name not in TABLES]) == 2
    assert all(part[name] == whole[name] for name in part if name not in TABLES)
    for name in TABLES:
        assert whole[name].startswith(part[name])
    assert json.loads((tmp_path / "out/run.json").read_text())["outcome"] == "interrupted"


def deadly(source: prediction.Source) -> prediction.FileResult:
    """What a worker does, except that `a.wav` kills it, and `a.flac` kills the first that tries."""
    assert prediction._JOB is not None
    once = prediction._JOB.output / "once"
    if source.name == "a.wav" or (source.name == "a.flac" and not once.exists()):
        once.touch()
        with whole_file(prediction._JOB.output / "half"):
            os.kill(os.getpid(), signal.SIGKILL)
    return prediction._work(source)


def test_a_file_that_kills_its_process_costs_itself_alone(
    run: Path, field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(run, [field], tmp_path / "whole", choice=ALL)
    monkeypatch.setattr(prediction, "_work", deadly)  # here; in the processes it is what it was
    result = predict(run, [field], tmp_path / "out", choice=ALL, workers=2)
    assert [file.file for file in result.files if file.status != "ok"] == ["a.wav"]
    crashed = result.files[1]
    assert (crashed.file, crashed.status) == ("a.wav", "unreadable")
    assert crashed.reason == "the decoder crashed (its process died)"
    assert [row["file"] for row in rows(tmp_path / "out/files.csv")] == [
        file.file for file in result.files
    ]
    whole, out = tables(tmp_path / "whole"), tables(tmp_path / "out")
    assert out.pop("once") == b"" and set(out) == set(whole)  # nothing half-written is left
    assert out["a.flac.birdinv.csv"] == whole["a.flac.birdinv.csv"]
    assert rows(tmp_path / "out/a.wav.birdinv.csv") == []
    assert json.loads((tmp_path / "out/run.json").read_text())["outcome"] == "finished"


def die() -> None:
    os._exit(1)


def test_processes_that_cannot_begin_are_no_fault_of_the_files() -> None:
    with pytest.raises(BirdinvError, match="a worker process died before it began"):
        list(in_processes(str, [1, 2], 2, begin=die, arguments=(), crashed=str))


def fail_at_three(number: int) -> int:
    if number == 3:
        raise OSError("full")
    return number


def nothing() -> None:
    pass


def test_an_error_in_a_process_is_raised_after_what_is_done() -> None:
    results = in_processes(
        fail_at_three, range(100), 2, begin=nothing, arguments=(), crashed=lambda number: -number
    )
    done: list[int] = []
    with pytest.raises(OSError, match="full"):
        done.extend(results)
    assert {0, 1, 2} <= set(done) and len(done) < 10  # and no more were begun


def test_a_line_end_in_a_name_stays_in_its_cell(run: Path, tmp_path: Path) -> None:
    names = ["a\rb.wav", "c\nd.wav", 'e"f,.wav']
    for name in names:
        write(tmp_path / "rec" / name, sound(1))
    predict(run, [tmp_path / "rec"], tmp_path / "out", choice=ALL)
    for table in (*TABLES, *(f"{name}.birdinv.csv" for name in names)):
        expected = set(names) if table in TABLES else {table.removesuffix(".birdinv.csv")}
        assert {row["file"] for row in rows(tmp_path / "out" / table)} == expected


def test_the_model_says_what_is_no_bird(run: Path, field: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "model")
    info = json.loads((tmp_path / "model/model.json").read_text())
    info["non_events"] = ["robin"]
    (tmp_path / "model/model.json").write_text(json.dumps(info))
    predict(tmp_path / "model", [field], tmp_path / "out", choice=ALL)
    assert {row["label"] for row in rows(tmp_path / "out/combined.csv")} == {"noise", "wren"}


@pytest.mark.parametrize("workers", [1, 2])
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
        predict(run, [field], tmp_path / "out", overlap=overlap)
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
