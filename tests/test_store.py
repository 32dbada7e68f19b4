"""The store: samples are the recording's, memory does not grow, tables fit or are refused."""

import errno
import json
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from damaged import CODECS, damaged, encoded, float_wav, pcm16, sound, wav, write_damaged
from small import segment_starts

from birdinv.audio.activity import LevelHistogram, active_spans
from birdinv.audio.reading import STATUSES, Reader
from birdinv.audio.resampling import pcm
from birdinv.audio.store import HEADER_BYTES, Recording, Store
from birdinv.audio.store_writer import Stored, StoreWriter, file_sha256
from birdinv.audio.windows import Windows
from birdinv.errors import BirdinvError

pytestmark = pytest.mark.filterwarnings("error")

RATE_HZ = 22050
WINDOWS = Windows.from_seconds(0.5, 0.9, RATE_HZ)


def row(name: str, stored: Stored, label: str = "") -> Recording:
    v = stored.verdict
    return Recording(
        name, label, "", "train", v.status, v.reason, str(v.declared_s or ""), str(v.read_s),
        v.source_rate, v.channels, stored.offset, stored.frames, stored.sha256,
    )  # fmt: skip


def build(folder: Path, paths: list[Path], rate: int = RATE_HZ, activity: bool = True) -> Store:
    folder.mkdir()
    windows = Windows.from_seconds(0.5, 0.9, rate)
    writer = StoreWriter(folder, rate, windows, activity=activity)
    stored = {path.name: writer.add(path) for path in paths}
    rows = [row(name, own) for name, own in stored.items()]
    writer.finish(rows, {n: s.spans for n, s in stored.items()}, ["a"], [], {"seed": 0})
    return Store(folder)


def samples_of(store: Store, name: str) -> np.ndarray:
    (own,) = (r for r in store.recordings if r.file == name)
    return store.audio[own.offset : own.offset + own.frames]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("songs")
    for ending in CODECS:
        channels = 2 if ending == "flac" else 1
        (folder / f"a.{ending}").write_bytes(encoded(sound(channels=channels), ending))
    return sorted(folder.iterdir())


@pytest.fixture
def store(tmp_path: Path, songs: list[Path]) -> Store:
    return build(tmp_path / "store", songs)


# ---------------------------------------------------------------- what is in it


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_samples_are_decoded_resampled_and_rounded(
    tmp_path: Path, songs: list[Path], rate: int
) -> None:
    store = build(tmp_path / "store", songs, rate)
    for path in songs:
        decoded, source_rate = soundfile.read(path, dtype="float32", always_2d=True)
        expected = soxr.resample(decoded.mean(axis=1), source_rate, rate, quality="HQ")
        got = samples_of(store, path.name)
        assert len(got) == len(expected)
        assert np.abs(got - pcm(expected)[0].astype(int)).max() <= 1
    assert len(store.audio) == sum(r.frames for r in store.recordings)
    assert store.audio.dtype == np.int16


def test_the_audio_is_an_ordinary_npy_file(store: Store) -> None:
    plain = np.load(store.path / "audio.npy", allow_pickle=False)
    np.testing.assert_array_equal(plain, store.audio)
    assert isinstance(store.audio.base, np.memmap) and not store.audio.flags.writeable


def test_segments_are_those_found_active(store: Store) -> None:
    some = 0
    for own in store.recordings:
        samples = samples_of(store, own.file)
        levels = LevelHistogram()
        levels.update(samples)
        level = levels.percentile()
        spans = active_spans(lambda a, b, s=samples: s[a:b], len(samples), WINDOWS, level)
        assert spans == store.spans.get(own.file, [])
        starts = segment_starts(store, own)
        assert all(own.offset <= s <= own.offset + own.frames - WINDOWS.segment for s in starts)
        some += len(starts)
    assert some


def test_without_activity_every_segment_is_kept(tmp_path: Path, songs: list[Path]) -> None:
    store = build(tmp_path / "store", songs, activity=False)
    for own in store.recordings:
        assert len(segment_starts(store, own)) == WINDOWS.count(own.frames)


def test_the_same_input_twice_is_byte_identical(tmp_path: Path, songs: list[Path]) -> None:
    one, two = (build(tmp_path / name, songs) for name in ("one", "two"))
    for path in sorted(one.path.iterdir()):
        assert path.read_bytes() == (two.path / path.name).read_bytes(), path.name
    other = build(tmp_path / "other", songs[:-1])
    assert other.hash != one.hash == two.hash


def test_bad_recordings_leave_the_others_as_they_were(tmp_path: Path, songs: list[Path]) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    faults = write_damaged(bad)
    mixed = [p for pair in zip(songs, faults, strict=False) for p in pair] + faults[len(songs) :]
    alone, among = build(tmp_path / "alone", songs), build(tmp_path / "among", mixed)
    for path in songs:
        np.testing.assert_array_equal(samples_of(alone, path.name), samples_of(among, path.name))
        assert alone.spans.get(path.name) == among.spans.get(path.name)
    assert len(among.recordings) == len(mixed)
    for case, own in zip(
        damaged(), (r for r in among.recordings if r.file[0] != "a"), strict=False
    ):
        assert own.status in STATUSES and (own.status == "ok" or own.reason), case.name
        assert (own.frames == 0) >= (own.status == "unreadable")


@pytest.mark.parametrize("ending", ["wav", "flac", "aiff"])
def test_what_comes_before_a_break_is_as_in_the_whole_recording(
    tmp_path: Path, ending: str
) -> None:
    for fault in ("truncated", "zeroed"):
        content = next(c.content for c in damaged() if c.name == f"{fault}.{ending}")
        (tmp_path / f"{fault}.{ending}").write_bytes(content)
    (tmp_path / f"whole.{ending}").write_bytes(encoded(sound(), ending))
    paths = sorted(tmp_path.iterdir())
    store = build(tmp_path / "store", paths)
    whole = samples_of(store, f"whole.{ending}")
    good = len(whole) // 2 - 8192
    for path in paths[:-1]:
        np.testing.assert_array_equal(samples_of(store, path.name)[:good], whole[:good])


# ---------------------------------------------------------------- verdicts


def added(folder: Path, content: bytes, *, activity: bool = True) -> Stored:
    (folder / "a.wav").write_bytes(content)
    writer = StoreWriter(folder, RATE_HZ, WINDOWS, activity=activity)
    stored = writer.add(folder / "a.wav")
    writer.close()
    return stored


def test_a_recording_shorter_than_a_segment_is_empty(tmp_path: Path) -> None:
    stored = added(tmp_path, wav(pcm16(sound(seconds=0.4))))
    assert stored.verdict.status == "empty" and stored.spans == []
    assert stored.verdict.reason == "0.400 s is shorter than one segment of 0.5 s"
    assert added(tmp_path, wav(pcm16(sound(seconds=0.5)))).verdict.status == "ok"


def test_silence_is_ok_and_has_no_active_segment(tmp_path: Path) -> None:
    stored = added(tmp_path, wav(bytes(64000)))
    assert (stored.verdict.status, stored.verdict.reason) == ("ok", "no active segment")
    assert stored.spans == [] and stored.frames == 44100
    assert added(tmp_path, wav(bytes(64000)), activity=False).spans == [(0, 44100)]


def test_clipping_is_counted_and_much_of_it_is_partial(tmp_path: Path) -> None:
    samples = sound()
    samples[100:110] = 7
    stored = added(tmp_path, float_wav(samples, RATE_HZ))
    assert stored.verdict.status == "ok"
    assert stored.verdict.reason == "10 of 64000 samples beyond full scale were clipped"
    stored = added(tmp_path, float_wav(sound() * 1e5, RATE_HZ))
    assert stored.verdict.status == "partial" and "clipped" in stored.verdict.reason


@pytest.mark.parametrize("value", [1e8, 3e38, np.inf, np.nan])
def test_impossible_samples_reach_the_store_as_numbers(tmp_path: Path, value: float) -> None:
    samples = np.stack([sound(), sound()], axis=1)
    samples[1000:1100:2], samples[1001:1101:2] = value, -value
    (tmp_path / "a.wav").write_bytes(float_wav(samples))
    store = build(tmp_path / "store", [tmp_path / "a.wav"])
    whole = pcm(soxr.resample(sound(), 16000, RATE_HZ))[0]
    np.testing.assert_allclose(store.audio[4000:], whole[4000:], atol=2)
    assert store.recordings[0].reason


def test_a_pipe_is_unreadable_and_does_not_wait(tmp_path: Path) -> None:
    # In another process, which can be ended when it hangs.
    program = (
        "import os, sys; from pathlib import Path; from birdinv.audio.store_writer import *\n"
        "folder = Path(sys.argv[1]); os.mkfifo(folder / 'a.wav')\n"
        "writer = StoreWriter(folder, 22050, Windows(11025, 1102), activity=True)\n"
        "stored = writer.add(folder / 'a.wav'); writer.close()\n"
        "print(stored.verdict.status, stored.verdict.reason, repr(stored.sha256))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "unreadable not a regular file ''\n", done.stderr


def test_the_hash_of_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")
    assert file_sha256(tmp_path) == file_sha256(tmp_path / "missing") == ""


# ---------------------------------------------------------------- memory, disk

MEASURE = """
import re, sys
from pathlib import Path
from birdinv.audio.store_writer import StoreWriter
from birdinv.audio.windows import Windows
folder = Path(sys.argv[1])
def peak():  # in kB; getrusage counts the process that started this one
    return re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
for name in ("short", "long"):
    writer = StoreWriter(folder, 22050, Windows(*map(int, sys.argv[2:])), activity=True)
    stored = writer.add(folder / f"{name}.wav")
    writer.close()
    assert stored.spans, name
    print(peak())
"""


@pytest.mark.parametrize("windows", [(11025, 1102), (66150, 66150)])
def test_memory_does_not_grow_with_the_length(tmp_path: Path, windows: tuple[int, int]) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak is read from /proc")
    minute = pcm16(sound(seconds=60))
    (tmp_path / "short.wav").write_bytes(wav(minute))
    (tmp_path / "long.wav").write_bytes(wav(minute * 20))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path, *map(str, windows)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    short, long = map(int, done.stdout.split())
    assert long - short < 24_000  # kB; the 19 minutes more are 50 MB as int16, 100 as float32
    assert short < 300_000


def test_a_disk_that_fills_up_raises_and_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.wav").write_bytes(wav(pcm16(sound())))
    writer = StoreWriter(tmp_path, RATE_HZ, WINDOWS, activity=True)

    class Full:
        def write(self, _: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    disk = writer._file
    monkeypatch.setattr(writer, "_file", Full())
    with pytest.raises(OSError, match="No space left"):
        writer.add(tmp_path / "a.wav")
    monkeypatch.setattr(writer, "_file", disk)
    writer.close()
    writer.close()


def test_an_interrupted_writer_can_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.wav").write_bytes(wav(pcm16(sound(seconds=20))))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LevelHistogram, "update", interrupt)
    writer = StoreWriter(tmp_path, RATE_HZ, WINDOWS, activity=True)
    with pytest.raises(KeyboardInterrupt):
        writer.add(tmp_path / "a.wav")
    writer.close()


# ---------------------------------------------------------------- a store that is none


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(BirdinvError, match=sentence):
        Store(path)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, r"holds no store.json; expected a store made by `birdinv segment`")
    refused(tmp_path / "missing", "does not exist")
    (tmp_path / "store.json").write_text('{"version": 1}')
    refused(tmp_path, "is not a store made by `birdinv segment`: its store.json has another format")


def edit(store: Store, **changes: object) -> None:
    path = store.path / "store.json"
    info = json.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            del info[name]
        else:
            info[name] = value
    path.write_text(json.dumps(info))


@pytest.mark.parametrize("version", [0, 2, 99, "1", [1]])
def test_a_store_of_another_version_is_refused(store: Store, version: object) -> None:
    edit(store, version=version)
    refused(store.path, "is a store of version .*; this birdinv reads version 1: update birdinv")


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_rate": None},
        {"sample_rate": 0},
        {"sample_rate": "fast"},
        {"sample_rate": float("inf")},
        {"hop_samples": 0},
        {"hop_samples": -5},
        {"segment_samples": 0},
        {"segment_samples": [1]},
        {"classes": None},
        {"classes": 3},
        {"hash": None},
    ],
)
def test_settings_that_cannot_be_are_refused(store: Store, changes: dict[str, object]) -> None:
    edit(store, **changes)
    refused(store.path, "is damaged .*segment the recordings again")


@pytest.mark.parametrize("table", ["recordings.csv", "spans.csv"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: text.index("\n") - 3] + text[text.index("\n") :],
        lambda text: text[: text.rindex(",")].rpartition(",")[0],
        lambda text: text.replace("\na", "\na,a,a,a,a,a,a,a,a,a,a,a"),
        lambda text: text.replace("\na.", "\nb,x,y."),
    ],
    ids=["empty", "column lost", "cut", "cells more", "names changed"],
)
def test_damaged_tables_are_refused(store: Store, table: str, damage: Callable[[str], str]) -> None:
    path = store.path / table
    path.write_text(damage(path.read_text()))
    refused(store.path, "recordings.csv|spans.csv|is damaged|fewer than|outside")


def test_a_missing_table_is_refused(store: Store) -> None:
    for name in ("spans.csv", "recordings.csv", "audio.npy"):
        copy = store.path.with_name(f"without {name}")
        shutil.copytree(store.path, copy)
        (copy / name).unlink()
        refused(copy, f"{name} cannot be read")


def test_recordings_outside_the_audio_are_refused(store: Store) -> None:
    path = store.path / "recordings.csv"
    names = [f.name for f in fields(Recording)]
    lines = path.read_text().splitlines()
    cells = lines[1].rsplit(",", 3)  # offset, frames, sha256
    for offset, frames in ((-1, 5), (0, -5), (0, 10**12)):
        changed = [cells[0], str(offset), str(frames), cells[3]]
        path.write_text("\n".join([",".join(names), ",".join(changed), *lines[2:]]) + "\n")
        refused(store.path, "segment the recordings again")


@pytest.mark.parametrize("span", ["-1,11025", "5,5", "9,3", "0,999999999"])
def test_spans_outside_their_recording_are_refused(store: Store, span: str) -> None:
    (store.path / "spans.csv").write_text(f"file,start,end\na.wav,{span}\n")
    refused(store.path, r"has a span outside a\.wav; segment again")
    (store.path / "spans.csv").write_text("file,start,end\nz.wav,0,11025\n")
    refused(store.path, r"has a span outside z\.wav")


@pytest.mark.parametrize("length", [0, 5, HEADER_BYTES, HEADER_BYTES + 2, -2])
def test_truncated_audio_is_refused(store: Store, length: int) -> None:
    content = (store.path / "audio.npy").read_bytes()
    (store.path / "audio.npy").write_bytes(content[:length])
    refused(store.path, r"audio\.npy .*segment the recordings again")


def test_audio_that_is_something_else_is_refused(store: Store, tmp_path: Path) -> None:
    path, frames = store.path / "audio.npy", len(store.audio)
    for other in (np.zeros(frames, np.float32), np.zeros((frames, 2), np.int16)):
        np.save(path, other)
        refused(store.path, "expected a row of int16")
    np.save(path, np.array([{}], object), allow_pickle=True)
    refused(store.path, r"audio\.npy cannot be read")
    for content in (bytes(5000), b"PK\x03\x04" + bytes(5000), b"\x93NUMPY\x01\x00" + b"[" * 9000):
        path.write_bytes(content)
        refused(store.path, r"audio\.npy cannot be read")


def test_an_opened_store_never_holds_more_than_its_spans(store: Store) -> None:
    own = store.recordings[0]
    lines = [f"{own.file},{i % 99},{1000 + i % 99}\n" for i in range(20_000)]
    (store.path / "spans.csv").write_text("file,start,end\n" + "".join(lines))
    tracemalloc.start()
    opened = Store(store.path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(opened.spans[own.file]) == 20_000
    assert peak < kept + 1_000_000


def test_a_store_without_a_sample_opens(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_bytes(b"no sound" * 99)
    store = build(tmp_path / "store", [tmp_path / "text.wav"])
    assert len(store.audio) == 0 and store.recordings[0].status == "unreadable"
    assert store.spans == {}


# ---------------------------------------------------------------- real files


def test_odd_audio_goes_into_a_store(tmp_path: Path, data: Path) -> None:
    paths = sorted(p for p in (data / "odd_audio").iterdir() if p.suffix != ".csv")
    store = build(tmp_path / "store", paths)
    assert [r.file for r in store.recordings] == [p.name for p in paths]
    for own, path in zip(store.recordings, paths, strict=True):
        assert own.status in STATUSES
        assert own.status == "ok" or own.reason
        with Reader(path) as reader:
            read = sum(map(len, reader))
        expected = read * RATE_HZ / reader.verdict.source_rate if read else 0
        assert abs(own.frames - expected) <= 1
