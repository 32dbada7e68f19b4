"""Resampling: streaming is one-shot, in pieces of any size; blocks ahead are the same blocks."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import soxr
from damaged import sound
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from birdinv.audio.resampling import AHEAD, FULL_SCALE, PIECE, ahead, pcm, resampled

RATES = [1000, 8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000, 250000, 999983]


def joined(blocks: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([np.zeros(0, np.float32), *blocks])


def cut(samples: NDArray[np.float32], places: list[int]) -> list[NDArray[np.float32]]:
    return np.split(samples, sorted(min(place, len(samples)) for place in places))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(RATES),
    st.sampled_from([2000, 8000, 22050, 44100, 48000]),
    st.integers(0, 20000),
    st.lists(st.integers(0, 20000), max_size=5),
)
def test_streaming_is_resampling_at_once(
    source: int, target: int, length: int, places: list[int]
) -> None:
    samples = sound(seconds=20000 / 16000)[:length]
    streamed = joined(resampled(cut(samples, places), source, target))
    assert streamed.dtype == np.float32
    assert abs(len(streamed) - length * target / source) <= 1
    if length:
        expected = soxr.resample(samples, source, target, quality="HQ")
        assert len(streamed) == len(expected)
        np.testing.assert_allclose(streamed, expected, atol=2e-6)
    # However the samples arrive: to the bit.
    np.testing.assert_array_equal(streamed, joined(resampled([samples], source, target)))


@pytest.mark.parametrize("source", RATES)
def test_the_same_rate_changes_nothing(source: int) -> None:
    blocks = cut(sound(), [100, 7000])
    for got, expected in zip(resampled(blocks, source, source), blocks, strict=True):
        assert got is expected


def test_no_blocks_give_no_samples() -> None:
    assert len(joined(resampled([], 48000, 22050))) == 0
    assert len(joined(resampled([np.zeros(0, np.float32)], 48000, 22050))) == 0


@pytest.mark.parametrize(("source", "target"), [(1000, 384000), (8000, 48000), (250000, 2000)])
def test_blocks_out_do_not_grow_with_the_ratio_of_the_rates(source: int, target: int) -> None:
    longest = max(map(len, resampled([sound(seconds=4)] * 2, source, target)))
    assert longest <= 2 * max(PIECE, 1024 * target // source)


def test_what_comes_later_does_not_change_what_came_before() -> None:
    samples = sound(seconds=4)
    other = samples.copy()
    other[32000:] = 0
    one = joined(resampled([samples], 48000, 22050))
    two = joined(resampled([other], 48000, 22050))
    # The filter reaches 0.3 s back only through the rounding of a Fourier transform.
    np.testing.assert_array_equal(one[:13000], two[:13000])
    np.testing.assert_allclose(one[:14500], two[:14500], atol=1e-6)
    assert (one[15000:] != two[15000:]).any()


# ---------------------------------------------------------------- int16


def test_full_scale_is_the_largest_sample() -> None:
    samples, over = pcm(np.array([0, 1, -1, 0.5, 1e-5, 2e-5], np.float32))
    assert samples.dtype == np.int16 and over == 0
    assert samples.tolist() == [0, 32767, -32767, 16384, 0, 1]


@pytest.mark.filterwarnings("error")
def test_samples_beyond_full_scale_are_clipped_and_counted() -> None:
    samples, over = pcm(np.array([1.0001, -1.0001, 2, -1e9, 1e9, 1, -1], np.float32))
    assert over == 5
    assert samples.tolist() == [32767, -32767, 32767, -32767, 32767, 32767, -32767]


@given(st.lists(st.floats(-4, 4, width=32)))
def test_int16_is_rounding(values: list[float]) -> None:
    samples, over = pcm(np.array(values, np.float32))
    exact = np.array(values, np.float32).astype(float) * FULL_SCALE
    assert np.abs(samples - exact.clip(-FULL_SCALE, FULL_SCALE)).max(initial=0) <= 0.502
    assert over == int((np.abs(np.rint(exact)) > FULL_SCALE).sum())


def test_the_samples_of_a_16_bit_file_survive() -> None:
    every = np.arange(-32767, 32768)
    samples, _ = pcm((every / 32768).astype(np.float32))  # as libsndfile gives them
    assert np.abs(samples - every).max() <= 1


# ---------------------------------------------------------------- ahead


@pytest.mark.parametrize("count", [0, 1, AHEAD, 5 * AHEAD])
def test_blocks_come_in_order_and_once(count: int) -> None:
    blocks = [np.full(3, number, np.float32) for number in range(count)]
    with ahead(iter(blocks)) as stream:
        got = list(stream)
    assert len(got) == count and all(a is b for a, b in zip(got, blocks, strict=True))


@pytest.mark.parametrize("error", [ValueError("lost"), MemoryError(), KeyboardInterrupt()])
def test_an_exception_of_the_producer_is_raised_where_it_is_consumed(error: BaseException) -> None:
    def produce() -> Iterator[NDArray[np.float32]]:
        yield np.zeros(1, np.float32)
        raise error

    with ahead(produce()) as stream:
        assert len(next(stream)) == 1
        with pytest.raises(type(error)) as caught:
            next(stream)
    assert caught.value is error


def test_leaving_early_stops_the_thread() -> None:
    made = []

    def produce() -> Iterator[NDArray[np.float32]]:
        while True:
            made.append(1)
            yield np.zeros(1, np.float32)

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt), ahead(produce()) as stream:
        next(stream)
        raise KeyboardInterrupt
    assert threading.active_count() == threads
    count = len(made)
    time.sleep(0.05)
    assert len(made) == count


def test_the_producer_waits_for_a_slow_consumer() -> None:
    made = []

    def produce() -> Iterator[NDArray[np.float32]]:
        for number in range(100):
            made.append(number)
            yield np.zeros(1, np.float32)

    with ahead(produce(), depth=3) as stream:
        next(stream)
        time.sleep(0.3)
        assert len(made) <= 6
