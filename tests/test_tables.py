"""Detections = the definition written out, for any scores and settings."""

import time
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinv.audio.windows import Windows
from birdinv.errors import BirdinvError
from birdinv.prediction import tables
from birdinv.prediction.tables import Choice, detections, native_row

CLASSES = ["Noise", "crow", "finch", "background", "dove"]
NON_EVENTS = ["Noise", "background"]
Row = tuple[int, int, str, float]


def by_definition(scores: np.ndarray, classes: list[str], choice: Choice) -> list[Row]:
    """One bird after the other, one window after the other, sorted at the end."""
    birds = [i for i, name in enumerate(classes) if name not in NON_EVENTS]
    kept = np.zeros(scores.shape, bool)
    for window, row in enumerate(scores):
        best = sorted(birds, key=lambda bird: (-row[bird], bird))[: choice.top_n]
        kept[window, [bird for bird in best if row[bird] >= choice.min_conf]] = True
    rows = []
    for bird in birds:
        run: list[int] = []
        for window in [*np.flatnonzero(kept[:, bird]).tolist(), None]:
            full = choice.merge and len(run) == choice.merge
            if run and (window is None or window != run[-1] + 1 or full):
                best_scores = sorted((float(scores[w, bird]) for w in run), reverse=True)[:3]
                rows.append((run[0], run[-1], classes[bird], float(np.mean(best_scores))))
                run = []
            if window is not None:
                run.append(window)
    return sorted(rows, key=lambda row: (row[0], -row[3], row[2]))


def blocks(scores: np.ndarray, size: int, start: int = 0) -> list[tuple[int, np.ndarray]]:
    return [(start + i, scores[i : i + size]) for i in range(0, len(scores), size)]


@settings(max_examples=300, deadline=None)
@given(
    # A coarse grid of values: ties and scores at the threshold itself are the hard cases.
    scores=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 25), st.just(len(CLASSES))),
        elements=st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0]),
    ),
    min_conf=st.sampled_from([0.0, 0.25, 0.5, 0.6, 1.0]),
    top_n=st.none() | st.integers(1, 4),
    merge=st.integers(0, 5),
    size=st.integers(1, 30),
)
def test_detections_are_those_of_the_definition(
    scores: np.ndarray, min_conf: float, top_n: int | None, merge: int, size: int
) -> None:
    choice = Choice(min_conf, top_n, merge)
    got = list(detections(blocks(scores, size), CLASSES, NON_EVENTS, choice))
    assert got == by_definition(scores, CLASSES, choice)
    assert all(a[0] <= b[0] for a, b in pairwise(got))
    assert {label for _, _, label, _ in got} <= {"crow", "finch", "dove"}


@settings(max_examples=150, deadline=None)
@given(
    scores=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 40), st.just(len(CLASSES))),
        elements=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
    ),
    merge=st.sampled_from([0, 3, 20]),
    most=st.integers(1, 6),
)
def test_rows_that_wait_in_a_file_come_in_the_same_order(
    scores: np.ndarray, merge: int, most: int
) -> None:
    choice = Choice(0.5, merge=merge)
    with mock.patch.multiple(tables, MOST_WAITING=most, CHUNK=2):
        got = list(detections(blocks(scores, 7), CLASSES, NON_EVENTS, choice))
    assert got == by_definition(scores, CLASSES, choice)


def test_a_bird_that_sings_all_night_costs_no_memory() -> None:
    """Every row of the others waits for the one that began first, and it ends with the night."""
    rng = np.random.default_rng(0)

    def night() -> Iterator[tuple[int, np.ndarray]]:
        for first in range(0, 20_000, 200):
            scores = (rng.uniform(size=(200, len(CLASSES))) < 0.5).astype(np.float32)
            scores[:, 1] = 1
            yield first, scores

    def peak() -> int:
        tracemalloc.start()
        count = sum(1 for _ in detections(night(), CLASSES, NON_EVENTS, Choice(0.5, merge=0)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count > 9_000
        return most

    with mock.patch.multiple(tables, MOST_WAITING=500, CHUNK=64):
        assert peak() < 1 << 19
    assert peak() > 1 << 20  # what it would be


def test_non_events_are_never_reported_and_take_no_place_in_the_top_n() -> None:
    scores = np.array([[0.9, 0.02, 0.05, 0.03, 0.0]] * 3, np.float32)
    top = list(detections(blocks(scores, 2), CLASSES, NON_EVENTS, Choice(0, top_n=1)))
    assert [row[2] for row in top] == ["finch"] * 3
    only_noise = np.ones((5, 2), np.float32)
    names = ["silence", "OTHER"]
    assert list(detections(blocks(only_noise, 5), names, names, Choice(0))) == []


def test_what_is_no_bird_is_what_the_model_says() -> None:
    scores = np.ones((1, 2), np.float32)
    found = list(detections(blocks(scores, 1), ["noise", "rain"], ["rain"], Choice(0)))
    assert [row[2] for row in found] == ["noise"]


def test_a_merged_row_has_the_mean_of_its_three_best_scores() -> None:
    scores = np.zeros((6, 5), np.float32)
    scores[1:5, 1] = [0.5, 0.75, 1.0, 0.25]
    assert list(detections(blocks(scores, 1), CLASSES, NON_EVENTS, Choice(0.25, merge=0))) == [
        (1, 4, "crow", 0.75)
    ]
    assert [
        row[:2] for row in detections(blocks(scores, 1), CLASSES, NON_EVENTS, Choice(0.25, merge=3))
    ] == [
        (1, 3),
        (4, 4),
    ]


def test_a_row_has_seconds_that_end_with_the_recording() -> None:
    windows = Windows(11025, 1102)
    row = native_row("a,b.wav", (3, 7, "crow", 0.123456), windows, 22050, 10**9)
    assert row == ("a,b.wav", "0.150", "0.850", "crow", "0.1235")
    # Hours later the integers have not drifted: 720 000 hops of 1102 samples.
    assert native_row("x", (720_000, 720_000, "c", 1.0), windows, 22050, 10**9)[1] == "35983.673"
    assert native_row("x", (7, 7, "c", 1.0), windows, 22050, 15_000)[2] == "0.680"


def test_an_hour_with_few_birds_costs_little() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((72_000, 10)).astype(np.float32) * 0.2
    scores[rng.integers(0, len(scores), 500), rng.integers(0, 9, 500)] = 0.9
    names = [f"bird{i}" for i in range(9)] + ["noise"]
    started = time.process_time()
    found = list(detections(blocks(scores, 64), names, ["noise"], Choice(merge=0)))
    assert 300 < len(found) <= 500
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"min_conf": 1.5}, "--min-conf is 1.5"),
        ({"min_conf": float("nan")}, "--min-conf is nan"),
        ({"top_n": 0}, "--top-n is 0"),
        ({"merge": -1}, "--merge-consecutive is -1"),
    ],
)
def test_settings_out_of_range_are_named(kwargs: dict[str, float], said: str) -> None:
    with pytest.raises(BirdinvError, match=said):
        Choice(**kwargs)  # type: ignore[arg-type]
