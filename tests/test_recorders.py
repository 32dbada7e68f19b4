"""A recording's start is what its recorder wrote into the name, or nothing."""

import doctest
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinv.prediction import recorders
from birdinv.prediction.recorders import absolute, recorded_at

DAWN = datetime(2026, 5, 1, 5, 30)


def zone(hours: float) -> timezone:
    return timezone(timedelta(hours=hours))


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("20260501_053000.WAV", DAWN),  # AudioMoth
        ("20260501_053000T.WAV", DAWN),  # AudioMoth, triggered
        ("24F31901603710B2_20260501_053000.WAV", DAWN),  # AudioMoth with its number
        ("SM4_20260501_053000.wav", DAWN),  # Song Meter
        ("my_wood_3_20260501_053000.wav", DAWN),
        ("SM2_0+1_20260501_053000.wav", DAWN),
        ("SM3_-0-_20260501$053000.wav", DAWN),  # Song Meter SM3 with GPS
        ("S4A_20260501_053000_000.wav", DAWN),
        ("20260501_053000_20260501.wav", DAWN),
        ("20260501_053000Z.wav", DAWN.replace(tzinfo=UTC)),
        ("SWIFT_20260501_053000+0200.wav", DAWN.replace(tzinfo=zone(2))),
        ("SWIFT_20260501_053000-0930.wav", DAWN.replace(tzinfo=zone(-9.5))),
        ("20260501T053000+1000_REC [-27.3, 152.9].flac", DAWN.replace(tzinfo=zone(10))),
        ("20260501T053000-0500_north.flac", DAWN.replace(tzinfo=zone(-5))),
        ("20261301_000000_20260501_053000.wav", DAWN),  # the first is no date
        ("20260501_053000-dawn.wav", DAWN),
        ("20260501_053000", DAWN),
        ("5CE8B2C0.WAV", datetime(2019, 5, 25, 3, 13, 4, tzinfo=UTC)),  # early AudioMoth
        ("19900101_000000.wav", datetime(1990, 1, 1)),
        ("21001231_235959.wav", datetime(2100, 12, 31, 23, 59, 59)),
        ("a/b/20260501_053000.wav", DAWN),
    ],
)
def test_the_start_is_in_the_name(name: str, start: datetime) -> None:
    found = recorded_at(name)
    assert found == start
    assert found.utcoffset() == start.utcoffset()


@pytest.mark.parametrize(
    "name",
    [
        "robin.wav",
        "20260501_053000/robin.wav",  # a folder
        "5CE8B2C0/robin.wav",
        "20260230_053000.wav",
        "20260501_243000.wav",
        "20260501_053060.wav",
        "19891231_235959.wav",
        "21010101_000000.wav",
        "120260501_053000.wav",
        "20260501_0530001.wav",
        "XC20260501_053000.wav",
        "20260501_053000Zulu.wav",
        "20260501_053000.1234+1000.flac",  # without its zone it would be ten hours wrong
        "20260501_053000+02.wav",
        "20260501_053000+02000.wav",
        "20260501_053000+1500.wav",
        "20260501_053000+0260.wav",
        "20260501053000.wav",
        "20260501.wav",
        "٢٠٢٦٠٥٠١_٠٥٣٠٠٠.wav",  # digits, but not those of a recorder
        "5ce8b2c0.WAV",
        "5CE8B2C.WAV",
        "5CE8B2C00.WAV",
        "5CE8B2C0_1.WAV",
        "54A48DFF.WAV",  # the last second of 2014
        "F6678A80.WAV",  # the first of 2101
        "20260501_053000_20260501_060000.wav",  # which of them?
        "",
    ],
)
def test_a_name_that_does_not_say_it_clearly_says_nothing(name: str) -> None:
    assert recorded_at(name) is None


def test_hexadecimal_names_count_from_2015_to_2100() -> None:
    assert recorded_at("54A48E00.WAV") == datetime(2015, 1, 1, tzinfo=UTC)
    assert recorded_at("F6678A7F.WAV") == datetime(2100, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_a_time_is_the_start_and_the_seconds_in_the_recording() -> None:
    assert absolute(DAWN, 0) == "2026-05-01T05:30:00.000"
    assert absolute(DAWN, 66_600.25) == "2026-05-02T00:00:00.250"
    assert absolute(DAWN.replace(tzinfo=zone(2)), 0.15) == "2026-05-01T05:30:00.150+02:00"
    assert absolute(DAWN.replace(tzinfo=UTC), 0.9996) == "2026-05-01T05:30:01.000+00:00"


@given(st.integers(0, 10**9))
def test_no_millisecond_is_lost(milliseconds: int) -> None:
    # What a table prints is what is added, whatever the nearest float is.
    text = absolute(DAWN, float(f"{milliseconds / 1000:.3f}"))
    assert datetime.fromisoformat(text) - DAWN == timedelta(milliseconds=milliseconds)


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 12, 31)), st.sampled_from("_T$"))
def test_every_second_of_the_years_is_read_back(start: datetime, between: str) -> None:
    start = start.replace(microsecond=0)
    assert recorded_at(f"A_{start:%Y%m%d}{between}{start:%H%M%S}.wav") == start


@given(st.text(alphabet="0123456789_T$Z+-./ABCF", max_size=40))
def test_no_name_is_an_error(name: str) -> None:
    found = recorded_at(name)
    assert found is None or 1990 <= found.year <= 2100


def test_the_examples_run() -> None:
    result = doctest.testmod(recorders)
    assert result.attempted == 2 and not result.failed
