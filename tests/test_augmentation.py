"""Changes of waveforms are as strong as asked for, repeatable, and leave a sound a sound."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small import SETTINGS, sound, write

import birdinv
from birdinv.audio.store import Store
from birdinv.data.augmentation import AUGMENTATIONS, Augmentation
from birdinv.data.background import Background
from birdinv.data.batches import Drawing, Segments, TrainingBatches
from birdinv.data.segmenting import SegmentSettings, segment

T = 4096


def waveforms(n=64, offset=0.0):
    """Tones as loud as int16 is, float32 `[n, 1, T]`."""
    rng = np.random.default_rng(0)
    hz, size = rng.uniform(0.01, 0.2, (n, 1, 1)), rng.uniform(100, 20000, (n, 1, 1))
    tones = size * np.sin(2 * np.pi * hz * np.arange(T)) + offset
    return torch.from_numpy(tones.astype(np.float32))


def changed(augmentation, x, seed=0, background=None):
    """Of a copy: a change may write into what it is given."""
    return augmentation.change(np.random.default_rng(seed), background)(x.clone())


def centred(x):
    return x - x.mean(dim=-1, keepdim=True)


def level(x):
    return centred(x.double()).square().mean(dim=-1).sqrt()[:, 0]


def decibels(ratio):
    return 20 * torch.log10(ratio)


def hum(where):
    """A background whose loudness depends on where it is taken from."""
    t = torch.arange(T)[None, None]
    where = torch.from_numpy(where).to(torch.float32)[:, None, None]
    return 5000 + (10 + 1000 * where) * torch.sin(0.7 * t)


ALL = {
    "polarity": Augmentation(polarity=True),
    "gain": Augmentation(gain_db=12.0),
    "noise": Augmentation(noise_db=(0.0, 20.0)),
    "filter": Augmentation(filter=0.5),
    "background": Augmentation(background=0.5),
    "light": AUGMENTATIONS["light"],
    "strong": AUGMENTATIONS["strong"],
}


# What each does ------------------------------------------------------------------------------


def test_the_default_changes_nothing_but_an_offset_that_the_normalisation_takes_away():
    x = waveforms(offset=300)
    assert Augmentation() == AUGMENTATIONS["none"]
    torch.testing.assert_close(changed(Augmentation(), x), centred(x))
    torch.testing.assert_close(
        birdinv.normalise(changed(Augmentation(), x)), birdinv.normalise(x), rtol=0, atol=1e-4
    )


def test_polarity_turns_half_of_them_upside_down_and_nothing_else():
    x = waveforms(400)
    y = changed(ALL["polarity"], x)
    sign = (y * centred(x)).sum(dim=-1, keepdim=True).sign()
    assert torch.equal(y, sign * centred(x))
    assert 150 < (sign < 0).sum() < 250


def test_gains_are_uniform_in_decibels_and_within_their_limits():
    x = waveforms(1000)
    gains = decibels(level(changed(ALL["gain"], x)) / level(x))
    assert gains.abs().max() <= 12 + 1e-3
    assert abs(gains.mean()) < 1 and gains.std() == pytest.approx(24 / 12**0.5, rel=0.1)
    counts = torch.histc(gains.float(), 4, -12, 12)
    assert counts.min() > 180


def test_a_gain_alone_is_undone_by_the_normalisation():
    x = waveforms(offset=-120)
    got = birdinv.normalise(changed(ALL["gain"], x))
    torch.testing.assert_close(got, birdinv.normalise(x), rtol=0, atol=1e-4)
    assert not torch.allclose(changed(ALL["gain"], x), centred(x), rtol=0.1)


@pytest.mark.parametrize("ratio", [-5.0, 0.0, 10.0, 35.0])
def test_noise_is_white_and_has_the_ratio_asked_for(ratio):
    x = waveforms(200)
    noise = changed(Augmentation(noise_db=(ratio, ratio)), x) - centred(x)
    measured = decibels(level(x) / level(noise))
    assert (measured - ratio).abs().max() < 0.6  # 4096 random numbers: 0.1 dB
    assert abs(measured.mean() - ratio) < 0.05
    noise = (noise / level(noise)[:, None, None])[:, 0]
    for lag in (1, 2, 5, 100):
        assert abs((noise[:, lag:] * noise[:, :-lag]).mean()) < 0.01
    power = torch.fft.rfft(noise).abs().square().mean(dim=0)[1:-1]
    bands = power[: len(power) // 8 * 8].view(8, -1).mean(dim=1)
    assert (bands / bands.mean() - 1).abs().max() < 0.05
    assert abs(noise.mean(dim=1)).max() < 0.1


def test_ratios_are_drawn_between_the_two_of_each_waveform_its_own():
    x = waveforms(1000)
    noise = changed(Augmentation(noise_db=(3.0, 15.0)), x) - centred(x)
    measured = decibels(level(x) / level(noise))
    assert measured.min() > 2.5 and measured.max() < 15.5
    assert torch.histc(measured.float(), 4, 3, 15).min() > 180


def test_noise_of_no_two_waveforms_is_the_same():
    x = waveforms(1)[[0] * 200]
    noise = changed(Augmentation(noise_db=(0.0, 0.0)), x) - centred(x)
    noise = (noise / noise.norm(dim=-1, keepdim=True))[:, 0]
    assert ((noise @ noise.T) - torch.eye(200)).abs().max() < 0.2


def test_a_gain_comes_before_the_noise_which_keeps_its_level():
    x = waveforms(500)
    quiet = changed(Augmentation(gain_db=6.0, noise_db=(10.0, 10.0)), x)
    # The part of it that is the signal, and the rest.
    share = (quiet * centred(x)).sum(dim=-1) / centred(x).square().sum(dim=-1)
    rest = quiet - share[..., None] * centred(x)
    gains = decibels(share[:, 0])
    assert gains.min() < -4 and gains.max() > 4
    torch.testing.assert_close(
        decibels(level(x) / level(rest)), torch.full((500,), 10.0).double(), rtol=0, atol=0.6
    )


def test_a_filter_is_three_taps_of_each_waveform_its_own():
    x = torch.zeros(300, 1, T)
    x[..., 100] = 1.0
    y = changed(ALL["filter"], x) + x.mean()
    taps = y[:, 0, 100:103]
    assert torch.allclose(taps[:, 0], torch.ones(300), atol=1e-3)
    assert taps[:, 1:].abs().max() <= 0.5 + 1e-3 and taps[:, 1:].std() > 0.2
    assert y[:, 0, 103:].abs().max() < 1e-3 and y[:, 0, :100].abs().max() < 1e-3
    assert abs(np.corrcoef(taps[:, 1], taps[:, 2])[0, 1]) < 0.2


def test_a_filter_is_its_formula():
    x = waveforms(20)
    y, rng = changed(ALL["filter"], x, seed=3), np.random.default_rng(3)
    taps = rng.uniform(-0.5, 0.5, (2, 20, 1, 1))
    for i, row in enumerate(centred(x)[:, 0].double().numpy()):
        expected = np.convolve(row, [1, taps[0, i, 0, 0], taps[1, i, 0, 0]])[:T]
        np.testing.assert_allclose(y[i, 0], expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("ratio", [0.0, 12.0, 30.0])
def test_a_background_has_the_ratio_asked_for_however_loud_it_was(ratio):
    x = waveforms(100)
    mixed = changed(Augmentation(background=1.0, background_db=(ratio, ratio)), x, background=hum)
    added = mixed - centred(x)
    torch.testing.assert_close(
        decibels(level(x) / level(added)), torch.full((100,), ratio).double(), rtol=0, atol=0.1
    )
    shape = centred(hum(np.zeros(1)))[0, 0]
    alike = torch.cosine_similarity(added[:, 0], shape[None], dim=1)
    assert alike.min() > 0.99


def test_that_fraction_of_the_waveforms_has_a_background():
    x = waveforms(1000)
    for fraction in (0.0, 0.3, 1.0):
        mixed = changed(Augmentation(background=fraction), x, background=hum)
        count = ((mixed - centred(x)).abs().amax(dim=-1) > 0).sum().item()
        assert count == pytest.approx(1000 * fraction, abs=50 if 0 < fraction < 1 else 0)
    ratios = decibels(level(x) / level(mixed - centred(x)))
    assert ratios.min() > -0.1 and ratios.max() < 30.1
    assert torch.histc(ratios.float(), 3, 0, 30).min() > 250


def test_without_a_background_none_is_mixed_in():
    x = waveforms()
    assert torch.equal(changed(Augmentation(background=1.0), x), centred(x))


def test_a_background_without_sound_adds_none():
    x = waveforms()
    silent = lambda where: torch.full((len(where), 1, T), 1000.0)  # noqa: E731
    mixed = changed(Augmentation(background=1.0), x, background=silent)
    torch.testing.assert_close(birdinv.normalise(mixed), birdinv.normalise(x), rtol=0, atol=1e-4)


# All of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_shape_and_type_are_kept_and_something_is_changed(name):
    x = waveforms(offset=50)
    y = changed(ALL[name], x, background=hum)
    assert y.shape == x.shape and y.dtype == torch.float32 and y.isfinite().all()
    assert not torch.allclose(y, centred(x), rtol=1e-3)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [0, 1, -32768, 32767])
def test_silence_stays_finite(name, value):
    x = torch.full((8, 1, T), float(value))
    for background in (hum, None, lambda where: torch.zeros(len(where), 1, T)):
        y = changed(ALL[name], x, background=background)
        assert y.isfinite().all() and birdinv.normalise(y).isfinite().all()
    silent = changed(ALL[name], torch.zeros(8, 1, T), background=hum)
    assert not silent.any()  # what has no level gets no noise and no background


@pytest.mark.parametrize("name", ALL)
def test_the_loudest_of_16_bits_stays_finite(name):
    square = 32767 * torch.where(torch.arange(T) % 2 == 0, 1.0, -1.0).expand(8, 1, T)
    x = birdinv.normalise(changed(ALL[name], square, background=hum))
    assert x.isfinite().all() and x.abs().max() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_the_same_generator_is_the_same_change_and_another_another(name):
    x = waveforms()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  global states are the point
    first = changed(ALL[name], x, seed=5, background=hum)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert torch.equal(first, changed(ALL[name], x, seed=5, background=hum))
    assert not torch.equal(first, changed(ALL[name], x, seed=6, background=hum))


def test_light_and_strong_are_what_their_settings_say():
    assert AUGMENTATIONS["light"] == Augmentation(True, 6.0, (10.0, 40.0))
    strong = AUGMENTATIONS["strong"]
    assert (strong.noise_db, strong.filter, strong.background) == ((0.0, 40.0), 0.5, 0.5)


# In batches ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Recordings with a call each in the middle, of three splits, and some of noise alone."""
    folder = tmp_path_factory.mktemp("augmentation")
    rows = ["file,label,split,start_s,end_s"]
    for label, hz in (("robin", 900.0), ("wren", 2200.0), ("noise", 0.0)):
        for i, split in enumerate(["train", "train", "valid", "test"]):
            name = f"{label}{i}.wav"
            write(folder / "in" / name, sound(i, 4.0, hz))
            if label == "noise":
                rows.append(f"{name},{label},{split},,")
            else:
                rows.append(f"{name},{label},{split},1.2,2.0")
                rows.append(f"{name},{label},{split},2.3,3.1")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    segment([folder / "in"], folder / "store", SETTINGS, labels=folder / "labels.csv")
    return Store(folder / "store")


def training(store):
    return {r.file: r.label for r in store.recordings if r.split == "train"}


def batches(store, seed=0, **drawing):
    labels = training(store)
    labelled = Segments(store, {f: label for f, label in labels.items() if f[-5] == "0"})
    unlabelled = Segments(store, {f: "" for f in labels if f[-5] == "1"})
    return TrainingBatches(
        labelled, unlabelled, batch_size=8, seed=seed, drawing=Drawing(**drawing)
    )


@pytest.mark.parametrize("name", ["light", "strong"])
def test_a_batch_is_a_function_of_seed_and_step_alone(store, name):
    chosen = {
        "augmentation": AUGMENTATIONS[name],
        "view": AUGMENTATIONS["light"],
        "background": Background(store, training(store)),
    }
    ours = batches(store, **chosen)
    for step in (4, 0, 9, 4):
        again = batches(store, **chosen)
        torch.manual_seed(step)
        for a, b in zip(ours.batch(step), again.batch(step), strict=True):
            assert a is None if b is None else torch.equal(a, b)
    assert not torch.equal(ours.batch(4).x, batches(store, seed=1, **chosen).batch(4).x)


def test_steps_halves_views_and_seeds_have_changes_of_their_own(store, monkeypatch):
    """Each waveform becomes the noise that is added to it: none is added twice."""
    sine = torch.sin(torch.arange(store.windows.segment) * 0.1)[None, None]
    monkeypatch.setattr(
        Segments, "inputs", lambda self, which, change: change(sine.repeat(len(which), 1, 1))
    )
    noisy = Augmentation(noise_db=(0.0, 0.0))
    found = []
    for seed in range(3):
        ours = batches(store, seed=seed, augmentation=noisy, view=noisy)
        for step in range(4):
            at = ours.batch(step)
            found += [*at.x[:4, 0], *at.x[4:, 0], *at.view[:4, 0], *at.view[4:, 0]]
    noise = torch.stack(found) - centred(sine)[0]
    noise = noise / noise.norm(dim=1, keepdim=True)
    assert len(noise) == 3 * 4 * 16
    assert (noise @ noise.T - torch.eye(len(noise))).abs().max() < 0.2


def test_changes_come_before_the_normalisation_and_leave_labels_alone(store):
    plain, noisy = batches(store), batches(store, augmentation=AUGMENTATIONS["light"])
    for step in range(3):
        a, b = plain.batch(step), noisy.batch(step)
        assert torch.equal(a.y, b.y) and a.x.shape == b.x.shape and b.x.dtype == torch.float32
        assert not torch.equal(a.x, b.x)
        assert b.x.abs().flatten(1).amax(dim=1).allclose(torch.ones(8))
        alike = torch.cosine_similarity(a.x.flatten(1), b.x.flatten(1), dim=1).abs()
        assert (alike > 0.8).all()  # 10 dB of noise at most


def test_no_change_writes_into_the_store(store):
    """Though a change may write into what it is given, and a stretch of background is one."""
    before = np.array(store.audio)
    chosen = {"background": Background(store, training(store)), "view": AUGMENTATIONS["strong"]}
    ours = batches(store, augmentation=AUGMENTATIONS["strong"], **chosen)
    for step in range(5):
        ours.batch(step)
    assert np.array_equal(store.audio, before) and not store.audio.flags.writeable


# Background ----------------------------------------------------------------------------------


def places(background, store, count=4000):
    """Starts, positions in `store.audio`, of stretches from all over the range."""
    marked = np.arange(len(store.audio))
    background._audio = marked
    windows = background(np.linspace(0, 1, count, endpoint=False))
    assert windows.dtype == torch.float32 and windows.shape == (count, 1, store.windows.segment)
    return windows[:, 0, 0].long().tolist()


def slow_places(store, labels):
    """Every position at which a segment lies wholly in a gap, or in a class that is no event."""
    length, found = store.windows.segment, []
    for r in store.recordings:
        if r.file not in labels:
            continue
        free = np.ones(r.frames, bool)
        for a, b in store.spans.get(r.file, []):
            free[a:b] = False
        if labels[r.file] in store.non_events:
            free = ~free
        for start in range(r.frames - length + 1):
            if free[start] and free[start : start + length].all():
                found.append(r.offset + start)
    return found


def test_the_store_has_what_these_tests_need(store):
    assert store.non_events == ["noise"] and store.classes == ["noise", "robin", "wren"]
    assert len(store.spans["robin0.wav"]) == 2 and len(training(store)) == 6


def test_a_background_is_every_place_in_gaps_and_classes_that_are_no_event(store):
    labels = training(store)
    background = Background(store, labels)
    expected = slow_places(store, labels)
    assert len(background) == len(expected) > 1000
    where = (np.arange(len(expected)) + 0.5) / len(expected)
    background._audio = np.arange(len(store.audio))
    starts = np.concatenate([background(part)[:, 0, 0] for part in np.array_split(where, 200)])
    assert starts.tolist() == expected


def test_none_comes_from_recordings_that_are_not_for_training(store):
    labels = training(store)
    within = set()
    for start in places(Background(store, labels), store):
        (recording,) = (
            r
            for r in store.recordings
            if r.offset <= start and start + store.windows.segment <= r.offset + r.frames
        )
        within.add(recording.file)
        assert recording.split == "train" and recording.file in labels
    assert within == set(labels)


def test_an_unlabelled_recording_gives_its_gaps_and_never_its_spans(store):
    """Whether it is of a class that is no event is not known."""
    labels = dict.fromkeys(training(store), "")
    background = Background(store, labels)
    assert len(background) == len(slow_places(store, labels))
    assert len(background) < len(Background(store, training(store)))
    for start in places(background, store, 500):
        assert not any(
            r.offset + a < start + store.windows.segment and start < r.offset + b
            for r in store.recordings
            for a, b in store.spans.get(r.file, [])
        )


def test_the_ends_of_the_range_are_the_first_and_the_last_place(store):
    labels = training(store)
    expected = slow_places(store, labels)
    background = Background(store, labels)
    background._audio = np.arange(len(store.audio))
    ends = background(np.array([0.0, np.nextafter(1.0, 0.0)]))[:, 0, 0]
    assert ends.tolist() == [expected[0], expected[-1]]


def test_stretches_are_the_samples_of_the_store(store):
    background = Background(store, training(store))
    where = np.random.default_rng(0).uniform(size=20)
    got = background(where)
    background._audio = np.arange(len(store.audio))
    for start, stretch in zip(background(where)[:, 0, 0].long().tolist(), got, strict=True):
        expected = store.audio[start : start + store.windows.segment].astype(np.float32)
        assert np.array_equal(stretch[0], expected)


def test_without_gaps_there_is_no_background_and_none_is_mixed_in(tmp_path):
    for label, i in itertools.product(("robin", "wren"), range(2)):
        write(tmp_path / "in" / label / f"{i}.wav", sound(i, 1.6))
    segment([tmp_path / "in"], tmp_path / "store", SETTINGS)  # whole recordings are spans
    store = Store(tmp_path / "store")
    labels = {r.file: r.label for r in store.recordings}
    none = Background(store, labels)
    assert len(none) == len(Background(store, {})) == 0
    found = []
    for background in (none, None):
        drawing = Drawing(augmentation=AUGMENTATIONS["strong"], background=background)
        ours = TrainingBatches(Segments(store, labels), None, batch_size=6, seed=0, drawing=drawing)
        found.append(ours.batch(3).x)
    assert torch.equal(*found) and found[0].isfinite().all()


def test_a_gap_shorter_than_a_segment_is_none_and_one_as_long_is_one(tmp_path):
    """Spans by hand: gaps of 0, a segment less one, a segment, and one sample more."""
    write(tmp_path / "in" / "robin" / "a.wav", sound(0, 4.0))
    settings = SegmentSettings(segment_s=0.1, overlap=0.5, sample_rate=11025, activity=False)
    segment([tmp_path / "in"], tmp_path / "store", settings)
    store = Store(tmp_path / "store")
    n, end = store.windows.segment, store.recordings[0].frames
    spans = [(0, 2 * n), (3 * n - 1, 5 * n), (6 * n, 8 * n), (9 * n + 1, end)]
    store.spans = {"robin/a.wav": spans}
    background = Background(store, {"robin/a.wav": "robin"})
    assert len(background) == 3
    assert sorted(set(places(background, store))) == [5 * n, 8 * n, 8 * n + 1]


def test_a_recording_in_which_nothing_was_active_is_background_as_a_whole(store):
    spans, file = dict(store.spans), "robin0.wav"
    (recording,) = (r for r in store.recordings if r.file == file)
    length = store.windows.segment
    try:
        del store.spans[file]
        assert len(Background(store, {file: "robin"})) == recording.frames - length + 1
        assert len(Background(store, {file: "noise"})) == 0
    finally:
        store.spans = spans
    assert json.loads((store.path / "store.json").read_text())["non_events"] == ["noise"]


def test_a_span_within_another_is_no_gap_behind_it(store):
    file = next(r.file for r in store.recordings if store.spans.get(r.file))
    recording = next(r for r in store.recordings if r.file == file)
    nested = SimpleNamespace(
        windows=store.windows,
        non_events=[],
        audio=store.audio,
        recordings=[recording],
        spans={file: [(0, recording.frames), (10, 20)]},
    )
    assert len(Background(nested, {file: ""})) == 0
