"""Recordings with every kind of damage seen in the field, the same for the same seed."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE_HZ = 16_000  # a rate that Opus knows as well
SECONDS = 4.0  # several Ogg pages

# ending → format and subtype of libsndfile
CODECS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "aiff": ("AIFF", "PCM_16"),
}


class Damaged(NamedTuple):
    """A file, what is wrong with it, and the statuses that are true of it."""

    name: str
    content: bytes
    fault: str
    statuses: tuple[str, ...]


def sound(
    seed: int = 0, seconds: float = SECONDS, rate_hz: int = RATE_HZ, channels: int = 1
) -> NDArray[np.float32]:
    """Tones that come and go over noise, float32 `[n]` or `[n, channels]`, peak 0.5."""
    rng = np.random.default_rng([seed, channels])
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    voices = []
    for _ in range(channels):
        pitch_hz = rng.uniform(0.05, 0.2) * rate_hz
        song = np.sin(2 * np.pi * pitch_hz * t) * (np.sin(2 * np.pi * 2 * t) > 0)
        voices.append(song + 0.1 * rng.standard_normal(len(t)))
    samples = np.stack(voices, axis=1) if channels > 1 else voices[0]
    return (0.5 * samples / np.abs(samples).max(initial=1e-9)).astype(np.float32)


def encoded(samples: NDArray[np.float32], ending: str, rate_hz: int = RATE_HZ) -> bytes:
    """The bytes of a whole file."""
    buffer = io.BytesIO()
    form, subtype = CODECS[ending]
    soundfile.write(buffer, samples, rate_hz, format=form, subtype=subtype)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes, declared: int | None = None) -> bytes:
    """A RIFF chunk, padded to an even length; `declared` is the length it claims."""
    length = len(content) if declared is None else declared
    return struct.pack("<4sI", name, length) + content + bytes(len(content) % 2)


def wav(
    content: bytes,
    *,
    declared: int | None = None,
    rate_hz: int = RATE_HZ,
    channels: int = 1,
    bits: int = 16,
    floating: bool = False,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A WAV file made by hand, which may lie in every field."""
    width = channels * bits // 8
    form = struct.pack(
        "<HHIIHH",
        3 if floating else 1,
        channels,
        rate_hz,
        rate_hz * width & 0xFFFFFFFF,
        width & 0xFFFF,
        bits,
    )
    body = chunk(b"fmt ", form) + before + chunk(b"data", content, declared) + after
    return struct.pack("<4sI4s", b"RIFF", 4 + len(body) & 0xFFFFFFFF, b"WAVE") + body


def float_wav(samples: NDArray[np.float32], rate_hz: int = RATE_HZ) -> bytes:
    """A 32-bit float WAV `[n]` or `[n, channels]`, any values; libsndfile's bears a time stamp."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    content = samples.astype("<f4").tobytes()
    return wav(content, rate_hz=rate_hz, channels=channels, bits=32, floating=True)


def rf64(samples: NDArray[np.float32], declared: int | None = None) -> bytes:
    """An RF64 file of int16 samples; `declared` bytes of sound stand in its ds64 chunk."""
    content = pcm16(samples)
    length = len(content) if declared is None else declared
    sizes = chunk(b"ds64", struct.pack("<QQQI", len(content) + 72, length, length // 2, 0))
    form = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16))
    body = sizes + form + chunk(b"data", content, 0xFFFFFFFF)
    return struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE") + body


def pcm16(samples: NDArray[np.float32]) -> bytes:
    return np.rint(samples * np.float32(32767)).astype("<i2").tobytes()


def damaged(seed: int = 0) -> Iterator[Damaged]:
    """Every kind of damage in every format it can befall."""
    rng = np.random.default_rng([seed, 1])
    for ending in CODECS:
        whole = encoded(sound(seed), ending)
        middle, hole = len(whole) // 2, len(whole) // 8
        # Nothing in these two tells that samples were written over; what was cut out is missed.
        silent = ("ok",) if ending in ("wav", "aiff") else ("partial",)
        header = {"wav": 44, "aiff": 54, "flac": 64}.get(ending, 16)
        # A second recording behind the first is noticed; a WAV or AIFF then has a size of its own.
        twice = ("unreadable",) if ending in ("wav", "aiff") else ("partial",)
        cases = {
            "0-bytes": (b"", ("unreadable",)),
            "1-byte": (whole[:1], ("unreadable",)),
            "header-only": (whole[:header], ("empty", "unreadable")),
            "truncated": (whole[:middle], ("partial",)),
            "overwritten": (whole[:middle] + rng.bytes(hole) + whole[middle + hole :], silent),
            "zeroed": (whole[:middle] + bytes(hole) + whole[middle + hole :], silent),
            "cut": (whole[:middle] + whole[middle + hole :], ("partial",)),
            "beheaded": (whole[header + 1 :], ("empty", "partial", "unreadable", "ok")),
            "twice": (whole + whole, twice),
            "text": (b"05:30 recorder placed, light rain\n" * 99, ("unreadable",)),
            "zeros": (bytes(len(whole)), ("unreadable",)),
            "noise": (rng.bytes(len(whole)), ("unreadable",)),
        }
        for fault, (content, statuses) in cases.items():
            yield Damaged(f"{fault}.{ending}", content, fault, statuses)
    yield from _odd_wavs(seed)


def _odd_wavs(seed: int) -> Iterator[Damaged]:
    samples = sound(seed)
    content = pcm16(samples)
    some, every = samples.copy(), np.full_like(samples, np.nan)
    some[1000:2000] = np.nan
    some[3000] = np.inf
    loud = samples.copy()
    loud[5000:5010] = 3e38, -3e38, 3e38, -3e38, 3e38, -3e38, 3e38, -3e38, 1e30, -1e30
    both = np.stack([loud, loud], axis=1)
    odd = chunk(b"LIST", b"INFOodd")
    many = b"".join(chunk(b"JUNK", b"") for _ in range(50_000))
    cases = {
        "declares-0-bytes": (wav(content, declared=0), ("empty",)),
        "declares-half": (wav(content, declared=len(content) // 2), ("partial",)),
        "length-unknown": (wav(content, declared=0xFFFFFFFF), ("ok",)),
        "length-2GiB": (wav(content, declared=0x7FFFFFFF), ("partial",)),
        "nan": (float_wav(some), ("partial",)),
        "all-nan": (float_wav(every), ("empty",)),
        "1e38": (float_wav(loud), ("partial",)),
        "1e38-stereo": (float_wav(both), ("partial",)),
        "1-sample": (wav(content[:2]), ("ok",)),
        "half-a-sample": (wav(content[:1]), ("empty",)),
        "rf64": (rf64(samples), ("ok",)),
        "rf64-truncated": (rf64(samples)[: len(content) // 2], ("partial",)),
        "rf64-declares-2^63": (rf64(samples, 1 << 63), ("partial", "unreadable")),
        "rf64-declares-2^64": (rf64(samples, (1 << 64) - 1), ("partial", "unreadable")),
        "0-channels": (wav(content, channels=0), ("unreadable",)),
        "65535-channels": (wav(content, channels=65535), ("unreadable",)),
        "1024-channels": (wav(content[: 2048 * 20], channels=1024), ("ok",)),
        "0-bits": (wav(content, bits=0), ("unreadable", "ok")),
        "0-Hz": (wav(content, rate_hz=0), ("unreadable",)),
        "1-Hz": (wav(content, rate_hz=1), ("unreadable",)),
        "2^31-Hz": (wav(content, rate_hz=1 << 31), ("unreadable",)),
        "odd-chunk": (wav(content, before=odd, after=odd), ("ok",)),
        "endless-chunk": (wav(content, before=chunk(b"JUNK", b"", 0xFFFFFFF0)), ("unreadable",)),
        "50000-chunks": (wav(content, before=many), ("ok", "unreadable")),
        "zero-padded": (wav(content, after=bytes(4096)), ("ok",)),
    }
    for fault, (file, statuses) in cases.items():
        yield Damaged(f"{fault}.wav", file, fault, statuses)


def write_damaged(folder: Path, seed: int = 0) -> list[Path]:
    """Writes all of `damaged` into one folder."""
    paths = []
    for case in damaged(seed):
        path = folder / case.name
        path.write_bytes(case.content)
        paths.append(path)
    return paths
