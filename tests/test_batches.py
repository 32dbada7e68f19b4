"""Batches are a function of (seed, step); every segment gets its turn; nothing is misread."""

from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from birdinv.audio.store import Store
from birdinv.data.augmentation import AUGMENTATIONS, Augmentation
from birdinv.data.batches import Batch, Drawing, Segments, TrainingBatches
from birdinv.data.images import Images
from birdinv.data.orders import EndlessShuffle
from birdinv.data.segmenting import SegmentSettings, segment
from birdinv.networks.layers import normalise
from birdinv.training.images import ImageSamples

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


# What is beside inputs and labels ------------------------------------------------------------


def test_a_batch_has_its_fields_by_name_and_goes_to_a_device_as_a_whole(store):
    bare = TrainingBatches(*parts(store), batch_size=6, seed=0).batch(0)
    assert bare._fields == ("x", "y", "groups", "view")
    assert bare.groups is None and bare.view is None
    drawing = Drawing(together=3, view=AUGMENTATIONS["light"])
    full = TrainingBatches(*parts(store), batch_size=6, seed=0, drawing=drawing).batch(0)
    assert full.x.shape == full.view.shape == (6, 1, 800)
    assert full.y.shape == full.groups.shape == (6,)
    assert full.y.dtype == full.groups.dtype == torch.int64
    assert full.view.dtype == full.x.dtype == torch.float32
    elsewhere = full.to(torch.device("meta"))
    assert isinstance(elsewhere, Batch)
    assert all(part.device.type == "meta" for part in elsewhere)
    assert bare.to(torch.device("cpu")).groups is None


def identities(segments):
    """What bytes are which segment."""
    return {segments.inputs(np.array([i])).numpy().tobytes(): i for i in range(len(segments))}


def numbers_of(x, names):
    return [names[one.numpy().tobytes()] for one in x]


@settings(max_examples=30, deadline=None)
@given(group_s=st.sampled_from([None, 1e-9, 0.05, 0.1, 0.13, 0.25, 0.5, 100.0]))
def test_groups_are_recordings_or_stretches_of_them(store, group_s):
    segments = Segments(store, {**LABELS, "b/1.wav": ""}, group_s)
    expected = []
    for row, recording in enumerate(store.recordings):
        for a, b in store.spans.get(recording.file, []):
            for start in range(a, b - 800 + 1, 400):  # within the recording, wherever it lies
                stretch = 0 if group_s is None else start // max(1, round(group_s * RATE))
                expected.append((row, stretch))
    got = segments.groups
    assert got.dtype == np.int64 and got.shape == (len(segments),) and got.min() >= 0
    pairs = set(zip(got.tolist(), expected, strict=True))
    assert len(pairs) == len(set(got.tolist())) == len(set(expected))  # one to one
    if group_s is None or group_s > 2:
        rows = sorted(set(segments.recordings.tolist()))
        assert len(set(got.tolist())) == len(rows)
    if group_s == 1e-9:
        assert len(set(got.tolist())) == len(segments)


def test_stretches_are_counted_from_the_start_of_each_recording_not_of_each_span(store):
    segments = Segments(store, {"a/1.wav": ""}, 0.5)
    row = [r.file for r in store.recordings].index("a/1.wav")
    offset = store.recordings[row].offset
    segments._first = segments._first + 4000 - 200  # a span that begins at 0.475 s
    starts = segments.starts(np.arange(len(segments))) - offset
    assert starts.min() == 3800
    assert segments.groups.tolist() == [0 if s < 4000 else 1 if s < 8000 else 2 for s in starts]


def test_without_segments_there_are_no_groups(store):
    for group_s in (None, 0.5):
        assert Segments(store, {}, group_s).groups.shape == (0,)


@pytest.mark.parametrize("group_s", [None, 0.3])
@pytest.mark.parametrize("together", [1, 2, 4])
def test_unlabelled_segments_are_drawn_so_many_at_a_time_from_one_group(store, together, group_s):
    labelled = Segments(store, {"b/1.wav": "b"}, group_s)
    unlabelled = Segments(store, {"a/1.wav": "", "a/2.wav": "", "c/1.wav": ""}, group_s)
    drawing = Drawing(together=together)
    batches = TrainingBatches(labelled, unlabelled, batch_size=16, seed=0, drawing=drawing)
    names, seen = identities(unlabelled), Counter()
    of_which = unlabelled.groups
    for step in range(30):
        x, y, groups, view = batches.batch(step)
        assert y.tolist() == [1] * 8 + [-1] * 8 and view is None
        assert groups[:8].tolist() == [-1] * 8
        which = numbers_of(x[8:], names)
        assert groups[8:].tolist() == of_which[which].tolist()
        visits = groups[8:].view(-1, together)
        assert (visits == visits[:, :1]).all()
        seen.update(visits[:, 0].tolist())
    assert seen.keys() == set(of_which.tolist())
    assert max(seen.values()) - min(seen.values()) <= 1  # long recordings as often as short ones


def test_without_drawing_together_there_are_no_groups_and_labelled_ones_are_as_before(store):
    plain, grouped = (
        TrainingBatches(*parts(store), batch_size=8, seed=2, drawing=Drawing(together=together))
        for together in (0, 2)
    )
    for step in range(5):
        a, b = plain.batch(step), grouped.batch(step)
        assert a.groups is None and torch.equal(a.x[:4], b.x[:4])
        assert not torch.equal(a.x[4:], b.x[4:])


def test_of_labels_alone_nothing_is_drawn_together(store):
    labelled, _ = parts(store)
    drawing = Drawing(together=4)
    found = [
        TrainingBatches(labelled, other, batch_size=5, seed=0, drawing=drawing).batch(1)
        for other in (None, Segments(store, {}))
    ]
    assert torch.equal(found[0].x, found[1].x)
    assert all(batch.groups.tolist() == [-1] * 5 for batch in found)


def test_a_balanced_half_has_the_classes_and_their_recordings_equally_often(store):
    labelled = Segments(store, {"a/1.wav": "a", "a/2.wav": "a", "b/1.wav": "b", "c/1.wav": "c"})
    unlabelled = Segments(store, {"b/1.wav": ""})
    names = identities(labelled)
    for other in (None, unlabelled):
        batches = TrainingBatches(
            labelled,
            other,
            batch_size=6 if other is None else 12,
            seed=1,
            drawing=Drawing(balanced=True),
        )
        segments, recordings = Counter(), Counter()
        for step in range(38):
            x, y, *_ = batches.batch(step)
            assert sorted(y[:6].tolist()) == [0, 0, 1, 1, 2, 2]
            which = numbers_of(x[:6], names)
            assert y[:6].tolist() == labelled.labels[which].tolist()
            segments.update(which)
            recordings.update(labelled.recordings[which].tolist())
        assert sorted(recordings.values()) == [38, 38, 76, 76]
        first = [segments[i] for i in range(19)]  # of a/1, two to three times each
        assert sum(first) == 38 and max(first) - min(first) <= 1
        assert segments[42] == 76  # the only segment of class c


def test_a_balance_of_labels_leaves_the_unlabelled_half_as_it_is(store):
    plain, balanced = (
        TrainingBatches(*parts(store), batch_size=8, seed=2, drawing=Drawing(balanced=balanced))
        for balanced in (False, True)
    )
    for step in range(5):
        a, b = plain.batch(step), balanced.batch(step)
        assert torch.equal(a.x[4:], b.x[4:]) and not torch.equal(a.x[:4], b.x[:4])


def test_a_view_is_of_the_same_segments_and_changed_in_another_way(store):
    upside_down = Augmentation(polarity=True)
    for augmentation in (AUGMENTATIONS["none"], upside_down):
        drawing = Drawing(together=2, augmentation=augmentation, view=upside_down)
        batches = TrainingBatches(*parts(store), batch_size=32, seed=0, drawing=drawing)
        for step in range(3):
            x, _, _, view = batches.batch(step)
            sign = (x * view).sum(dim=(1, 2)).sign()
            torch.testing.assert_close(view, sign[:, None, None] * x, rtol=0, atol=1e-5)
            assert {-1, 1} == set(sign[:16].tolist()) == set(sign[16:].tolist())
    drawing = Drawing(view=AUGMENTATIONS["light"], augmentation=AUGMENTATIONS["light"])
    x, _, _, view = TrainingBatches(*parts(store), batch_size=32, seed=0, drawing=drawing).batch(0)
    assert (x != view).flatten(1).any(dim=1).all()


def test_a_view_changes_neither_what_is_drawn_nor_how_the_inputs_are_changed(store):
    found = [
        TrainingBatches(
            *parts(store),
            batch_size=8,
            seed=0,
            drawing=Drawing(augmentation=AUGMENTATIONS["light"], view=view),
        ).batch(3)
        for view in (None, AUGMENTATIONS["none"], AUGMENTATIONS["strong"])
    ]
    assert all(torch.equal(batch.x, found[0].x) for batch in found)
    assert torch.equal(
        found[1].view, TrainingBatches(*parts(store), batch_size=8, seed=0).batch(3).x
    )


def test_leaving_out_the_unlabelled_half_leaves_the_labelled_one_as_it_is(store):
    chosen = {"balanced": True, "augmentation": AUGMENTATIONS["light"], "together": 2}
    both, half = (
        TrainingBatches(
            *parts(store), batch_size=8, seed=0, labelled_only=only, drawing=Drawing(**chosen)
        )
        for only in (False, True)
    )
    assert both.steps_per_epoch == half.steps_per_epoch
    for step in range(4):
        a, b = both.batch(step), half.batch(step)
        assert torch.equal(a.x[:4], b.x) and torch.equal(a.y[:4], b.y)
        assert torch.equal(a.groups[:4], b.groups)


def test_images_belong_to_no_group():
    rng = np.random.default_rng(0)
    images = Images(rng.integers(0, 256, (30, 1, 6, 6), np.uint8), np.arange(30) % 3)
    labelled = ImageSamples(images, np.arange(10))
    unlabelled = ImageSamples(images, np.arange(10, 30), known=False)
    assert labelled.groups.dtype == np.int64 and set(unlabelled.groups) == {-1}
    assert labelled.recordings.tolist() == list(range(10))
    drawing = Drawing(balanced=True, together=3)
    batches = TrainingBatches(labelled, unlabelled, batch_size=12, seed=0, drawing=drawing)
    seen = Counter()
    names = identities(unlabelled)
    for step in range(10):
        x, y, groups, view = batches.batch(step)
        assert groups.tolist() == [-1] * 12 and groups.dtype == torch.int64 and view is None
        assert sorted(y.tolist()) == [-1] * 6 + [0, 0, 1, 1, 2, 2]
        seen.update(numbers_of(x[6:], names))
    assert set(seen.values()) == {3}  # 60 draws of 20 images
