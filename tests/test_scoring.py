"""Streamed windows = the whole array cut up; a store's segments and `predict` hear the same."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from small import RATE, SETTINGS, make_run, sound, write
from torch import nn

from birdinv.audio import reading
from birdinv.audio.reading import Reader
from birdinv.audio.resampling import pcm, resampled
from birdinv.audio.store import Store
from birdinv.audio.windows import Windows
from birdinv.data.batches import Segments
from birdinv.data.segmenting import segment
from birdinv.networks.layers import normalise
from birdinv.networks.saved import load_listener
from birdinv.prediction.scoring import BATCH, ScoredRecording, WindowScorer
from birdinv.threads import cpu_threads

SECONDS = 9.3  # more than one batch of windows at 75 % overlap, and no whole number of hops


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Windows]:
    network, _, hearing = load_listener(make_run(tmp_path_factory.mktemp("scoring")))
    return network, Windows(hearing.segment_samples, hearing.segment_samples // 4)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with cpu_threads(1):
        yield


def scores(path: Path, model: tuple[nn.Module, Windows]) -> tuple[np.ndarray, ScoredRecording]:
    """All probabilities `[windows, K]`; window numbers must follow each other."""
    scored = ScoredRecording(Reader(path), WindowScorer(*model), RATE)
    parts, count = [np.zeros((0, 3), np.float32)], 0
    for first, probabilities in scored:
        assert first == count and 1 <= len(probabilities) <= BATCH
        count += len(probabilities)
        parts.append(probabilities)
    return np.concatenate(parts), scored


def cut(samples: np.ndarray, windows: Windows) -> torch.Tensor:
    """Every window of int16 samples as the docstring says, one by one: `[n, 1, T]`."""
    rows = []
    for number in range(windows.covering(len(samples))):
        row = samples[number * windows.hop :][: windows.segment].astype(np.float32)
        rest = np.full(windows.segment - len(row), np.rint(row.mean()), np.float32)
        rows.append(np.concatenate([row, rest]))
    return normalise(torch.from_numpy(np.stack(rows))[:, None])


def whole(path: Path) -> np.ndarray:
    with Reader(path) as reader:
        blocks = list(resampled(reader, reader.source_rate, RATE))
    return pcm(np.concatenate(blocks))[0]


@torch.no_grad()
def test_streamed_windows_are_those_of_the_whole_array(
    model: tuple[nn.Module, Windows], tmp_path: Path
) -> None:
    for rate in (RATE, 48000):
        path = write(tmp_path / f"{rate}.wav", sound(1, SECONDS, rate=rate), rate)
        got, scored = scores(path, model)
        x = cut(whole(path), model[1])
        batches = [torch.softmax(model[0](part), 1) for part in x.split(BATCH)]
        np.testing.assert_array_equal(got, torch.cat(batches).numpy())
        singly = torch.cat([torch.softmax(model[0](row[None]), 1) for row in x]).numpy()
        np.testing.assert_allclose(got, singly, atol=1e-5)
        np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)
        assert scored.frames == len(whole(path)) and scored.verdict.status == "ok"


@pytest.mark.parametrize("frames", [1024, 4999, 262144])
def test_the_block_size_of_the_reader_changes_nothing(
    model: tuple[nn.Module, Windows],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frames: int,
) -> None:
    path = write(tmp_path / "a.flac", sound(2, SECONDS))
    want, _ = scores(path, model)
    monkeypatch.setattr(reading, "BLOCK_FRAMES", frames)
    np.testing.assert_array_equal(scores(path, model)[0], want)


def test_a_store_hears_what_predict_hears(model: tuple[nn.Module, Windows], tmp_path: Path) -> None:
    samples = sound(3, SECONDS, rate=32000)
    write(tmp_path / "rec/robin/a.wav", samples, 32000)
    segment([tmp_path / "rec"], tmp_path / "store", SETTINGS)
    store = Store(tmp_path / "store")
    segments = Segments(store, {"robin/a.wav": "robin"})
    windows = store.windows
    with torch.no_grad():
        x = segments.inputs(np.arange(len(segments)))
        from_store = torch.softmax(model[0](x), dim=1).numpy()
    got, _ = scores(tmp_path / "rec/robin/a.wav", (model[0], windows))
    assert len(from_store) == windows.count(len(store.audio)) > 10
    np.testing.assert_allclose(got[: len(from_store)], from_store, atol=1e-5)
    # The samples themselves are the same, not only what comes of them.
    np.testing.assert_array_equal(store.audio, whole(tmp_path / "rec/robin/a.wav"))


def test_the_number_of_windows_covers_every_sample(
    model: tuple[nn.Module, Windows], tmp_path: Path
) -> None:
    segment_samples, hop = model[1].segment, model[1].hop
    full = (BATCH - 1) * hop + segment_samples
    for n, expected in (
        (segment_samples // 2, 1),
        (segment_samples - 1, 1),
        (segment_samples, 1),
        (segment_samples + 1, 2),
        (segment_samples + hop, 2),
        (segment_samples + hop + 1, 3),
        (full, BATCH),
        (full + 1, BATCH + 1),
    ):
        path = write(tmp_path / f"{n}.wav", sound(4, (n + 1) / RATE)[:n])
        got, scored = scores(path, model)
        assert (scored.frames, len(got)) == (n, expected)
        assert scored.verdict.status == "ok"


def test_what_is_shorter_than_half_a_window_is_empty(
    model: tuple[nn.Module, Windows], tmp_path: Path
) -> None:
    for n in (1, model[1].segment // 2 - 1):
        path = write(tmp_path / f"{n}.wav", sound(5)[:n])
        got, scored = scores(path, model)
        assert len(got) == 0 and scored.verdict.status == "empty"
        assert "shorter than half a window of 0.5 s" in scored.verdict.reason


def test_the_padding_of_the_last_window_is_its_own_mean(
    model: tuple[nn.Module, Windows], tmp_path: Path
) -> None:
    """A constant offset of the recording does not become a step at the end of the last window."""
    n = model[1].segment + model[1].hop // 3
    path = write(tmp_path / "plain.wav", sound(6)[:n] * 0.3)
    offset = write(tmp_path / "offset.wav", sound(6)[:n] * 0.3 + np.float32(0.5))
    np.testing.assert_allclose(scores(path, model)[0], scores(offset, model)[0], atol=2e-3)


@pytest.mark.parametrize("level", [0.0, 0.25, -1.0])
def test_silence_and_constants_have_finite_scores(
    model: tuple[nn.Module, Windows], tmp_path: Path, level: float
) -> None:
    path = write(tmp_path / "flat.wav", np.full(RATE * 2, level, np.float32))
    got, scored = scores(path, model)
    assert np.isfinite(got).all() and scored.verdict.status == "ok"
    np.testing.assert_allclose(got, got[:1].repeat(len(got), axis=0), atol=1e-5)


def test_leaving_early_stops_the_reading_thread(
    model: tuple[nn.Module, Windows], tmp_path: Path
) -> None:
    path = write(tmp_path / "long.wav", sound(7, 60))
    before = threading.active_count()
    for _ in ScoredRecording(Reader(path), WindowScorer(*model), RATE):
        break
    assert threading.active_count() == before


def test_resampling_is_that_of_one_pass(tmp_path: Path) -> None:
    """The stream's samples are soxr's own of the whole array, up to its last bits."""
    samples = sound(8, 3, rate=48000)
    path = write(tmp_path / "a.wav", samples, 48000)
    with Reader(path) as reader:
        streamed = np.concatenate(list(resampled(reader, 48000, RATE)))
    decoded, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(streamed, soxr.resample(decoded, 48000, RATE), atol=1e-4)


def test_digital_silence_is_no_bird(tmp_path: Path, model: tuple[nn.Module, Windows]) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, round(SECONDS * RATE))
    sound[: 4 * RATE] = 0
    soundfile.write(tmp_path / "gated.wav", sound, RATE, "PCM_16")
    got, _ = scores(tmp_path / "gated.wav", model)
    silent = model[1].count(4 * RATE)
    assert (got[:silent] == 0).all()
    np.testing.assert_allclose(got[silent:].sum(axis=1), 1, rtol=1e-5)
