"""Reading: exact on whole files, one of four statuses on all others, and never an exception."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from damaged import CODECS, RATE_HZ, Damaged, damaged, encoded, float_wav, pcm16, sound, wav
from numpy.typing import NDArray

from birdinv.audio import reading
from birdinv.audio.reading import BLOCK_FRAMES, READABLE, SMALL_BLOCK, STATUSES, Reader, Verdict

pytestmark = pytest.mark.filterwarnings("error")  # such as numpy's of an overflow


def read(path: Path) -> tuple[NDArray[np.float32], Verdict]:
    with Reader(path) as reader:
        blocks = list(reader)
    assert all(block.dtype == np.float32 and block.ndim == 1 and len(block) for block in blocks)
    samples = np.concatenate([np.zeros(0, np.float32), *blocks])
    verdict = reader.verdict
    assert verdict.status in STATUSES
    assert np.isfinite(samples).all()
    assert (verdict.status == "ok") <= (verdict.reason == "")
    assert (verdict.status in ("empty", "unreadable")) <= (verdict.reason != "")
    assert verdict.read_s == (len(samples) / verdict.source_rate if len(samples) else 0)
    if verdict.status == "unreadable":
        assert verdict == Verdict("unreadable", verdict.reason)
    return samples, verdict


def same(actual: NDArray[np.float32], expected: NDArray[np.float32], ending: str) -> None:
    """Equal; what libsndfile decodes of an MP3 file depends on the size of the blocks, by a bit."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-7 if ending == "mp3" else 0)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# ---------------------------------------------------------------- whole files


@pytest.mark.parametrize("ending", CODECS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_whole_file_is_the_mean_of_its_channels(
    tmp_path: Path, ending: str, channels: int
) -> None:
    path = written(tmp_path / f"a.{ending}", encoded(sound(channels=channels), ending))
    samples, verdict = read(path)
    expected, rate = soundfile.read(path, dtype="float32", always_2d=True)
    same(samples, expected.mean(axis=1), ending)
    seconds = len(expected) / rate
    assert verdict == Verdict("ok", "", seconds, seconds, RATE_HZ, channels)


@pytest.mark.parametrize("ending", CODECS)
def test_reading_in_blocks_is_reading_at_once(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"a.{ending}", encoded(sound(seconds=9), ending))
    assert len(sound(seconds=9)) > 2 * BLOCK_FRAMES
    same(read(path)[0], soundfile.read(path, dtype="float32")[0], ending)


def test_the_ending_of_a_name_does_not_matter(tmp_path: Path) -> None:
    for ending in CODECS:
        content = encoded(sound(seconds=1), ending)
        whole = read(written(tmp_path / f"a.{ending}", content))
        renamed = read(written(tmp_path / f"{ending}.wav", content))
        np.testing.assert_array_equal(whole[0], renamed[0])
        assert whole[1] == renamed[1]


def test_blocks_stay_small_with_many_channels(tmp_path: Path) -> None:
    frames = 3 * SMALL_BLOCK
    path = written(tmp_path / "a.wav", wav(bytes(2 * 1000 * frames), channels=1000))
    with Reader(path) as reader:
        assert [len(block) for block in reader] == [SMALL_BLOCK] * 3
    assert reader.verdict.status == "ok" and reader.verdict.channels == 1000


@pytest.mark.parametrize("name", [b"\xe9t\xe9, b.wav", "лес/птица.wav".encode(), b"a\nb .wav"])
def test_names_in_any_encoding(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.parent.mkdir(exist_ok=True)
    try:
        path.write_bytes(wav(pcm16(sound())))
    except OSError:
        pytest.skip("this file system allows only UTF-8")
    assert read(path)[1].status == "ok"


# ---------------------------------------------------------------- damaged files


@pytest.mark.parametrize("case", list(damaged()), ids=lambda case: case.name)
def test_a_damaged_file_ends_in_its_status_with_a_reason(tmp_path: Path, case: Damaged) -> None:
    path = written(tmp_path / case.name, case.content)
    samples, verdict = read(path)
    assert verdict.status in case.statuses, verdict
    assert str(tmp_path) not in verdict.reason and "\n" not in verdict.reason
    if verdict.status == "partial":
        assert verdict.reason and len(samples)


@pytest.mark.parametrize("ending", ["wav", "aiff", "flac", "mp3"])
@pytest.mark.parametrize("fault", ["truncated", "overwritten", "zeroed", "cut"])
def test_what_comes_before_a_break_is_as_in_the_whole_file(
    tmp_path: Path, ending: str, fault: str
) -> None:
    case = next(case for case in damaged() if case.name == f"{fault}.{ending}")
    whole, _ = read(written(tmp_path / f"whole.{ending}", encoded(sound(), ending)))
    samples, _ = read(written(tmp_path / case.name, case.content))
    # With the middle goes what is decoded together with it: a FLAC frame of 4096 samples and a
    # small block, a few MP3 frames.
    good = len(whole) // 2 - (4096 + SMALL_BLOCK if ending in ("flac", "mp3") else 64)
    assert len(samples) >= good
    same(samples[:good], whole[:good], ending)


@pytest.mark.parametrize("ending", ["ogg", "opus"])
def test_what_comes_before_a_truncated_page_is_as_in_the_whole_file(
    tmp_path: Path, ending: str
) -> None:
    content = encoded(sound(seconds=6), ending)
    whole, _ = read(written(tmp_path / f"whole.{ending}", content))
    samples, verdict = read(written(tmp_path / f"cut.{ending}", content[: len(content) * 3 // 4]))
    assert verdict.status == "partial" and "truncated" in verdict.reason
    assert RATE_HZ < len(samples) < len(whole)
    good = len(samples) - 2048  # the last packet fades
    np.testing.assert_allclose(samples[:good], whole[:good], atol=1e-4)


def test_a_flac_block_that_fails_is_not_lost_whole(tmp_path: Path) -> None:
    content = encoded(sound(seconds=4), "flac")
    place = len(content) * 4 // 5
    _, verdict = read(written(tmp_path / "a.flac", content[:place] + bytes(99) + content[place:]))
    assert verdict.status == "partial" and "decoding stops at" in verdict.reason
    assert 2.5 < verdict.read_s < 3.3  # though all four seconds fit in one block
    assert verdict.declared_s == 4


def test_a_truncated_mp3_gives_no_sample_twice(tmp_path: Path) -> None:
    # SoundFile.blocks() repeats the block before.
    content = encoded(sound(seconds=12), "mp3")
    samples, verdict = read(written(tmp_path / "a.mp3", content[: len(content) // 2]))
    assert verdict.status == "partial" and verdict.declared_s == 12
    assert 5.5 < verdict.read_s < 6.1
    last = samples[-2304:]
    assert np.abs(last - samples[-2304 - BLOCK_FRAMES : -BLOCK_FRAMES]).max() > 0


def test_samples_that_are_not_finite_become_silence(tmp_path: Path) -> None:
    samples = sound()
    holes = samples.copy()
    holes[[3, 5, 7, 9]] = np.nan, np.inf, -np.inf, 3e38
    got, verdict = read(written(tmp_path / "a.wav", float_wav(holes)))
    samples[[3, 5, 7, 9]] = 0
    np.testing.assert_array_equal(got, samples)
    assert verdict.status == "partial" and verdict.reason.startswith("4 of ")


def test_infinities_that_cancel_are_found(tmp_path: Path) -> None:
    both = np.stack([sound(), sound()], axis=1)
    both[10] = np.inf, -np.inf
    both[11] = 3e38, 3e38  # a finite mean, if it could be computed
    both[12] = 1e30, -1e30
    got, verdict = read(written(tmp_path / "a.wav", float_wav(both)))
    assert (got[10:13] == 0).all()
    assert verdict.reason.startswith("2 of ")  # the mean of the last pair is 0 and fine


def test_float_samples_beyond_full_scale_are_kept(tmp_path: Path) -> None:
    got, verdict = read(written(tmp_path / "a.wav", float_wav(sound() * 16411)))
    assert verdict.status == "ok" and np.abs(got).max() > 8000


def test_reasons_say_what_was_found_and_what_was_expected(tmp_path: Path) -> None:
    reasons = {c.name: read(written(tmp_path / c.name, c.content))[1].reason for c in damaged()}
    assert reasons["0-bytes.mp3"] == "the file has 0 bytes"
    assert reasons["header-only.wav"] == "truncated: 0 of the 128000 declared bytes are there"
    assert reasons["text.wav"].startswith("not an audio file")
    assert "declares 0 bytes of audio but 128000 bytes follow" in reasons["declares-0-bytes.wav"]
    assert "declares 64000 bytes of audio but 128000" in reasons["declares-half.wav"]
    assert "1 Hz, outside 1000 to 1000000 Hz" in reasons["1-Hz.wav"]
    assert "only the first was read" in reasons["twice.opus"]
    assert "bytes follow the sound its header declares" in reasons["twice.mp3"]


def test_a_flac_of_unknown_length_is_whole(tmp_path: Path) -> None:
    whole = bytearray(encoded(sound(), "flac"))
    samples, _ = read(written(tmp_path / "whole.flac", bytes(whole)))
    whole[21] &= 0xF0  # the number of samples, 36 bits: 0 where an encoder wrote to a pipe
    whole[22:26] = bytes(4)
    got, verdict = read(written(tmp_path / "piped.flac", bytes(whole)))
    assert verdict.status == "ok" and verdict.declared_s is None
    np.testing.assert_array_equal(got, samples)


@pytest.mark.parametrize("ending", CODECS)
def test_random_damage_never_raises(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(list(ending.encode()))
    whole = encoded(sound(seconds=0.3), ending)
    for number in range(60):
        content = bytearray(whole)
        reach = 80 if number % 2 else len(content)  # headers are where it hurts
        for _ in range(rng.integers(1, 6)):
            content[rng.integers(reach)] = rng.integers(256)
        read(written(tmp_path / f"a.{ending}", bytes(content)))


def test_a_bad_file_does_not_change_what_is_read_of_the_next(tmp_path: Path) -> None:
    whole = {ending: encoded(sound(seconds=0.5), ending) for ending in CODECS}
    before = {e: read(written(tmp_path / f"a.{e}", content))[0] for e, content in whole.items()}
    for case in damaged():
        read(written(tmp_path / case.name, case.content))
        ending = case.name.rpartition(".")[2]
        np.testing.assert_array_equal(read(tmp_path / f"a.{ending}")[0], before[ending])


# ---------------------------------------------------------------- what is no file


def test_pipes_folders_and_missing_files_are_unreadable(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "nowhere.wav").symlink_to("gone")
    assert read(tmp_path / "pipe.wav")[1].reason == "not a regular file"
    assert read(tmp_path / "folder.wav")[1].reason == "not a regular file"
    assert "symbolic links" in read(tmp_path / "loop.wav")[1].reason
    assert "No such file" in read(tmp_path / "nowhere.wav")[1].reason
    assert "No such file" in read(tmp_path / "missing.wav")[1].reason


def test_a_file_without_permission_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.wav", wav(pcm16(sound())))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reading, "open", refuse, raising=False)
    assert read(path)[1].reason == "cannot be opened: Permission denied"


def test_formats_that_libsndfile_cannot_read_are_named(tmp_path: Path) -> None:
    reason = read(written(tmp_path / "a.M4A", b"....ftypM4A " * 9))[1].reason
    assert ".m4a" in reason and "convert" in reason


def test_raw_samples_are_unreadable(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.raw", bytes(999)))[1].status == "unreadable"


@pytest.mark.parametrize("ending", CODECS)
def test_a_file_deleted_while_it_is_read_does_not_raise(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"a.{ending}", encoded(sound(seconds=9), ending))
    with Reader(path) as reader:
        for _ in reader:
            path.unlink(missing_ok=True)
    assert reader.verdict.status in ("ok", "partial")


def test_a_second_look_that_fails_does_not_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(sound(seconds=9), "flac")
    path = written(tmp_path / "a.flac", content[: len(content) * 9 // 10])
    with Reader(path) as reader:
        for _ in reader:
            path.unlink(missing_ok=True)
    assert reader.verdict.status == "partial" and "decoding stops" in reader.verdict.reason


def test_a_reader_that_was_not_read_to_the_end_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", wav(pcm16(sound(seconds=9))))
    with Reader(path) as reader:
        next(iter(reader))
    assert reader.verdict == Verdict("unreadable", "not read yet")
    assert reader.source_rate == 0 and list(reader) == []
    reader.close()


# ---------------------------------------------------------------- real files


def test_odd_audio_ends_as_its_manifest_says(data: Path) -> None:
    with open(data / "odd_audio" / "MANIFEST.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 40
    for row in rows:
        samples, verdict = read(data / "odd_audio" / row["file"])
        known = row["soundfile_0.14_libsndfile_1.2.2"]
        assert (verdict.status == "unreadable") == known.startswith("ERROR"), (row, verdict)
        if verdict.status != "unreadable":
            _, rate, _, channels, _, frames, *_ = known.split()
            assert len(samples) == int(frames), row
            assert (verdict.source_rate, verdict.channels) == (int(rate), int(channels))
            assert (verdict.status == "empty") == (int(frames) == 0)


def test_files_of_odd_audio_known_to_be_damaged(data: Path) -> None:
    statuses = {
        "scipy__test-44100Hz-le-1ch-4bytes-early-eof.wav": "partial",
        "opso__empty_2c.wav": "empty",
        "pydub__test1_empty.wav": "empty",
        "tinytag__data_after_eos.ogg": "ok",
        "tinytag__empty_file.mp3": "unreadable",
        "hound__waveformatextensible-ieeefloat-44100Hz-mono.wav": "ok",
        "scipy__test-8000Hz-le-3ch-5S-24bit-rf64.wav": "ok",
        "goaudio__bwf.wav": "ok",
        "perch__21100_36_48.opus": "ok",
    }
    for name, status in statuses.items():
        assert read(data / "odd_audio" / name)[1].status == status, name


def test_real_recordings_are_ok(data: Path) -> None:
    paths = sorted(p for p in (data / "bird_kenya6").rglob("*") if p.suffix.lower() in READABLE)
    assert paths
    for path in paths[::20]:
        assert read(path)[1].status == "ok", path
