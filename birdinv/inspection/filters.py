"""The filters of a network's first layer, as a bioacoustician looks at filters: by frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn


@dataclass(frozen=True)
class Filters:
    """The kernels of a first convolution of waveforms, by rising centre frequency.

    Attributes:
        kernels: `[O, T]`, of several input channels the first.
        numbers: which filter of the layer each is, `[O]`.
        centre_hz: the centre of gravity of each one's power spectrum, `[O]`.
        bandwidth_hz: its spread round that, one standard deviation, `[O]`.
        frequencies_hz: of the spectra, `[F]`.
        spectra_db: magnitude beside the largest of each, `[O, F]`.
    """

    kernels: np.ndarray
    numbers: np.ndarray
    centre_hz: np.ndarray
    bandwidth_hz: np.ndarray
    frequencies_hz: np.ndarray
    spectra_db: np.ndarray


def first_kernels(model: nn.Module) -> tuple[str, np.ndarray] | None:
    """(layer, `[O, C, *kernel]`) of the first convolution of a network, None where it has none."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            return name, module.weight.detach().double().cpu().numpy()
    return None


def by_frequency(kernels: np.ndarray, sample_rate: int) -> Filters:
    """Filters of waveforms in the order of their centre frequencies.

    Args:
        kernels: `[O, C, T]`.
        sample_rate: in Hz.
    """
    first = kernels[:, 0]
    spectrum = np.abs(np.fft.rfft(first * np.hanning(first.shape[1] + 2)[1:-1], axis=1))
    frequencies = np.fft.rfftfreq(first.shape[1], 1 / sample_rate)
    power = np.square(spectrum)
    total = np.maximum(power.sum(axis=1), np.finfo(float).tiny)
    centre = power @ frequencies / total
    spread = (power * np.square(frequencies - centre[:, None])).sum(axis=1) / total
    order = np.argsort(centre, kind="stable")
    largest = np.maximum(spectrum.max(axis=1, keepdims=True), np.finfo(float).tiny)
    level = 20 * np.log10(np.maximum(spectrum / largest, 1e-6))
    return Filters(
        kernels=first[order],
        numbers=order,
        centre_hz=centre[order],
        bandwidth_hz=np.sqrt(spread)[order],
        frequencies_hz=frequencies,
        spectra_db=level[order],
    )
