"""Excerpts of recordings around their windows, to be looked at and listened to."""

from __future__ import annotations

import io
import math
import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import numpy as np
import soundfile

from birdinv.audio.reading import Reader, mono_of
from birdinv.audio.resampling import pcm, resampled
from birdinv.prediction.recorders import recorded_at
from birdinv.reporting.markup import data_uri, escaped
from birdinv.reporting.tallies import Window
from birdinv.reporting.thumbnails import small_spectrogram

CONTEXT_S = 0.5  # on each side of a window
LONGEST_S = 3.0  # of an excerpt, with its context
_LEAD_S = 1  # whole seconds of sound around an excerpt, for the resampler's filter to settle
# libsndfile's names of what can be entered anywhere, at once and to the sample. MP3 is none of it:
# without an index libsndfile decodes all that lies before. Nor are Ogg and Opus, which may be off.
_SEEKABLE = frozenset(("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC"))
_PLAIN = ("PCM_", "FLOAT", "DOUBLE")  # the beginnings of their encodings


def span_of(window: Window) -> tuple[float, float]:
    """Start and end in seconds of a window's excerpt, the end perhaps beyond the recording's.

    A window longer than an excerpt gives its beginning.
    """
    context = min(CONTEXT_S, max(0.0, (LONGEST_S - (window.end_s - window.start_s)) / 2))
    end_s = min(window.end_s, window.start_s + LONGEST_S) + context
    return max(0.0, window.start_s - context), end_s


def excerpts(
    path: Path, windows: Iterable[Window], sample_rate: int, *, whole: bool = False
) -> Iterator[tuple[Window, np.ndarray, str]]:
    """(window, int16 samples [T] of its excerpt, "" or why there are none) for each window.

    A recording is read from its start as far as its last window, so that a damaged one gives what
    the network heard. One that is known to be whole gives the same by seeking, if its format can be
    entered anywhere; what cannot be had in this way is read from the start.

    Args:
        windows: of this recording, in any order; the excerpts come in that of their beginnings.
        sample_rate: of the excerpts, in Hz.
        whole: the recording was once read from beginning to end without a flaw.
    """
    waiting = sorted(windows, key=lambda window: (span_of(window), window.label))
    with Reader(path) as reader:
        rate, position = reader.source_rate, 0
        if whole and rate:
            for window, piece in _sought(path, tuple(waiting)):
                excerpt = _cut(window, [piece], rate, sample_rate, "")
                if not len(excerpt[1]):  # it has become shorter: reading tells why
                    break
                waiting.remove(window)
                yield excerpt
        if not waiting:
            return
        pieces: dict[Window, list[np.ndarray]] = {window: [] for window in waiting}
        for block in reader:
            end = position + len(block)
            for window in list(waiting):
                first, last = _samples_of(window, rate)
                if first >= end:
                    break
                pieces[window].append(block[max(0, first - position) : last - position])
                if last <= end:
                    waiting.remove(window)
                    yield _cut(window, pieces.pop(window), rate, sample_rate, "")
            position = end
            if not waiting:
                break
        for window in waiting:
            reason = reader.verdict.reason or "it ends before this window"
            yield _cut(window, pieces.pop(window), rate, sample_rate, reason)


def tiles_of(
    windows: Iterable[Window],
    paths: Mapping[str, Path],
    whole: Container[str],
    sample_rate: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Window, str]:
    """Window → its `tile`, one recording after the other.

    Args:
        windows: of any recordings, in any order.
        paths: name → recording; what is absent here gives a tile that says so.
        whole: the names of those that were once read from beginning to end without a flaw.
        sample_rate: of the excerpts, in Hz.
        progress: told (recordings read, recordings to read) after each.
    """
    by_file: dict[str, list[Window]] = defaultdict(list)
    for window in windows:
        by_file[window.file].append(window)
    known = sum(name in paths for name in by_file)
    tiles: dict[Window, str] = {}
    done = 0
    for name, wanted in by_file.items():
        if name not in paths:
            nothing = np.zeros(0, np.int16)
            tiles |= {w: tile(w, nothing, sample_rate, "its path is not known") for w in wanted}
            continue
        found = excerpts(paths[name], wanted, sample_rate, whole=name in whole)
        for window, samples, reason in found:
            tiles[window] = tile(window, samples, sample_rate, reason)
        done += 1
        if progress is not None:
            progress(done, known)
    return tiles


def tile(window: Window, samples: np.ndarray, sample_rate: int, reason: str) -> str:
    """A window as markup: spectrogram, player and where it is from, or why there is no sound."""
    start_s, end_s = span_of(window)
    place = f"{_clock(window.start_s)}–{_clock(window.end_s)}"
    caption = f"<b>{window.score:.3f}</b> at {place}"
    began = recorded_at(window.file)
    if began is not None:
        heard = began + timedelta(seconds=int(window.start_s))
        caption += f"<br>{heard.replace(microsecond=0).isoformat(' ')}"
    caption += f"<br>{escaped(window.file)}"
    if window.end_s > end_s:
        caption += f"<br>Its first {end_s - window.start_s:g} s are shown."
    caption = f"<figcaption>{caption}</figcaption>"
    if not len(samples):
        return f'<figure><p class="gone">No sound: {escaped(reason)}.</p>{caption}</figure>'
    marked = (window.start_s - start_s, window.end_s - start_s)
    picture = data_uri("image/png", small_spectrogram(samples, sample_rate, marked))
    alt = escaped(f"Spectrogram of {window.label} in {window.file} at {place}")
    sound = data_uri("audio/flac", flac_of(samples, sample_rate))
    name = escaped(f"Sound of {window.label} in {window.file} at {place}")
    top = f"{sample_rate / 2000:.3g}"
    # Browsers play but some dozens of sounds at a time that they were told to prepare.
    return (
        f'<figure><div class="plot"><div><span>{top}</span><span>kHz</span><span>0</span></div>'
        f'<img src="{picture}" alt="{alt}" decoding="async"></div>'
        f'<audio controls preload="none" aria-label="{name}" src="{sound}"></audio>'
        f"{caption}</figure>"
    )


def playable(samples: np.ndarray) -> np.ndarray:
    """The int16 samples without the bits that lie under the noise, which FLAC need not store.

    The step is at most a quarter of the level of the quietest part: the error, step / √12, stays
    23 dB below the noise. At typical levels that halves the file.
    """
    parts = np.array_split(samples.astype(np.float64), max(1, len(samples) // 1024))
    quietest = min(float(np.sqrt(np.mean(np.square(part)))) for part in parts)
    bits = int(math.log2(max(1.0, quietest / 4)))
    half = (1 << bits) >> 1
    rounded = ((samples.astype(np.int32) + half) >> bits) << bits
    whole: np.ndarray = np.clip(rounded, -32768, 32767 >> bits << bits).astype(np.int16)
    return whole


def flac_of(samples: np.ndarray, sample_rate: int) -> io.BytesIO:
    """The int16 samples as a FLAC file, which every browser plays."""
    file = io.BytesIO()
    soundfile.write(file, playable(samples), sample_rate, format="FLAC", subtype="PCM_16")
    return file


def _lead_s(window: Window) -> int:
    return max(0, math.floor(span_of(window)[0]) - _LEAD_S)


def _samples_of(window: Window, rate: int) -> tuple[int, int]:
    """First and end, in samples at the recording's rate, of what an excerpt is made from."""
    # The lead begins at a whole second, which is a whole sample at both rates.
    return _lead_s(window) * rate, math.ceil((span_of(window)[1] + _LEAD_S) * rate)


def _sought(path: Path, windows: Iterable[Window]) -> Iterator[tuple[Window, np.ndarray]]:
    """(window, what its excerpt is made from) up to the first of which seeking gives not all."""
    try:
        # soundfile itself cannot encode a file name that is not UTF-8.
        with soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else path) as file:
            if file.format not in _SEEKABLE or not file.subtype.startswith(_PLAIN):
                return
            for window in windows:
                first, last = _samples_of(window, file.samplerate)
                last = min(last, file.frames)
                if first >= last or file.seek(first) != first:
                    return
                block = file.read(last - first, dtype="float32", always_2d=True)
                if len(block) < last - first:
                    return
                yield window, mono_of(block)[0]
    except (soundfile.SoundFileError, OSError, RuntimeError):
        return  # a decoder that failed once is asked no more: the rest is read from the start


def _cut(
    window: Window, pieces: list[np.ndarray], source_rate: int, sample_rate: int, reason: str
) -> tuple[Window, np.ndarray, str]:
    """The excerpt at the network's rate; `reason` is that of an excerpt that does not get there."""
    start, end = (round((s - _lead_s(window)) * sample_rate) for s in span_of(window))
    sound = list(resampled(pieces, source_rate, sample_rate)) if pieces else []
    samples, _ = pcm(np.concatenate([np.zeros(0, np.float32), *sound])[start:end])
    if len(samples) <= (window.start_s - span_of(window)[0]) * sample_rate:
        return window, samples[:0], reason
    return window, samples, ""


def _clock(seconds: float) -> str:
    """A place in a recording: 4:07.25, or 1:04:07.25 after an hour."""
    hundredths = round(100 * seconds)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    ahead = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{ahead}:{rest // 100:02d}.{rest % 100:02d}"
