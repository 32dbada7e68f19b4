"""The page about predictions: right counts, the best windows, nothing trusted, nothing fetched."""

import base64
import csv
import errno
import io
import json
import os
import re
import tracemalloc
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from test_reporting import Page

from birdinv.audio.reading import Reader
from birdinv.audio.resampling import pcm, resampled
from birdinv.errors import BirdinvError
from birdinv.prediction.recorders import recorded_at
from birdinv.reporting.detections import write_detections_page
from birdinv.reporting.excerpts import excerpts, flac_of, playable, span_of
from birdinv.reporting.markup import heat_of, short
from birdinv.reporting.tallies import (
    ClassTally,
    Window,
    tally_classes,
    tally_recordings,
    worst_recordings,
)
from birdinv.reporting.thumbnails import small_spectrogram
from birdinv.words import counted

EVIL = "<script>alert(\"$x$ & 'y'\")</script>"
RATE = 8000
FILES = ("file", "status", "reason", "declared_s", "read_s", "windows", "detections")
COLUMNS = ("file", "start_s", "end_s", "label", "score")


def write_table(path: Path, columns, rows) -> Path:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def make_folder(folder: Path, files, detections, **facts) -> Path:
    folder.mkdir(parents=True)
    facts = {
        "command": f"birdinv predict {EVIL}",
        "settings": {"min_conf": 0.5, "note": EVIL},
        "sample_rate": RATE,
        "segment_samples": 4000,
        "hop_samples": 2000,
        "outcome": "finished",
    } | facts
    (folder / "run.json").write_text(json.dumps(facts))
    write_table(folder / "files.csv", FILES, files)
    write_table(folder / "combined.csv", COLUMNS, detections)
    return folder


def ok(name: str, seconds: float = 60.0):
    return (name, "ok", "", seconds, seconds, 10, 1)


def record(path: Path, seconds: float = 10.0, rate: int = RATE, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.05, round(seconds * rate))
    soundfile.write(path, noise, rate, subtype="PCM_16")
    return path


def sounds_of(path: Path) -> list[tuple[np.ndarray, int]]:
    found = re.findall(r'src="data:audio/flac;base64,([^"]*)"', path.read_text("utf-8"))
    files = [io.BytesIO(base64.b64decode(text)) for text in found]
    return [soundfile.read(file, dtype="int16") for file in files]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    """Two recordings and a damaged one under names that are markup."""
    folder = tmp_path_factory.mktemp("pages")
    names = [f"a{EVIL.replace('/', '|')}_20260501_053000.wav", "b.wav"]
    files = [ok(name, 10) for name in names]
    files.append(("<i>c.wav", "partial", f"broken {EVIL}", 10, 2.5, 3, 0))
    rows = [(names[0], 1, 1.5, EVIL, 0.875), (names[1], 2, 2.5, "Parus major", 0.75)]
    output = make_folder(folder / "pre<i>dicted", files, rows)
    sound = {name: record(folder / f"{i}.wav") for i, name in enumerate(names)}
    path = write_detections_page(output, sound, sample_rate=RATE)
    assert path == output / "report.html"
    return Page(path)


def test_names_are_text_and_never_markup(page):
    assert not {"script", "i"} & set(page.tags)
    assert "pre<i>dicted" in page.text and "<i>c.wav" in page.text
    assert f"broken {EVIL}" in page.text  # the reason
    # the sentence, two tables of classes, the link and the heading of its windows, the settings
    assert page.text.count(EVIL) >= 7
    assert any(key == "alt" and EVIL in value for key, value in page.attributes)


def test_the_page_needs_nothing_but_itself(page):
    sources = [value for key, value in page.attributes if key in ("src", "srcset")]
    assert sources and all(source.startswith("data:") for source in sources)
    links = [value for key, value in page.attributes if key == "href"]
    ids = {f"#{value}" for key, value in page.attributes if key == "id"}
    assert links and set(links) <= ids  # to places in the page
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert "@import" not in page.text and "url(" not in page.text
    assert any("default-src 'none'" in value for _, value in page.attributes)


def test_the_parts_come_in_the_order_of_the_questions(page):
    order = [
        *("Detections: pre", "In 22.5 seconds of sound from 3 recordings", "Windows scored 23"),
        *("hour of day", "Minutes heard", "Best score", "Recordings not fully read"),
        *("Best windows of each class", "Settings and origin"),
    ]
    places = [page.text.index(text) for text in order]
    assert places == sorted(places)
    assert "3 2 ok 1 partial · 0 empty · 0 unreadable" in page.text
    assert "0.5 s each one every 0.25 s" in page.text
    assert "2 detections of 2 classes" in page.text


def test_pictures_have_words_and_sounds_have_names(page):
    assert page.tags.count("img") == page.tags.count("audio") == 2
    assert page.tags.count("img") == sum(
        key == "alt" and value != "" for key, value in page.attributes
    )
    named = sum(key == "aria-label" for key, _ in page.attributes)
    assert named == page.tags.count("audio")
    assert ("preload", "none") in page.attributes


def test_wide_tables_scroll_by_themselves_on_a_phone(page):
    assert page.tags.count("table") == [v for k, v in page.attributes if k == "class"].count(
        "scroll"
    )
    assert ("name", "viewport") in page.attributes


def slowly_best(rows: list[Window]) -> list[Window]:
    """The definition: no overlapping or adjoining row of the recording is better, or as good and
    earlier."""

    def touch(a: Window, b: Window) -> bool:
        return a.file == b.file and a.start_s <= b.end_s and b.start_s <= a.end_s

    kept = [
        (i, row)
        for i, row in enumerate(rows)
        if not any(
            touch(row, other) and (other.score, -j) > (row.score, -i)
            for j, other in enumerate(rows)
            if j != i
        )
    ]
    return [row for _, row in sorted(kept, key=lambda pair: (-pair[1].score, pair[0]))][:10]


@pytest.mark.parametrize("seed", range(60))
def test_the_best_ten_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    rows = []
    for file in range(rng.integers(1, 6)):
        # Dense and sparse, of one length (windows) and of many (merged), with equal scores.
        starts = np.sort(rng.integers(0, rng.choice([20, 200]), rng.integers(1, 60))) / 4
        lengths = rng.integers(1, 12, len(starts)) / 4 if seed % 2 else np.full(len(starts), 0.5)
        scores = rng.integers(0, rng.choice([5, 1000]), len(starts)) / 1000
        rows += [
            Window(f"{file}.wav", float(start), float(start + length), "a", float(score))
            for start, length, score in zip(starts, lengths, scores, strict=True)
        ]
    tally = ClassTally()
    for row in rows:
        tally.add(row, None)
    assert tally.best() == slowly_best(rows)
    assert tally.detections == len(rows)
    assert tally.recordings == len({row.file for row in rows})
    assert tally.score == max(row.score for row in rows)


def test_a_class_is_not_beaten_by_another(tmp_path):
    rows = [("f", 0, 1, "a", 0.9), ("f", 0, 1, "b", 0.8), ("f", 0.5, 1.5, "a", 0.95)]
    found = tally_classes(write_table(tmp_path / "combined.csv", COLUMNS, rows))
    assert [[w.score for w in found[label].best()] for label in ("a", "b")] == [[0.95], [0.8]]


def test_hours_go_on_over_midnight(tmp_path):
    names = ("20260501_233000.WAV", "x/20260502_000500.WAV", "x/untimed.wav")
    rows = [
        *((names[0], s, s + 1, "a", 0.5) for s in (0, 1799, 1800, 5400, 5399.9)),
        *((names[1], s, s + 1, "a", 0.5) for s in (0, 86400)),
        (names[2], 0, 1, "a", 0.5),
    ]
    tally = tally_classes(write_table(tmp_path / "combined.csv", COLUMNS, rows))["a"]
    assert {hour: n for hour, n in enumerate(tally.by_hour) if n} == {23: 2, 0: 4, 1: 1}
    assert tally.detections == 8
    heard = tally_recordings(
        write_table(tmp_path / "files.csv", FILES, [ok(names[0], 5400), ok(names[2], 60)])
    )
    minutes = {hour: s / 60 for hour, s in enumerate(heard.listened_s) if s}
    assert minutes == {23: 30, 0: 60}
    assert (heard.timed, heard.untimed) == (1, 1)
    assert recorded_at(names[0]) == datetime(2026, 5, 1, 23, 30)


def test_hours_listened_add_up_to_what_was_read(tmp_path):
    rows = [ok(f"202605{day:02d}_1{day % 10}5959.WAV", 1234.567 * day) for day in range(1, 29)]
    heard = tally_recordings(write_table(tmp_path / "files.csv", FILES, rows))
    assert sum(heard.listened_s) == pytest.approx(heard.read_s)


def test_absent_times_are_said(tmp_path):
    names = ("a.wav", "b.wav", "20260501_053000.WAV")
    rows = [(name, 0, 1, "a", 0.9) for name in names]
    some = make_folder(tmp_path / "some", map(ok, names), rows)
    text = Page(write_detections_page(some, {}, sample_rate=RATE)).text
    assert "Of 3 recordings, 2 have names that do not tell the time" in text
    none = make_folder(tmp_path / "none", map(ok, names[:2]), rows[:2])
    none_page = Page(write_detections_page(none, {}, sample_rate=RATE))
    assert "no hour of day is known" in none_page.text
    assert ("class", "heat") not in none_page.attributes
    assert "a 2 2 0.900" in none_page.text  # the table of classes is there all the same


def test_recordings_not_fully_read_come_worst_first(tmp_path):
    files = [
        ("half.wav", "partial", "", 10, 5, 1, 0),
        ("none.wav", "empty", "", 0, 0, 0, 0),
        ("tenth.wav", "partial", "", 10, 1, 1, 0),
        ("bad.wav", "unreadable", "", "", 0, 0, 0),
        ("endless.wav", "partial", "", "", 5, 1, 0),
        ok("good.wav"),
    ]
    table = write_table(tmp_path / "files.csv", FILES, files)
    names = [row["file"] for row in worst_recordings(table, 9)]
    assert names == ["bad.wav", "none.wav", "tenth.wav", "half.wav", "endless.wav"]
    assert [row["file"] for row in worst_recordings(table, 1)] == ["bad.wav"]


def test_of_many_unread_recordings_200_are_listed(tmp_path):
    bad = [(f"{i:03d}.wav", "unreadable", "no", "", 0, 0, 0) for i in range(203)]
    page = Page(write_detections_page(make_folder(tmp_path / "p", bad, []), {}, sample_rate=RATE))
    assert "199.wav" in page.text and "200.wav" not in page.text
    assert "And 3 more, see files.csv" in page.text
    good = make_folder(tmp_path / "q", [ok("a.wav")], [])
    text = Page(write_detections_page(good, {}, sample_rate=RATE)).text
    assert "All recordings were read" in text
    assert "nothing was detected" in text


def test_of_many_classes_the_30_most_frequent_have_windows(tmp_path):
    rows = [
        ("20260501_053000.wav", 2 * i, 2 * i + 1, f"class {k:02d}", 0.9)
        for i in range(40)
        for k in range(40 - i)
    ]
    output = make_folder(tmp_path / "p", [ok("20260501_053000.wav")], rows)
    page = Page(write_detections_page(output, {}, sample_rate=RATE))
    links = [value for key, value in page.attributes if key == "href"]
    assert len(links) == 30
    assert page.text.count("Shown are the 30 of 40 classes with most detections.") == 2
    assert page.text.count("class 39") == 1  # in the table of all classes alone
    assert page.text.count("No sound") == sum(min(10, 40 - k) for k in range(30))


def test_the_excerpt_is_the_sound_of_the_recording_with_context(tmp_path):
    path = record(tmp_path / "r.wav")
    whole = soundfile.read(path, dtype="float32")[0]
    rows = [("r", 4, 4.5, "a", 0.9), ("r", 0.25, 0.75, "a", 0.8), ("r", 9.5, 10, "a", 0.7)]
    output = make_folder(tmp_path / "p", [ok("r", 10)], sorted(rows))
    sounds = sounds_of(write_detections_page(output, {"r": path}, sample_rate=RATE))
    for (samples, rate), (a, b) in zip(sounds, [(3.5, 5), (0, 1.25), (9, 10)], strict=True):
        assert rate == RATE
        wanted = pcm(whole[round(a * RATE) : round(b * RATE)])[0]
        assert len(samples) == len(wanted)
        error = samples.astype(float) - wanted
        assert np.sqrt(np.mean(error**2)) < np.sqrt(np.mean(wanted.astype(float) ** 2)) / 10


@pytest.mark.parametrize("source_rate", [8000, 44100, 48000])
def test_an_excerpt_is_what_resampling_the_whole_recording_gives(tmp_path, source_rate):
    path = record(tmp_path / "r.wav", 20, source_rate)
    with Reader(path) as reader:
        whole = pcm(np.concatenate(list(resampled(reader, source_rate, RATE))))[0]
    windows = [Window("r", s, s + 0.5, "a", 0.5) for s in (0.0, 3.217, 3.5, 12.0, 19.5)]
    found = list(excerpts(path, windows, RATE))
    assert [window for window, _, _ in found] == windows
    for window, samples, _ in found:
        a, b = (round(s * RATE) for s in span_of(window))
        assert len(samples) == len(whole[a:b])
        np.testing.assert_allclose(samples, whole[a:b], atol=2)


@pytest.fixture
def read(monkeypatch) -> list[int]:
    """Lengths of the blocks that recordings were read in, from their start."""
    lengths: list[int] = []
    original = Reader.__iter__

    def counting(self):
        for block in original(self):
            lengths.append(len(block))
            yield block

    monkeypatch.setattr(Reader, "__iter__", counting)
    return lengths


def samples_of(path: Path, starts, *, whole: bool) -> list[np.ndarray]:
    windows = [Window("r", start, start + 0.5, "a", 0.5) for start in starts]
    found = list(excerpts(path, windows, RATE, whole=whole))
    assert [window for window, _, _ in found] == windows
    return [samples for _, samples, _ in found]


def test_reading_ends_with_the_last_window_and_never_seeks(tmp_path, monkeypatch, read):
    path = record(tmp_path / "r.wav", 120)
    monkeypatch.setattr(soundfile.SoundFile, "seek", None)
    assert len(samples_of(path, [10], whole=False)) == 1
    assert sum(read) / RATE < 22  # of 120 s


@pytest.mark.parametrize(
    ("container", "subtype", "rate", "channels"),
    [
        *(("WAV", "PCM_U8", 8000, 1), ("WAV", "PCM_16", 48000, 2), ("WAVEX", "FLOAT", 44100, 1)),
        *(("RF64", "PCM_24", 48000, 1), ("W64", "PCM_32", 22050, 2), ("AIFF", "PCM_S8", 8000, 1)),
        *(("AU", "PCM_16", 44100, 2), ("CAF", "DOUBLE", 48000, 1)),
        *(("FLAC", "PCM_16", 48000, 1), ("FLAC", "PCM_24", 44100, 2)),
    ],
)
def test_seeking_gives_what_reading_from_the_start_gives(
    tmp_path, read, container, subtype, rate, channels
):
    noise = np.random.default_rng(0).normal(0, 0.05, (round(20.3 * rate), channels))
    path = tmp_path / "r"
    soundfile.write(path, noise, rate, format=container, subtype=subtype)
    starts = (0.0, 0.7, 3.217, 3.5, 12.0, 19.9)  # the last reaches beyond the end
    wanted = samples_of(path, starts, whole=False)
    assert len(wanted[-1]) < len(wanted[-2]) and read
    read.clear()
    for found, samples in zip(samples_of(path, starts, whole=True), wanted, strict=True):
        assert len(found) == len(samples)
        np.testing.assert_allclose(found, samples, atol=2)
    assert not read


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("WAV", "IMA_ADPCM")],
)
def test_formats_that_cannot_be_entered_anywhere_are_never_sought(
    tmp_path, monkeypatch, container, subtype
):
    rate = 48000
    path = tmp_path / "r"
    noise = np.random.default_rng(0).normal(0, 0.05, 8 * rate)
    soundfile.write(path, noise, rate, format=container, subtype=subtype)
    wanted = samples_of(path, [1, 6], whole=False)
    monkeypatch.setattr(soundfile.SoundFile, "seek", None)
    for found, samples in zip(samples_of(path, [1, 6], whole=True), wanted, strict=True):
        assert len(samples) == 1.5 * RATE
        np.testing.assert_array_equal(found, samples)


def flac(path: Path) -> Path:
    noise = np.random.default_rng(0).normal(0, 0.05, 20 * RATE)
    soundfile.write(path, noise, RATE, format="FLAC", subtype="PCM_16")
    return path


def test_the_end_of_a_flac_of_unknown_length_is_read_from_its_start(tmp_path, read):
    path = flac(tmp_path / "r.flac")
    starts = (2, 12, 19.4)
    wanted = samples_of(path, starts, whole=False)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits that count the samples, in STREAMINFO
    content[22:26] = bytes(4)
    path.write_bytes(content)
    read.clear()
    for found, samples in zip(samples_of(path, starts, whole=True), wanted, strict=True):
        np.testing.assert_array_equal(found, samples)
    assert read


@pytest.mark.parametrize("place", ["raises", "elsewhere", "short"])
def test_where_seeking_fails_the_recording_is_read_from_its_start(
    tmp_path, monkeypatch, read, place
):
    path = flac(tmp_path / "r.flac")
    wanted = samples_of(path, [2, 8, 15], whole=False)
    read.clear()
    seek, calls = soundfile.SoundFile.seek, []

    def failing(self, frames, *args):
        calls.append(frames)
        if frames < 5 * RATE or place == "short":
            return seek(self, frames, *args)
        if place == "raises":
            raise soundfile.LibsndfileError(39)
        return seek(self, frames, *args) - 1

    monkeypatch.setattr(soundfile.SoundFile, "seek", failing)
    if place == "short":
        original = soundfile.SoundFile.read

        def less(self, frames=-1, *args, **kwargs):
            block = original(self, frames, *args, **kwargs)
            sought = type(self) is soundfile.SoundFile  # Reader has a class of its own
            return block[: -5 * RATE // 4] if sought and self.tell() > 5 * RATE else block

        monkeypatch.setattr(soundfile.SoundFile, "read", less)
    for found, samples in zip(samples_of(path, [2, 8, 15], whole=True), wanted, strict=True):
        np.testing.assert_array_equal(found, samples)
    assert calls and read


def test_a_recording_damaged_since_it_was_read_gives_what_is_left(tmp_path):
    path = flac(tmp_path / "r.flac")
    wanted = samples_of(path, [2], whole=False)[0]
    content = bytearray(path.read_bytes())
    middle = len(content) * 12 // 20
    content[middle : middle + 20_000] = bytes(20_000)
    path.write_bytes(content)
    found = samples_of(path, [2, 11.75], whole=True)
    np.testing.assert_array_equal(found[0], wanted)
    np.testing.assert_array_equal(found[1], samples_of(path, [11.75], whole=False)[0])


def test_only_recordings_that_are_ok_are_sought(tmp_path, read):
    names = ("half.wav", "whole.wav")
    files = [("half.wav", "partial", "truncated", 60, 30, 10, 1), ok("whole.wav", 30)]
    output = make_folder(tmp_path / "p", files, [(name, 25, 25.5, "a", 0.9) for name in names])
    sound = {name: record(tmp_path / name, 30) for name in names}
    path = write_detections_page(output, sound, sample_rate=RATE)
    first, second = (samples for samples, _ in sounds_of(path))
    np.testing.assert_array_equal(first, second)  # they hold the same
    assert sum(read) == 30 * RATE  # once


def test_progress_is_told_after_each_recording_that_is_read(tmp_path):
    names = [f"{i}.wav" for i in range(5)]
    output = make_folder(tmp_path / "p", map(ok, names), [(n, 1, 2, "a", 0.9) for n in names[:4]])
    sound = {name: record(tmp_path / name, 3) for name in names[1:]}
    told = []
    write_detections_page(
        output, sound, sample_rate=RATE, progress=lambda *numbers: told.append(numbers)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]  # one has no window, one is not there


def test_a_full_disk_is_said_with_what_to_do(tmp_path, monkeypatch):
    output = make_folder(tmp_path / "p", [ok("a.wav")], [])

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    sentence = r"report.html: cannot write the report \(No space left on device\); make room or "
    with pytest.raises(BirdinvError, match=sentence):
        write_detections_page(output, {}, sample_rate=RATE)
    assert not (output / "report.html").exists()


def test_one_is_not_many(tmp_path):
    names = ("a.wav", "20260501_053000.wav")
    few = make_folder(tmp_path / "few", map(ok, sorted(names)), [(names[1], 0, 1, "a", 0.9)])
    text = Page(write_detections_page(few, {}, sample_rate=RATE)).text
    assert "from 2 recordings there is 1 detection of one class, a." in text
    assert "Of 2 recordings, 1 has a name that does not tell the time" in text
    one = make_folder(tmp_path / "one", [ok("a.wav")], [])
    assert "from 1 recording nothing" in Page(write_detections_page(one, {}, sample_rate=RATE)).text
    assert [counted(n, "class") for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
    assert counted(1204, "recording") == "1,204 recordings"
    assert counted(None, "segment") == "– segments"


@pytest.mark.parametrize(
    ("length_s", "span"), [(0.5, (9.5, 11)), (2.5, (9.75, 12.75)), (3, (10, 13)), (60, (10, 13))]
)
def test_excerpts_last_3_s_at_the_most(length_s, span):
    assert span_of(Window("r", 10, 10 + length_s, "a", 1)) == span


def test_of_a_long_window_the_beginning_is_shown_and_said(tmp_path):
    output = make_folder(tmp_path / "p", [ok("r", 10)], [("r", 1, 8, "a", 0.9)])
    sound = {"r": record(tmp_path / "r.wav")}
    path = write_detections_page(output, sound, sample_rate=RATE)
    assert "Its first 3 s are shown" in Page(path).text
    assert len(sounds_of(path)[0][0]) == 3 * RATE


def test_vanished_and_changed_recordings_are_said(tmp_path):
    names = ("gone.wav", "unknown.wav", "short.wav", "text.wav", "there.wav")
    rows = [(name, 5, 5.5, "a", 0.9) for name in sorted(names)]
    output = make_folder(tmp_path / "p", map(ok, sorted(names)), rows)
    sound = {name: tmp_path / name for name in names if name != "unknown.wav"}
    record(sound["short.wav"], 4)
    record(sound["there.wav"], 10)
    sound["text.wav"].write_text("no sound\n" * 100)
    page = Page(write_detections_page(output, sound, sample_rate=RATE))
    assert "No sound: cannot be opened: No such file or directory." in page.text
    assert "No sound: its path is not known." in page.text
    assert "No sound: it ends before this window." in page.text
    assert "No sound: not an audio file" in page.text
    assert page.tags.count("audio") == 1


def test_names_that_are_no_unicode_find_their_recording(tmp_path):
    name = os.fsdecode(b"r\xffn.wav")
    output = make_folder(tmp_path / "p", [ok(name)], [(name, 1, 1.5, "鳥\0", 0.9)])
    path = write_detections_page(output, {name: record(tmp_path / "r.wav")}, sample_rate=RATE)
    assert len(sounds_of(path)) == 1


def test_the_bits_under_the_noise_are_left_out_and_no_others():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1000, RATE)
    samples = np.rint(noise).astype(np.int16)
    error = playable(samples).astype(float) - samples
    assert 20 * np.log10(np.std(noise) / np.std(error)) > 22
    assert len(flac_of(samples, RATE).getvalue()) < 0.55 * 2 * len(samples)
    soft = np.rint(rng.normal(0, 3, RATE)).astype(np.int16)
    np.testing.assert_array_equal(playable(soft), soft)
    loud = np.where(rng.random(RATE) < 0.5, -32768, 32767).astype(np.int16)
    assert (np.sign(playable(loud)) == np.sign(loud)).all()  # nothing wraps around


def test_a_tone_is_drawn_at_its_time_and_frequency_and_the_window_marked():
    time = np.arange(2 * RATE) / RATE
    tone = np.where((time >= 1) & (time < 1.5), np.sin(2 * np.pi * 3000 * time), 0)
    image = Image.open(small_spectrogram(tone, RATE, (0.5, 1.8)))
    assert image.mode == "P"
    pixels = np.asarray(image)
    palette = np.array(image.getpalette()[:48]).reshape(16, 3)
    assert tuple(palette[15]) == (0xD5, 0x5E, 0x00)
    height, width = pixels.shape
    top = np.flatnonzero(pixels[0] == 15) / width * 2  # seconds
    assert (top.min(), top.max()) == pytest.approx((0.5, 1.8), abs=0.02)
    rows, columns = np.nonzero(pixels == 0)  # black
    assert 4 * (1 - (rows.mean() + 0.5) / height) == pytest.approx(3.0, abs=0.07)  # kHz
    seconds = columns / width * 2
    assert (seconds.min(), seconds.max()) == pytest.approx((1.0, 1.5), abs=0.05)


@pytest.mark.parametrize("samples", [1, 5, 600, 3 * 384_000])
@pytest.mark.parametrize("rate", [1000, 22050, 384_000])
def test_a_small_spectrogram_is_small_at_any_rate_and_length(rate, samples):
    image = Image.open(small_spectrogram(np.zeros(samples, np.int16), rate, (0, 99)))
    assert image.size[0] <= 290 and image.size[1] <= 128


def test_small_counts_stay_and_large_ones_fit_a_narrow_cell():
    numbers = (0, 7, 999, 1000, 1049, 9949, 9950, 99_400, 999_499, 999_500, 1_250_000, 34_000_000)
    texts = ["0", "7", "999", "1.0k", "1.0k", "9.9k", "10k", "99k", "999k", "1.0M", "1.2M", "34M"]
    assert [short(number) for number in numbers] == texts


def test_only_nothing_is_without_colour():
    row = re.findall('class="(h[0-9]|none)"', heat_of([("a", [0, 1, 1000, None])], head=()))
    assert row == ["h0", "h1", "h5", "none"]


def test_a_table_of_many_rows_is_never_held(tmp_path):
    rng = np.random.default_rng(0)
    score = rng.random(60_000)
    names = [f"{k}.wav" for k in range(6)]
    rows = (
        (
            names[i // 10_000],
            f"{i % 10_000 / 4:.3f}",
            f"{i % 10_000 / 4 + 0.5:.3f}",
            "abc"[i % 3],
            s,
        )
        for i, s in enumerate(score)
    )
    table = write_table(tmp_path / "combined.csv", COLUMNS, rows)
    tracemalloc.start()
    try:
        found = tally_classes(table)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000  # the rows alone would be 20 MB
    assert sum(tally.detections for tally in found.values()) == 60_000


def test_a_rising_run_of_scores_keeps_little(tmp_path):
    tally = ClassTally()
    for i in range(5000):  # every row touches and beats the one before
        tally.add(Window("r", i / 4, i / 4 + 0.5, "a", i / 5000), None)
        assert len(tally._near) < 5
    assert [window.score for window in tally.best()] == [4999 / 5000]


def test_the_same_folder_gives_the_same_bytes_and_leaves_no_temporary_file(tmp_path):
    rows = [("r.wav", s, s + 0.5, label, 0.75) for s in range(9) for label in ("b", "a")]
    output = make_folder(tmp_path / "p", [ok("r.wav", 10)], rows)
    before = set(os.listdir(output))
    sound = {"r.wav": record(tmp_path / "r.wav")}
    first = write_detections_page(output, sound, sample_rate=RATE).read_bytes()
    assert write_detections_page(output, sound, sample_rate=RATE).read_bytes() == first
    assert set(os.listdir(output)) == before | {"report.html"}
    assert len(sounds_of(output / "report.html")) == 18


def test_ten_classes_of_ten_windows_stay_below_6_mb(tmp_path):
    rows = [("r.wav", 4 * i, 4 * i + 0.5, f"{k}", 0.9) for i in range(10) for k in range(10)]
    output = make_folder(tmp_path / "p", [ok("r.wav", 40)], rows)
    sound = {"r.wav": record(tmp_path / "r.wav", 40, 22050)}
    path = write_detections_page(output, sound, sample_rate=22050)
    assert len(sounds_of(path)) == 100
    assert path.stat().st_size < 6_000_000


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("run.json", None, "no run.json"),
        ("files.csv", None, "files.csv cannot be read"),
        ("combined.csv", None, "combined.csv cannot be read"),
        ("combined.csv", "file,start_s\na,1\n", "row 1 is no detection"),
        ("combined.csv", "file,start_s,end_s,label,score\na,0,1,b,nan\n", "row 1 is no detection"),
        ("combined.csv", "file,start_s,end_s,label,score\na,2,1,b,1\n", "from 2 to 1 s"),
        ("combined.csv", "file,start_s,end_s,label,score\na,1e15,1e15,b,1\n", "row 1 is no"),
        ("files.csv", "file\na\n", "row 1 tells of no recording"),
        ("files.csv", "file,status,read_s,windows\na,ok,x,1\n", "row 1 tells of no recording"),
        ("files.csv", "file,status,read_s,windows\na,ok,inf,1\n", "inf s read"),
        ("files.csv", "file,status,read_s,windows,declared_s\na,ok,1,1,long\n", "long"),
    ],
)
def test_a_folder_that_is_damaged_gives_a_sentence_and_no_page(tmp_path, name, content, sentence):
    output = make_folder(tmp_path / "p", [ok("a.wav")], [])
    if content is None:
        (output / name).unlink()
    else:
        (output / name).write_text(content)
    with pytest.raises(BirdinvError, match=sentence):
        write_detections_page(output, {}, sample_rate=RATE)
    assert not (output / "report.html").exists()


def test_more_columns_may_come(tmp_path):
    output = make_folder(tmp_path / "p", [ok("a.wav")], [])
    write_table(output / "files.csv", (*FILES, "recorded_at"), [(*ok("a.wav"), "x")])
    row = ("a.wav", 0, 1, "b", 0.9, "2026-05-01T05:30:00.000")
    write_table(output / "combined.csv", (*COLUMNS, "absolute_time"), [row])
    assert "one class, b." in Page(write_detections_page(output, {}, sample_rate=RATE)).text


def test_an_unfinished_prediction_is_said(tmp_path):
    output = make_folder(tmp_path / "p", [ok("a.wav")], [], outcome="interrupted")
    text = Page(write_detections_page(output, {}, sample_rate=RATE)).text
    assert "Prediction was interrupted" in text
