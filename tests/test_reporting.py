"""The report says what the run folder holds, says what it lacks, and needs nothing but itself."""

import base64
import csv
import io
import itertools
import json
import os
import re
import wave
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from birdinv.errors import BirdinvError
from birdinv.reporting import figures, learning
from birdinv.reporting.figures import Detection
from birdinv.reporting.page import RecordingView, write_report

EVIL = "<script>alert(\"$x$ & 'y'\")</script>"
CLASSES = ["Parus major", EVIL]
EVALUATION = {
    "segment_accuracy": 0.7312,
    "recording_accuracy": 0.875,
    "macro_average_precision": 0.8214,
    "expected_calibration_error": 0.0417,
    "recordings": 24,
    "segments": 2311,
    "non_events": ["Parus major"],
    "per_class": {
        name: {
            "recordings": 12,
            "segments": 1155,
            "precision": 0.811,
            "recall": None,
            "average_precision": 0.922,
            "roc_auc": 0.933,
        }
        for name in CLASSES
    },
    "confusion_matrix": {
        "classes": CLASSES,
        "segments": [[1000, 155], [0, 0]],
        "recordings": [[11, 1], [2, 10]],
    },
    "intervals": {"recording_accuracy": [0.71, 0.96], "segment_accuracy": None},
}
COLUMNS = [
    *("epoch", "step", "learning_rate", "total", "cross_entropy", "entropy", "reconstruction"),
    *("train_accuracy", "valid_cross_entropy", "valid_accuracy"),
    *("valid_recording_accuracy", "seconds"),
]


def make_run(folder: Path, *, epochs: int = 0, evaluation: object = None, **facts) -> Path:
    """A supervised run without validation set: the cells of both are empty."""
    folder.mkdir()
    facts = {
        "config": {"objective": "weighted", "alpha": 0.7, "note": EVIL, "layers": None},
        "command": f"birdinv train {EVIL}",
        "versions": {"torch": "2.13.0"},
        "device": "cpu",
        "outcome": "finished",
        "best_epoch": 2,
        "classes": CLASSES,
        "counts": {"labelled_recordings": 20, "unlabelled_recordings": 431},
    } | facts
    (folder / "run.json").write_text(json.dumps(facts))
    rows = [
        [e, 10 * e, 1e-3, 2 / e, 2 / e, "", "", 1 - 1 / e, "", "", "", 1.5]
        for e in range(1, epochs + 1)
    ]
    with (folder / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    if evaluation is not None:
        (folder / "evaluation-test.json").write_text(json.dumps(evaluation))
    return folder


def view(seconds: float = 1.0, name: str = EVIL) -> RecordingView:
    time = np.arange(int(seconds * 8000)) / 8000
    wave_ = np.sin(2 * np.pi * 2000 * time).astype(np.float32)
    detections = [Detection(0.2, 0.6, EVIL, 0.91), Detection(0.4, 0.8, "Parus major", 0.5)]
    return RecordingView(name, wave_, 8000, detections)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]

    def handle_data(self, data):
        self.text += f" {data}"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    run = make_run(tmp_path_factory.mktemp("reports") / "run<i>7", epochs=3, evaluation=EVALUATION)
    path = write_report(run, recordings=[view()])
    assert path == run / "report.html"
    return Page(path)


def test_one_is_not_many(tmp_path):
    """Of recordings, segments and classes there may be one."""
    only = EVALUATION | {"recordings": 1, "segments": 1, "per_class": {"a": {}}}
    counts = {"labelled_recordings": 3, "unlabelled_recordings": 1}
    run = make_run(tmp_path / "run", evaluation=only, classes=["a"], counts=counts)
    text = Page(write_report(run)).text
    assert "A classifier of 1 class, learned from 3 labelled and 1 unlabelled recording " in text
    assert "Counted on 1 recording (1 segment)." in text
    assert "Guessing among 1 class would" in text


def test_the_page_holds_the_numbers_of_the_evaluation(page):
    numbers = ("87.5 %", "71.0–96.0 %", "73.1 %", "0.821", "4.2 %", "0.811", "0.922", "0.933", "–")
    for number in (*numbers, "24 recordings", "2,311 segments", "50.0 %"):
        assert number in page.text
    assert "Parus major * 12 1155" in page.text  # named as no event by the evaluation
    assert "20 labelled and 431 unlabelled recordings" in page.text
    assert page.tags.count("img") == 4  # two confusion matrices, the curves, one spectrogram


def test_the_page_needs_nothing_but_itself(page):
    sources = [value for key, value in page.attributes if key in ("src", "href", "srcset")]
    assert sources and all(source.startswith("data:") for source in sources)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "@import" not in page.text and "url(" not in page.text
    assert any("default-src 'none'" in value for _, value in page.attributes)


def test_names_are_text_and_never_markup(page):
    assert not {"script", "i"} & set(page.tags)
    assert page.text.count(EVIL) == 4  # in the table of classes, the heading, note, command
    assert "run<i>7" in page.text
    assert ("alt", f"Spectrogram of {EVIL} with detections") in page.attributes


def test_the_sound_is_the_waveform_in_16_bit(page):
    source = next(value for key, value in page.attributes if value.startswith("data:audio"))
    with wave.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as sound:
        assert sound.getparams()[:4] == (1, 2, 8000, 8000)  # channels, bytes, rate, frames
        samples = np.frombuffer(sound.readframes(8000), "<i2")
    np.testing.assert_allclose(samples / 32768, view().waveform, atol=1 / 32768)


def test_int16_samples_come_back_unchanged(tmp_path):
    samples = np.array([-32768, -1, 0, 1, 32767], np.int16)
    quiet = RecordingView("five samples", samples, 8000, [])
    path = write_report(make_run(tmp_path / "run"), recordings=[quiet])
    source = re.search(r'data:audio/wav;base64,([^"]*)"', path.read_text("utf-8"))
    assert base64.b64decode(source[1]).endswith(samples.astype("<i2").tobytes())


def test_sound_over_30_s_is_shown_but_not_embedded(tmp_path):
    path = write_report(make_run(tmp_path / "run"), recordings=[view(31.0)])
    assert "audio" not in Page(path).tags
    assert "31 s are too long" in Page(path).text


def test_what_is_absent_is_said(tmp_path):
    run = make_run(tmp_path / "run", outcome="interrupted")
    (run / "metrics.csv").unlink()
    text = Page(write_report(run)).text
    assert "No evaluation yet" in text
    assert "no metrics.csv" in text
    assert "No recording was given" in text
    assert "was interrupted" in text


def test_a_run_json_without_keys_is_enough(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    text = Page(write_report(run)).text
    assert "A classifier." in text
    assert text.count("Nothing of this is in run.json") == 4


@pytest.mark.parametrize(
    ("evaluation", "sentence"),
    [
        ([1, 2], "evaluation-test.json holds no JSON object"),
        ({"confusion_matrix": {"classes": ["a"], "segments": [[1, 2]]}}, "expected 1 × 1"),
        ({"confusion_matrix": {"classes": ["a"], "segments": [["x"]]}}, "cannot be shown"),
        ({"confusion_matrix": {"classes": ["a"], "segments": [[-1]]}}, "counts must be numbers"),
        ({"intervals": {"segment_accuracy": [None, None]}}, "no 95 % interval"),
    ],
)
def test_a_damaged_evaluation_is_said_and_the_rest_shown(tmp_path, evaluation, sentence):
    text = Page(write_report(make_run(tmp_path / "run", epochs=1, evaluation=evaluation))).text
    assert sentence in text
    assert "Epochs completed: 1" in text


def test_both_splits_are_shown_test_first(tmp_path):
    run = make_run(tmp_path / "run", evaluation=EVALUATION)
    (run / "evaluation-valid.json").write_text("{not json")
    text = Page(write_report(run)).text
    assert text.index("Results on test recordings") < text.index("Results on validation recordings")
    assert "evaluation-valid.json is not JSON" in text


@pytest.mark.parametrize("content", [None, "{", "[]", b"\xff\xfe"])
def test_without_run_json_there_is_a_sentence_and_no_page(tmp_path, content):
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "run.json").write_bytes(data)
    with pytest.raises(BirdinvError, match=r"run\.json.* expected the record of a run; give"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_same_run_gives_the_same_bytes_and_leaves_no_temporary_file(tmp_path):
    run = make_run(tmp_path / "run", epochs=3, evaluation=EVALUATION)
    before = set(os.listdir(run))
    first = write_report(run, recordings=[view()]).read_bytes()
    second = write_report(run, recordings=[view()]).read_bytes()
    assert first == second
    assert set(os.listdir(run)) == before | {"report.html"}


def test_a_page_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "report.html").mkdir()  # os.replace cannot put a file in a folder's place
    before = set(os.listdir(run))
    with pytest.raises(BirdinvError, match="cannot write the report"):
        write_report(run)
    assert set(os.listdir(run)) == before


def test_names_that_are_no_unicode_do_not_stop_the_page(tmp_path):
    name = os.fsdecode(b"r\xffn.wav")
    run = make_run(tmp_path / name, classes=["鳥", name])
    detections = [Detection(0.0, 0.5, label, 1.0) for label in ("鳥", "\0\n", name)]
    path = write_report(run, recordings=[RecordingView(name, np.zeros(9), 8000, detections)])
    assert "r?n.wav" in path.read_text("utf-8")


def test_pages_with_many_pictures_stay_small(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 22050 * 31)
    recordings = [RecordingView(str(k), noise, 22050, view().detections) for k in range(3)]
    run = make_run(tmp_path / "run", epochs=200, evaluation=EVALUATION)
    path = write_report(run, recordings=recordings)
    assert path.stat().st_size < 1_500_000


def metrics(**columns: list[str]) -> list[dict[str, str]]:
    length = max(len(cells) for cells in columns.values())
    rows = [dict.fromkeys(COLUMNS, "") for _ in range(length)]
    for name, cells in columns.items():
        for row, cell in zip(rows, cells, strict=True):
            row[name] = cell
    return rows


def curves(figure) -> dict[str, list[tuple[float, float]]]:
    lines = [line for axis in figure.axes for line in axis.get_lines()]
    return {line.get_label(): list(map(tuple, line.get_xydata())) for line in lines}


def test_one_epoch_is_a_point_that_can_be_seen():
    figure = learning.learning_curves(metrics(epoch=["1"], cross_entropy=["2.5"], total=["2.5"]))
    (line,) = figure.axes[0].get_lines()
    assert line.get_marker() == "o"
    assert curves(figure)["cross-entropy: training"] == [(1.0, 2.5)]


def test_empty_cells_are_gaps_and_empty_columns_no_curves():
    rows = metrics(epoch=["1", "2", "3"], valid_accuracy=["0.5", "", "nonsense"])
    drawn = curves(learning.learning_curves(rows))
    assert list(drawn) == ["validation segments"]
    np.testing.assert_equal(drawn["validation segments"], [(1, 50), (2, np.nan), (3, np.nan)])


@pytest.mark.parametrize("rows", [[], metrics(epoch=["1"], entropy=["nan"])])
def test_metrics_without_numbers_are_refused(rows):
    with pytest.raises(ValueError, match="no number to draw"):
        learning.learning_curves(rows)


def test_confusion_is_coloured_by_share_of_the_true_class():
    figure = figures.confusion_matrix(["a", "b"], [[3, 1], [0, 0]])
    share = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(share[0], [0.75, 0.25])
    assert share.mask[1].all()  # nothing to test: no colour, not "all wrong"
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1"]


def test_a_hundred_classes_are_drawn_without_overlapping_names():
    names = [f"species number {k}" for k in range(100)]
    figure = figures.confusion_matrix(names, np.eye(100, dtype=int).tolist())
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(not a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_a_tone_is_drawn_at_its_time_and_frequency():
    sample_rate = 8000
    time = np.arange(4 * sample_rate) / sample_rate
    tone = np.where((time >= 1) & (time < 2), np.sin(2 * np.pi * 3000 * time), 0)
    picture = figures.spectrogram(tone, sample_rate, [], title="tone").axes[0].images[0]
    left, right, bottom, top = picture.get_extent()
    level = np.asarray(picture.get_array())
    khz = bottom + (np.argmax(level.max(axis=1)) + 0.5) * (top - bottom) / level.shape[0]
    seconds = left + (np.arange(level.shape[1]) + 0.5) * (right - left) / level.shape[1]
    loud = seconds[level.max(axis=0) > level.max() - 3]
    assert khz == pytest.approx(3.0, abs=0.02)
    assert (loud.min(), loud.max()) == pytest.approx((1.0, 2.0), abs=0.05)


def test_a_click_in_a_long_recording_stays_visible():
    click = np.zeros(8000 * 60)
    click[8000 * 20] = 1.0
    level = figures.spectrogram(click, 8000, [], title="").axes[0].images[0].get_array()
    assert level.shape[1] == 1000
    assert np.argmax(np.asarray(level).max(axis=0)) == pytest.approx(1000 / 3, abs=1)


def test_each_label_has_a_row_with_bars_at_its_times():
    detections = [Detection(1, 2, "b", 0.5), Detection(3, 3.5, "a", 1.0), Detection(0, 1, "b", 0.9)]
    figure = figures.spectrogram(np.zeros(32000), 8000, detections, title="")
    bars = [[(p.get_x(), p.get_width()) for p in box] for box in figure.axes[1].containers]
    assert bars == [[(3, 0.5)], [(1, 1), (0, 1)]]
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == ["a: 1 ×, best score 1.00", "b: 2 ×, best score 0.90"]


@pytest.mark.parametrize(
    ("waveform", "sample_rate", "sentence"),
    [
        (np.zeros((2, 100)), 8000, r"shape \[2, 100\]"),
        (np.zeros(0), 8000, "T > 0"),
        (np.array([0.0, np.nan]), 8000, "no finite"),
        (np.zeros(100, np.int32), 8000, "int32"),
        (np.zeros(100), 0, "sample_rate is 0 Hz"),
    ],
)
def test_sounds_that_cannot_be_drawn_are_named(tmp_path, waveform, sample_rate, sentence):
    with pytest.raises(ValueError, match=sentence):
        figures.spectrogram(waveform, sample_rate, [], title="")
    bad = RecordingView("bad.wav", waveform, sample_rate, [])
    text = Page(write_report(make_run(tmp_path / "run"), recordings=[bad])).text
    assert "bad.wav This cannot be shown" in text
