"""Folders and label tables → stores: the same every time, every input accounted for."""

import csv
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small import (
    RATE,
    SETTINGS,
    contents,
    make_store,
    segment_starts,
    sound,
    write,
    write_bad,
    write_classes,
)

from birdinv.audio.store import Recording, Store
from birdinv.data.segmenting import Columns, Segmented, SegmentSettings, segment
from birdinv.errors import BirdinvError


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def by_file(result: Segmented) -> dict[str, Recording]:
    return {recording.file: recording for recording in result.recordings}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recordings` and the `store` made of them."""
    return make_store(tmp_path_factory.mktemp("plain")).parent


# ---------------------------------------------------------------- the same every time


def test_the_same_input_twice_gives_the_same_bytes(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain / "recordings", tmp_path / "moved")  # neither place nor times matter
    segment([tmp_path / "moved"], tmp_path / "again", SETTINGS)
    first = contents(plain / "store")
    assert set(first) == {"store.json", "recordings.csv", "spans.csv", "audio.npy"}
    assert first == contents(tmp_path / "again")


def test_the_order_of_the_inputs_is_nothing(plain: Path, tmp_path: Path) -> None:
    classes = [plain / "recordings" / name for name in ("robin", "wren", "noise")]
    files = sorted((plain / "recordings/wren").glob("*.wav"))
    for inputs in (classes, files):
        name = inputs[0].stem
        segment(inputs, tmp_path / name, SETTINGS)
        segment(inputs[::-1], tmp_path / f"{name}-reversed", SETTINGS)
        assert contents(tmp_path / name) == contents(tmp_path / f"{name}-reversed")


def test_every_setting_of_the_split_is_kept_and_counts(plain: Path, tmp_path: Path) -> None:
    splits = set()
    for seed in range(4):
        result = segment([plain / "recordings"], tmp_path / str(seed), replace(SETTINGS, seed=seed))
        splits.add(tuple(recording.split for recording in result.recordings))
        assert {r.split for r in result.recordings} == {"train", "valid", "test"}
    assert len(splits) > 1
    stores = [Store(tmp_path / str(seed)) for seed in range(2)]
    assert stores[0].hash != stores[1].hash


# ---------------------------------------------------------------- bad files cost themselves alone


@pytest.mark.parametrize("activity", [False, True])
def test_bad_files_change_no_row_of_the_good_ones(tmp_path: Path, activity: bool) -> None:
    settings = replace(SETTINGS, activity=activity)
    recordings = write_classes(tmp_path / "recordings")
    segment([recordings], tmp_path / "without", settings)
    unread = ("zero.wav", "zero.mp3", "text.wav", "no-channels.wav", "header.wav", "one-sample.wav")
    bad = write_bad(tmp_path / "bad")
    for folder in ("noise", "wren"):  # before and after good ones
        for name in unread:
            shutil.copy(tmp_path / "bad" / name, recordings / folder / f"a-{name}")
    result = segment([recordings], tmp_path / "with", settings)
    without = (tmp_path / "without/recordings.csv").read_text().splitlines()
    with_bad = (tmp_path / "with/recordings.csv").read_text().splitlines()
    # A one-sample file has a sample of sound, which moves the offsets of those behind it.
    offset = without[0].split(",").index("offset")

    def comparable(lines: list[str]) -> list[list[str]]:
        cells = [line.split(",") for line in lines if "a-" not in line]
        return [line[:offset] + line[offset + 1 :] for line in cells]

    assert comparable(with_bad) == comparable(without)
    spans = [(tmp_path / f"{kind}/spans.csv").read_bytes() for kind in ("without", "with")]
    assert spans[0] == spans[1]
    assert {n: by_file(result)[f"wren/a-{n}"].status for n in unread} == {n: bad[n] for n in unread}
    assert all(r.reason for r in result.recordings if r.status != "ok")


def test_an_unreadable_file_changes_no_byte_of_the_good_rows(tmp_path: Path) -> None:
    recordings = write_classes(tmp_path / "recordings")
    segment([recordings], tmp_path / "without", SETTINGS)
    (recordings / "noise/aaa.wav").write_bytes(b"RIFF this is not a recording")
    (recordings / "robin/zzz.mp3").write_bytes(b"")
    segment([recordings], tmp_path / "with", SETTINGS)
    lines = (tmp_path / "with/recordings.csv").read_bytes().splitlines(keepends=True)
    assert sum(b",unreadable," in line for line in lines) == 2
    good = b"".join(line for line in lines if b",unreadable," not in line)
    assert good == (tmp_path / "without/recordings.csv").read_bytes()
    for name in ("spans.csv", "audio.npy"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_every_input_has_one_row_and_its_status(tmp_path: Path) -> None:
    write_classes(tmp_path / "rec", 2)
    expected = write_bad(tmp_path / "rec/wren")
    (tmp_path / "rec/wren/voice.m4a").write_bytes(b"anything")
    (tmp_path / "rec/wren/._wren0.wav").write_bytes(b"macOS")
    (tmp_path / "rec/wren/notes.txt").write_text("not audio")
    result = segment([tmp_path / "rec"], tmp_path / "store", SETTINGS)
    found = {name: r.status for name, r in by_file(result).items()}
    assert found == {
        **{f"{name}/{name}{i}.wav": "ok" for name in ("noise", "robin", "wren") for i in range(2)},
        **{f"wren/{name}": status for name, status in expected.items()},
        "wren/voice.m4a": "unreadable",
    }
    assert [r["file"] for r in rows(tmp_path / "store/recordings.csv")] == sorted(found)
    assert "other files beside the recordings, passed over: 1" in result.warnings
    assert sum(result.statuses.values()) == len(found)
    nan = by_file(result)["wren/nan.wav"]
    assert nan.reason.startswith("100 of 17640 samples were not finite")
    cut = by_file(result)["wren/cut.wav"]
    assert float(cut.read_s) < float(cut.declared_s)


def test_nothing_readable_still_gives_a_row_each(tmp_path: Path) -> None:
    write(tmp_path / "rec/robin/one.wav", np.array([0.1], np.float32))
    (tmp_path / "rec/robin/zero.wav").write_bytes(b"")
    result = segment([tmp_path / "rec"], tmp_path / "store", SETTINGS)
    assert result.statuses == Counter(empty=1, unreadable=1)
    assert Store(tmp_path / "store").classes == []
    assert any("no usable recording of robin" in text for text in result.warnings)


def test_odd_audio_of_the_field_ends_in_a_status_each(data: Path, tmp_path: Path) -> None:
    result = segment([data / "odd_audio"], tmp_path / "store", SegmentSettings(overlap=0.5))
    audio = {
        path.name
        for path in (data / "odd_audio").iterdir()
        if path.suffix.lower() not in (".csv", ".md")
    }
    assert {r.file for r in result.recordings} == audio
    assert {"ok", "empty", "unreadable"} <= set(result.statuses)
    assert set(result.statuses) <= {"ok", "partial", "empty", "unreadable"}
    assert all(bool(r.reason) for r in result.recordings if r.status != "ok")
    store = Store(tmp_path / "store")
    assert len(store.audio) == sum(r.frames for r in store.recordings)


# ---------------------------------------------------------------- names


def test_names_may_hold_commas_accents_and_two_extensions(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "one, two.wav", 'quo"te.wav', "Žluva hajní 鳥.wav"):
        write(tmp_path / "rec/Kos černý, ♂" / name, sound(1))
    write(tmp_path / "rec/wren/a.wav", sound(2))
    result = segment([tmp_path / "rec"], tmp_path / "store", SETTINGS)
    store = Store(tmp_path / "store")
    assert store.classes == ["Kos černý, ♂", "wren"]
    assert [r.file for r in store.recordings] == sorted(by_file(result))
    assert all(r.status == "ok" and store.spans[r.file] for r in store.recordings)
    assert len(store.recordings) == 6


# ---------------------------------------------------------------- classes and labels


def test_unlabelled_recordings_serve_training_and_are_no_class(plain: Path, tmp_path: Path) -> None:
    for folder in ("forest", "garden"):
        write(tmp_path / folder / "night" / "u.wav", sound(50 + len(folder)))
    unlabelled = [tmp_path / "forest", tmp_path / "garden"]
    result = segment([plain / "recordings"], tmp_path / "store", SETTINGS, unlabelled=unlabelled)
    store = Store(tmp_path / "store")
    assert store.classes == ["noise", "robin", "wren"] and store.non_events == ["noise"]
    own = {r.file: r for r in store.recordings if not r.label}
    assert set(own) == {"forest/night/u.wav", "garden/night/u.wav"}
    assert {r.split for r in own.values()} == {"train"}
    # The labelled ones have their splits whether or not there is anything unlabelled.
    splits = {r.file.removeprefix("recordings/"): r.split for r in result.recordings if r.label}
    assert splits == {r.file: r.split for r in Store(plain / "store").recordings}


@pytest.mark.parametrize("inside", ["", "wren", ".."])
def test_a_folder_that_is_both_labelled_and_unlabelled_is_refused(
    plain: Path, tmp_path: Path, inside: str
) -> None:
    both = plain / "recordings" / inside
    with pytest.raises(BirdinvError, match="overlap, so that recordings would count twice"):
        segment([plain / "recordings"], tmp_path / "store", SETTINGS, unlabelled=[both])
    assert not (tmp_path / "store").exists()


def test_copies_of_a_recording_lie_on_one_side(tmp_path: Path) -> None:
    write_classes(tmp_path / "rec", 6)
    for i in range(6):  # a copy under another name, and one among the unlabelled
        shutil.copy(tmp_path / f"rec/wren/wren{i}.wav", tmp_path / f"rec/wren/copy{i}.wav")
        (tmp_path / "pool").mkdir(exist_ok=True)
        shutil.copy(tmp_path / f"rec/wren/wren{i}.wav", tmp_path / f"pool/{i}.wav")
    result = segment(
        [tmp_path / "rec"], tmp_path / "store", SETTINGS, unlabelled=[tmp_path / "pool"]
    )
    sides = defaultdict(set)
    for recording in result.recordings:
        sides[recording.sha256].add(recording.split)
    assert all(len(side) == 1 for side in sides.values())
    assert {"train", "test"} <= {r.split for r in result.recordings if not r.label}


def test_copies_lie_on_one_side_whatever_their_groups(tmp_path: Path) -> None:
    write_classes(tmp_path / "rec", 6)
    lines = ["file,label,group"]
    for i in range(6):
        original = tmp_path / f"rec/wren/wren{i}.wav"
        for copy in (f"rec/wren/copy{i}.wav", f"pool/{i}.wav"):
            (tmp_path / "pool").mkdir(exist_ok=True)
            shutil.copy(original, tmp_path / copy)
        lines += [f"wren/wren{i}.wav,wren,anna{i}", f"wren/copy{i}.wav,wren,ben{i // 2}"]
        lines += [f"{name}/{name}{i}.wav,{name},anna{i}" for name in ("robin", "noise")]
        (tmp_path / f"rec/noise/empty{i}.wav").write_bytes(b"")  # alike, and tie nothing
        lines.append(f"noise/empty{i}.wav,noise,anna{i}")
    table = write_table(tmp_path / "labels.csv", lines)
    for seed in range(5):
        result = segment(
            [tmp_path / "rec"],
            tmp_path / str(seed),
            replace(SETTINGS, seed=seed),
            unlabelled=[tmp_path / "pool"],
            labels=table,
        )
        sides = defaultdict(set)
        for recording in result.recordings:
            if recording.status == "ok":
                sides[recording.sha256].add(recording.split)
                sides[recording.group or recording.sha256].add(recording.split)
        assert all(len(side) == 1 for side in sides.values())
        assert {"train", "test"} <= {r.split for r in result.recordings if r.file[:4] == "pool"}


def test_copies_given_to_two_sides_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "rec", 2)
    shutil.copy(tmp_path / "rec/wren/wren0.wav", tmp_path / "rec/wren/copy.wav")
    lines = ["file,label,split", "wren/wren0.wav,wren,train", "wren/copy.wav,wren,test"]
    table = write_table(tmp_path / "labels.csv", lines)
    said = r"wren/copy.wav is given to test and .*wren0.wav to train, but they are copies of one"
    with pytest.raises(BirdinvError, match=said):
        segment([tmp_path / "rec"], tmp_path / "store", SETTINGS, labels=table)
    assert not (tmp_path / "store").exists()


def test_the_classes_of_no_bird_are_marked(tmp_path: Path) -> None:
    names = ("Noise", "background", "OTHER", "silence", "nightingale")
    for key, name in enumerate(names):
        write(tmp_path / "rec" / name / "a.wav", sound(key))
    segment([tmp_path / "rec"], tmp_path / "store", SETTINGS)
    assert Store(tmp_path / "store").non_events == ["Noise", "OTHER", "background", "silence"]


def test_classes_of_few_recordings_are_warned_of(tmp_path: Path) -> None:
    write_classes(tmp_path / "rec", 4)
    write(tmp_path / "rec/dove/only.wav", sound(1))
    result = segment([tmp_path / "rec"], tmp_path / "store", SETTINGS)
    assert by_file(result)["dove/only.wav"].split == "train"
    assert any(w.startswith("no test recording of dove to test on:") for w in result.warnings)
    shutil.rmtree(tmp_path / "rec")
    write(tmp_path / "rec/dove/only.wav", sound(1))
    assert segment([tmp_path / "rec"], tmp_path / "one", SETTINGS).classes == ["dove"]


def test_a_table_gives_labels_splits_and_stretches(plain: Path, tmp_path: Path) -> None:
    recordings = plain / "recordings"
    table = write_table(
        tmp_path / "labels.csv",
        [
            "observer,label,file,split,start_s,end_s",
            "me,crow,robin/robin0.wav,test,,",
            "me,crow,robin/robin1.wav,train,0.2,0.9",
            "me,crow,robin/robin1.wav,train,1.0,1.6",
            "me,noise,wren/wren0.wav,valid,,",
            "me,noise,wren/wren1.wav,,,",
            "me,,wren/wren2.wav,,,",
            "me,crow,gone.wav,,,",
        ],
    )
    result = segment([recordings], tmp_path / "store", SETTINGS, labels=table)
    files = by_file(result)
    assert (files["robin/robin0.wav"].label, files["robin/robin0.wav"].split) == ("crow", "test")
    assert files["wren/wren0.wav"].split == "valid" and files["wren/wren1.wav"].split == "train"
    assert (files["wren/wren2.wav"].label, files["wren/wren2.wav"].split) == ("", "train")
    assert files["noise/noise0.wav"].label == ""  # not named in the table
    assert (files["gone.wav"].status, files["gone.wav"].frames) == ("unreadable", 0)
    assert "labels.csv" in files["gone.wav"].reason
    store = Store(tmp_path / "store")
    assert store.classes == ["crow", "noise"]
    assert store.spans["robin/robin1.wav"] == [
        (round(0.2 * RATE), round(0.9 * RATE)),
        (round(1.0 * RATE), round(1.6 * RATE)),
    ]
    assert "8 recordings have no label in labels.csv: unlabelled" in result.warnings


@pytest.mark.parametrize("activity", [True, False])
def test_annotated_calls_are_kept_however_short_or_quiet(tmp_path: Path, activity: bool) -> None:
    quiet = np.concatenate([sound(1, 1), 1e-3 * sound(2, 2)]).astype(np.float32)
    for name in ("a", "b", "c"):
        write(tmp_path / f"rec/{name}.wav", quiet)
    table = write_table(
        tmp_path / "t.csv",
        [
            "file,label,start_s,end_s",
            "a.wav,wren,0.1,0.2",  # at the edge
            "a.wav,wren,2.0,2.1",
            "a.wav,wren,3.5,3.6",
            "b.wav,wren,7,8",
            "c.wav,wren,1.2,2.9",
        ],
    )
    settings = replace(SETTINGS, activity=activity)
    result = segment([tmp_path / "rec"], tmp_path / "store", settings, labels=table)
    files, store = by_file(result), Store(tmp_path / "store")
    length, middle = store.windows.segment, round(2.05 * RATE)
    (first, second), (stretch,) = store.spans["a.wav"], store.spans["c.wav"]
    assert first == (0, length) and second[1] - second[0] == length
    assert abs(second[0] + length // 2 - middle) <= 1
    assert stretch == (round(1.2 * RATE), round(2.9 * RATE)) and "b.wav" not in store.spans
    assert [(files[f"{n}.wav"].status, files[f"{n}.wav"].reason) for n in "abc"] == [
        (
            "ok",
            "2 of 3 annotated stretches grew to one segment of 0.5 s; "
            "1 of 3 annotated stretches begin past the end",
        ),
        ("empty", "1 of 1 annotated stretches begin past the end"),
        ("ok", ""),
    ]
    assert "2 of 5 annotated stretches begin past the end of their recording" in result.warnings


def test_a_warning_of_labels_missing_is_not_about_the_unlabelled(tmp_path: Path) -> None:
    write_classes(tmp_path / "rec", 2)
    for i in range(3):
        write(tmp_path / f"pool/{i}.wav", sound(50 + i))
    table = write_table(tmp_path / "t.csv", ["file,label", "wren/wren0.wav,wren"])
    pool = [tmp_path / "pool"]
    result = segment([tmp_path / "rec"], tmp_path / "s", SETTINGS, unlabelled=pool, labels=table)
    assert "5 recordings have no label in t.csv: unlabelled" in result.warnings


def test_unlabelled_recordings_that_a_table_gives_a_label_are_labelled(tmp_path: Path) -> None:
    recordings = write_classes(tmp_path / "rec", 2)
    for i in range(4):
        write(tmp_path / f"pool/{i}.wav", sound(50 + i))
    shutil.copy(recordings / "wren/wren0.wav", tmp_path / "pool/copy.wav")
    lines = [f"{name}/{name}{i}.wav,{name}" for name in ("wren", "robin") for i in range(2)]
    first = write_table(tmp_path / "first.csv", ["file,label", *lines, "gone.wav,wren"])
    second = write_table(
        tmp_path / "second.csv",
        ["file,label,split", "pool/0.wav,robin,test", "1.wav,dove,train", "pool/2.wav,,"],
    )
    result = segment(
        [recordings],
        tmp_path / "s",
        SETTINGS,
        unlabelled=[tmp_path / "pool"],
        labels=[first, second],
    )
    files = by_file(result)
    own = {f: (r.label, r.split) for f, r in files.items() if f.startswith("pool/")}
    copy = own.pop("pool/copy.wav")
    assert copy == ("", files["rec/wren/wren0.wav"].split)
    assert own == {
        "pool/0.wav": ("robin", "test"),
        "pool/1.wav": ("dove", "train"),
        "pool/2.wav": ("", "train"),
        "pool/3.wav": ("", "train"),
    }
    assert result.classes == ["dove", "robin", "wren"]
    assert files["rec/robin/robin0.wav"].label == "robin"
    reason = "named in first.csv or second.csv, but not found below the inputs"
    assert [r.reason for r in result.recordings if r.status != "ok"] == [reason]
    assert "2 recordings have no label in first.csv or second.csv: unlabelled" in result.warnings


def test_a_group_is_never_on_two_sides(plain: Path, tmp_path: Path) -> None:
    lines = ["file,label,group,split"]
    for name in ("robin", "wren", "noise"):
        for i in range(4):
            # Site 3 of every class comes with a split; one of its recordings has no label.
            split = "test" if i == 3 and name == "robin" else ""
            lines.append(f"{name}/{name}{i}.wav,{name},site{i},{split}")
    lines[-1] = "noise/noise3.wav,,site3,"
    table = write_table(tmp_path / "labels.csv", lines)
    for seed in range(5):
        settings = replace(SETTINGS, seed=seed)
        # A column called group needs no option.
        result = segment([plain / "recordings"], tmp_path / str(seed), settings, labels=table)
        sides = defaultdict(set)
        for recording in result.recordings:
            sides[recording.group].add(recording.split)
        assert all(len(side) == 1 for side in sides.values())
        assert sides["site3"] == {"test"}
        assert {"train", "test"} <= set().union(*sides.values())


def test_the_table_of_birdclef_works_as_it_is(data: Path, tmp_path: Path) -> None:
    """Three recordings of each of three species; the other rows' files are missing."""
    source = data / "bird_kenya6"
    species = ("abethr1", "easmog1", "cabgre1")
    picked = [p for name in species for p in sorted((source / name).glob("*.ogg"))[:3]]
    for path in picked:
        (tmp_path / "rec" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "rec" / path.parent.name)
    shutil.copy(source / "metadata.csv", tmp_path / "rec")
    result = segment(
        [tmp_path / "rec"],
        tmp_path / "store",
        SegmentSettings(),
        labels=tmp_path / "rec/metadata.csv",
        columns=Columns("filename", "primary_label", "author"),
    )
    table = {row["filename"]: row for row in rows(source / "metadata.csv")}
    files = by_file(result)
    assert set(files) == set(table)
    assert result.classes == sorted(species)
    assert result.statuses == Counter(ok=len(picked), unreadable=len(table) - len(picked))
    for file, recording in files.items():
        assert recording.label == table[file]["primary_label"]
        assert recording.group == table[file]["author"]
    sides = defaultdict(set)
    for recording in files.values():
        if recording.status == "ok":
            sides[recording.group].add(recording.split)
    assert all(len(side) == 1 for side in sides.values())


@pytest.mark.parametrize(
    ("header", "line", "options", "said"),
    [
        ("file,Label", "a.wav,x", Columns(), r"no column 'label' \(did you mean Label\?\)"),
        ("name,label", "a.wav,x", Columns(), "no column 'file'"),
        ("file,label", "a.wav,x", Columns(group="site"), "right one with --group-column"),
        ("file,label,split", "robin/robin0.wav,x,dev", Columns(), "line 2 of .* the split 'dev'"),
        ("file,label", ",x", Columns(), "line 2 of .* names no file"),
        ("file,label,start_s,end_s", "robin/robin0.wav,x,2,1", Columns(), "start < end"),
        ("file,label,start_s,end_s", "robin/robin0.wav,x,a,1", Columns(), "start_s 'a'"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(
    plain: Path, tmp_path: Path, header: str, line: str, options: Columns, said: str
) -> None:
    table = write_table(tmp_path / "labels.csv", [header, line])
    with pytest.raises(BirdinvError, match=said):
        segment([plain / "recordings"], tmp_path / "store", SETTINGS, labels=table, columns=options)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]


# ---------------------------------------------------------------- activity and export


def test_no_activity_keeps_every_sample(tmp_path: Path) -> None:
    quiet = np.concatenate([np.zeros(RATE, np.float32), sound(1, 1), np.zeros(RATE, np.float32)])
    write(tmp_path / "rec/robin/a.wav", quiet)
    segment([tmp_path / "rec"], tmp_path / "all", SETTINGS)
    segment([tmp_path / "rec"], tmp_path / "active", replace(SETTINGS, activity=True))
    assert Store(tmp_path / "all").spans == {"robin/a.wav": [(0, 3 * RATE)]}
    active = Store(tmp_path / "active").spans["robin/a.wav"]
    assert all(a < 2 * RATE and b > RATE for a, b in active)
    assert (tmp_path / "all/audio.npy").read_bytes() == (tmp_path / "active/audio.npy").read_bytes()


@pytest.mark.parametrize("activity", [True, False])
def test_exported_files_are_the_segments(plain: Path, tmp_path: Path, activity: bool) -> None:
    settings = replace(SETTINGS, activity=activity)
    segment([plain / "recordings"], tmp_path / "store", settings, export=True)
    store = Store(tmp_path / "store")
    exported = {
        path: soundfile.read(path, dtype="int16")
        for path in (tmp_path / "store/segments").rglob("*")
        if path.is_file()
    }
    expected = {}
    for recording in store.recordings:
        for start in segment_starts(store, recording):
            folder = tmp_path / "store/segments" / recording.label / recording.file
            samples = store.audio[start : start + store.windows.segment]
            expected[folder / f"{start - recording.offset:010d}.wav"] = samples
    assert set(exported) == set(expected) and len(expected) >= 30
    for path, (samples, rate) in exported.items():
        assert rate == RATE
        np.testing.assert_array_equal(samples, expected[path])


def test_no_label_and_no_file_name_leads_out_of_the_store(plain: Path, tmp_path: Path) -> None:
    labels = ["../../evil", "a/b", "CON", "..", "/etc", "x" * 300, "Žluva"]
    sources = sorted((plain / "recordings").rglob("*.wav"))
    lines = ["file,label"]
    for label, path in zip(labels, sources, strict=False):
        lines.append(f"{path.relative_to(plain / 'recordings').as_posix()},{label}")
    table = write_table(tmp_path / "labels.csv", lines)
    work = tmp_path / "deep/down"
    work.mkdir(parents=True)
    segment([plain / "recordings"], work / "store", SETTINGS, labels=table, export=True)
    assert {path.name for path in tmp_path.iterdir()} == {"deep", "labels.csv"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["down"]
    assert [path.name for path in work.iterdir()] == ["store"]
    folders = {path.name for path in (work / "store/segments").iterdir()}
    assert len(folders) == len(labels) + 1  # each its own, and the unlabelled ones
    assert folders >= {"Žluva", "a_b", "_CON", "unlabelled"}
    store = Store(work / "store")
    count = sum(len(segment_starts(store, r)) for r in store.recordings)
    files = [path for path in (work / "store/segments").rglob("*") if path.is_file()]
    assert len(files) == count


def test_two_names_that_export_alike_keep_both_their_segments(tmp_path: Path) -> None:
    names = ["a:b.wav", "a?b.wav", "y" * 130 + "1.wav", "y" * 130 + "2.wav"]
    for key, name in enumerate(names):
        write(tmp_path / "rec/robin" / name, sound(key))
    result = segment([tmp_path / "rec"], tmp_path / "store", SETTINGS, export=True)
    files = [path for path in (tmp_path / "store/segments").rglob("*") if path.is_file()]
    assert len(files) == sum(result.segments.values())


# ---------------------------------------------------------------- what may be wrong is said


def test_copies_among_the_unlabelled_are_counted_and_said(tmp_path: Path) -> None:
    """Of labelled, validation and test recordings alike; copies of each other are no matter."""
    recordings = write_classes(tmp_path / "recordings")
    for i in range(4):
        (tmp_path / "more").mkdir(exist_ok=True)
        shutil.copy(recordings / f"wren/wren{i}.wav", tmp_path / f"more/copy{i}.wav")
    own = write(tmp_path / "more/own.wav", sound(70))
    shutil.copy(own, tmp_path / "more/own-again.wav")
    result = segment([recordings], tmp_path / "store", SETTINGS, unlabelled=[tmp_path / "more"])
    splits = {r.split for r in result.recordings if r.label == "wren"}
    assert splits == {"train", "valid", "test"}
    sentence = "left out of training: 4 unlabelled recordings with the same bytes as a labelled one"
    assert result.warnings == [sentence]
    (tmp_path / "more/copy0.wav").unlink()
    for i in (1, 2):
        (tmp_path / f"more/copy{i}.wav").unlink()
    result = segment([recordings], tmp_path / "one", SETTINGS, unlabelled=[tmp_path / "more"])
    assert result.warnings == [
        "left out of training: 1 unlabelled recording with the same bytes as a labelled one"
    ]


def test_unreadable_files_are_no_copies_of_each_other(tmp_path: Path) -> None:
    recordings = write_classes(tmp_path / "recordings")
    (recordings / "wren/empty.wav").write_bytes(b"")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/empty.wav").write_bytes(b"")
    write(tmp_path / "more/own.wav", sound(70))
    result = segment([recordings], tmp_path / "store", SETTINGS, unlabelled=[tmp_path / "more"])
    assert result.warnings == []


def test_labelled_recordings_of_one_group_alone_cannot_be_split_and_it_is_said(
    tmp_path: Path,
) -> None:
    recordings = write_classes(tmp_path / "recordings")
    files = sorted(path.relative_to(recordings) for path in recordings.rglob("*.wav"))

    def segmented(name: str, author: str, **others: str) -> Segmented:
        lines = [f"{f},{f.parent.name},{others.get(f.stem, author)}" for f in files]
        labels = write_table(tmp_path / f"{name}.csv", ["file,label,author", *lines])
        columns = Columns(group="author")
        return segment([recordings], tmp_path / name, SETTINGS, labels=labels, columns=columns)

    result = segmented("one", "me")
    assert {r.split for r in result.recordings} == {"train"}
    assert result.warnings[0] == (
        "all labelled recordings are of one group, me: none can be held out from training; name "
        "another column with --group-column, or none"
    )
    for name, author, others in (("two", "me", {"wren0": "you"}), ("none", "", {})):
        result = segmented(name, author, **others)
        assert not any("of one group" in text for text in result.warnings)
