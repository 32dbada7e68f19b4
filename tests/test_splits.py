"""Splits: by group, stratified, whatever the order; hidden labels are drawn class by class."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdinv.audio.store import Recording
from birdinv.data.splits import Item, assign_splits, draw_splits, hide_labels
from birdinv.errors import BirdinvError

USUAL = (0.7, 0.15, 0.15)


def sides(items, drawn):
    """Class → how many of its recordings each split got."""
    counts = {}
    for item in items:
        counts.setdefault(item.label, Counter())[drawn[item.name]] += 1
    return counts


chorus = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 6), st.integers(1, 5)),
    min_size=1,
    max_size=12,
)


def recording(file, label="wren", *, group="", sha256="", split=""):
    return Recording(
        file, label, group, split, "ok", "", "", "1.000000", 22050, 1, 0, 22050, sha256 or file
    )  # fmt: skip


def assigned(recordings, seed=0, without=()):
    usable = {r.file for r in recordings} - set(without)
    return {r.file: r.split for r in assign_splits(recordings, usable, USUAL, seed)}


def grouped(groups, mixed):
    """Recordings in groups; those of one number are one group across classes where mixed."""
    return [
        Item(f"{label}/{group}/{i}-{at}.wav", label, f"{'' if mixed else label}{group}")
        for at, (label, group, count) in enumerate(groups)
        for i in range(count)
    ]


@settings(max_examples=100, deadline=None)
@given(groups=chorus, mixed=st.booleans(), seed=st.integers(0, 50), shuffle=st.randoms())
def test_groups_stay_whole_and_order_is_nothing(groups, mixed, seed, shuffle):
    items = grouped(groups, mixed)
    drawn = draw_splits(items, USUAL, seed)
    assert set(drawn) == {item.name for item in items}
    for group in {item.group for item in items}:
        assert len({drawn[item.name] for item in items if item.group == group}) == 1
    shuffle.shuffle(items)
    assert draw_splits(items, USUAL, seed) == drawn


@settings(max_examples=150, deadline=None)
@given(
    groups=chorus,
    fractions=st.sampled_from([USUAL, (0.1, 0.45, 0.45), (0.34, 0.33, 0.33), (0.98, 0.01, 0.01)]),
    seed=st.integers(0, 50),
)
def test_a_class_comes_to_as_many_splits_as_it_has_groups_for(groups, fractions, seed):
    """Three groups or more: to all; two: to train and test; one: to train. Sizes do not matter."""
    items = grouped(groups, mixed=False)
    drawn = draw_splits(items, fractions, seed)
    for label, counts in sides(items, drawn).items():
        number = len({item.group for item in items if item.label == label})
        expected = {1: {"train"}, 2: {"train", "test"}}.get(number, {"train", "valid", "test"})
        assert set(counts) == expected


def test_two_big_groups_and_a_small_one_come_to_three_splits():
    """Found by hypothesis: by need alone both big ones went to train and test stayed empty."""
    items = [Item(f"{g}{i}", "a", g) for g, n in (("x", 5), ("y", 5), ("z", 2)) for i in range(n)]
    assert len(set(draw_splits(items, USUAL, 0).values())) == 3


def test_recordings_without_a_group_are_groups_of_their_own_even_if_named_like_one():
    items = [Item("x", "a"), Item("y", "a", "x"), Item("z", "a", "x"), Item("w", "a")]
    drawn = draw_splits(items, USUAL, 0)
    assert drawn["y"] == drawn["z"]
    assert len(set(drawn.values())) == 3


@pytest.mark.parametrize("fractions", [USUAL, (0.5, 0.3, 0.2), (0.8, 0.0, 0.2), (1.0, 0.0, 0.0)])
def test_fractions_are_kept_in_every_class(fractions):
    rng = random.Random(0)
    for seed in range(30):
        items = [Item(f"{c}{i}", c) for c in "abc" for i in range(rng.randint(20, 60))]
        for counts in sides(items, draw_splits(items, fractions, seed)).values():
            n = counts.total()
            for split, share in zip(("train", "valid", "test"), fractions, strict=True):
                assert abs(counts[split] - share * n) <= 1
                assert share > 0 or counts[split] == 0


def test_fractions_are_about_right_on_average_where_groups_are_uneven():
    rng, total = random.Random(0), Counter()
    for seed in range(40):
        items = [
            Item(f"{c}{g}-{i}", c, f"{c}{g}")
            for c in "ab"
            for g in range(20)
            for i in range(rng.randint(1, 6))
        ]
        total.update(draw_splits(items, USUAL, seed).values())
    for split, share in zip(("train", "valid", "test"), USUAL, strict=True):
        assert total[split] / total.total() == pytest.approx(share, abs=0.02)


def test_seeds_draw_different_splits_and_every_recording_is_tested_on_by_some():
    items = [Item(str(i), "a") for i in range(20)]
    drawn = [draw_splits(items, USUAL, seed) for seed in range(60)]
    assert len({tuple(sorted(d.items())) for d in drawn}) > 55
    for item in items:
        assert 1 <= sum(d[item.name] == "test" for d in drawn) <= 30


def test_nothing_to_place_is_nothing():
    assert draw_splits([], USUAL, 0) == {}


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.2, 0.2), (-0.1, 0.6, 0.5), (0.0, 0.5, 0.5), (0.5, 0.5, 0.1)]
)
def test_fractions_that_are_none_are_refused(fractions):
    with pytest.raises(BirdinvError, match=r"give three numbers .*such as 0.7,0.15,0.15"):
        draw_splits([], fractions, 0)


def test_hidden_labels_are_so_many_of_every_class():
    labels = {f"{c}{i}": c for c, n in (("a", 10), ("b", 2), ("é", 3)) for i in range(n)}
    keep, short = hide_labels(labels, 3, 0)
    assert Counter(labels[name] for name in keep) == {"a": 3, "b": 2, "é": 3}
    assert short == {"b": 2}
    again, _ = hide_labels(dict(reversed(labels.items())), 3, 0)
    assert again == keep
    assert len({frozenset(hide_labels(labels, 3, seed)[0]) for seed in range(20)}) > 10


def test_one_class_does_not_change_the_draw_of_another_and_more_labels_hold_fewer():
    labels = {f"a{i}": "a" for i in range(10)}
    alone, _ = hide_labels(labels, 3, 5)
    both, _ = hide_labels({**labels, "0": "0", "b": "b"}, 3, 5)
    assert alone == both - {"0", "b"}
    assert alone < hide_labels(labels, 4, 5)[0]


def test_hiding_all_labels_is_refused():
    with pytest.raises(BirdinvError, match="--labels-per-class is 0; give the number"):
        hide_labels({"a": "a"}, 0, 0)


# ---------------------------------------------------------------- recordings


@pytest.mark.parametrize("seed", range(5))
def test_what_is_tied_by_groups_and_copies_lies_on_one_side(seed):
    others = [recording(f"{i}.wav", "robin" if i % 2 else "wren") for i in range(20)]
    chain = [  # group a – copies of s – group b – copies of t, the last one unlabelled
        recording("a.wav", group="a"),
        recording("b.wav", "robin", group="a", sha256="s"),
        recording("c.wav", group="b", sha256="s"),
        recording("d.wav", group="b", sha256="t"),
        recording("e.wav", "", sha256="t"),
    ]
    got = assigned([*others, *chain], seed)
    assert len({got[r.file] for r in chain}) == 1
    assert {got[r.file] for r in others} == {"train", "valid", "test"}
    assert assigned([*chain[::-1], *others], seed) == got
    given_split = [*others, *chain[:-1], recording("e.wav", "", sha256="t", split="test")]
    assert {assigned(given_split, seed)[r.file] for r in chain} == {"test"}


def test_a_recording_without_segments_ties_nothing_by_its_bytes_and_is_not_drawn():
    others = [recording(f"{i}.wav", group=f"{i}") for i in range(20)]
    empty = [recording(f"empty{i}.wav", group=f"{i}", sha256="nothing") for i in range(20)]
    alone = recording("alone.wav", sha256="nothing")
    got = assigned([*others, *empty, alone], without=[r.file for r in (*empty, alone)])
    assert {r.file: got[r.file] for r in others} == assigned(others)
    assert all(got[f"empty{i}.wav"] == got[f"{i}.wav"] for i in range(20))  # by their groups
    assert got["alone.wav"] == ""


def test_given_splits_that_contradict_ties_are_refused():
    tied = [
        recording("a.wav", group="a", split="train"),
        recording("b.wav", group="a", sha256="s"),
        recording("c.wav", sha256="s", split="test"),
    ]
    with pytest.raises(BirdinvError, match=r"a\.wav is given to train and c\.wav to test, but"):
        assigned(tied)
    assert assigned(tied, without=["c.wav"])["b.wav"] == "train"
    assert assigned(tied, without=["b.wav"])["c.wav"] == "test"  # nothing ties them then
