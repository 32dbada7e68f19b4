"""What a network is looked at with: half a second of a recording, or an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from birdinv.audio.reading import Reader, Verdict
from birdinv.audio.resampling import pcm, resampled
from birdinv.errors import BirdinvError, NothingReadable, SettingError
from birdinv.files import read_json
from birdinv.networks.layers import normalise
from birdinv.networks.saved import Description
from birdinv.prediction.listener import Listener
from birdinv.threads import cpu_threads
from birdinv.training.images import samples_to_judge


@dataclass(frozen=True)
class Subject:
    """One input of a network.

    Attributes:
        name: of the file, or of the data set and the number in it.
        x: `[1, C, *S]`, normalised.
        truth: its class, where that is known.
        start_s: where in the recording it begins; None for an image.
        sample_rate: in Hz; None for an image.
        note: what was wrong with the recording, "" if nothing.
    """

    name: str
    x: Tensor
    truth: str | None = None
    start_s: float | None = None
    sample_rate: int | None = None
    note: str = ""


def recording_subject(run: Path, path: Path, at_s: float | None = None) -> Subject:
    """A window of a recording, as the network of a run hears it.

    Args:
        at_s: where it begins; None = where the network is surest of a class that is an event.

    Raises:
        NothingReadable: there is no sound in it, or none at `at_s`.
        SettingError: `at_s` is negative.
        BirdinvError: no such run, or one on images.
    """
    if path.is_dir():
        raise NothingReadable(f"{path} is a folder; give the recordings in it that you want to see")
    listener = Listener.load(run)
    rate, segment = listener.sample_rate, listener.windows.segment
    if at_s is not None and not 0 <= at_s < 1e9:
        raise SettingError(f"--at is {at_s:g}; give seconds from the start of the recording")
    start, heard = _surest(listener, path) if at_s is None else (round(at_s * rate), None)
    samples, read = _stretch(path, start, segment, rate)
    if len(samples) < segment:  # as in `predict`
        level = int(np.rint(samples.mean()))
        samples = np.pad(samples, (0, segment - len(samples)), constant_values=level)
    x = normalise(torch.from_numpy(samples.astype(np.float32))[None, None])
    if not bool(x.any()):
        raise NothingReadable(f"{path} is silent at {start / rate:.2f} s: there is nothing to see")
    verdict = heard or read  # the whole of it, where all was heard
    note = f"{path} is {verdict.status}: {verdict.reason}" if verdict.status == "partial" else ""
    return Subject(path.name, x, start_s=start / rate, sample_rate=rate, note=note)


def image_subjects(
    run: Path, description: Description, paths: Sequence[Path], root: Path | None
) -> Iterator[Subject]:
    """Image files, or the first test image of each class where none are given.

    Args:
        root: where the data set lies; None = where it lay when the run began.

    Raises:
        NothingReadable: an image that cannot be read, is of one colour, or has another size than
            the network takes.
        BirdinvError: no images and no run to say what data set to take them from.
    """
    channels, height, width = (int(n) for n in description.sizes["shape"])
    info = read_json(run / "run.json", "a run") if (run / "run.json").exists() else {}
    pad = int(info.get("config", {}).get("pad", 0))
    for path in paths:
        pixels = _pixels(path, channels, height - 2 * pad, width - 2 * pad)
        x = torch.nn.functional.pad(torch.from_numpy(pixels), [pad] * 4)
        x = normalise(x[None])
        if not bool(x.any()):
            raise NothingReadable(f"{path} is of one colour: there is nothing to see")
        yield Subject(path.name, x)
    if paths:
        return
    if "dataset" not in info:
        raise BirdinvError(
            f"{run} says of no data set where to find test images; give images of {width} × "
            f"{height} pixels, or the folder of the run"
        )
    samples = samples_to_judge(info, "test", root)
    labels = np.asarray(samples.labels)
    first = np.unique(labels, return_index=True)[1]
    for n in first:
        name = f"{info['dataset']} test {n}"
        truth = description.classes[int(labels[n])]
        yield Subject(name, samples.inputs(np.array([n])), truth)


def _surest(listener: Listener, path: Path) -> tuple[int, Verdict]:
    """The first sample of the window with the highest score of an event, and how all was read."""
    events = [k for k, name in enumerate(listener.classes) if name not in listener.non_events]
    events = events or list(range(len(listener.classes)))
    best, start = -1.0, 0
    scored = listener.hear(path)
    with cpu_threads(1):
        for first, probabilities in scored:
            scores = probabilities[:, events].max(axis=1)
            n = int(scores.argmax())
            if scores[n] > best:
                best, start = float(scores[n]), (first + n) * listener.windows.hop
    if best < 0:
        raise NothingReadable(f"{path} cannot be looked at: {scored.verdict.reason}")
    return start, scored.verdict


def _stretch(path: Path, start: int, length: int, rate: int) -> tuple[np.ndarray, Verdict]:
    """The int16 samples `[start, start + length)` at `rate` Hz, as far as there are any.

    And how the recording was read up to there.
    """
    parts: list[np.ndarray] = []
    position = 0
    with Reader(path) as reader:
        blocks = resampled(reader, reader.source_rate, rate) if reader.source_rate else iter(())
        for block in blocks:
            parts.append(block[max(0, start - position) : max(0, start + length - position)])
            position += len(block)
            if position >= start + length:
                break
        verdict = reader.verdict
    samples, _ = pcm(np.concatenate([np.zeros(0, np.float32), *parts]))
    if not len(samples):
        why = verdict.reason if not position else f"it ends after {position / rate:.2f} s"
        raise NothingReadable(f"{path} has no sound at {start / rate:.2f} s: {why}")
    return samples, verdict


def _pixels(path: Path, channels: int, height: int, width: int) -> np.ndarray:
    """Float32 `[C, H, W]`."""
    from PIL import Image, UnidentifiedImageError

    modes: dict[int, Any] = {1: "L", 3: "RGB"}
    if channels not in modes:
        raise BirdinvError(
            f"the network takes images of {channels} channels, which no picture file has"
        )
    try:
        with Image.open(path) as image:
            size = image.size
            if size != (width, height):
                raise NothingReadable(
                    f"{path} has {size[0]} × {size[1]} pixels, and the network takes {width} × "
                    f"{height}; scale it first"
                )
            pixels = np.asarray(image.convert(modes[channels]), np.float32)
    except UnidentifiedImageError as error:
        raise NothingReadable(f"{path} is no picture; give PNG or JPEG files") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NothingReadable(f"{path} cannot be read: {error}") from error
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
