"""Shared frames give the logits of every window heard by itself."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from birdinv.audio.windows import Windows
from birdinv.networks import build
from birdinv.networks.frames import FrameConv1d, Taken
from birdinv.networks.layers import normalise
from birdinv.networks.pooling import FrameMaxPool1d
from birdinv.prediction.scoring import WindowScorer
from birdinv.prediction.shared import frame_stride, shared_frames

KINDS = ("noise", "quiet on an offset", "loud beside quiet", "constant", "silent", "full scale")


def recording(kind: str, length: int, rng: np.random.Generator) -> np.ndarray:
    """int16 samples of a kind that strains the arithmetic."""
    noise = rng.standard_normal(length)
    if kind == "noise":
        samples = 2000 * noise
    elif kind == "quiet on an offset":
        samples = 30_000 + 2 * noise
    elif kind == "loud beside quiet":
        samples = np.where(np.arange(length) // 700 % 3 == 0, 30_000.0, 2.0) * np.tanh(noise)
    elif kind == "constant":
        samples = np.full(length, float(rng.integers(-32768, 32768)))
    elif kind == "silent":
        samples = np.zeros(length)
    else:
        samples = rng.choice([-32768.0, 32767.0], length)
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def with_gaps(kinds: list[str], length: int, rng: np.random.Generator) -> np.ndarray:
    """Stretches of several kinds, one after the other."""
    cuts = np.sort(rng.integers(0, length, len(kinds) - 1))
    parts = np.split(np.arange(length), cuts)
    stretches = zip(kinds, parts, strict=True)
    return np.concatenate([recording(kind, len(part), rng) for kind, part in stretches])


@torch.no_grad()
def one_by_one(network: nn.Module, samples: np.ndarray, windows: Windows, count: int) -> Tensor:
    cut = [samples[i * windows.hop :][: windows.segment] for i in range(count)]
    x = torch.from_numpy(np.stack(cut).astype(np.float64))[:, None]
    return torch.cat([network(normalise(row[None]).float()) for row in x])


def network(
    kernel: int, stride: int, pool: tuple[int, int] | None, segment: int, seed: int
) -> nn.Module:
    """A small network with random weights, its first layer's filters not free of an offset."""
    torch.manual_seed(seed)
    frames = (segment - kernel) // stride + 1
    left = frames if pool is None else (frames - pool[0]) // pool[1] + 1
    between = [] if pool is None else [FrameMaxPool1d(*pool)]
    return nn.Sequential(
        FrameConv1d(1, 5, kernel, stride, bias=bool(seed % 2)),
        *between,
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(5 * left, 8),
        nn.Tanh(),
        nn.Linear(8, 4),
    ).eval()


@settings(max_examples=60, deadline=None)
@given(
    stride=st.sampled_from([16, 50, 64]),
    pieces=st.sampled_from([1, 2, 3, 1.5]),
    pool=st.sampled_from([None, (4, 2), (2, 2), (3, 1)]),
    more=st.integers(0, 400),
    strides=st.integers(1, 9),
    count=st.integers(1, 40),
    rest=st.integers(0, 500),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_shared_frames_give_the_logits_of_single_windows(
    stride, pieces, pool, more, strides, count, rest, kinds, seed
):
    kernel = int(stride * pieces)
    segment = kernel + 6 * stride + more
    windows = Windows(segment, min(strides * stride, (segment - 1) // stride * stride))
    model = network(kernel, stride, pool, segment, seed)
    shared = shared_frames(model, windows)
    assert shared is not None
    rng = np.random.default_rng(seed)
    length = (count - 1) * windows.hop + segment + rest
    samples = with_gaps(kinds, length, rng)
    with torch.no_grad():
        taken, sounding = shared(samples, count)
        got = model(taken)
    expected = one_by_one(model, samples, windows, count)
    assert (got - expected).abs().max() < 1e-4
    views = np.lib.stride_tricks.sliding_window_view(samples, segment)[:: windows.hop][:count]
    np.testing.assert_array_equal(sounding, views.min(axis=1) < views.max(axis=1))


@pytest.mark.parametrize("overlap", [0.9, 0.5, 0.1])
@pytest.mark.parametrize("kinds", [["noise"], list(KINDS)])
def test_bird10_hears_the_same_by_shared_frames(overlap, kinds):
    torch.manual_seed(3)
    model = build("bird10", classes=10, shape=(1, 11025)).eval()
    windows = Windows.from_seconds(0.5, overlap, 22050).on_strides(512)
    shared = shared_frames(model, windows)
    assert shared is not None
    count = 100
    rng = np.random.default_rng(4)
    samples = with_gaps(kinds, (count - 1) * windows.hop + windows.segment, rng)
    with torch.no_grad():
        got = model(shared(samples, count)[0])
    assert (got - one_by_one(model, samples, windows, count)).abs().max() < 1e-4


def test_the_probabilities_of_a_scorer_do_not_depend_on_sharing():
    torch.manual_seed(5)
    model = build("bird10", classes=7, shape=(1, 11025)).eval()
    windows = Windows(11025, 1024)
    samples = with_gaps(list(KINDS), 60_000, np.random.default_rng(6))
    count = windows.covering(len(samples))  # the last one reaches over the end
    shares, alone = WindowScorer(model, windows), WindowScorer(model, windows, share=False)
    assert shares.shares and not alone.shares
    np.testing.assert_allclose(shares(samples, count), alone(samples, count), atol=1e-5)
    silent = (alone(samples, count) == 0).all(axis=1)
    np.testing.assert_array_equal((shares(samples, count) == 0).all(axis=1), silent)
    assert 0 < silent.sum() < count


class _Skips(nn.Module):
    """Adds what it hears of the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = FrameConv1d(1, 3, 64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x).sum(dim=2) + x.mean(dim=2)


class _Differs(nn.Module):
    """Does something else with what was taken through its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = FrameConv1d(1, 3, 64, 64)

    def forward(self, x: Tensor | Taken) -> Tensor:
        return self.first(x).sum(dim=2) * (2 if isinstance(x, Taken) else 1)


@pytest.mark.parametrize(
    ("model", "hop"),
    [
        (_Skips(), 64),
        (_Differs(), 64),
        (nn.Sequential(nn.Conv1d(1, 3, 64, 64), nn.Flatten()), 64),
        (nn.Sequential(nn.LeakyReLU(), FrameConv1d(1, 3, 64, 64), nn.Flatten()), 64),
        (nn.Sequential(FrameConv1d(1, 3, 64, 64), nn.Flatten()), 63),
        (nn.Sequential(FrameConv1d(1, 3, 64, 64), nn.Flatten()), 640),
    ],
    ids=["skips", "differs", "no frames", "not first", "no multiple", "no overlap"],
)
def test_what_cannot_be_shared_is_not(model, hop):
    assert shared_frames(model.eval(), Windows(640, hop)) is None


def test_windows_of_a_plain_network_are_heard_one_by_one():
    model = nn.Sequential(nn.Conv1d(1, 3, 64, 64), nn.Flatten(), nn.Linear(30, 2)).eval()
    assert frame_stride(model) is None
    scores = WindowScorer(model, Windows(640, 64))(np.arange(1000, dtype=np.int16), 3)
    assert scores.shape == (3, 2)


@given(
    segment=st.integers(600, 30_000),
    overlap=st.floats(0, 0.999),
    stride=st.integers(1, 2000),
)
def test_a_rounded_hop_is_the_nearest_that_still_overlaps(segment, overlap, stride):
    windows = Windows(segment, max(1, round(segment * (1 - overlap))))
    rounded = windows.on_strides(stride)
    assert rounded.segment == segment
    if windows.hop == segment or stride >= segment:
        assert rounded == windows
        return
    assert rounded.hop % stride == 0 and 0 < rounded.hop < segment
    candidates = range(stride, segment, stride)
    best = min(abs(hop - windows.hop) for hop in candidates)
    assert abs(rounded.hop - windows.hop) == best


def test_threads_that_share_a_scorer_do_not_disturb_each_other():
    """As on a cluster whose workers have several threads."""
    torch.manual_seed(7)
    model = build("bird10", classes=5, shape=(1, 11025)).eval()
    scorer = WindowScorer(model, Windows(11025, 1024))
    count = 200
    rng = np.random.default_rng(8)
    sounds = [
        recording("noise", (count - 1) * 1024 + 11025, rng) // (1 + number) for number in range(4)
    ]
    expected = [scorer(samples, count) for samples in sounds]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            got = threads.map(lambda samples: scorer(samples, count), sounds)
            for one, other in zip(got, expected, strict=True):
                np.testing.assert_array_equal(one, other)
