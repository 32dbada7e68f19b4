"""Windows: integer arithmetic against windows laid out one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinv.audio.windows import MIN_SAMPLES, Windows
from birdinv.errors import BirdinvError

lengths = st.integers(1, 60)


@given(lengths, lengths, st.integers(0, 300), st.integers(0, 1000))
def test_windows_are_those_that_fit(segment: int, hop: int, samples: int, start: int) -> None:
    windows = Windows(segment, hop)
    fitting = [s for s in range(0, samples, hop) if s + segment <= samples]
    assert windows.count(samples) == len(fitting)
    assert windows.starts(start, start + samples).tolist() == [start + s for s in fitting]


@given(lengths, lengths, st.integers(0, 300))
def test_windows_that_cover_end_with_the_first_that_reaches_the_end(
    segment: int, hop: int, samples: int
) -> None:
    windows, number = Windows(segment, hop), 0
    while samples and (number == 0 or (number - 1) * hop + segment < samples):
        number += 1
    assert windows.covering(samples) == number
    assert windows.count(samples) <= number <= windows.count(samples) + 1


def test_an_overlap_of_nine_tenths_is_a_hop_of_a_tenth() -> None:
    assert Windows.from_seconds(0.5, 0.9, 22050) == Windows(11025, 1102)
    assert Windows.from_seconds(1, 0.9, 48000) == Windows(48000, 4800)
    assert Windows.from_seconds(3, 0, 48000) == Windows(144000, 144000)
    assert Windows.from_seconds(0.5, 0.9999999, 22050).hop == 1


@given(st.floats(0.03, 60), st.floats(0, 1, exclude_max=True), st.integers(22050, 384000))
def test_rounding_to_samples_keeps_length_and_overlap(
    segment_s: float, overlap: float, rate: int
) -> None:
    windows = Windows.from_seconds(segment_s, overlap, rate)
    assert abs(windows.segment - segment_s * rate) <= 0.5
    assert 1 <= windows.hop <= windows.segment
    assert abs(windows.overlap - overlap) <= 1 / windows.segment


@given(st.integers(1, 10**13), st.integers(512, 96000))
def test_times_do_not_drift(number: int, hop: int) -> None:
    windows = Windows(96000, hop)
    end = number * hop + 96000
    assert windows.count(end) == number + 1
    assert int(windows.starts(end - 96000, end)[0]) == number * hop


@pytest.mark.parametrize("overlap", [1, 1.5, -0.1, float("nan"), float("inf")])
def test_an_overlap_outside_0_to_1_is_refused(overlap: float) -> None:
    with pytest.raises(BirdinvError, match=r"the overlap is .* from 0 to below 1"):
        Windows.from_seconds(0.5, overlap, 22050)


@pytest.mark.parametrize("segment_s", [0, -1, 60.1, float("nan"), float("inf")])
def test_a_segment_of_no_or_endless_length_is_refused(segment_s: float) -> None:
    with pytest.raises(BirdinvError, match=r"the segment length is .* up to 60 s"):
        Windows.from_seconds(segment_s, 0.5, 22050)


def test_a_segment_shorter_than_two_frames_is_refused() -> None:
    with pytest.raises(BirdinvError, match=rf"has 511 samples .* at least {MIN_SAMPLES}"):
        Windows.from_seconds(511 / 22050, 0.5, 22050)
    assert Windows.from_seconds(512 / 22050, 0.5, 22050).segment == 512
