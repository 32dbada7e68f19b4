"""Sound for pages and folders: WAV, one channel, 16 bit."""

from __future__ import annotations

import io
import wave

import numpy as np

_PEAK = 10 ** (-1 / 20)  # 1 dB below full scale


def wav_of(samples: np.ndarray, sample_rate: int) -> io.BytesIO:
    """The samples `[T]`, int16 or floating point in [-1, 1], as a WAV file."""
    if samples.dtype != np.int16:
        samples = np.clip(np.round(samples * 32768), -32768, 32767)
    memory = io.BytesIO()
    with wave.open(memory, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return memory


def loud(samples: np.ndarray) -> np.ndarray:
    """The samples `[T]` without their mean, scaled to a peak of −1 dB; silence stays silent."""
    samples = samples.astype(np.float64) - samples.mean()
    peak = np.abs(samples).max()
    scaled: np.ndarray = samples * (_PEAK / peak if peak > 0 else 0.0)
    return scaled
