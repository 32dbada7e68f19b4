"""`birdinv.prediction.score`: times and probabilities for other people's programs."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from small import RATE, make_run, sound, write

import birdinv
from birdinv.errors import BirdinvError
from birdinv.prediction import Listener, score
from birdinv.prediction.job import Settings
from birdinv.prediction.run import predict
from birdinv.prediction.tables import Choice


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("listener"))


def test_it_is_found_where_the_documentation_says() -> None:
    assert birdinv.prediction.score is score


@pytest.mark.parametrize("rate", [RATE, 48000])
def test_a_file_and_its_samples_have_the_same_scores(run: Path, tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", sound(1, 9.0, rate=rate), rate)
    of_file = score(run, path)
    integers, _ = soundfile.read(path, dtype="int16")
    floats, _ = soundfile.read(path, dtype="float32")
    for samples in (integers, floats, floats.astype(np.float64), np.stack([floats] * 2, axis=1)):
        of_samples = score(run, samples, sample_rate=rate)
        np.testing.assert_array_equal(of_samples.probabilities, of_file.probabilities)
        np.testing.assert_array_equal(of_samples.start_s, of_file.start_s)
        np.testing.assert_array_equal(of_samples.end_s, of_file.end_s)
    assert of_file.verdict.status == "ok" and of_file.classes == ["noise", "robin", "wren"]


def test_they_are_what_predict_writes(run: Path, tmp_path: Path) -> None:
    write(tmp_path / "in/a.wav", sound(2, 5.0))
    settings = Settings(Choice(0, top_n=1), overlap=0.5)
    predict(run, [tmp_path / "in"], tmp_path / "out", settings=settings)
    lines = (tmp_path / "out/combined.csv").read_text().splitlines()[1:]
    scores = score(str(run), str(tmp_path / "in/a.wav"), overlap=0.5)
    birds = scores.probabilities[:, 1:]
    expected = [
        f"a.wav,{start:.3f},{end:.3f},{scores.classes[1 + row.argmax()]},{row.max():.4f}"
        for start, end, row in zip(scores.start_s, scores.end_s, birds, strict=True)
    ]
    assert lines == expected and len(lines) > 10


def test_windows_overlap_as_asked_or_nearly(run: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sound(3, 5.0))
    segment = round(0.5 * RATE)
    exact = score(run, path, overlap=0.75, exact_hop=True)
    np.testing.assert_allclose(np.diff(exact.start_s), round(segment / 4) / RATE)
    rounded = score(run, path, overlap=0.75)
    np.testing.assert_allclose(np.diff(rounded.start_s), 1536 / RATE)  # three strides of 512


def test_a_loaded_model_scores_many(run: Path, tmp_path: Path) -> None:
    listener = Listener.load(run, overlap=0.5)
    samples = sound(4, 3.0)
    once = score(listener, samples, sample_rate=RATE)
    np.testing.assert_array_equal(
        once.probabilities, score(run, samples, sample_rate=RATE, overlap=0.5).probabilities
    )
    with pytest.raises(BirdinvError, match=r"give the overlap to Listener\.load"):
        score(listener, samples, sample_rate=RATE, overlap=0.5)


def test_bad_samples_are_heard_as_zeros_and_marked(run: Path) -> None:
    samples = sound(5, 4.0)
    samples[2 * RATE] = np.nan
    samples[2 * RATE + 5] = np.inf
    zeroed = np.nan_to_num(samples, posinf=0.0)
    got = score(run, samples, sample_rate=RATE)
    expected = score(run, zeroed, sample_rate=RATE)
    np.testing.assert_array_equal(got.probabilities, expected.probabilities)
    holds = (got.start_s <= 2) & (got.end_s > 2)
    np.testing.assert_array_equal(got.marked, holds)
    assert holds.sum() >= 2 and not expected.marked.any()
    assert got.verdict.status == "partial" and "2 of" in got.verdict.reason


def test_what_cannot_be_read_has_no_windows_and_a_verdict(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"not a recording, but long enough to be taken for one")
    got = score(run, tmp_path / "a.wav")
    assert got.probabilities.shape == (0, 3) and got.verdict.status == "unreadable"
    assert "not an audio file" in got.verdict.reason
    with pytest.raises(BirdinvError, match=r"none\.wav does not exist"):
        score(run, tmp_path / "none.wav")
    nothing = score(run, np.zeros(0, np.float32), sample_rate=RATE)
    assert len(nothing.start_s) == 0 and nothing.verdict.status == "empty"


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        (np.zeros(9, np.float32), None, "give sample_rate in Hz"),
        (np.zeros(9, np.float32), 7, "from 1000 to 1000000 Hz"),
        (np.zeros(9, np.float32), 22050.7, "give a whole number of Hz"),
        ([0.0] * 9, RATE, "the recording is a list; expected a path"),
        (np.zeros(9, np.int32), RATE, "int32 of shape"),
        (np.zeros((2, 2, 2)), RATE, r"expected floating ones or int16"),
        (np.zeros((2, 9000)), RATE, "9000 channels"),
    ],
)
def test_strange_samples_are_refused(run: Path, samples, rate, words) -> None:
    with pytest.raises(BirdinvError, match=words):
        score(run, samples, sample_rate=rate)


def test_a_file_has_its_own_rate(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BirdinvError, match="a file has its own"):
        score(run, tmp_path / "a.wav", sample_rate=RATE)
