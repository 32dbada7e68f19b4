"""Metrics equal a hand's, scikit-learn's and a slow loop's; the text fits; errors say why."""

import json
import unicodedata
import warnings

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from birdinv.errors import BirdinvError
from birdinv.evaluation import evaluate, expected_calibration_error, weighted_average_precision
from birdinv.reporting.text import evaluation_text


def chorus(recordings=30, classes=4, per_recording=20, seed=0, decimals=None):
    """Arguments of `evaluate`: a recording's segments share class and part of their errors."""
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=recordings)
    rec = np.sort(rng.integers(recordings, size=recordings * per_recording))
    logits = rng.normal(size=(len(rec), classes)) + rng.normal(size=(recordings, classes))[rec]
    logits[np.arange(len(rec)), label[rec]] += 1.5
    if decimals is not None:
        logits = logits.round(decimals)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_probs, label[rec], rec, [f"bird {c}" for c in range(classes)]


# Recording 5 is a blackbird, 3 a great tit (the mean log-probability says so, the mean probability
# would not), 9 noise.
HAND = np.log(
    [
        [0.70, 0.20, 0.10],
        [0.40, 0.50, 0.10],
        [0.60, 0.30, 0.10],
        [0.80, 0.15, 0.05],
        [0.10, 0.60, 0.30],
        [0.50, 0.20, 0.30],
    ]
)
HAND_CASE = (HAND, [0, 0, 0, 1, 1, 2], [5, 5, 5, 3, 3, 9], ["blackbird", "great tit", "noise"])


def test_every_metric_of_a_small_case_equals_the_one_computed_by_hand():
    got = evaluate(*HAND_CASE, non_events=["noise"]).to_dict()
    del got["intervals"]
    approx = pytest.approx
    assert got == {
        "segment_accuracy": approx(3 / 6),
        "recording_accuracy": approx(2 / 3),
        "macro_average_precision": approx((53 / 90 + 2 / 3) / 2),
        # bins {0.5, 0.5}, {0.6, 0.6}, {0.7}, {0.8}: wrong, right, right, wrong
        "expected_calibration_error": approx((1.0 + 0.8 + 0.3 + 0.8) / 6),
        "recordings": 3,
        "segments": 6,
        "non_events": ["noise"],
        "per_class": {
            "blackbird": {
                "recordings": 1,
                "segments": 3,
                "precision": approx(2 / 4),
                "recall": approx(2 / 3),
                "average_precision": approx((1 / 2 + 2 / 3 + 3 / 5) / 3),
                "roc_auc": approx(5 / 9),
            },
            "great tit": {
                "recordings": 1,
                "segments": 2,
                "precision": approx(1 / 2),
                "recall": approx(1 / 2),
                "average_precision": approx((1 + 2 / 6) / 2),
                "roc_auc": approx(4 / 8),
            },
            "noise": {
                "recordings": 1,
                "segments": 1,
                "precision": None,  # nothing was taken for noise
                "recall": 0.0,
                "average_precision": approx(1 / 2),  # tied with a great tit
                "roc_auc": approx(4.5 / 5),
            },
        },
        "confusion_matrix": {
            "classes": ["blackbird", "great tit", "noise"],
            "segments": [[2, 1, 0], [1, 1, 0], [1, 0, 0]],
            "recordings": [[1, 0, 0], [0, 1, 0], [1, 0, 0]],
        },
    }


@pytest.mark.parametrize("levels", [3, 40, 10**6])
def test_weighted_average_precision_is_that_of_sklearn_with_ties_and_zero_weights(levels):
    rng = np.random.default_rng(levels)
    group = rng.integers(12, size=300)
    positive = (group < 4) & (rng.random(300) < 0.7)
    scores = rng.integers(levels, size=300) / levels + 0.3 * positive
    weights = rng.integers(3, size=(20, 12)).astype(float)
    weights[:, 0] += 1
    weights[0, :4] = 0  # no positive left
    got = weighted_average_precision(positive, scores, group, weights)
    assert np.isnan(got[0])
    for value, weight in zip(got[1:], weights[1:], strict=True):
        expected = average_precision_score(positive, scores, sample_weight=weight[group])
        assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decimals", [None, 0])
def test_intervals_are_those_of_an_explicit_bootstrap_over_recordings(decimals):
    log_probs, y, rec, classes = chorus(recordings=7, per_recording=6, decimals=decimals)
    got = evaluate(log_probs, y, rec, classes, non_events=["bird 2"], resamples=60, seed=3)
    ids, rng = np.unique(rec), np.random.default_rng(3)
    metrics = {"segment_accuracy": [], "recording_accuracy": [], "macro_average_precision": []}
    for _ in range(60):
        drawn = [np.flatnonzero(rec == ids[i]) for i in rng.integers(len(ids), size=len(ids))]
        right = [log_probs[rows].mean(axis=0).argmax() == y[rows[0]] for rows in drawn]
        rows = np.concatenate(drawn)
        metrics["segment_accuracy"].append((log_probs[rows].argmax(axis=1) == y[rows]).mean())
        metrics["recording_accuracy"].append(np.mean(right))
        birds = set(y[rows]) - {2}
        ap = [average_precision_score(y[rows] == c, log_probs[rows, c]) for c in birds]
        metrics["macro_average_precision"].append(np.mean(ap))
    for name, values in metrics.items():
        assert got.intervals[name] == pytest.approx(np.percentile(values, [2.5, 97.5])), name


def test_intervals_do_not_narrow_when_segments_are_repeated():
    log_probs, y, rec, classes = chorus()
    once = evaluate(log_probs, y, rec, classes, resamples=50)
    fivefold = evaluate(
        *(np.repeat(a, 5, axis=0) for a in (log_probs, y, rec)), classes, resamples=50
    )
    for name, interval in once.intervals.items():
        assert fivefold.intervals[name] == pytest.approx(interval), name


def test_the_seed_alone_decides_the_draws():
    a, b, c = (evaluate(*chorus(), resamples=50, seed=seed).intervals for seed in (1, 1, 2))
    assert a == b != c


@pytest.mark.parametrize("decimals", [None, 0])
def test_the_order_of_the_segments_does_not_matter(decimals):
    log_probs, y, rec, classes = chorus(decimals=decimals)
    order = np.random.default_rng(1).permutation(len(y))
    straight = evaluate(log_probs, y, rec, classes, resamples=50).to_dict()
    shuffled = evaluate(log_probs[order], y[order], rec[order], classes, resamples=50).to_dict()
    assert straight.pop("expected_calibration_error") == pytest.approx(
        shuffled.pop("expected_calibration_error")
    )
    assert straight == shuffled


def test_calibration_error_is_the_plain_definition():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1.0, size=500)
    correct = rng.random(500) < confidence**2
    expected = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)
    border = np.array([0.2, 0.19])  # 3/15 belongs to the bin below it
    assert expected_calibration_error(border, np.array([True, False])) == pytest.approx(0.305)
    certain = np.full(4, 1.0 + 1e-7)  # rounding in float32
    assert expected_calibration_error(certain, np.array([True] * 3 + [False])) == pytest.approx(
        0.25
    )


def test_scores_whose_probability_underflows_are_still_ranked():
    log_probs = np.array([[0.0, -800.0], [0.0, -900.0]])
    assert evaluate(log_probs, [1, 0], [0, 1], ["a", "b"]).per_class["b"]["roc_auc"] == 1.0


def test_an_absent_class_is_undefined_and_outside_of_the_mean():
    log_probs, y, rec, classes = chorus(classes=4)
    keep = y != 3
    got = evaluate(log_probs[keep], y[keep], rec[keep], classes, resamples=20)
    absent = got.per_class["bird 3"]
    assert (absent["recordings"], absent["segments"]) == (0, 0)
    assert absent["recall"] is absent["average_precision"] is absent["roc_auc"] is None
    assert absent["precision"] == 0.0  # some segments were taken for it
    present = [got.per_class[f"bird {c}"]["average_precision"] for c in range(3)]
    assert got.macro_average_precision == pytest.approx(np.mean(present))
    json.dumps(got.to_dict(), allow_nan=False)


def test_noise_counts_in_accuracy_and_confusion_but_not_in_the_mean():
    plain = evaluate(*chorus()).to_dict()
    noisy = evaluate(*chorus(), non_events=["bird 0"]).to_dict()
    changed = {name for name in plain if plain[name] != noisy[name]}
    assert changed == {"macro_average_precision", "non_events", "intervals"}
    birds = [plain["per_class"][f"bird {c}"]["average_precision"] for c in (1, 2, 3)]
    assert noisy["macro_average_precision"] == pytest.approx(np.mean(birds))
    for name in ("segment_accuracy", "recording_accuracy"):
        assert plain["intervals"][name] == noisy["intervals"][name]


@pytest.mark.filterwarnings("ignore:A single label")
def test_without_any_bird_there_is_no_mean():
    got = evaluate([[0.0], [0.0]], [0, 0], [1, 2], ["noise"], non_events=["noise"])
    assert got.macro_average_precision is got.intervals["macro_average_precision"] is None
    assert got.intervals["segment_accuracy"] == [1.0, 1.0]
    json.dumps(got.to_dict(), allow_nan=False)
    assert "macro average precision         -\n" in evaluation_text(got)


def test_one_recording_has_values_but_no_interval():
    log_probs, y, rec, classes = chorus(recordings=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = evaluate(log_probs, y, rec, classes)
    assert 0 < got.segment_accuracy < 1
    assert set(got.intervals.values()) == {None}
    assert " to " not in evaluation_text(got)


def test_the_text_says_what_was_measured():
    text = evaluation_text(evaluate(*HAND_CASE, non_events=["noise"]))
    assert text.startswith("3 recordings, 6 segments, 3 classes\n")
    assert "segment accuracy            0.500   0.000 to 0.667\n" in text
    assert "expected calibration error  0.483\n" in text
    row = ["3", "noise", "*", "1", "1", "-", "0.000", "0.500", "0.900"]
    assert row in [line.split() for line in text.splitlines()]
    assert [line.split()[-3:] for line in text.splitlines()[-4:]] == [
        ["1", "2", "3"],
        ["1", ".", "."],
        [".", "1", "."],
        ["1", ".", "."],
    ]


def test_with_many_classes_the_text_lists_the_most_frequent_confusions():
    labels = np.repeat(np.arange(14), 3)
    said = labels.copy()
    said[:3], said[3] = 7, 9  # all three of class 0 taken for 7, one of class 1 for 9
    log_probs = np.log(np.where(np.eye(14)[said], 0.87, 0.01))
    names = [f"bird {c}" for c in range(14)]
    text = evaluation_text(evaluate(log_probs, labels, np.arange(42), names, resamples=0))
    assert text.splitlines()[-3:] == [
        "Most frequent confusions, in recordings",
        "     3  1 bird 0 taken for 8 bird 7",
        "     1  2 bird 1 taken for 10 bird 9",
    ]
    log_probs = np.log(np.where(np.eye(14)[labels], 0.87, 0.01))
    text = evaluation_text(evaluate(log_probs, labels, np.arange(42), names, resamples=0))
    assert text.endswith("\nNo recording was taken for another class\n")


NAMES = {
    "long": "Phylloscopus collybita tristis × abietinus, song of the second type, number {}",
    "wide": "ズグロムシクイの長い長い名前です{}",
    "combining": "Pe\u0301rruche a\u0300 tre\u0300s longue queue e\u0301mue {}",
    "control": "two\nlines\tand \x1b[31m a surrogate \udcff {}",
    "empty": " " * 3 + "\u200b{}",
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("classes", [2, 12, 13, 101])
def test_every_line_of_the_text_fits_80_columns(kind, classes):
    log_probs, y, rec, _ = chorus(recordings=150, classes=classes, per_recording=2)
    names = [NAMES[kind].format(c) for c in range(classes)]
    text = evaluation_text(evaluate(log_probs, y, rec, names, non_events=names[:1], resamples=3))
    for line in text.splitlines():
        wide = sum(unicodedata.east_asian_width(c) in "WF" for c in line)
        assert len(line) + wide - sum(unicodedata.combining(c) > 0 for c in line) <= 80, line
        assert line.isprintable()
    text.encode()


LP = np.log(np.full((4, 2), 0.5))
GOOD = {"log_probs": LP, "labels": [0, 0, 1, 1], "recordings": [0, 0, 1, 1], "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"log_probs": LP[0]}, r"log_probs has shape \(2,\), expected \[segments, 2\] .*: pass"),
        ({"classes": ["a", "b", "c"]}, r"shape \(4, 2\), expected \[segments, 3\] for 3 classes: "),
        ({"log_probs": LP[:0]}, "expected at least one segment .*: check that the split"),
        (
            {"log_probs": LP * [[1, np.nan]]},
            r"4 values that are not finite, the first in row 0 \(nan",
        ),
        ({"log_probs": LP - [[0], [0], [np.inf], [0]]}, r"2 values .* row 2 \(-inf\).*log_softmax"),
        ({"log_probs": LP + 3}, "row 0 of log_probs sum to 20.1, expected 1: pass the log_softmax"),
        ({"labels": [0, 0, 1]}, r"labels has shape \(3,\) .*, expected 4 whole numbers: pass one"),
        ({"labels": [0.0, 0.0, 1.0, 1.0]}, "labels has shape .* type float64, expected 4 whole"),
        ({"recordings": [[0, 0, 1, 1]]}, r"recordings has shape \(1, 4\) .* pass one per row"),
        ({"labels": [-1, -1, 1, 1]}, "labels go from -1 to 1, expected 0 to 1 .* leave unlabelled"),
        ({"labels": [0, 0, 2, 2]}, "labels go from 0 to 2, expected 0 to 1 for 2 classes"),
        (
            {"recordings": [7, 7, 7, 8]},
            "recording 7 holds segments labelled 'a' and 'b', expected one",
        ),
        ({"classes": ["a", "a"]}, "classes names 'a' twice, expected 2 names: rename one"),
        ({"non_events": ["nosie"]}, r"non_events names 'nosie', expected .*\(a, b\): correct"),
    ],
)
def test_what_cannot_be_right_is_refused_with_a_sentence(change, sentence):
    with pytest.raises(BirdinvError, match=sentence):
        evaluate(**(GOOD | change))
