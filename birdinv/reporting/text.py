"""Metrics as text for a terminal of 80 columns, whatever the classes are called."""

import unicodedata

import numpy as np

from birdinv.evaluation import INTERVALS, Evaluation

TEXT_COLUMNS = 80
MATRIX_CLASSES = 12  # above that, confusions are listed: a wider matrix does not fit


def evaluation_text(evaluation: Evaluation) -> str:
    """Headline numbers, a table of the classes and the confusions, within 80 columns."""
    names = evaluation.confusion_matrix["classes"]
    size = (
        f"{evaluation.recordings} recordings, {evaluation.segments} segments, {len(names)} classes"
    )
    lines = [size, "", f"{'':36}95 % interval over recordings"]
    for name in (*INTERVALS, "expected_calibration_error"):
        pair = evaluation.intervals.get(name)
        value = f"{name.replace('_', ' '):28}{_three(getattr(evaluation, name)):>5}"
        lines += [value + (f"   {pair[0]:.3f} to {pair[1]:.3f}" if pair else "")]
    lines += ["", f"{'class':24} recordings  segments precision  recall      AP ROC AUC"]
    for name, label in zip(names, _labels(evaluation, 24), strict=True):
        row = evaluation.per_class[name]
        rates = row["precision"], row["recall"], row["average_precision"], row["roc_auc"]
        cells = f"{row['recordings']:11}{row['segments']:10}  "
        cells += "".join(f"{_three(rate):>8}" for rate in rates)
        lines += [_pad(label, 24) + cells]
    if evaluation.non_events:
        lines += ["* not a bird: left out of macro average precision"]
    return "\n".join([*lines, "", *_confusion_lines(evaluation)]) + "\n"


def _labels(evaluation: Evaluation, width: int) -> list[str]:
    """`12 Turdus merula *`: the number tells classes apart whose names had to be shortened."""
    names = evaluation.confusion_matrix["classes"]
    digits = len(str(len(names)))
    labels = []
    for number, name in enumerate(names, start=1):
        mark = " *" if name in evaluation.non_events else ""
        short = _shorten(name, width - digits - 1 - len(mark))
        labels.append(f"{number:{digits}} {short}{mark}")
    return labels


def _confusion_lines(evaluation: Evaluation) -> list[str]:
    matrix = np.array(evaluation.confusion_matrix["recordings"])
    k = len(matrix)
    cell = 1 + max(len(str(k)), len(str(matrix.max())))
    name_columns = min(24, TEXT_COLUMNS - k * cell)
    if k <= MATRIX_CLASSES and name_columns >= 12:
        lines = ["Recordings: true class in rows, predicted class in columns"]
        lines += [" " * name_columns + "".join(f"{j:{cell}}" for j in range(1, k + 1))]
        for label, row in zip(_labels(evaluation, name_columns), matrix, strict=True):
            lines += [_pad(label, name_columns) + "".join(f"{n or '.':>{cell}}" for n in row)]
        return lines
    wrong = matrix - np.diag(matrix.diagonal())
    pairs = np.argwhere(wrong)
    pairs = pairs[np.argsort(-wrong[pairs[:, 0], pairs[:, 1]], kind="stable")]
    if not len(pairs):
        return ["No recording was taken for another class"]
    labels = [label.strip() for label in _labels(evaluation, 30)]
    lines = ["Most frequent confusions, in recordings"]
    for true, other in pairs[:MATRIX_CLASSES]:
        lines += [f"{wrong[true, other]:6}  {labels[true]} taken for {labels[other]}"]
    rest = len(pairs) - MATRIX_CLASSES
    return [*lines, f"        and {rest} rarer pairs"] if rest > 0 else lines


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _columns(text: str) -> int:
    """Columns that `text` takes in a terminal: 2 for wide East Asian letters, 0 for accents."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.category(c) in ("Mn", "Me") for c in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _shorten(name: str, width: int) -> str:
    """`name` on one line in at most `width` columns; the middle goes, genus and subspecies stay."""
    kept = [c for c in " ".join(name.split()) if c.isprintable()]
    if _columns("".join(kept)) <= width:
        return "".join(kept)
    while _columns("".join(kept)) > width - 1:
        del kept[len(kept) // 2]
    middle = (len(kept) + 1) // 2
    return "".join([*kept[:middle], "…", *kept[middle:]])
