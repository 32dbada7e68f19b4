"""How good a classifier is, from its log-probabilities: by segment, by recording, in calibration.

S segments, K classes, G recordings. Neighbouring segments of a recording are no independent
evidence, so every interval resamples whole recordings.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from birdinv.errors import BirdinvError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Interval = list[float] | None

CALIBRATION_BINS = 15  # of equal width over [0, 1], the customary number
INTERVALS = ("segment_accuracy", "recording_accuracy", "macro_average_precision")


class ClassMetrics(TypedDict):
    """One class against the rest, over segments; None where the metric is undefined."""

    recordings: int
    segments: int
    precision: float | None
    recall: float | None
    average_precision: float | None
    roc_auc: float | None


class Confusion(TypedDict):
    """Counts `[K, K]`: true classes in rows, predicted in columns, ordered like `classes`."""

    classes: list[str]
    segments: list[list[int]]
    recordings: list[list[int]]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured; None stands for what the data leave undefined."""

    segment_accuracy: float
    recording_accuracy: float
    macro_average_precision: float | None
    expected_calibration_error: float
    recordings: int
    segments: int
    non_events: list[str]
    per_class: dict[str, ClassMetrics]
    confusion_matrix: Confusion
    intervals: dict[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain dicts, lists and numbers, ready for `json.dump`."""
        return asdict(self)


def evaluate(
    log_probs: ArrayLike,
    labels: ArrayLike,
    recordings: ArrayLike,
    classes: Sequence[str],
    *,
    non_events: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Metrics of a classifier on labelled segments, with 95 % percentile bootstrap intervals.

    A segment is predicted by its largest log-probability, a recording by the largest mean over its
    segments. Ranking metrics take the log-probability as score: the probability's order, without
    its underflow. The intervals draw G recordings with replacement; average precision then means
    over the bird classes that were drawn. Where everything is right they have no width, which says
    little about few recordings. The calibration error has none: its absolute values make every
    resample worse than the sample, so that percentiles would lie beside the estimate.

    Args:
        log_probs: log-softmax of the logits, `[S, K]`.
        labels: true class of every segment, `[S]` in 0 … K - 1, one and the same in a recording.
        recordings: number of the recording that every segment comes from, `[S]`.
        classes: the K names.
        non_events: names of classes such as noise, which macro average precision leaves out.
        resamples: bootstrap draws; 0 gives no intervals.
        seed: of the draws; the result does not depend on the order of the segments.

    Raises:
        BirdinvError: an argument is empty, not finite, out of range, or does not fit the others.

    Reference: segment accuracy is the figure of INV, fig. 2; calibration error: Guo et al. 2017.
    """
    from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

    lp, y, recording = _checked(log_probs, labels, recordings, classes, non_events)
    k = len(classes)
    ids, first, group = np.unique(recording, return_index=True, return_inverse=True)
    y_rec = y[first]  # [G]
    mixed = np.flatnonzero(y != y_rec[group])
    if len(mixed):
        a, b = classes[y_rec[group[mixed[0]]]], classes[y[mixed[0]]]
        raise BirdinvError(
            f"recording {recording[mixed[0]]} holds segments labelled {a!r} and {b!r}, expected "
            "one label: give differently labelled parts recording numbers of their own."
        )
    y_hat = lp.argmax(axis=1)
    rec_hat = _recording_answers(lp, group)  # [G]

    by_segment = confusion_matrix(y, y_hat, labels=range(k))
    by_recording = confusion_matrix(y_rec, rec_hat, labels=range(k))
    present = np.unique(y).tolist()
    ap = {c: float(average_precision_score(y == c, lp[:, c])) for c in present}
    birds = [c for c in present if classes[c] not in non_events]
    per_class: dict[str, ClassMetrics] = {}
    for c, name in enumerate(classes):
        is_c, hits = y == c, int(by_segment[c, c])
        n, predicted = int(is_c.sum()), int(by_segment[:, c].sum())
        per_class[name] = {
            "recordings": int((y_rec == c).sum()),
            "segments": n,
            "precision": hits / predicted if predicted else None,
            "recall": hits / n if n else None,
            "average_precision": ap.get(c),
            "roc_auc": float(roc_auc_score(is_c, lp[:, c])) if 0 < n < len(y) else None,
        }

    intervals: dict[str, Interval] = dict.fromkeys(INTERVALS)
    if len(ids) > 1 and resamples > 0:
        rng, g = np.random.default_rng(seed), len(ids)
        draws = [np.bincount(rng.integers(g, size=g), minlength=g) for _ in range(resamples)]
        weights = np.array(draws, dtype=np.float64)  # [resamples, G]
        right = np.bincount(group, weights=y_hat == y)
        intervals["segment_accuracy"] = _interval(weights @ right / (weights @ np.bincount(group)))
        intervals["recording_accuracy"] = _interval(weights @ (rec_hat == y_rec) / g)
        if birds:
            aps = [weighted_average_precision(y == c, lp[:, c], group, weights) for c in birds]
            macro = np.ma.masked_invalid(aps).mean(axis=0)  # over the classes that were drawn
            intervals["macro_average_precision"] = _interval(macro.filled(np.nan))

    return Evaluation(
        segment_accuracy=float((y_hat == y).mean()),
        recording_accuracy=float((rec_hat == y_rec).mean()),
        macro_average_precision=float(np.mean([ap[c] for c in birds])) if birds else None,
        expected_calibration_error=expected_calibration_error(np.exp(lp.max(axis=1)), y_hat == y),
        recordings=len(ids),
        segments=len(y),
        non_events=list(non_events),
        per_class=per_class,
        confusion_matrix={
            "classes": list(classes),
            "segments": by_segment.tolist(),
            "recordings": by_recording.tolist(),
        },
        intervals=intervals,
    )


def accuracies(log_probs: Floats, labels: Ints, recordings: Ints) -> tuple[float, float]:
    """The two accuracies of `evaluate` alone, per segment and per recording, for every epoch.

    Shape: log_probs `[S, K]`; labels and recordings `[S]`, one label a recording.
    """
    _, first, group = np.unique(recordings, return_index=True, return_inverse=True)
    by_segment = log_probs.argmax(axis=1) == labels
    by_recording = _recording_answers(log_probs, group) == labels[first]
    return float(by_segment.mean()), float(by_recording.mean())


def _recording_answers(log_probs: Floats, group: Ints) -> Ints:
    """The class `[G]` with the largest mean log-probability over a recording's segments."""
    sums = [np.bincount(group, weights=column) for column in log_probs.T]
    answers: Ints = np.argmax(sums, axis=0)  # a mean has the argmax of its sum
    return answers


def expected_calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """`Σ_b n_b/S |accuracy_b - confidence_b|` over 15 bins `(b/15, (b+1)/15]`, for two `[S]`."""
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1
    bins = bins.clip(0, CALIBRATION_BINS - 1)  # rounding takes probabilities just past 1
    return float(np.abs(np.bincount(bins, weights=correct - confidence)).sum() / len(confidence))


def weighted_average_precision(
    positive: NDArray[np.bool_], scores: Floats, group: Ints, weights: Floats
) -> Floats:
    """Average precision `Σ_t (R_t - R_{t-1}) P_t` under B weightings of groups of segments, `[B]`.

    Equals scikit-learn's `average_precision_score` with `sample_weight=weights[b, group]`, but
    sorts once for all b. NaN where the positives of a weighting weigh nothing.

    Shape: positive, scores and group `[S]`, group in 0 … G - 1; weights `[B, G]`.
    """
    # Recall only rises at scores that a positive has, so only those thresholds t count, and the
    # segments at or above one, ties included, are the first ones of the sorted array.
    thresholds = np.unique(scores[positive])[::-1]
    order, hit_order = np.argsort(-scores), np.argsort(-scores[positive])
    last = np.searchsorted(-scores[order], -thresholds, side="right") - 1
    last_hit = np.searchsorted(-scores[positive][hit_order], -thresholds, side="right") - 1
    ranked, ranked_hits = group[order], group[positive][hit_order]
    result = np.full(len(weights), np.nan)
    for b, weight in enumerate(weights):  # one at a time stays in the cache: faster than blocks
        hits = weight[ranked_hits].cumsum()[last_hit]
        if hits[-1] > 0:
            # Nothing weighed so far means no hits either: 0 · 0 / tiny.
            total = np.maximum(weight[ranked].cumsum()[last], np.finfo(np.float64).tiny)
            result[b] = np.sum(np.diff(hits, prepend=0.0) * (hits / total)) / hits[-1]
    return result


def _interval(values: Floats) -> Interval:
    """2.5 and 97.5 % percentiles of the draws in which the metric is defined."""
    values = values[~np.isnan(values)]
    return [float(v) for v in np.percentile(values, [2.5, 97.5])] if len(values) else None


def _checked(
    log_probs: ArrayLike,
    labels: ArrayLike,
    recordings: ArrayLike,
    classes: Sequence[str],
    non_events: Sequence[str],
) -> tuple[Floats, Ints, Ints]:
    """The three arrays as float64 `[S, K]`, int64 `[S]` and int64 `[S]`, or the reason why not."""
    lp, k = np.asarray(log_probs, dtype=np.float64), len(classes)
    if lp.ndim != 2 or lp.shape[1] != k:
        raise BirdinvError(
            f"log_probs has shape {lp.shape}, expected [segments, {k}] for {k} classes: pass a row "
            "per segment and the class names the network was trained on."
        )
    if lp.size == 0:
        raise BirdinvError(
            f"log_probs has shape {lp.shape}, expected at least one segment and one class: "
            "check that the split holds labelled recordings."
        )
    bad = np.argwhere(~np.isfinite(lp))
    if len(bad):
        raise BirdinvError(
            f"log_probs holds {len(bad)} values that are not finite, the first in row {bad[0, 0]} "
            f"({lp[tuple(bad[0])]}), expected finite numbers: compute them by log_softmax, and "
            "look for a training that diverged."
        )
    with np.errstate(over="ignore"):
        total = np.exp(lp).sum(axis=1)
    worst = int(np.abs(total - 1).argmax())
    if abs(total[worst] - 1) > 0.05:  # bfloat16 stays within 0.02
        raise BirdinvError(
            f"the probabilities in row {worst} of log_probs sum to {total[worst]:.3g}, expected 1: "
            "pass the log_softmax of the logits."
        )
    arrays = []
    for what, given in (("labels", labels), ("recordings", recordings)):
        array = np.asarray(given)
        if array.shape != (len(lp),) or array.dtype.kind not in "iu":
            raise BirdinvError(
                f"{what} has shape {array.shape} and type {array.dtype}, expected {len(lp)} whole "
                "numbers: pass one per row of log_probs."
            )
        arrays.append(array.astype(np.int64))
    y, recording = arrays
    if y.min() < 0 or y.max() >= k:
        raise BirdinvError(
            f"labels go from {y.min()} to {y.max()}, expected 0 to {k - 1} for {k} classes: "
            "leave unlabelled segments out."
        )
    twice = [name for i, name in enumerate(classes) if name in classes[:i]]
    unknown = [name for name in non_events if name not in classes]
    if twice:
        raise BirdinvError(f"classes names {twice[0]!r} twice, expected {k} names: rename one.")
    if unknown:
        raise BirdinvError(
            f"non_events names {unknown[0]!r}, expected some of the classes "
            f"({', '.join(classes[:10])}{', …' if k > 10 else ''}): correct the name."
        )
    return lp, y, recording
