"""Activity: the two passes against the definition computed segment by segment."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from damaged import sound
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from birdinv.audio import activity
from birdinv.audio.activity import (
    FLATNESS,
    FRAME,
    HOP,
    LEVEL,
    LevelHistogram,
    active_segments,
    active_spans,
    annotated_spans,
    frame_energy,
    frame_flatness,
)
from birdinv.audio.windows import Windows

Samples = NDArray[np.int16]


def int16(samples: NDArray[np.float32]) -> Samples:
    return np.rint(samples * 32767).astype(np.int16)


def scene(seed: int, length: int) -> Samples:
    """Tones, noise bursts and silence over an offset, in stretches of random lengths."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(0)]
    while sum(map(len, parts)) < length:
        n = int(rng.integers(50, 3000))
        tone = np.sin(2 * np.pi * rng.uniform(0.01, 0.4) * np.arange(n))
        parts.append(
            [
                10 ** rng.uniform(-3, -0.5) * tone,
                10 ** rng.uniform(-3, -0.5) * rng.uniform(-1, 1, n),
                np.zeros(n),
            ][rng.integers(3)]
        )
    samples = np.concatenate(parts)[:length] + rng.uniform(-0.5, 0.5)
    return int16(samples.astype(np.float32))


def frames_of(samples: Samples) -> NDArray[np.float64]:
    starts = range(0, len(samples) - FRAME + 1, HOP)
    return np.array([samples[s : s + FRAME] for s in starts], float).reshape(-1, FRAME)


def slow_flatness(frame: NDArray[np.float64]) -> float:
    x = (frame - frame.mean()) / 32768
    window = np.hanning(FRAME + 1)[:-1]
    power = np.abs(np.fft.rfft(x * window)) ** 2 + 1e-10
    return float(np.exp(np.log(power).mean()) / power.mean())


def slow_margins(samples: Samples, windows: Windows, level: float) -> NDArray[np.float64]:
    """By how much each segment is active: the lesser of its two relative margins."""
    frames = frames_of(samples)
    energy = frames.var(axis=1)
    flatness = np.array([slow_flatness(frame) for frame in frames])
    margins = []
    for start in range(0, len(samples) - windows.segment + 1, windows.hop):
        own = [
            f
            for f in range(len(frames))
            if start <= f * HOP and f * HOP + FRAME <= start + windows.segment
        ]
        mean = energy[own].mean()
        # At level 0 a recorder's gate left less than 5 % of sound: whatever sounds is active.
        loudness = mean / (LEVEL * level) - 1 if level else float(np.sign(mean - 1e-9))
        total = energy[own].sum()
        flat = (energy[own] * flatness[own]).sum() / total if total else 1.0
        margins.append(min(loudness, 1 - flat / FLATNESS))
    return np.array(margins)


def reader(samples: Samples) -> Callable[[int, int], Samples]:
    def read(start: int, end: int) -> Samples:
        assert 0 <= start < end <= len(samples)
        return samples[start:end]

    return read


def level_of(samples: Samples) -> float:
    levels = LevelHistogram()
    levels.update(samples)
    return levels.percentile()


# ---------------------------------------------------------------- frames


@pytest.mark.parametrize("length", [0, 1, 127, 255, 256, 257, 383, 384, 5000])
def test_the_energy_of_a_frame_is_its_variance(length: int) -> None:
    samples = scene(3, length)
    energy = frame_energy(samples)
    assert energy.dtype == np.float32
    np.testing.assert_allclose(energy, frames_of(samples).var(axis=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("offset", [-32768, -12345, 7, 19999, 32767])
def test_a_constant_offset_is_no_sound(offset: int) -> None:
    # In float32 sums of squares, 20 000 would leave a variance of up to 448 behind.
    assert (frame_energy(np.full(5000, offset, np.int16)) == 0).all()
    quiet = np.random.default_rng(0).integers(-3, 4, 5000).astype(np.int16)
    shift = np.int16(offset - 3 * np.sign(offset))
    np.testing.assert_allclose(frame_energy(quiet + shift), frame_energy(quiet), rtol=1e-6)


def test_flatness_is_the_definition_and_lies_between_a_tone_and_noise() -> None:
    frames = frames_of(scene(4, 20000))
    expected = [slow_flatness(frame) for frame in frames]
    np.testing.assert_allclose(frame_flatness(frames), expected, rtol=2e-3, atol=1e-5)
    tone = 8000 * np.sin(2 * np.pi * 0.1 * np.arange(FRAME))
    noise = np.random.default_rng(0).normal(0, 3000, FRAME)
    assert frame_flatness(np.array([tone]))[0] < 0.01
    assert frame_flatness(np.array([noise]))[0] > 0.4
    assert frame_flatness(np.zeros((1, FRAME)))[0] == pytest.approx(1)


# ---------------------------------------------------------------- percentile


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 50), st.integers(0, 30000), st.lists(st.integers(0, 30000), max_size=6))
def test_the_percentile_is_numpys_to_one_part_in_2048(
    seed: int, length: int, places: list[int]
) -> None:
    samples = scene(seed, length)
    levels = LevelHistogram()
    for block in np.split(samples, sorted(min(place, length) for place in places)):
        levels.update(block)
    energy = frames_of(samples).var(axis=1).astype(np.float32)
    for q in (0, 5, 50, 95, 100):
        exact = np.percentile(energy, q, method="lower") if len(energy) else 0
        # A variance that is not exact in float32 may lie just across a boundary of two bins.
        assert exact * (1 - 1.01 / 2048) <= levels.percentile(q) <= exact * (1 + 1e-6)


def test_the_histogram_does_not_grow() -> None:
    levels = LevelHistogram()
    for seed in range(20):
        levels.update(scene(seed, 10000))
        assert len(levels._counts) == 1 << 19 and len(levels._rest) < FRAME


def test_the_loudest_frame_there_can_be_fits_the_histogram() -> None:
    square = np.tile(np.array([32767, -32768], np.int16), 512)
    assert level_of(square) == pytest.approx(32767.5**2, rel=1 / 2048)


# ---------------------------------------------------------------- segments and spans


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1000),
    st.integers(512, 3000),
    st.integers(1, 3000),
    st.integers(0, 12000),
)
def test_active_segments_are_the_definition(seed: int, segment: int, hop: int, length: int) -> None:
    windows = Windows(segment, max(hop, 40))
    samples = scene(seed, length)
    level = level_of(samples)
    margins = slow_margins(samples, windows, level)
    got = active_segments(samples, windows, 0, level)
    assert got.dtype == bool and got.shape == margins.shape
    clear = np.abs(margins) > 1e-3
    np.testing.assert_array_equal(got[clear], margins[clear] > 0)


def test_scenes_have_active_and_silent_segments() -> None:
    windows = Windows(1000, 100)
    shares = []
    for seed in range(20):
        samples = scene(seed, 20000)
        shares.append(active_segments(samples, windows, 0, level_of(samples)).mean())
    assert 0.05 < np.mean(shares) < 0.95


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1000),
    st.integers(512, 3000),
    st.integers(1, 3000),
    st.integers(0, 30000),
    st.integers(1, 20000),
    st.integers(1, 50),
)
def test_spans_are_the_active_segments_whatever_the_chunks(
    seed: int, segment: int, hop: int, length: int, chunk: int, frames: int
) -> None:
    windows = Windows(segment, max(hop, 40))
    samples = scene(seed, length)
    level = level_of(samples)
    active = active_segments(samples, windows, 0, level) if level else np.zeros(0, bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activity, "CHUNK_SAMPLES", chunk)
        patch.setattr(activity, "CHUNK_FRAMES", frames)
        spans = active_spans(reader(samples), len(samples), windows, level)
    starts = [int(s) for a, b in spans for s in windows.starts(a, b)]
    assert starts == [windows.hop * int(number) for number in np.flatnonzero(active)]
    for (_, end), (start, _) in pairwise(spans):
        assert start > end - windows.segment + windows.hop  # else they were one span


def test_a_song_between_silences_is_one_span() -> None:
    windows = Windows(1000, 100)
    silence = np.random.default_rng(0).integers(-9, 10, 20000).astype(np.int16)
    samples = silence.copy()
    samples[8000:12000] = int16(0.5 * np.sin(0.5 * np.arange(4000)).astype(np.float32))
    ((start, end),) = active_spans(reader(samples), len(samples), windows, level_of(samples))
    assert 7000 < start < 8000 and 12000 < end < 13000


@pytest.mark.parametrize("offset", [0, 20000])
def test_silence_and_noise_are_not_active(offset: int) -> None:
    windows = Windows(1000, 100)
    rng = np.random.default_rng(0)
    for samples in (np.zeros(20000), rng.normal(0, 3, 20000), rng.normal(0, 3000, 20000)):
        samples16 = (samples + offset).clip(-32768, 32767).astype(np.int16)
        assert active_spans(reader(samples16), 20000, windows, level_of(samples16)) == []


def test_what_is_read_at_once_does_not_grow_with_the_windows() -> None:
    samples = int16(sound(seconds=60))
    for windows in (Windows(11025, 1102), Windows(48000, 48000), Windows(512, 1)):
        longest = 0

        def read(start: int, end: int) -> Samples:
            nonlocal longest
            longest = max(longest, end - start)
            return samples[start:end]

        end = len(samples) if windows.hop > 1 else 300_000
        active_spans(read, end, windows, level_of(samples))
        assert longest <= activity.CHUNK_SAMPLES + windows.segment


# ---------------------------------------------------------------- annotated


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 400), max_size=12),
    st.integers(100, 1500),
    st.sampled_from([10, 50, 100]),
)
def test_every_annotated_stretch_has_segments_and_no_segment_comes_twice(lengths, samples, hop):
    windows = Windows(100, hop)
    edges = np.cumsum(lengths).tolist()
    stretches = list(zip(edges[::2], edges[1::2], strict=False))  # apart
    spans = annotated_spans(stretches, samples, windows)
    starts = [start for span in spans for start in windows.starts(*span).tolist()]
    assert len(set(starts)) == len(starts)
    assert all(a >= 0 and b <= samples and b - a >= 100 for a, b in spans)
    for start, end in stretches:
        end = min(end, samples)
        if start < samples:
            assert any(s <= (start + end) // 2 < s + 100 for s in starts) or end - start > 100
            assert any(s < end and start < s + 100 for s in starts)
