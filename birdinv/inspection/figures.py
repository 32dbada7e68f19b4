"""The pictures of an inspection; see `reporting.figures` for the size and the colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from birdinv.inspection.filters import Filters
from birdinv.reporting.figures import COLOURS, WIDTH, name_curves, printable, show_image
from birdinv.spline.lipschitz import Lipschitz

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RANGE_DB = 60.0  # of a spectrogram, below its loudest
_ROW = 1.25  # inches


def signals(rows: Sequence[tuple[str, np.ndarray]], sample_rate: int) -> Figure:
    """A row for each sound: its waveform, and its spectrogram beside it.

    Args:
        rows: title and samples `[T]`, of one length.
        sample_rate: in Hz.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 0.4 + _ROW * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False, sharex=True, width_ratios=[1, 1])
    for (wave, spectrogram), (title, samples) in zip(axes, rows, strict=True):
        times = np.arange(len(samples)) / sample_rate
        largest = float(np.abs(samples).max()) or 1.0
        wave.plot(times, samples, color=COLOURS[0], linewidth=0.4)
        wave.set_ylim(-1.05 * largest, 1.05 * largest)
        wave.set_xlim(0, len(samples) / sample_rate)
        wave.tick_params(labelsize=8)
        wave.set_title(printable(title, 60), fontsize=9, loc="left", parse_math=False)
        wave.spines[["top", "right"]].set_visible(False)
        _draw_spectrogram(spectrogram, samples, sample_rate)
    for axis in axes[-1]:
        axis.set_xlabel("Time (s)", fontsize=9)
    axes[len(rows) // 2, 1].set_ylabel("Frequency (kHz)", fontsize=9)
    return figure


def filters_picture(filters: Filters, sample_rate: int) -> Figure:
    """Filters by rising centre frequency: some of their waveforms, and the spectra of all."""
    from matplotlib.figure import Figure

    count, length = filters.kernels.shape
    shown = np.unique(np.linspace(0, count - 1, min(count, 12)).round().astype(int))
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    times = 1000 * np.arange(length) / sample_rate
    for row, n in enumerate(shown):
        kernel = filters.kernels[n]
        largest = float(np.abs(kernel).max()) or 1.0
        left.plot(times, row + 0.45 * kernel / largest, color=COLOURS[0], linewidth=0.5)
    names = [f"{filters.centre_hz[n] / 1000:.1f}" for n in shown]
    left.set_yticks(range(len(shown)), names, fontsize=8)
    left.set_ylabel("Filter, by its centre frequency (kHz)", fontsize=9)
    left.set_xlabel("Time (ms)", fontsize=9)
    left.set_xlim(0, times[-1])
    left.tick_params(labelsize=8)
    top = filters.frequencies_hz[-1] / 1000
    image = right.imshow(
        filters.spectra_db, cmap="gray_r", vmin=-40, vmax=0, origin="lower", aspect="auto",
        extent=(0, top, -0.5, count - 0.5), interpolation_stage="data",
    )  # fmt: skip
    right.plot(filters.centre_hz / 1000, np.arange(count), color=COLOURS[1], linewidth=1)
    right.set_xlabel("Frequency (kHz)", fontsize=9)
    right.set_ylabel("Filters in this order", fontsize=9)
    right.tick_params(labelsize=8)
    bar = figure.colorbar(image, ax=right, pad=0.02)
    bar.set_label("dB below the filter's loudest", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def kernels_picture(kernels: np.ndarray) -> Figure:
    """The kernels of a first layer of images `[O, C, h, w]`, the mean of their channels."""
    from matplotlib.figure import Figure

    count = len(kernels)
    columns = min(12, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, 0.3 + WIDTH / columns * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, kernel in zip(axes.flat, kernels, strict=False):
        show_image(axis, kernel)
    return figure


def images_row(pictures: Sequence[tuple[str, np.ndarray]], columns: int = 6) -> Figure:
    """Pictures `[C, H, W]` side by side under their titles, each on a scale of its own."""
    from matplotlib.figure import Figure

    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(WIDTH, 1.45 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, picture) in zip(axes.flat, pictures, strict=False):
        show_image(axis, picture)
        axis.set_title(title, fontsize=7, parse_math=False)
    return figure


def correlations(names: Sequence[str], correlation: np.ndarray) -> Figure:
    """Correlation of the templates of every two classes, `[K, K]`, from −1 to 1."""
    from matplotlib.figure import Figure

    size = len(names)
    side = min(WIDTH, 1.6 + 0.34 * size)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    font = max(5.0, min(9.0, 150 / size))
    ticks = [printable(name, 16) for name in names]
    axis.set_xticks(range(size), ticks, rotation=90, fontsize=font, parse_math=False)
    axis.set_yticks(range(size), ticks, fontsize=font, parse_math=False)
    if size <= 10:
        for i, k in np.ndindex(size, size):
            value = float(correlation[i, k])
            colour = "white" if abs(value) > 0.6 else "black"
            axis.text(k, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    bar = figure.colorbar(image, ax=axis, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    return figure


def brackets(found: Sequence[tuple[str, Lipschitz]]) -> Figure:
    """The upper bound from the input on, layer by layer, and the lower bound of the whole."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axis = figure.subplots()
    names = []
    for (name, one), colour in zip(found, COLOURS, strict=False):
        bounds = [1.0, *(layer.so_far for layer in one.layers)]
        axis.plot(range(len(bounds)), bounds, "-o", ms=3, color=colour, label="upper")
        end = len(bounds) - 1
        axis.plot([end], [one.lower], "v", ms=7, color=colour, label="lower")
        names += [f"{name}: upper", f"{name}: lower"]
        axis.plot([end, end], [one.lower, one.upper], ":", color=colour, linewidth=1)
    axis.set_yscale("log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("Operations from the input on")
    axis.set_ylabel("Stretch, at most")
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    name_curves(axis, names)
    return figure


def _draw_spectrogram(axis: Axes, samples: np.ndarray, sample_rate: int) -> None:
    import librosa

    fft = max(64, min(512, 2 ** int(np.log2(max(64, len(samples) // 8)))))
    hop = fft // 8
    level = librosa.stft(samples.astype(np.float32), n_fft=fft, hop_length=hop)
    level = librosa.amplitude_to_db(np.abs(level), ref=np.max, top_db=None)
    half = hop / sample_rate / 2
    end = (2 * level.shape[1] - 1) * half
    axis.imshow(
        level, cmap="gray_r", vmin=-_RANGE_DB, vmax=0, origin="lower", aspect="auto",
        extent=(-half, end, 0, sample_rate / 2000), interpolation_stage="data",
    )  # fmt: skip
    axis.set_xlim(0, len(samples) / sample_rate)
    axis.tick_params(labelsize=8)
