"""Recordings as streams of mono float32 blocks, each ending in a verdict.

Every file ends in exactly one of four states, and a bad file never raises:

========== =====================================================================
ok         all that its header declares was read
partial    something was read, but less or worse than declared (`reason` says)
empty      a readable header with no sound behind it
unreadable not a file libsndfile can open
========== =====================================================================

`SoundFile.blocks()` repeats stale samples on a truncated MP3 and header lengths lie, so this is a
plain `read()` loop that trusts only the length it got back.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from birdinv.audio.containers import mpeg_surplus, ogg_damage, sound_bytes

Status = Literal["ok", "partial", "empty", "unreadable"]
STATUSES: tuple[Status, ...] = ("ok", "partial", "empty", "unreadable")

BLOCK_FRAMES = 65536
SMALL_BLOCK = 1024
_BYTES = {  # of a sample
    "PCM_S8": 1,
    "PCM_U8": 1,
    "ULAW": 1,
    "ALAW": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
}
UNKNOWN = 2**62  # frames; libsndfile's way of saying that it does not know
LOUDEST = 1e9  # × full scale: no sound, and its square would not fit a float32
RATES_HZ = (1_000, 1_000_000)  # outside, a header is broken, and resampling could fill the memory
READABLE = frozenset(
    [
        *(".wav", ".wave", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
        *(".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
    ]
)
# Audio that libsndfile cannot open: listed as unreadable rather than passed over in silence.
FOREIGN = frozenset([".m4a", ".aac", ".mp4", ".wma", ".wac", ".amr", ".ape", ".wv"])


@dataclass(frozen=True)
class Verdict:
    """How the reading of one file ended; durations in seconds of the file's own clock."""

    status: Status
    reason: str = ""
    declared_s: float | None = None
    read_s: float = 0.0
    source_rate: int = 0
    channels: int = 0


class Reader:
    """Iterates over one recording as float32 `[n]` blocks, the mean of its channels, full scale 1.

    After the iteration `verdict` says how it went. Samples that are not finite (or beyond 10⁹ ×
    full scale) become 0 and make the recording partial; `bad` has the stretches [first, end) they
    lie in, in samples of the file. Nothing about the file's content raises.

    Args:
        join_s: bad samples so close, in seconds, lie in one stretch: memory stays in bounds.
    """

    def __init__(self, path: Path, *, join_s: float = 0.1) -> None:
        self.path = path
        self.bad: list[tuple[int, int]] = []
        self._join_s = join_s
        self.verdict = Verdict("unreadable", "not read yet")
        self._file: soundfile.SoundFile | None = None
        problem = _refusal(path)
        if problem is None:
            try:
                self._file = _opened(path)
            except soundfile.SoundFileError as error:
                problem = _sentence(path, error)
            except (OSError, RuntimeError, ValueError, TypeError) as error:
                problem = f"cannot be opened: {error}"
        if self._file is not None:
            rate = int(self._file.samplerate)
            if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
                problem = (
                    f"the header gives a sample rate of {rate} Hz, outside "
                    f"{RATES_HZ[0]} to {RATES_HZ[1]} Hz: it is damaged"
                )
                self.close()
        if problem is not None:
            self.verdict = Verdict("unreadable", problem)

    @property
    def source_rate(self) -> int:
        """Sample rate of the file in Hz, 0 when it cannot be opened."""
        return int(self._file.samplerate) if self._file is not None else 0

    @property
    def promised_s(self) -> float:
        """Seconds the header promises, for progress bars: it may lie; 0 when it says nothing."""
        if self._file is None or not 0 <= self._file.frames < UNKNOWN:
            return 0.0
        return float(self._file.frames / self._file.samplerate)

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        if self._file is None:
            return
        file = self._file
        read, nonfinite, broke, cause = 0, 0, "", ""
        frames, again = max(SMALL_BLOCK, BLOCK_FRAMES // file.channels), 0
        while True:
            try:
                block = file.read(frames, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError) as error:
                cause = cause or _message(error)
                broke = f"decoding stops at {read / file.samplerate:.3f} s: {cause}"
                if frames == SMALL_BLOCK or again:
                    break
                # A block that fails is lost whole: once more from the start, in small ones.
                try:
                    again_from_start = _opened(self.path)
                except (soundfile.SoundFileError, OSError, RuntimeError):
                    break
                file.close()
                self._file = file = again_from_start
                frames, again, broke = SMALL_BLOCK, read, ""
                continue
            if len(block) == 0:
                break
            if again:  # read before the break, already handed out
                known = min(again, len(block))
                again, block = again - known, block[known:]
                if len(block) == 0:
                    continue
            mono, bad = mono_of(block)
            if len(bad):
                nonfinite += len(bad)
                join_bad(self.bad, bad + read, self._join_s * file.samplerate)
            read += len(mono)
            yield mono
        self.verdict = _judge(self.path, file, read, nonfinite, broke)


class _ForwardOnly(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is untyped
    """A file read from front to back.

    soundfile seeks to where it is after every read of a file that can seek: in a FLAC of unknown
    length (from a pipe) or a damaged one that fails, and what was read is lost.
    """

    def seekable(self) -> bool:
        return False


def _opened(path: Path) -> soundfile.SoundFile:
    # soundfile itself cannot encode a file name that is not UTF-8.
    return _ForwardOnly(os.fsencode(path) if os.name == "posix" else path)


def mono_of(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean of the channels `[n]` of a block `[n, C]`, places of samples that had to become 0)."""
    with np.errstate(over="ignore", invalid="ignore"):  # such samples are what is looked for
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        power = np.vdot(mono, mono)
    # No sample is larger than the root of the sum: one pass for the usual clean block.
    if power < LOUDEST**2:
        return mono, np.zeros(0, np.intp)
    bad = ~(np.abs(mono) < LOUDEST)
    return np.where(bad, np.float32(0), mono), np.flatnonzero(bad)


def join_bad(stretches: list[tuple[int, int]], places: np.ndarray, apart: float) -> None:
    """Adds `places`, in order, to stretches [first, end); those nearer than `apart` are joined."""
    if not len(places):
        return
    breaks = np.flatnonzero(np.diff(places) >= apart)
    firsts = places[np.concatenate([[0], breaks + 1])].tolist()
    ends = (places[np.concatenate([breaks, [-1]])] + 1).tolist()
    if stretches and firsts[0] - stretches[-1][1] < apart:
        firsts[0] = stretches.pop()[0]
    stretches += zip(firsts, ends, strict=True)


def _judge(path: Path, file: soundfile.SoundFile, read: int, nonfinite: int, broke: str) -> Verdict:
    """The verdict from what the header declares, what is on the disk and what was read."""
    rate, channels = int(file.samplerate), int(file.channels)
    declared: float | None = float(file.frames)
    if not 0 <= file.frames < UNKNOWN:
        declared = None
    problems = [broke] if broke else []
    container = sound_bytes(path)
    if container is not None:
        promised, present = container
        if promised < present and (promised or not read):
            problems.append(
                f"the header declares {promised} bytes of audio but {present} bytes follow it: "
                "the recorder did not close the file; repair its header"
            )
        elif promised > present:
            width = channels * _BYTES.get(file.subtype, 0)
            declared = None
            if present and read:
                declared = read * promised / present
            elif width:
                declared = promised / width
            problems.append(f"truncated: {present} of the {promised} declared bytes are there")
    if file.format == "OGG" and (damage := ogg_damage(path)):
        problems.append(damage)
    if file.format == "MP3" and (surplus := mpeg_surplus(path)):
        problems.append(f"{surplus} bytes follow the sound its header declares and were not read")
    # MPEG decoders drop or add up to two frames of 1152 samples at the ends of a sound file.
    slack = 2 * 1152 if "MPEG" in file.subtype else 0
    if not problems and declared is not None and read < declared - slack:
        problems.append(
            f"damaged: {read / rate:.3f} of the {declared / rate:.3f} declared seconds can be read"
        )
    if nonfinite:
        problems.append(
            f"{nonfinite} of {read} samples were not finite, or as good as infinite, and became 0"
        )
    status: Status
    if read == 0:
        status = "empty"
        problems = problems or ["the file has a header and no samples"]
    elif nonfinite == read:
        status = "empty"
    else:
        status = "partial" if problems else "ok"
    return Verdict(
        status,
        "; ".join(problems),
        None if declared is None else declared / rate,
        read / rate,
        rate,
        channels,
    )


def _refusal(path: Path) -> str | None:
    """Why `path` is not even worth opening, or None."""
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            return "not a regular file"  # opening a pipe would wait for ever
        with open(path, "rb"):  # libsndfile says "System error" of a file that it may not open
            pass
    except OSError as error:
        return f"cannot be opened: {error.strerror or error}"
    if info.st_size == 0:
        return "the file has 0 bytes"
    if path.suffix.lower() in FOREIGN:
        return f"{path.suffix.lower()} is not a format libsndfile reads; convert it to WAV or FLAC"
    return None


def _message(error: Exception) -> str:
    """The cause alone: soundfile's own message repeats the path."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def _sentence(path: Path, error: Exception) -> str:
    message = _message(error)
    if "does not exist" in message:  # what libsndfile says of bytes in which it finds no MPEG frame
        return f"no audio found in its {path.stat().st_size} bytes"
    if "not recognised" in message:
        return "not an audio file: its first bytes are those of no known format"
    return f"cannot be decoded: {message}"
