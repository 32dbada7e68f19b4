"""`report.html`: one self-contained page about a folder of predictions.

It answers what is asked after a night of recording: how much was heard, which birds at which hour,
what could not be read, and whether the classifier can be believed, by ear and eye. As on the page
of a run, whatever comes from the folder is untrusted text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from birdinv.files import read_json
from birdinv.reporting.excerpts import tiles_of
from birdinv.reporting.markup import (
    card,
    cards_of,
    escaped,
    heat_of,
    mapping,
    origin_of,
    table_of,
    write_page,
)
from birdinv.reporting.tallies import (
    STATUSES,
    ClassTally,
    Heard,
    Window,
    tally_classes,
    tally_recordings,
    whole_recordings,
    worst_recordings,
)
from birdinv.words import counted

MOST_CLASSES = 30  # with windows, and rows by hour
MOST_FILES = 200
_WINDOW = ("segment_samples", "hop_samples", "sample_rate")
_GROUPS = {"settings": "Settings", "statuses": "Recordings", "versions": "Library versions"}
_OUTCOMES = {
    "running": "Prediction had not finished when this page was written.",
    "interrupted": "Prediction was interrupted: this page is about the recordings done before.",
    "failed": "Prediction failed: this page is about the recordings done before.",
}
_HOURS_NOTE = """Each row is a class, each column an hour of the day by the recorder's clock: the
stronger its colour, the nearer to the busiest hour of its row. In grey hours nothing was recorded;
the last row tells how long was listened in each, without which counts cannot be compared. Where the
screen is narrow, the hours from 12 on stand below those before."""
_BEST_NOTE = """Those with the highest scores; of detections that overlap or adjoin only the best is
shown. Time runs to the right, pitch upwards, darker is louder; the frame marks the window that was
scored, around it is up to half a second of context."""


def write_detections_page(
    output: Path,
    sound: Mapping[str, Path],
    *,
    sample_rate: int,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `output/report.html` about a folder of predictions and return its path.

    The page holds the totals, the detections by class and hour of day, the recordings that were
    not fully read, and the ten best windows of each class to look at and to listen to. Recordings
    are read no further than those windows need. The file is written whole or not at all, and the
    same folder gives the same bytes.

    Args:
        output: the folder that `birdinv predict` made.
        sound: the names in `files.csv` → the recordings. What is absent there or gone by now, the
            page says so.
        sample_rate: of the excerpts, in Hz; the network's.
        progress: told (recordings read, recordings to read) after each that has such windows.

    Raises:
        BirdinvError: `run.json`, `files.csv` or `combined.csv` cannot be read, or the page cannot
            be written.
    """
    facts = read_json(output / "run.json", "the record that birdinv predict makes")
    heard = tally_recordings(output / "files.csv")
    tallies = tally_classes(output / "combined.csv")
    ranked = sorted(tallies, key=lambda label: (-tallies[label].detections, label))
    tallies = {label: tallies[label] for label in ranked}
    outcome = _OUTCOMES.get(str(facts.get("outcome")))
    best = {label: tallies[label].best() for label in _shown(tallies)}
    windows = [window for windows in best.values() for window in windows]
    # Tables hold names that are no Unicode in the way in which they were written.
    paths = {name.encode("utf-8", "backslashreplace").decode(): sound[name] for name in sound}
    whole = whole_recordings(output / "files.csv", {window.file for window in windows})
    tiles = tiles_of(windows, paths, whole, sample_rate, progress=progress)
    body = [
        f"<p>{_summary(heard, tallies)}</p>",
        f'<p class="warn">{outcome}</p>' if outcome else "",
        _totals(heard, tallies, facts),
        f"<h2>Detections by class and hour of day</h2>{_classes(heard, tallies)}",
        f"<h2>Recordings not fully read</h2>{_not_read(heard, output / 'files.csv')}",
        f"<h2>Best windows of each class</h2>{_best(tallies, best, tiles, sample_rate)}",
        origin_of(facts, _GROUPS),
    ]
    return write_page(output / "report.html", f"Detections: {output.resolve().name}", body)


def _summary(heard: Heard, tallies: Mapping[str, ClassTally]) -> str:
    """One sentence: how much was heard, and what in it."""
    found = sum(tally.detections for tally in tallies.values())
    recordings = counted(heard.statuses.total(), "recording")
    sentence = f"In {' '.join(_duration(heard.read_s))} of sound from {recordings} "
    if not tallies:
        return f"{sentence}nothing was detected."
    first = next(iter(tallies))
    sentence += f"there {'is' if found == 1 else 'are'} {counted(found, 'detection')} of "
    if len(tallies) == 1:
        return f"{sentence}one class, {escaped(first)}."
    most = f"most often {escaped(first)} ({tallies[first].detections:,})"
    return f"{sentence}{len(tallies):,} classes, {most}."


def _totals(heard: Heard, tallies: Mapping[str, ClassTally], facts: Mapping[str, Any]) -> str:
    """What is wanted at a glance, as cards."""
    ok, *others = (f"{heard.statuses[status]:,} {status}" for status in reversed(STATUSES))
    found = sum(tally.detections for tally in tallies.values())
    an_hour = f"{_rounded(found / heard.read_s * 3600)} per hour" if heard.read_s else ""
    least = mapping(facts.get("settings")).get("min_conf")
    threshold = f"scores of at least {escaped(least)}" if least is not None else ""
    segment, hop, rate = (facts.get(key) for key in _WINDOW)
    length = every = ""
    if isinstance(segment, int) and isinstance(hop, int) and isinstance(rate, int) and rate > 0:
        length, every = f"{segment / rate:.3g} s each", f"one every {hop / rate:.3g} s"
    wide = max(tallies, key=lambda label: tallies[label].recordings, default="")
    widest = f"in most recordings: {escaped(wide)}" if len(tallies) > 1 else ""
    length_of_all, unit = _duration(heard.read_s)
    cards = (
        (f"{unit.capitalize()} read", length_of_all, "", ""),
        ("Recordings", f"{heard.statuses.total():,}", ok, " · ".join(others)),
        ("Detections", f"{found:,}", an_hour, threshold),
        ("Classes found", f"{len(tallies):,}", "", widest),
        ("Windows scored", f"{heard.windows:,}", length, every),
    )
    return cards_of(card(*texts) for texts in cards)


def _classes(heard: Heard, tallies: Mapping[str, ClassTally]) -> str:
    """The detections of each class, by hour where the names of recordings tell it."""
    if not tallies:
        return "<p>There is no detection to count.</p>"
    rows = (
        (label, f"{tally.detections:,}", f"{tally.recordings:,}", f"{tally.score:.3f}")
        for label, tally in tallies.items()
    )
    counts = table_of(rows, head=("Class", "Detections", "Recordings", "Best score"))
    return f"{_hours(heard, tallies)}<h3>Detections by class</h3>{counts}"


def _hours(heard: Heard, tallies: Mapping[str, ClassTally]) -> str:
    if not heard.timed:
        return "<p>No file name tells when its recording began, so no hour of day is known.</p>"
    rows: list[tuple[str, list[int | None]]] = [
        (label, [n if n or heard.listened_s[hour] else None for hour, n in enumerate(by_hour)])
        for label, by_hour in ((label, tallies[label].by_hour) for label in _shown(tallies))
    ]
    minutes = [math.ceil(seconds / 60) if seconds else None for seconds in heard.listened_s]
    heat = heat_of([*rows, ("Minutes heard", minutes)], head=("Hour", *map(str, range(24))))
    note = f'<p class="note">{_HOURS_NOTE}</p>'
    if heard.untimed:
        note = (
            f"<p>Of {counted(heard.timed + heard.untimed, 'recording')}, {heard.untimed:,} "
            f"{'has a name that does' if heard.untimed == 1 else 'have names that do'} not tell "
            f"the time: what was detected there is not in these hours.</p>{note}"
        )
    return f"{_cut_note(tallies)}{heat}{note}"


def _not_read(heard: Heard, table: Path) -> str:
    """The recordings that were not read from end to end, and why."""
    bad = heard.statuses.total() - heard.statuses["ok"]
    if not bad:
        return "<p>All recordings were read from beginning to end.</p>"
    rows = (
        (row["file"], row["status"], row.get("reason", ""), _part(row))
        for row in worst_recordings(table, MOST_FILES)
    )
    parts = table_of(rows, head=("Recording", "Status", "Why", "Read"), numbers=False)
    more = f"<p>And {bad - MOST_FILES:,} more, see files.csv.</p>" if bad > MOST_FILES else ""
    return parts + more


def _best(
    tallies: Mapping[str, ClassTally],
    best: Mapping[str, list[Window]],
    tiles: Mapping[Window, str],
    sample_rate: int,
) -> str:
    """The best windows of each class, as their tiles."""
    if not tallies:
        return "<p>There is no detection to show.</p>"
    links = (f'<a href="#class-{i}">{escaped(label)}</a>' for i, label in enumerate(best, 1))
    parts = [
        f'{_cut_note(tallies)}<p class="note">{_BEST_NOTE} Pictures reach from 0 to '
        f"{sample_rate / 2000:g} kHz, sounds are one channel at {sample_rate} Hz.</p>",
        f'<p class="jump">{" ".join(links)}</p>',
    ]
    for i, (label, windows) in enumerate(best.items(), 1):
        shown = "".join(tiles[window] for window in windows)
        parts.append(f'<h3 id="class-{i}">{escaped(label)}</h3><div class="tiles">{shown}</div>')
    return "\n".join(parts)


def _shown(tallies: Mapping[str, ClassTally]) -> list[str]:
    return list(tallies)[:MOST_CLASSES]


def _cut_note(tallies: Mapping[str, ClassTally]) -> str:
    if len(tallies) <= MOST_CLASSES:
        return ""
    return f"<p>Shown are the {MOST_CLASSES} of {len(tallies):,} classes with most detections.</p>"


def _part(row: Mapping[str, str]) -> str:
    """How much of a recording was read, as far as it is known how much there should be."""
    if not row.get("read_s") or row["status"] in ("unreadable", "empty"):
        return "nothing"
    read = f"{float(row['read_s']):.1f}"
    return f"{read} of {float(row['declared_s']):.1f} s" if row.get("declared_s") else f"{read} s"


def _duration(seconds: float) -> tuple[str, str]:
    """A length of time as a number and the unit people would name it in."""
    units = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
    unit_s, unit = next((u for u in units if seconds >= u[0]), units[-1])
    return _rounded(seconds / unit_s), unit


def _rounded(value: float) -> str:
    """A positive number with a decimal below 100 and none above."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
