"""Small spectrograms, of which a page holds hundreds: PNGs written without matplotlib."""

from __future__ import annotations

import io
import math

import numpy as np

from birdinv.reporting.figures import floating_samples

_SMALL = (128, 288)  # rows and columns, at the most about
_GREYS = 15  # with the colour of the mark 16: four bits a pixel
_MARK = "D55E00"  # vermilion, as in the figures


def small_spectrogram(
    waveform: np.ndarray, sample_rate: int, marked: tuple[float, float]
) -> io.BytesIO:
    """A PNG without axes or text, 0 Hz to half the sample rate, as dark as `figures.spectrogram`.

    Args:
        waveform: [T], floating point in [-1, 1] or 16-bit integers; some seconds.
        marked: start and end, in seconds, of what is framed in vermilion.

    Raises:
        ValueError: as in `figures.spectrogram`.
    """
    from PIL import Image

    samples = floating_samples(waveform)
    if sample_rate <= 0:
        raise ValueError(f"sample_rate is {sample_rate} Hz, expected more than 0")
    fft = max(2, 2 ** round(math.log2(sample_rate / 43)))  # 23 ms at any rate: 512 at 22050 Hz
    hop = max(1, math.ceil(len(samples) / _SMALL[1]))
    # Frame i is centred on sample i · hop.
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, fft // 2), fft)[::hop]
    level = np.abs(np.fft.rfft(frames * np.hanning(fft + 1)[:-1]))[:, 1:].T  # without 0 Hz
    # Neighbouring frequencies share a row; the maximum keeps a whistle as loud as it is.
    level = level.reshape(-1, max(1, len(level) // _SMALL[0]), level.shape[1]).max(axis=1)
    level = 20 * np.log10(np.maximum(level, 1e-10))
    loudest = max(float(level.max()), -60.0)
    floor = float(np.clip(np.median(level), loudest - 80, loudest - 40))
    grey = np.rint((_GREYS - 1) * np.clip((loudest - level) / (loudest - floor), 0, 1))
    pixels = grey[::-1].astype(np.uint8)  # 0 Hz at the bottom

    left, right = (
        int(np.clip(round(edge_s * sample_rate / hop), 0, pixels.shape[1] - 1)) for edge_s in marked
    )
    pixels[:3, left : right + 1] = _GREYS
    pixels[:, left : left + 2] = pixels[:, max(left, right - 1) : right + 1] = _GREYS
    image = Image.fromarray(pixels)
    shades = [value for k in range(_GREYS) for value in [round(255 * k / (_GREYS - 1))] * 3]
    image.putpalette([*shades, *bytes.fromhex(_MARK)])
    png = io.BytesIO()
    image.save(png, format="PNG", bits=4)
    return png
