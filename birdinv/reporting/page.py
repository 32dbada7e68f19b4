"""`report.html`: one self-contained page about one training run.

Everything that comes from the run folder is untrusted text and goes through `escaped`. Pictures and
sounds are data URIs; a content security policy forbids scripts and anything from outside the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from birdinv.errors import BirdinvError
from birdinv.files import read_csv, read_json
from birdinv.reporting import figures, learning
from birdinv.reporting.figures import Detection
from birdinv.reporting.markup import (
    PERCENT,
    card,
    cards_of,
    data_uri,
    escaped,
    mapping,
    number,
    origin_of,
    picture_of,
    table_of,
    write_page,
)
from birdinv.reporting.sounds import wav_of
from birdinv.training.alarms import SHARES
from birdinv.words import counted

_MAX_SOUND_S = 30.0

_CURVES_NOTE = """Read from left to right. Training and validation should fall (losses) or rise
(accuracy) together; where validation turns back while training goes on, the network has begun to
learn its few labelled recordings by heart. Entropy and reconstruction error are what the unlabelled
recordings contribute."""
_SHARES_NOTE = """One column for each epoch: which classes the unlabelled samples were taken for. A
colour that vanishes is a class that has emptied; unless the class is that rare, do not trust the
run."""
_CONFUSION_NOTE = """Each row is a true class, each column what the classifier said; the darker a
square, the larger its share of the row. Right answers lie on the diagonal, every dark square beside
it is a pair of classes that are mistaken for each other. Grey rows had nothing to test."""
_CLASSES_NOTE = """Counted over segments. Precision: how often the classifier is right when it names
the class. Recall: how much of the class it finds. Average precision and ROC-AUC judge the scores
whatever the threshold (1 is perfect). A dash means that there was too little data for the number. A
star marks what is no bird and is left out of the mean average precision."""
_SOUND_NOTE = """Above, darker is louder: time runs to the right, pitch upwards. Below, one row per
label: a bar stands where the label was detected, the taller the surer (full height: score 1)."""
_HEADLINES = {
    "recording_accuracy": ("Recordings named right", True, "share of whole recordings"),
    "segment_accuracy": ("Segments named right", True, "share of the short pieces scored"),
    "macro_average_precision": ("Mean average precision", False, "mean over classes; 1 is perfect"),
    "expected_calibration_error": ("Calibration error", True, "gap between confidence and truth"),
}
_PER_CLASS = {
    "recordings": "Recordings",
    "segments": "Segments",
    "precision": "Precision",
    "recall": "Recall",
    "average_precision": "Average precision",
    "roc_auc": "ROC-AUC",
}
_GROUPS = {"counts": "Data", "config": "Settings", "versions": "Library versions"}
_OUTCOMES = {
    "running": "Training had not finished when this page was written.",
    "interrupted": "Training was interrupted: the numbers are those up to the interruption.",
    "failed": "Training failed: the numbers are those up to the failure.",
}


@dataclass(frozen=True)
class RecordingView:
    """A recording to show: samples [T] (float in [-1, 1] or int16) and what was detected in it."""

    name: str
    waveform: np.ndarray
    sample_rate: int
    detections: Sequence[Detection]


def write_report(run: Path, *, recordings: Sequence[RecordingView] = ()) -> Path:
    """Write `run/report.html` about a training run and return its path.

    The page needs `run.json`; what else is absent or damaged it says in a sentence. The file is
    written whole or not at all, and the same run gives the same bytes.

    Args:
        run: the folder that `birdinv train` made.
        recordings: recordings to show as spectrograms, up to some minutes each; up to 30 s they can
            be played.

    Raises:
        BirdinvError: `run.json` cannot be read, or the page cannot be written.
    """
    facts = read_json(run / "run.json", "the record of a run; give a folder birdinv train made")
    outcome = _OUTCOMES.get(str(facts.get("outcome")))
    evaluations = [
        (f"Results on {kind} recordings", run / f"evaluation-{split}.json")
        for split, kind in (("test", "test"), ("valid", "validation"))
    ]
    evaluations = [(heading, path) for heading, path in evaluations if path.exists()]
    body = [
        f"<p>{_summary(facts)}</p>",
        f'<p class="warn">{outcome}</p>' if outcome else "",
        *(f"<h2>{heading}</h2>{_shown(_evaluation, path)}" for heading, path in evaluations),
        "" if evaluations else "<h2>Results</h2><p>No evaluation yet: run birdinv eval first.</p>",
        f"<h2>How training went</h2>{_guard(facts)}{_alarms(facts)}",
        _shown(_training, run / "metrics.csv"),
        "<h2>Recordings</h2>",
        *(f"<h3>{escaped(view.name)}</h3>{_shown(_recording, view)}" for view in recordings),
        "" if recordings else "<p>No recording was given to this page.</p>",
        origin_of(facts, _GROUPS, is_open="Data"),
    ]
    return write_page(run / "report.html", f"Training report: {run.resolve().name}", body)


def _shown(build: Callable[[Any], str], source: Any) -> str:
    """What `build` makes of its source, or the reason why it cannot be shown."""
    try:
        return build(source)
    except (BirdinvError, ValueError, TypeError) as error:
        return f"<p>This cannot be shown: {escaped(str(error))}.</p>"


def _summary(facts: Mapping[str, Any]) -> str:
    """One sentence: what was learned, from how much, how."""
    counts, config = mapping(facts.get("counts")), mapping(facts.get("config"))
    classes = facts.get("classes")
    of = f" of {counted(len(classes), 'class')}" if isinstance(classes, list) else ""
    kinds = [kind for kind in ("labelled", "unlabelled") if f"{kind}_recordings" in counts]
    numbers = [counts[f"{kind}_recordings"] for kind in kinds]
    learned = [f"{escaped(n)} {kind}" for n, kind in zip(numbers, kinds, strict=True)]
    sentence = f"A classifier{of}"
    if learned:
        recordings = "recording" if numbers[-1] == 1 else "recordings"
        sentence += f", learned from {' and '.join(learned)} {recordings}"
    if "objective" in config:
        sentence += f" with the {escaped(config['objective'])} objective"
    if facts.get("best_epoch") is not None:
        sentence += f"; its best epoch was {escaped(facts['best_epoch'])}"
    return sentence + "."


def _evaluation(path: Path) -> str:
    """Headline numbers, confusion matrices and the table of classes of one evaluation."""
    result = read_json(path, "the numbers birdinv eval writes")
    per_class = mapping(result.get("per_class"))
    parts = [_headlines(result, len(per_class))]
    confusion = mapping(result.get("confusion_matrix"))
    for unit in ("recordings", "segments"):
        parts.append(f"<h3>Confusions between classes, counted in {unit}</h3>")
        if confusion.get(unit):
            matrix = (confusion.get("classes", ()), confusion[unit])
            parts.append(_shown(_confusion, matrix))
        else:
            parts.append("<p>This evaluation holds no such counts.</p>")
    starred = result.get("non_events") or ()
    rows = [
        (
            f"{label} *" if label in starred else label,
            *(number(mapping(values).get(key)) for key in _PER_CLASS),
        )
        for label, values in per_class.items()
    ]
    table = table_of(rows, head=("Class", *_PER_CLASS.values()))
    return "\n".join([*parts, f'<h3>Class by class</h3>{table}<p class="note">{_CLASSES_NOTE}</p>'])


def _confusion(matrix: tuple[Sequence[str], Sequence[Sequence[int]]]) -> str:
    return picture_of(figures.confusion_matrix(*matrix), "Confusion matrix", _CONFUSION_NOTE)


def _headlines(result: Mapping[str, Any], classes: int) -> str:
    cards = []
    intervals = mapping(result.get("intervals"))
    for key, (name, percent, meaning) in _HEADLINES.items():
        interval = intervals.get(key)
        span = f"no 95{PERCENT} interval"
        if isinstance(interval, list) and len(interval) == 2 and None not in interval:
            low, high = (number(bound, percent=percent) for bound in interval)
            span = f"95{PERCENT} interval<br>{low.removesuffix(PERCENT)}–{high}"
        value = number(result.get(key), percent=percent)
        cards.append(card(name, value, span, meaning))
    note = (
        f"Counted on {counted(result.get('recordings'), 'recording')} "
        f"({counted(result.get('segments'), 'segment')}). The interval shows how far a number "
        "could move with other recordings of the same kind."
    )
    if classes:
        chance = number(1 / classes, percent=True)
        note += f" Guessing among {counted(classes, 'class')} would be right {chance} of the time."
    return f'{cards_of(cards)}<p class="note">{note}</p>'


def _training(path: Path) -> str:
    if not path.exists():
        return "<p>There is no metrics.csv in this run: no epoch was completed.</p>"
    columns, rows = read_csv(path)
    if not rows:
        return "<p>There is no row in metrics.csv: no epoch was completed.</p>"
    picture = picture_of(learning.learning_curves(rows), "Learning curves", _CURVES_NOTE)
    parts = [f"<p>Epochs completed: {len(rows)}.</p>{picture}"]
    classes = [c.removeprefix(SHARES) for c in columns if c.startswith(SHARES)]
    if any(rows[0][SHARES + name] for name in classes):
        shares = learning.predicted_shares(rows, classes)
        alt = "What unlabelled samples were taken for"
        parts.append(f"<h3>{alt}</h3>{picture_of(shares, alt, _SHARES_NOTE)}")
    return "".join(parts)


def _guard(facts: Mapping[str, Any]) -> str:
    """Both sides of a guarded run on validation, and which one this page is about."""
    guard = mapping(facts.get("guard"))
    sides = {side: mapping(row) for side, row in guard.items() if isinstance(row, Mapping)}
    if not sides:
        return ""
    columns = {"valid_recording_accuracy": "Recordings", "valid_accuracy": "Segments"}
    rows = [
        (
            f"{side} (kept)" if side == guard.get("kept") else side,
            *(number(row.get(column), percent=True) for column in columns),
        )
        for side, row in sides.items()
    ]
    table = table_of(rows, head=("Trained", *columns.values()))
    return (
        "<p>Trained with and without the unlabelled recordings, and judged on "
        f"{counted(guard.get('recordings'), 'validation recording')}: what named more of them "
        "right was kept, of equals what named more segments right. All else on this page is about "
        f"that one. A difference of one recording may be chance.</p>{table}"
    )


def _alarms(facts: Mapping[str, Any]) -> str:
    said = facts.get("alarms")
    texts = said if isinstance(said, list) else []
    return "".join(f'<p class="warn">Note: {escaped(text)}.</p>' for text in texts)


def _recording(view: RecordingView) -> str:
    """Spectrogram and, where it is short enough, the sound itself: WAV, one channel, 16 bit."""
    samples = figures.floating_samples(view.waveform)
    title = Path(view.name).name
    figure = figures.spectrogram(samples, view.sample_rate, view.detections, title=title)
    picture = picture_of(figure, f"Spectrogram of {view.name} with detections", _SOUND_NOTE)
    seconds = len(samples) / view.sample_rate
    if seconds > _MAX_SOUND_S:
        return f"{picture}<p>Its {seconds:.0f} s are too long to be played from this page.</p>"
    sound = data_uri("audio/wav", wav_of(samples, view.sample_rate))
    return f'{picture}<audio controls preload="metadata" src="{sound}"></audio>'
