"""`predict`: a table for every recording whatever lies beside it, a row for every input."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from small import RATE, contents, make_run, sound, write, write_bad

from birdinv.audio.windows import Windows
from birdinv.errors import BirdinvError, Interrupted, NothingReadable
from birdinv.networks.saved import load_model
from birdinv.prediction import run as prediction
from birdinv.prediction.run import predict
from birdinv.prediction.scoring import ScoredRecording
from birdinv.prediction.tables import Choice, detections

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
    model, description = load_model(run)
    windows = Windows(description.segment_samples, round(description.segment_samples * 0.25))
    scored = ScoredRecording(field / "z/rate.wav", model, RATE, windows)
    expected = [
        (f"{a * windows.hop / RATE:.3f}", label, f"{score:.4f}")
        for a, _, label, score in detections(scored, description.classes, choice)
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
        job: prediction._Job, source: prediction.Source, _heard: object
    ) -> prediction.FileResult:
        calls.append(source)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(job, source)

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
