"""Small recordings, stores and runs for the tests of the commands and of prediction."""

from pathlib import Path

import numpy as np
import soundfile

from birdinv.audio.store import Recording, Store
from birdinv.data.segmenting import SegmentSettings, segment
from birdinv.training.config import TrainConfig
from birdinv.training.loop import train

RATE = 11025
CLASSES = {"robin": 900.0, "wren": 2200.0, "noise": 0.0}
SETTINGS = SegmentSettings(sample_rate=RATE, overlap=0.5, activity=False)


def sound(key: int, seconds: float = 1.6, hz: float = 900.0, rate: int = RATE) -> np.ndarray:
    """A tone (0 Hz: none) that comes and goes in noise, float32 `[n]`."""
    rng = np.random.default_rng([key, int(hz)])
    n = round(seconds * rate)
    tone = 0.4 * np.sin(2 * np.pi * (hz + 10 * key) * np.arange(n) / rate) if hz else 0.0
    gate = np.sin(2 * np.pi * 2 * np.arange(n) / rate) > 0
    return (0.05 * rng.standard_normal(n) + tone * gate).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def write_classes(folder: Path, each: int = 4, seconds: float = 1.6) -> Path:
    """`folder/<class>/<class><i>.wav` for the three classes."""
    for name, hz in CLASSES.items():
        for i in range(each):
            write(folder / name / f"{name}{i}.wav", sound(i, seconds, hz))
    return folder


def write_bad(folder: Path) -> dict[str, str]:
    """Damaged files in `folder`; name → the status each should end in."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = write(folder / "cut.wav", sound(90)).read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) * 2 // 3])
    write(folder / "broken.flac", sound(91))
    data = bytearray((folder / "broken.flac").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 1500] = bytes(1500)
    (folder / "broken.flac").write_bytes(data)
    (folder / "zero.wav").write_bytes(b"")
    (folder / "zero.mp3").write_bytes(b"")
    (folder / "header.wav").write_bytes(whole[:44])
    (folder / "text.wav").write_text("These are field notes, not a recording.\n")
    write(folder / "one-sample.wav", np.array([0.5], np.float32))
    nan = sound(92)
    nan[100:200] = np.nan
    soundfile.write(folder / "nan.wav", nan, RATE, "FLOAT")
    channels = bytearray(whole)
    channels[22:24] = bytes(2)
    (folder / "no-channels.wav").write_bytes(channels)
    return {
        "cut.wav": "partial",
        "broken.flac": "partial",
        "zero.wav": "unreadable",
        "zero.mp3": "unreadable",
        "header.wav": "empty",
        "text.wav": "unreadable",
        "one-sample.wav": "empty",
        "nan.wav": "partial",
        "no-channels.wav": "unreadable",
    }


def make_store(folder: Path, each: int = 4) -> Path:
    """`folder/recordings` and `folder/store`."""
    segment([write_classes(folder / "recordings", each)], folder / "store", SETTINGS)
    return folder / "store"


def make_run(folder: Path, **settings: object) -> Path:
    """A run of one epoch beside its store."""
    config = TrainConfig(**{"epochs": 1, "batch_size": 32, **settings})  # type: ignore[arg-type]
    train(Store(make_store(folder)), folder / "run", config, device="cpu")
    return folder / "run"


def segment_starts(store: Store, recording: Recording) -> list[int]:
    """First samples, positions in `store.audio`, of one recording's segments."""
    spans = store.spans.get(recording.file, [])
    return [recording.offset + s for a, b in spans for s in store.windows.starts(a, b).tolist()]


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path → bytes of every file below `folder`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
