"""Songs of six invented species, one for each common type of bird song."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class _Note:
    """Partials of a pitch that glides, wavers and pulses while it swells and fades."""

    start_s: float
    duration_s: float
    pitch_hz: tuple[float, ...]  # equally spaced in time, joined geometrically
    partials: tuple[float, ...] = (1.0,)  # amplitudes of 1, 2, 3, … times the pitch
    vibrato_hz: float = 0.0
    vibrato_depth: float = 0.0  # fraction of the pitch
    pulse_hz: float = 0.0  # rate of full amplitude modulation; 0 = steady
    level: float = 1.0


def _whistler(rng: np.random.Generator) -> list[_Note]:
    """Two to four long pure tones that glide, with a slow vibrato."""
    base_hz, vibrato_hz = rng.uniform(1800, 4200), rng.uniform(5, 9)
    notes, start_s = [], 0.0
    for _ in range(rng.integers(2, 5)):
        duration_s, from_hz = rng.uniform(0.22, 0.45), base_hz * rng.uniform(0.8, 1.25)
        glide = (from_hz, from_hz * rng.uniform(0.75, 1.3))
        notes.append(_Note(start_s, duration_s, glide, vibrato_hz=vibrato_hz, vibrato_depth=0.012))
        start_s += duration_s + rng.uniform(0.04, 0.12)
    return notes


def _triller(rng: np.random.Generator) -> list[_Note]:
    """One short up-and-down note repeated 12 to 24 times a second, growing louder."""
    base_hz, rate_hz, sweep = rng.uniform(2300, 5200), rng.uniform(12, 24), rng.uniform(1.2, 1.5)
    count, pitch_hz = rng.integers(10, 25), (base_hz, base_hz * sweep, base_hz * 0.95)
    levels = np.linspace(rng.uniform(0.3, 0.8), 1, count)
    return [_Note(i / rate_hz, 0.8 / rate_hz, pitch_hz, level=levels[i]) for i in range(count)]


def _chirper(rng: np.random.Generator) -> list[_Note]:
    """Three to six separate chirps that each fall by about an octave in a twentieth of a second."""
    top_hz, fall, gap_s = rng.uniform(4200, 7500), rng.uniform(0.4, 0.6), rng.uniform(0.08, 0.18)
    notes, start_s = [], 0.0
    for _ in range(rng.integers(3, 7)):
        duration_s, from_hz = rng.uniform(0.045, 0.09), top_hz * rng.uniform(0.9, 1.1)
        notes.append(_Note(start_s, duration_s, (from_hz, from_hz * fall)))
        start_s += duration_s + gap_s * rng.uniform(0.8, 1.2)
    return notes


def _harmonist(rng: np.random.Generator) -> list[_Note]:
    """Two or three nasal calls: an arched low pitch with six to nine strong harmonics."""
    base_hz, duration_s = rng.uniform(450, 1000), rng.uniform(0.18, 0.35)
    partials = tuple(rng.uniform(0.4, 1, rng.integers(6, 10)))
    arch = (base_hz, base_hz * rng.uniform(1.1, 1.3), base_hz * rng.uniform(0.8, 0.95))
    gap_s = rng.uniform(0.06, 0.16)
    return [
        _Note(i * (duration_s + gap_s), duration_s, arch, partials, 12.0, 0.01)
        for i in range(rng.integers(2, 4))
    ]


def _buzzer(rng: np.random.Generator) -> list[_Note]:
    """One to three rough buzzes: a carrier whose pitch and level shake 70 to 140 times a second."""
    carrier_hz, duration_s = rng.uniform(3000, 5500), rng.uniform(0.25, 0.6)
    rate_hz, depth, gap_s = rng.uniform(70, 140), rng.uniform(0.1, 0.2), rng.uniform(0.08, 0.2)
    drift = (carrier_hz, carrier_hz * rng.uniform(0.9, 1.1))
    return [
        _Note(i * (duration_s + gap_s), duration_s, drift, (1.0,), rate_hz, depth, rate_hz)
        for i in range(rng.integers(1, 4))
    ]


def _cuckoo(rng: np.random.Generator) -> list[_Note]:
    """A note and one a third or a fourth lower, once or twice."""
    high_hz, interval = rng.uniform(900, 2200), rng.uniform(0.72, 0.84)
    duration_s, gap_s, partials = rng.uniform(0.14, 0.24), rng.uniform(0.04, 0.1), (1.0, 0.15)
    notes = []
    for call in range(rng.integers(1, 3)):
        start_s = call * (3 * duration_s + 2 * gap_s)
        low_s, low_hz = start_s + duration_s + gap_s, high_hz * interval
        notes.append(_Note(start_s, duration_s, (high_hz, high_hz * 0.97), partials))
        notes.append(_Note(low_s, 1.2 * duration_s, (low_hz, low_hz * 0.97), partials, level=0.8))
    return notes


_SONGS: dict[str, Callable[[np.random.Generator], list[_Note]]] = {
    "whistler": _whistler,
    "triller": _triller,
    "chirper": _chirper,
    "harmonist": _harmonist,
    "buzzer": _buzzer,
    "cuckoo": _cuckoo,
}
SPECIES: tuple[str, ...] = tuple(_SONGS)


def song(
    species: str, rng: np.random.Generator, *, sample_rate: int = 22050
) -> NDArray[np.float32]:
    """One phrase `[samples]` of one individual, 0.25 to 2.3 s long, with a peak of 0.9.

    Pitch, tempo and number of notes are drawn anew by every call. The same state of `rng` gives the
    same phrase at every `sample_rate`, less what lies above 0.45 `sample_rate`.

    Raises:
        ValueError: `species` is none of `SPECIES`.
    """
    if species not in _SONGS:
        raise ValueError(f"species is {species!r}; choose one of {', '.join(SPECIES)}")
    notes = _SONGS[species](rng)
    end_s = max(note.start_s + note.duration_s for note in notes)
    phrase = np.zeros(math.ceil(end_s * sample_rate) + 1)
    for note in notes:
        t = np.arange(round(note.duration_s * sample_rate)) / sample_rate
        knots_s = np.linspace(0, note.duration_s, len(note.pitch_hz))
        pitch_hz = np.exp(np.interp(t, knots_s, np.log(note.pitch_hz)))
        pitch_hz *= 1 + note.vibrato_depth * np.sin(2 * np.pi * note.vibrato_hz * t)
        phase = 2 * np.pi * np.cumsum(pitch_hz) / sample_rate
        # sin² flanks over a fifth and two fifths of the note: no clicks, however short it is.
        done = t / note.duration_s
        envelope = note.level * np.sin(np.pi / 2 * np.minimum(1, done / 0.2)) ** 2
        envelope *= np.sin(np.pi / 2 * np.minimum(1, (1 - done) / 0.4)) ** 2
        if note.pulse_hz:
            envelope *= 0.5 - 0.5 * np.cos(2 * np.pi * note.pulse_hz * t)
        first = round(note.start_s * sample_rate)
        for k, amplitude in enumerate(note.partials, start=1):
            below_nyquist = np.clip(9 - 20 * k * pitch_hz / sample_rate, 0, 1)
            tone = amplitude * below_nyquist * envelope * np.sin(k * phase)
            phrase[first : first + len(t)] += tone
    phrase *= 0.9 / max(float(np.abs(phrase).max()), 1e-9)
    return phrase.astype(np.float32)
