"""A synthetic bird chorus, the same for the same seed: labelled, unlabelled, field, damaged files.

Six invented species, one for each common type of song, sung by individuals that differ in pitch,
tempo and number of notes, near and far, over wind of any colour and level. It feeds `birdinv demo`
and the tests: every step from reading to reporting can be shown without a data set.
"""

import io
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from birdinv.data.songs import SPECIES, song

# Each recording has a random stream of its own, [seed, kind, index]: asking for more recordings of
# one kind leaves all others as they were. Labelled classes are kinds 0, 1, … in their order.
_UNLABELLED, _FIELD, _DAMAGED = 100, 101, 102

# What recorders and archives hand out, dealt out in turn within every class, so that the format
# tells nothing about the label. No Ogg: libsndfile draws its serial number from the clock.
_FORMATS = (
    ("wav", "PCM_16", 22050),
    ("flac", "PCM_16", 44100),
    ("mp3", "MPEG_LAYER_III", 44100),
    ("wav", "PCM_24", 48000),
    ("aiff", "PCM_16", 32000),
)

# Names that trip programs up: one stem twice, spaces, an umlaut.
_FIELD_RECORDINGS = {
    "meadow/dawn.wav": (22050, ("whistler", "triller")),
    "meadow/dawn.flac": (44100, ("buzzer",)),
    "wood/stereo-48k.wav": (48000, ("cuckoo", "chirper", "whistler")),
    "wood/Frühling am Bach.mp3": (44100, ("harmonist", "cuckoo")),
    "marsh/dusk.aiff": (32000, ("chirper", "buzzer")),
}
_DAMAGED_FILES = {
    "labelled/whistler": ("truncated.wav",),
    "labelled/chirper": ("empty.wav",),
    "labelled/buzzer": ("damaged.flac",),
    "unlabelled/site-1": ("header-only.wav", "text.wav"),
    "unlabelled/site-2": ("truncated.mp3", "nan.wav"),
    "field/meadow": ("empty.wav", "header-only.wav", "truncated.mp3"),
    "field/wood": ("text.wav", "truncated.wav"),
    "field/marsh": ("damaged.flac", "nan.wav"),
}


@dataclass(frozen=True)
class Chorus:
    """The folders that `write_chorus` made."""

    labelled: Path  # one folder a class: the species and `noise`
    unlabelled: Path
    field: Path  # recordings to run a trained model over


def recording(
    species: Sequence[str],
    rng: np.random.Generator,
    *,
    seconds: float,
    sample_rate: int = 22050,
) -> NDArray[np.float32]:
    """A mono recording `[round(seconds * sample_rate)]` of one singer of each species; peak < 1.

    Every singer repeats its phrase with pauses of 0.3 to 1.5 s, from 5 to 40 m away (farther is
    quieter and duller), whatever the others sing. Below them blows a wind of −60 to −34 dB re full
    scale (RMS) whose power falls as frequency^−slope, slope 0 to 2; with no species, only the wind.

    Raises:
        ValueError: `seconds` is shorter than one sample, or a species is none of `SPECIES`.
    """
    samples = round(seconds * sample_rate)
    if samples < 1:
        raise ValueError(f"seconds is {seconds}; a recording needs at least one sample")
    frequency_hz = np.fft.rfftfreq(samples, 1 / sample_rate)

    colour = np.maximum(frequency_hz, 100) ** (-rng.uniform(0, 2) / 2)
    wind = np.fft.irfft(colour * np.fft.rfft(rng.standard_normal(samples)), samples)
    wind *= 10 ** (rng.uniform(-60, -34) / 20) / np.sqrt(np.mean(wind**2))
    gusts_db = rng.uniform(-3, 3, math.ceil(seconds) + 1)
    t = np.arange(samples) / sample_rate
    wind *= 10 ** (np.interp(t, np.arange(len(gusts_db)), gusts_db) / 20)

    mixture = np.zeros(len(frequency_hz), complex)
    for name in species:
        phrase = song(name, rng, sample_rate=sample_rate)
        first_s = rng.uniform(0, min(1.0, max(0.0, seconds - len(phrase) / sample_rate)))
        track, first = np.zeros(samples), int(first_s * sample_rate)
        while True:
            heard = phrase[: samples - first]
            track[first : first + len(heard)] += heard * rng.uniform(0.7, 1)
            first += len(phrase) + int(rng.uniform(0.3, 1.5) * sample_rate)
            if first + len(phrase) > samples:
                break
        distance_m = 5 * 8 ** rng.uniform(0, 1)
        corner_hz = 10000 / math.sqrt(distance_m / 5)  # leaves and air swallow high pitches
        air = (0.6 * 5 / distance_m) / (1 + (frequency_hz / corner_hz) ** 2)
        mixture += air * np.fft.rfft(track)

    sound = np.fft.irfft(mixture, samples) + wind
    sound /= max(1.0, float(np.abs(sound).max()) / 0.95)
    return sound.astype(np.float32)


def write_chorus(
    folder: Path,
    *,
    seed: int = 0,
    recordings_per_species: int = 8,
    unlabelled: int = 12,
    seconds: float = 6.0,
) -> Chorus:
    """Write a chorus of WAV, FLAC, MP3 and AIFF files at 22.05 to 48 kHz below `folder`.

    - `labelled/<class>/<class>-01.…`: `recordings_per_species` of each species, half as many (at
      least three) of the class `noise`, where nobody sings;
    - `unlabelled/site-<n>/<nnn>.…`: one to three species at once;
    - `field/<habitat>/…`: five recordings four seconds longer, one of them in stereo.

    Beside them, and never needed by a class, lie files with the common faults, named after them:
    `empty` (0 bytes), `header-only` and `text` (no samples), `truncated` (the first half of a WAV
    or MP3), `damaged` (a FLAC with zeros in its middle) and `nan` (a tenth of the samples).

    The same arguments write the same bytes (with the same libsndfile, numpy and machine). A file of
    the same name is replaced, others in `folder` are left alone.

    Args:
        seed: not negative.
        recordings_per_species: good labelled recordings of each species; at least 1.
        unlabelled: good unlabelled recordings; 0 or more.
        seconds: length of each labelled and unlabelled recording; at least 0.5.

    Raises:
        ValueError: an argument is below its minimum.
    """
    for name, value, least in (
        ("seed", seed, 0),
        ("recordings_per_species", recordings_per_species, 1),
        ("unlabelled", unlabelled, 0),
        ("seconds", seconds, 0.5),
    ):
        if not value >= least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    chorus = Chorus(folder / "labelled", folder / "unlabelled", folder / "field")

    for kind, label in enumerate((*SPECIES, "noise")):
        noise = label == "noise"
        count = max(3, recordings_per_species // 2) if noise else recordings_per_species
        for index in range(count):
            suffix, subtype, rate = _FORMATS[index % len(_FORMATS)]
            path = chorus.labelled / label / f"{label}-{index + 1:02d}.{suffix}"
            rng = np.random.default_rng([seed, kind, index])
            sound = recording(() if noise else (label,), rng, seconds=seconds, sample_rate=rate)
            _write(path, _encoded(sound, suffix, rate, subtype))

    for index in range(unlabelled):
        suffix, subtype, rate = _FORMATS[index % len(_FORMATS)]
        path = chorus.unlabelled / f"site-{index % 3 + 1}" / f"{index + 1:03d}.{suffix}"
        rng = np.random.default_rng([seed, _UNLABELLED, index])
        singers = [SPECIES[i] for i in rng.permutation(len(SPECIES))[: rng.integers(1, 4)]]
        sound = recording(singers, rng, seconds=seconds, sample_rate=rate)
        _write(path, _encoded(sound, suffix, rate, subtype))

    for index, (place, (rate, species)) in enumerate(_FIELD_RECORDINGS.items()):
        rng = np.random.default_rng([seed, _FIELD, index])
        sound = recording(species, rng, seconds=seconds + 4, sample_rate=rate)
        if "stereo" in place:  # the second microphone hears it 0.25 ms later and weaker
            sound = np.stack([sound, 0.7 * np.roll(sound, rate // 4000)], axis=1)
        _write(chorus.field / place, _encoded(sound, place.rpartition(".")[2], rate))

    faults = [folder / place / name for place, names in _DAMAGED_FILES.items() for name in names]
    for index, path in enumerate(faults):
        rng = np.random.default_rng([seed, _DAMAGED, index])
        label = path.parent.name if path.parent.name in SPECIES else SPECIES[index % len(SPECIES)]
        _write(path, _damaged(path.name, recording((label,), rng, seconds=seconds), 22050))
    return chorus


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _encoded(
    sound: NDArray[np.float32], suffix: str, rate: int, subtype: str | None = None
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format=suffix.upper(), subtype=subtype)
    return buffer.getvalue()


def _damaged(name: str, sound: NDArray[np.float32], rate: int) -> bytes:
    """The bytes of a mono recording with the fault that the file name says."""
    match name:
        case "empty.wav":
            return b""
        case "text.wav":
            return b"05:30 recorder placed, light rain, wind from the west\n" * 20
        case "nan.wav":
            # By hand: libsndfile stamps the time of day into the header of float files.
            samples = sound.astype("<f4")
            samples[len(samples) * 2 // 5 : len(samples) // 2] = np.nan
            data = struct.pack("<HHIIHH4sI", 3, 1, rate, 4 * rate, 4, 32, b"data", samples.nbytes)
            data = struct.pack("<8sI", b"WAVEfmt ", 16) + data + samples.tobytes()
            return struct.pack("<4sI", b"RIFF", len(data)) + data
    whole = _encoded(sound, name.rpartition(".")[2], rate)
    middle = len(whole) // 2
    match name:
        case "header-only.wav":
            return whole[:44]
        case "damaged.flac":
            return whole[:middle] + bytes(512) + whole[middle + 512 :]
        case _:
            return whole[:middle]
