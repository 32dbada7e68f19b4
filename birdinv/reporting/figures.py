"""The pictures of a report: confusion matrix, spectrogram with detections.

Each function returns a `matplotlib.figure.Figure` that belongs to no window and no global state,
5.6 inches wide: its 10-point text stays readable when the picture fills a phone's screen.
Colours are those of Okabe and Ito, told apart under every common colour blindness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.6  # inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_FFT_SAMPLES, _HOP_SAMPLES = 512, 128
_MAX_COLUMNS = 1000  # a picture shows no more frames than this; longer sound is pooled by maximum


@dataclass(frozen=True)
class Detection:
    """One predicted label from `start_s` to `end_s` seconds, with a score from 0 to 1."""

    start_s: float
    end_s: float
    label: str
    score: float


def confusion_matrix(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Figure:
    """Counts of (true class, predicted class), coloured by the share of the true class's row.

    Args:
        classes: the K names, in the order of rows and columns.
        counts: [K][K], row = true class, column = predicted class. A row of zeros stays grey.

    Raises:
        ValueError: `counts` is not K × K or holds something else than counts.
    """
    from matplotlib.figure import Figure

    size = len(classes)
    if size == 0 or len(counts) != size or any(len(row) != size for row in counts):
        widths = sorted({len(row) for row in counts})
        raise ValueError(
            f"counts has {len(counts)} rows of {widths} columns, expected {size} × {size} for the "
            f"{size} classes"
        )
    table = np.array(counts, dtype=np.float64)
    if not (table >= 0).all():
        raise ValueError("counts must be numbers ≥ 0")
    rows = table.sum(axis=1, keepdims=True)
    share = np.divide(table, rows, out=np.full_like(table, np.nan), where=rows > 0)

    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axis = figure.subplots()
    axis.set_facecolor("#cccccc")  # what shows through where a row has no share
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    step = math.ceil(size / 40)  # more names than 40 would overlap
    shown = range(0, size, step)
    font = max(5.0, min(10.0, 180 / len(shown)))
    names = [printable(classes[k], 24) for k in shown]
    axis.set_xticks(shown, names, rotation=90, fontsize=font, parse_math=False)
    axis.set_yticks(shown, names, fontsize=font, parse_math=False)
    axis.set_xlabel("Predicted class")
    axis.set_ylabel("True class")
    if size <= 15:
        for i, k in np.argwhere(table > 0):
            dark = share[i, k] > 0.5
            axis.text(
                k, i, f"{table[i, k]:.0f}", ha="center", va="center", fontsize=font,
                color="white" if dark else "black",
            )  # fmt: skip
    return figure


def spectrogram(
    waveform: np.ndarray, sample_rate: int, detections: Sequence[Detection], *, title: str
) -> Figure:
    """Level in decibels over time and frequency; under it a row per label, higher where surer.

    White is the median level (the noise floor) and black the loudest, 40 to 80 dB above.

    Args:
        waveform: [T], floating point in [-1, 1] or 16-bit integers; up to some minutes.
        sample_rate: samples per second (Hz).
        detections: in any order; those of one label may overlap.
        title: written above the picture.

    Raises:
        ValueError: `waveform` is no single channel of finite samples, or `sample_rate` is not > 0.
    """
    import librosa
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    samples = floating_samples(waveform)
    if sample_rate <= 0:
        raise ValueError(f"sample_rate is {sample_rate} Hz, expected more than 0")
    duration_s = len(samples) / sample_rate
    samples = np.pad(samples, (0, max(0, _FFT_SAMPLES - len(samples))))
    level = np.abs(librosa.stft(samples, n_fft=_FFT_SAMPLES, hop_length=_HOP_SAMPLES))
    frames = level.shape[1]
    if frames > _MAX_COLUMNS:  # the maximum keeps short calls that picking frames would lose
        starts = np.arange(_MAX_COLUMNS) * frames // _MAX_COLUMNS
        level = np.maximum.reduceat(level, starts, axis=1)
    level = librosa.amplitude_to_db(level, ref=1.0, top_db=None)
    loudest = max(float(level.max()), -60.0)  # silence stays white
    floor = float(np.clip(np.median(level), loudest - 80, loudest - 40))

    labels = sorted({detection.label for detection in detections})
    track = 0.42 * max(1, len(labels))
    figure = Figure(figsize=(WIDTH, 3.1 + track), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=[2.3, track])
    # Frame i is centred on sample i · hop.
    half_s = _HOP_SAMPLES / sample_rate / 2
    end_s = (2 * frames - 1) * half_s
    above.imshow(
        level, cmap=colormaps["gray_r"].resampled(32), vmin=floor, vmax=loudest, origin="lower",
        aspect="auto", extent=(-half_s, end_s, 0, sample_rate / 2000), interpolation_stage="data",
    )  # fmt: skip
    above.set_ylabel("Frequency (kHz)")
    above.set_title(printable(title, 60), fontsize=10, loc="left", parse_math=False)
    for row, label in enumerate(labels):
        found = [detection for detection in detections if detection.label == label]
        # A row is one unit high: the bar takes the lower half, the name the upper.
        below.bar(
            [detection.start_s for detection in found],
            [0.5 * min(1.0, max(0.0, detection.score)) for detection in found],
            [detection.end_s - detection.start_s for detection in found],
            bottom=-row, align="edge", color=COLOURS[row % len(COLOURS)],
        )  # fmt: skip
        best = max(detection.score for detection in found)
        caption = f"{printable(label, 40)}: {len(found)} ×, best score {best:.2f}"
        below.annotate(
            caption, (0, 0.93 - row), xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", va="top", fontsize=9, parse_math=False,
        )  # fmt: skip
        below.axhline(-row, color="#999999", linewidth=0.6)
    if not labels:
        below.text(0.5, 0.5, "no detection", ha="center", va="center", transform=below.transAxes)
    below.set_ylim(1 - max(1, len(labels)) - 0.05, 1.0)
    below.set_yticks([])
    below.set_xlim(0, duration_s)
    below.set_xlabel("Time (s)")
    return figure


def show_image(axis: Axes, picture: np.ndarray) -> None:
    """The mean of the channels of `[C, H, W]` on a grey scale that is symmetric about 0."""
    grey = picture.mean(axis=0)
    largest = float(np.abs(grey).max()) or 1.0
    axis.imshow(grey, cmap="gray", vmin=-largest, vmax=largest, interpolation="nearest")


def name_curves(axis: Axes, names: Sequence[str]) -> None:
    """A legend for the labelled curves of an axis, in their order, of names as they are.

    Labels that begin with _ matplotlib would leave out, and set what stands between two $.
    """
    lines = [line for line in axis.get_lines() if not str(line.get_label()).startswith("_")]
    legend = axis.legend(lines, [str(n) for n in range(len(names))], fontsize=8, frameon=False)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=printable(name, 50), parse_math=False)


def floating_samples(waveform: np.ndarray) -> np.ndarray:
    """The samples [T] as float32; 16-bit integers are divided by 2¹⁵.

    Raises:
        ValueError: `waveform` is no single channel of finite samples.
    """
    samples = np.asarray(waveform)
    if samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"waveform has shape {list(samples.shape)}, expected [T] with T > 0")
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32768)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"waveform holds {samples.dtype}, expected floating point or int16")
    samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        raise ValueError("waveform holds samples that are no finite numbers")
    return samples


def printable(text: str, length: int) -> str:
    """The text as one line of at most `length` characters that a font can draw."""
    line = "".join(character if character.isprintable() else "?" for character in text)
    return line if len(line) <= length else line[: length - 1] + "…"
