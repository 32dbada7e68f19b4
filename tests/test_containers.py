"""Containers: declared against present bytes at every cut, and every flipped bit of an Ogg file."""

import io
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from damaged import chunk, encoded, pcm16, rf64, sound, wav

from birdinv.audio.containers import MAX_CHUNKS, ogg_damage, sound_bytes

SAMPLES = sound(seconds=0.01)
CONTENT = pcm16(SAMPLES)


def of(path: Path, content: bytes) -> tuple[int, int] | None:
    path.write_bytes(content)
    return sound_bytes(path)


def by_libsndfile(form: str, endian: str = "FILE", channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    samples = sound(seconds=0.01, channels=channels)
    soundfile.write(buffer, samples, 16000, format=form, subtype="PCM_16", endian=endian)
    return buffer.getvalue()


WHOLE = {
    "wav by hand": wav(CONTENT),
    "rf64 by hand": rf64(SAMPLES),
    "wav": by_libsndfile("WAV"),
    "wavex": by_libsndfile("WAVEX", channels=2),
    "rifx": by_libsndfile("WAV", "BIG"),
    "rf64": by_libsndfile("RF64"),
    "aiff": by_libsndfile("AIFF"),
    "aifc": by_libsndfile("AIFF", "LITTLE"),
    "w64": by_libsndfile("W64"),
    "caf": by_libsndfile("CAF"),
    "au": by_libsndfile("AU"),
    "au little": by_libsndfile("AU", "LITTLE"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_truncation_is_told_by_the_bytes_that_are_left(tmp_path: Path, name: str) -> None:
    whole = WHOLE[name]
    length = len(CONTENT) * (2 if name == "wavex" else 1)
    assert of(tmp_path / "a", whole) == (length, length)
    # Where the sound begins: it is the only place that holds the samples.
    begin = max(whole.find(CONTENT[:20]), whole.find(np.frombuffer(CONTENT, "<i2")[:10]
                .astype(">i2").tobytes()), len(whole) - length)  # fmt: skip
    for end in range(begin + length - 1, -1, -1):
        os.truncate(tmp_path / "a", end)
        found = sound_bytes(tmp_path / "a")
        assert found == (length, end - begin) if end >= begin else found in (None, (length, 0))


@pytest.mark.parametrize("content", [b"", b"R", b"RIFF", b"RIFF0000WAVE", b".snd", b"OggS" * 20])
def test_bytes_that_are_no_container_declare_nothing(tmp_path: Path, content: bytes) -> None:
    assert of(tmp_path / "a", content) is None


def test_a_file_that_cannot_be_opened_declares_nothing(tmp_path: Path) -> None:
    assert sound_bytes(tmp_path / "missing") is None
    assert sound_bytes(tmp_path) is None
    assert ogg_damage(tmp_path / "missing").startswith("cannot be opened a second time")


@pytest.mark.parametrize("before", [b"", chunk(b"LIST", b"INFOx"), chunk(b"bext", bytes(602))])
def test_chunks_before_and_after_the_sound_do_not_count(tmp_path: Path, before: bytes) -> None:
    after = chunk(b"LIST", b"INFO" + bytes(2000)) + before
    for content in (CONTENT, CONTENT[:-1]):  # of odd length too
        found = of(tmp_path / "a", wav(content, before=before, after=after))
        assert found == (len(content), len(content))


def test_an_odd_sound_without_padding_before_a_chunk(tmp_path: Path) -> None:
    content = CONTENT[:-1]
    file = wav(content)[:-1] + chunk(b"LIST", bytes(4000))
    assert of(tmp_path / "a", file) == (len(content), len(content))


def test_sound_behind_a_declared_length_is_counted(tmp_path: Path) -> None:
    content = pcm16(sound(seconds=1))
    for declared in (0, 2, 16000):
        found = of(tmp_path / "a", wav(content, declared=declared))
        assert found == (declared, len(content))
    silent = bytes(4096) + content  # a recorder may begin with silence
    assert of(tmp_path / "a", wav(silent, declared=0)) == (0, len(silent))
    padded = wav(content, after=bytes(8192))
    assert of(tmp_path / "a", padded) == (len(content), len(content))


def test_a_length_of_all_ones_is_unknown(tmp_path: Path) -> None:
    assert of(tmp_path / "a", wav(CONTENT, declared=0xFFFFFFFF)) is None
    au = struct.pack(">4sIIIII", b".snd", 24, 0xFFFFFFFF, 3, 16000, 1) + CONTENT
    assert of(tmp_path / "a", au) is None


@pytest.mark.parametrize("length", [0, 1, 23, 24, 2**62, 2**63 - 60, 2**63, 2**64 - 1])
def test_lengths_that_cannot_be_end_the_walk(tmp_path: Path, length: int) -> None:
    guid = b"fmt \xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
    w64 = b"riff" + bytes(36) + struct.pack("<16sQ", guid, length) + bytes(100)
    caf = b"caff" + bytes(4) + struct.pack(">4sQ", b"desc", length) + bytes(100)
    assert of(tmp_path / "a", w64) is None
    assert of(tmp_path / "a", caf) is None


def test_a_file_that_is_nothing_but_chunks_ends_the_walk(tmp_path: Path) -> None:
    chunks = chunk(b"JUNK", b"") * 1_000_000
    start = time.monotonic()
    assert of(tmp_path / "a", wav(CONTENT, before=chunks)) is None
    assert time.monotonic() - start < 1  # all of them would take several seconds
    few = chunk(b"JUNK", b"") * (MAX_CHUNKS - 2)
    assert of(tmp_path / "a", wav(CONTENT, before=few)) == (len(CONTENT), len(CONTENT))


# ---------------------------------------------------------------- Ogg


@pytest.fixture(scope="module")
def opus() -> bytes:
    return encoded(sound(seconds=0.2), "opus")


@pytest.mark.parametrize("ending", ["ogg", "opus"])
@pytest.mark.parametrize("seconds", [0.01, 1, 20])
def test_pages_written_by_libsndfile_are_whole(tmp_path: Path, ending: str, seconds: float) -> None:
    path = tmp_path / "a"
    path.write_bytes(encoded(sound(seconds=seconds), ending))
    assert ogg_damage(path) == ""


def test_every_flipped_bit_is_found(tmp_path: Path, opus: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(opus)
    with open(path, "r+b", buffering=0) as file:
        for place, byte in enumerate(opus):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), place)
                assert ogg_damage(path), f"bit {bit} of byte {place}"
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert ogg_damage(path) == ""


def test_every_truncation_is_found(tmp_path: Path, opus: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(opus)
    for length in reversed(range(len(opus))):
        os.truncate(path, length)
        assert "truncated" in ogg_damage(path)


def test_bytes_between_pages_are_found(tmp_path: Path, opus: bytes) -> None:
    path, second = tmp_path / "a", opus.index(b"OggS", 4)
    path.write_bytes(opus[:second] + b"hello" * 20 + opus[second:])
    assert ogg_damage(path) == f"damaged: the Ogg stream breaks off at byte {second} of " + str(
        len(opus) + 100
    )


def test_behind_the_last_page_only_another_stream_is_a_loss(tmp_path: Path, opus: bytes) -> None:
    path = tmp_path / "a"
    for behind in (b"x", b"TAG" + bytes(125), bytes(4096)):
        path.write_bytes(opus + behind)
        assert ogg_damage(path) == ""
    path.write_bytes(opus + opus)
    assert f"second Ogg stream begins at byte {len(opus)}" in ogg_damage(path)
