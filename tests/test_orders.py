"""Orders are addressable, even-handed and independent of each other."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdinv.data.orders import BalancedOrder, EndlessShuffle, GroupedOrder

SEEDS = st.integers(0, 2**32 - 1)
TAKES = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 80)), min_size=1, max_size=8)
KEYS = st.lists(st.sampled_from([-1, 0, 1, 2, 5, 10**12]), min_size=1, max_size=25).map(np.array)


@st.composite
def samples(draw):
    """Classes and recordings of samples; a recording has one class, and neither is in order."""
    recordings = draw(KEYS)
    classes = {r: draw(st.integers(-1, 3)) for r in set(recordings.tolist())}
    return np.array([classes[r] for r in recordings.tolist()]), recordings


def within_one(counts):
    return max(counts) - min(counts) <= 1


# Anywhere ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(KEYS, st.integers(1, 7), SEEDS, TAKES)
def test_a_grouped_order_is_the_same_wherever_one_begins(groups, each, seed, takes):
    sequence = GroupedOrder(groups, each, seed, 0).take(0, 400)
    jumping = GroupedOrder(groups, each, seed, 0)
    assert sequence.dtype == np.int64 and sequence.shape == (400,)
    assert sequence.min() >= 0 and sequence.max() < len(groups)
    for start, count in takes:
        assert jumping.take(start, count).tolist() == sequence[start : start + count].tolist()


@settings(max_examples=60, deadline=None)
@given(samples(), SEEDS, TAKES)
def test_a_balanced_order_is_the_same_wherever_one_begins(drawn, seed, takes):
    sequence = BalancedOrder(*drawn, seed, 0).take(0, 400)
    jumping = BalancedOrder(*drawn, seed, 0)
    assert sequence.dtype == np.int64 and sequence.shape == (400,)
    assert sequence.min() >= 0 and sequence.max() < len(drawn[0])
    for start, count in takes:
        assert jumping.take(start, count).tolist() == sequence[start : start + count].tolist()


def test_far_out_in_the_sequence_nothing_has_to_be_drawn_that_comes_before():
    """A run that is resumed, or one of days: a billionth entry costs what the first does."""
    groups = np.arange(1000) // 10
    for order in (
        EndlessShuffle(1000, 1, 0),
        GroupedOrder(groups, 4, 1, 0),
        BalancedOrder(groups % 3, groups, 1, 0),
    ):
        far = order.take(10**15 + 7, 50)
        assert far.tolist() == order.take(10**15, 57)[7:].tolist()


# Grouped -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(KEYS, st.integers(1, 7), SEEDS)
def test_a_grouped_order_takes_so_many_of_one_group_and_all_groups_equally_often(
    groups, each, seed
):
    names = sorted(set(groups.tolist()))
    rounds, one = 12, len(names) * each
    sequence = GroupedOrder(groups, each, seed).take(0, rounds * one)
    visits = groups[sequence].reshape(-1, each)
    assert (visits == visits[:, :1]).all()
    for turn in visits[:, 0].reshape(rounds, -1).tolist():
        assert sorted(turn) == names  # each once a round
    for size in range(1, rounds * len(names) + 1):
        seen = Counter(visits[:size, 0].tolist())
        assert within_one([seen[name] for name in names])


@settings(max_examples=60, deadline=None)
@given(KEYS, st.integers(1, 7), SEEDS)
def test_the_members_of_a_group_come_equally_often(groups, each, seed):
    names = set(groups.tolist())
    sequence = GroupedOrder(groups, each, seed).take(0, 12 * len(names) * each)
    for name in names:
        members = np.flatnonzero(groups == name).tolist()
        own = [i for i in sequence.tolist() if groups[i] == name]
        for size in range(1, len(own) + 1):
            seen = Counter(own[:size])
            assert within_one([seen[i] for i in members])
        for start in range(0, len(own) - len(members) + 1, len(members)):
            assert sorted(own[start : start + len(members)]) == members


def test_in_one_visit_none_comes_twice_where_a_group_begins_anew_with_it():
    groups = np.repeat([0, 1, 2], [8, 4, 12])
    for visit in GroupedOrder(groups, 4, 3).take(0, 240).reshape(-1, 4):
        assert len(set(visit.tolist())) == 4
    two = GroupedOrder(np.array([7, 7]), 4, 0).take(0, 4)
    assert sorted(two.tolist()) == [0, 0, 1, 1]


def test_groups_come_in_another_order_every_round_and_not_side_by_side():
    groups = np.repeat(np.arange(20), 5)
    turns = groups[GroupedOrder(groups, 2, 0).take(0, 20 * 2 * 10)][::2].reshape(10, 20)
    assert len({tuple(turn) for turn in turns.tolist()}) == 10


# Balanced ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(samples(), SEEDS)
def test_classes_recordings_and_segments_come_equally_often(drawn, seed):
    classes, recordings = drawn
    names = sorted(set(classes.tolist()))
    rounds = 60
    sequence = BalancedOrder(classes, recordings, seed).take(0, rounds * len(names))
    for turn in classes[sequence].reshape(rounds, -1).tolist():
        assert sorted(turn) == names
    for name in names:
        own = sequence[classes[sequence] == name]
        of_class = sorted(set(recordings[classes == name].tolist()))
        for size in range(1, len(own) + 1):  # whichever prefix one looks at
            seen = Counter(recordings[own[:size]].tolist())
            assert within_one([seen[r] for r in of_class])
        for start in range(0, len(own) - len(of_class) + 1, len(of_class)):
            turn = recordings[own[start : start + len(of_class)]].tolist()
            assert sorted(turn) == of_class
        for recording in of_class:
            seen = Counter(own[recordings[own] == recording].tolist())
            segments = np.flatnonzero((recordings == recording) & (classes == name))
            assert within_one([seen[i] for i in segments.tolist()])


def test_a_long_recording_and_a_common_class_do_not_drown_the_others():
    classes = np.array([0] * 990 + [1] * 10)
    recordings = np.array([0] * 980 + [1] * 10 + [2] * 10)
    sequence = BalancedOrder(classes, recordings, 0).take(0, 4000)
    assert np.bincount(classes[sequence]).tolist() == [2000, 2000]
    assert np.bincount(recordings[sequence]).tolist() == [1000, 1000, 2000]
    assert len(set(sequence.tolist())) == 1000  # and no segment is left out


def test_a_class_that_is_in_one_recording_with_another_keeps_to_its_own_segments():
    """Recordings with annotated stretches may hold two classes one day."""
    classes, recordings = np.array([0, 1, 0, 1, 1]), np.array([4, 4, 4, 4, 9])
    sequence = BalancedOrder(classes, recordings, 0).take(0, 400)
    assert np.bincount(sequence).tolist() == [100, 50, 100, 50, 100]


# Seeds and streams ---------------------------------------------------------------------------


GROUPS = np.repeat(np.arange(30), 8)
ORDERS = {
    "shuffle": lambda seed, *stream: EndlessShuffle(240, seed, *stream),
    "grouped": lambda seed, *stream: GroupedOrder(GROUPS, 4, seed, *stream),
    "balanced": lambda seed, *stream: BalancedOrder(GROUPS % 5, GROUPS, seed, *stream),
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_same_seed_and_stream_are_the_same_order_whatever_else_was_drawn(name):
    np.random.seed(0)  # noqa: NPY002  the global state is the point
    first = ORDERS[name](3, 1).take(5, 100)
    np.random.seed(1)  # noqa: NPY002
    ORDERS[name](3, 0).take(0, 10)
    assert first.tolist() == ORDERS[name](3, 1).take(5, 100).tolist()


@pytest.mark.parametrize("name", ORDERS)
def test_seeds_streams_and_rounds_have_orders_of_their_own(name):
    keys = [(seed, stream) for seed in (0, 1, 2, 2**32 - 1) for stream in range(3)]
    rounds = [
        tuple(ORDERS[name](*key).take(start, 120).tolist())
        for key in keys
        for start in (0, 120, 240, 480)
    ]
    assert len(set(rounds)) == len(rounds)


def test_the_groups_of_one_order_are_shuffled_each_in_its_own_way():
    """Neither as each other, in the same round or the next, nor as the groups themselves."""
    order = GroupedOrder(np.repeat(np.arange(12), 12), 12, 0)
    sequence = order.take(0, 12 * 12 * 8).reshape(8, 12, 12)
    seen = [tuple(visit % 12) for turn in sequence for visit in turn]
    seen += [tuple(visit // 12) for visit in sequence[:, :, 0]]
    assert len(set(seen)) == len(seen) == 8 * 12 + 8


def test_the_recordings_of_every_class_are_shuffled_in_their_own_way():
    classes, recordings = np.arange(400) // 100, np.arange(400) // 5
    sequence = BalancedOrder(classes, recordings, 0).take(0, 4 * 20 * 10)
    turns = [
        tuple((recordings[sequence[classes[sequence] == c]] % 20)[20 * r : 20 * r + 20].tolist())
        for c in range(4)
        for r in range(10)
    ]
    assert len(set(turns)) == len(turns)


def generators(order, monkeypatch, count):
    """What every generator that an order makes is seeded from."""
    made, make = [], np.random.default_rng

    def note(seed):
        made.append(list(map(int, seed)))
        return make(seed)

    with monkeypatch.context() as patch:
        patch.setattr(np.random, "default_rng", note)
        order.take(0, count)
    return made


def test_no_two_generators_share_their_numbers(monkeypatch):
    """numpy fills a key up with zeros: `[1, 2]`, `[1, 2, 0]` and `[1, 2, 0, 0]` are one stream."""
    first, other = (np.random.default_rng(key).random() for key in ([1, 2], [1, 2, 0]))
    assert first == other
    keys = []
    classes = np.arange(240) % 3
    for seed in (0, 1, 7):
        # The orders of a run: at most one of each stream, in either form.
        for streams in (
            [BalancedOrder(classes, GROUPS, seed, 0), GroupedOrder(GROUPS, 4, seed, 1)],
            [EndlessShuffle(50, seed, 0), EndlessShuffle(60, seed, 1)],
        ):
            run = [generators(order, monkeypatch, 1500) for order in streams]
            # Translations, changes and views of the same run (see `batches`).
            run += [[[seed, 2, t] for t in range(40)]]
            run += [[[seed, s, half, t] for s in (3, 4) for half in (0, 1) for t in range(40)]]
            made = [tuple(key) for each in run for key in each]
            assert len(set(made)) == len(made)  # none is seeded twice but from the same cache
            keys = [np.random.default_rng(key).integers(2**63) for key in made]
            assert len(set(keys)) == len(keys) > 200


# Refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda none: EndlessShuffle(0, 0, 0),
        lambda none: GroupedOrder(none, 4, 0),
        lambda none: BalancedOrder(none, none, 0),
    ],
)
def test_nothing_cannot_be_shuffled(make):
    with pytest.raises(ValueError, match="nothing to shuffle"):
        make(np.zeros(0, np.int64))
