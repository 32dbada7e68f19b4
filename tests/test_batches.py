"""Batches are a function of (seed, step); every segment gets its turn; nothing is misread."""

from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from birdinv.audio.store import Store
from birdinv.data.batches import Drawing, Segments, TrainingBatches
from birdinv.data.orders import EndlessShuffle
from birdinv.data.segmenting import SegmentSettings, segment
from birdinv.networks.layers import normalise

RATE = 8000
SETTINGS = SegmentSettings(segment_s=0.1, overlap=0.5, sample_rate=RATE, activity=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    rng = np.random.default_rng(0)
    # Lengths that leave a tail after the last whole window.
    for name, seconds in (("a/1", 1.03), ("a/2", 0.5), ("b/1", 0.77), ("c/1", 0.1), ("c/2", 0.05)):
        path = folder / "in" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.5, 0.5, round(seconds * RATE)), RATE, "PCM_16")
    segment([folder / "in"], folder / "store", SETTINGS)
    return Store(folder / "store")


LABELS = {"a/1.wav": "a", "a/2.wav": "", "b/1.wav": "b", "c/1.wav": "c", "c/2.wav": "c"}


def test_segments_are_the_samples_of_the_files(store):
    segments = Segments(store, LABELS)
    expected, labels, rows = [], [], []
    for row, recording in enumerate(store.recordings):
        samples, _ = soundfile.read(store.path.parent / "in" / recording.file, dtype="int16")
        for start in range(0, len(samples) - 800 + 1, 400):
            expected.append(samples[start : start + 800].astype(np.float32))
            labels.append(
                store.classes.index(LABELS[recording.file]) if LABELS[recording.file] else -1
            )
            rows.append(row)
    assert len(segments) == len(expected) == 19 + 9 + 14 + 1
    got = segments.inputs(np.arange(len(segments)))
    assert got.shape == (len(segments), 1, 800) and got.dtype == torch.float32
    expected = normalise(torch.from_numpy(np.stack(expected))[:, None])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)  # a step of 16 bits
    assert segments.labels.tolist() == labels == segments.classes(np.arange(len(labels))).tolist()
    assert segments.recordings.tolist() == rows
    which = np.array([7, 3, 3, 40])
    assert torch.equal(segments.inputs(which), got[which])


def test_only_the_named_recordings_take_part(store):
    segments = Segments(store, {"b/1.wav": ""})
    assert len(segments) == 14 and set(segments.labels) == {-1}
    assert set(segments.recordings) == {[r.file for r in store.recordings].index("b/1.wav")}
    assert len(Segments(store, {})) == 0 == len(Segments(store, {"c/2.wav": "c", "z": "a"}))


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
    takes=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 70)), min_size=1, max_size=8),
)
def test_the_endless_shuffle_is_the_same_wherever_one_begins(n, seed, takes):
    sequence = EndlessShuffle(n, seed, 0).take(0, 300)
    jumping = EndlessShuffle(n, seed, 0)
    for start, count in takes:
        assert jumping.take(start, count).tolist() == sequence[start : start + count].tolist()
    for turn in range(300 // n):
        assert sorted(sequence[turn * n : (turn + 1) * n]) == list(range(n))


def test_rounds_streams_and_seeds_have_orders_of_their_own():
    def order(seed, stream, turn):
        return tuple(EndlessShuffle(50, seed, stream).take(turn * 50, 50))

    keys = [(seed, stream, turn) for seed in range(3) for stream in range(2) for turn in range(3)]
    assert len({order(*key) for key in keys}) == len(keys)


def test_nothing_cannot_be_shuffled():
    with pytest.raises(ValueError, match="nothing to shuffle"):
        EndlessShuffle(0, 0, 0)


def parts(store):
    return Segments(store, {"b/1.wav": "b"}), Segments(store, {"a/1.wav": "", "a/2.wav": ""})


def test_a_batch_is_a_function_of_seed_and_step(store):
    def batch(seed, step, *before):
        batches = TrainingBatches(*parts(store), batch_size=6, seed=seed)
        for other in before:
            batches.batch(other)
        np.random.seed(step)  # noqa: NPY002  the global state is the point
        torch.manual_seed(step)
        return batches.batch(step)

    for step in (0, 5, 97):
        for a, b in zip(batch(1, step)[:2], batch(1, step, 3, 200, step + 1)[:2], strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(batch(1, 0)[0], batch(2, 0)[0])
    assert not torch.equal(batch(1, 0)[0], batch(1, 1)[0])


def test_half_of_a_batch_is_unlabelled(store):
    batches = TrainingBatches(*parts(store), batch_size=7, seed=0)
    x, y, *_ = batches.batch(0)
    assert x.shape == (6, 1, 800) and y.tolist() == [1, 1, 1, -1, -1, -1]
    assert batches.steps_per_epoch == -(-28 // 3)  # one pass over the larger set


@pytest.mark.parametrize("which", [0, 1])
def test_without_one_kind_the_other_fills_the_batch(store, which):
    both = [Segments(store, {}), Segments(store, {})]
    both[which] = parts(store)[which]
    batches = TrainingBatches(*both, batch_size=5, seed=0)
    y = batches.batch(0).y
    assert y.tolist() == [[1] * 5, [-1] * 5][which]
    assert batches.steps_per_epoch == -(-len(both[which]) // 5)


def test_every_segment_comes_once_an_epoch_and_the_smaller_set_repeats_evenly(store):
    labelled, unlabelled = parts(store)
    batches = TrainingBatches(labelled, unlabelled, batch_size=8, seed=3)
    assert batches.steps_per_epoch == 7  # 28 segments in fours: epochs and rounds coincide
    names = {
        s.inputs(np.array([i])).numpy().tobytes(): (k, i)
        for k, s in enumerate((labelled, unlabelled))
        for i in range(len(s))
    }
    for epoch in range(3):
        seen = Counter()
        for step in range(epoch * 7, epoch * 7 + 7):
            x, *_ = batches.batch(step)
            seen.update(names[one.numpy().tobytes()] for one in x)
        assert all(seen[1, i] == 1 for i in range(28))
        assert all(seen[0, i] == 2 for i in range(14))


def test_where_batches_do_not_divide_the_set_turns_still_differ_by_one_at_most(store):
    labelled, unlabelled = parts(store)
    batches = TrainingBatches(labelled, unlabelled, batch_size=10, seed=3)
    names = {unlabelled.inputs(np.array([i])).numpy().tobytes(): i for i in range(28)}
    seen = Counter()
    for step in range(3 * batches.steps_per_epoch):
        seen.update(names[one.numpy().tobytes()] for one in batches.batch(step)[0][5:])
        if step + 1 == batches.steps_per_epoch:
            assert len(seen) == 28
        counts = [seen[i] for i in range(28)]
        assert max(counts) - min(counts) <= 1
