"""Filters in the order of their pitch, and sounds as files."""

import numpy as np
import pytest
import soundfile
from torch import nn

import birdinv
from birdinv.inspection.filters import by_frequency, first_kernels
from birdinv.reporting.sounds import loud, wav_of

RATE = 11025


def tones(hertz: list[float], length: int = 512) -> np.ndarray:
    """Kernels `[O, 1, T]`, each a tone of its own phase and size."""
    times = np.arange(length) / RATE
    return np.stack(
        [(n + 1) * np.cos(2 * np.pi * hz * times + n)[None] for n, hz in enumerate(hertz)]
    )


# ---------------------------------------------------------------- filters


def test_filters_are_in_the_order_of_their_tones():
    found = by_frequency(tones([3000, 500, 4500, 1200]), RATE)
    assert found.numbers.tolist() == [1, 3, 0, 2]
    np.testing.assert_array_equal(found.kernels, tones([3000, 500, 4500, 1200])[[1, 3, 0, 2], 0])


@pytest.mark.parametrize("hz", [300.0, 1000.0, 2345.0, 5000.0])
def test_the_centre_of_a_tone_is_its_frequency(hz):
    found = by_frequency(tones([hz]), RATE)
    assert found.centre_hz[0] == pytest.approx(hz, rel=0.03)
    assert found.bandwidth_hz[0] < 100


def test_two_tones_have_their_centre_between_them_and_spread_to_them():
    found = by_frequency(tones([1000]) + tones([3000]), RATE)
    assert found.centre_hz[0] == pytest.approx(2000, rel=0.03)
    assert found.bandwidth_hz[0] == pytest.approx(1000, rel=0.03)


def test_a_spectrum_is_0_db_at_the_tone_and_low_elsewhere():
    found = by_frequency(tones([4000, 1000]), RATE)
    assert found.spectra_db.max(axis=1).tolist() == [0, 0]
    at = found.frequencies_hz[found.spectra_db.argmax(axis=1)]
    np.testing.assert_allclose(at, [1000, 4000], atol=RATE / 512)
    for level, hz in zip(found.spectra_db, (1000, 4000), strict=True):
        assert level[np.abs(found.frequencies_hz - hz) > 200].max() < -40


def test_a_filter_of_zeros_is_a_filter_and_not_nan():
    found = by_frequency(np.concatenate([tones([1000]), np.zeros((1, 1, 512))]), RATE)
    for values in (found.centre_hz, found.bandwidth_hz, found.spectra_db, found.kernels):
        assert np.isfinite(values).all()
    assert found.numbers.tolist() == [1, 0] and found.centre_hz[0] == 0


def test_equal_filters_keep_the_order_of_the_layer():
    found = by_frequency(np.repeat(tones([1000]), 5, axis=0), RATE)
    assert found.numbers.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("network", "shape", "layer", "kernels"),
    [
        ("bird10", (1, 5512), "block1.0", (42, 1, 1024)),
        ("smallcnn", (3, 20, 20), "block1", (32, 3, 5, 5)),
    ],
)
def test_the_first_kernels_are_the_weights_of_the_first_convolution(network, shape, layer, kernels):
    model = birdinv.networks.build(network, classes=3, shape=shape)
    name, found = first_kernels(model)
    assert name.startswith(layer) and found.shape == kernels
    np.testing.assert_array_equal(found, model.get_submodule(name).weight.detach().double())


def test_a_dense_network_has_no_first_kernels():
    assert first_kernels(nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.ReLU())) is None


# ---------------------------------------------------------------- sounds


def test_int16_samples_are_written_as_they_are():
    samples = np.array([-32768, -12345, -1, 0, 1, 32767], np.int16)
    memory = wav_of(samples, RATE)
    memory.seek(0)
    found, rate = soundfile.read(memory, dtype="int16")
    assert rate == RATE and found.tolist() == samples.tolist()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floating_samples_are_written_to_a_rounding(kind):
    samples = np.random.default_rng(0).uniform(-1, 32767 / 32768, 1000).astype(kind)
    memory = wav_of(samples, RATE)
    memory.seek(0)
    found, _ = soundfile.read(memory, dtype="int16")
    assert np.abs(found - 32768 * samples.astype(np.float64)).max() <= 0.5


def test_floating_samples_beyond_full_scale_are_clipped_and_do_not_wrap():
    memory = wav_of(np.array([1.0, 1.5, -1.0, -2.0]), RATE)
    memory.seek(0)
    assert soundfile.read(memory, dtype="int16")[0].tolist() == [32767, 32767, -32768, -32768]


@pytest.mark.parametrize("rate", [8000, 11025, 44100])
def test_a_sound_is_one_channel_of_16_bit_at_its_rate(rate):
    memory = wav_of(np.zeros(100), rate)
    memory.seek(0)
    with soundfile.SoundFile(memory) as file:
        assert (file.format, file.subtype, file.channels) == ("WAV", "PCM_16", 1)
        assert (file.samplerate, file.frames) == (rate, 100)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_loud_has_a_peak_of_minus_1_db_and_no_mean(scale):
    samples = scale * (3 + np.random.default_rng(0).normal(size=500))
    found = loud(samples)
    assert 20 * np.log10(np.abs(found).max()) == pytest.approx(-1)
    assert abs(found.mean()) < 1e-6
    assert np.corrcoef(found, samples)[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_silence_stays_silent(level):
    assert not loud(np.full(100, level)).any()
