"""The tables in which suggested recordings are labelled, and the command that reads them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from birdinv.audio.store import Store
from birdinv.data.segmenting import SegmentSettings
from birdinv.errors import BirdinvError
from birdinv.files import read_csv, read_json, write_csv
from birdinv.training.partition import read_roles
from birdinv.words import counted

RUN = "a run made by `birdinv train`"
SUGGESTED, KNOWN = "suggestions.csv", "known.csv"
COLUMNS = (
    *("file", "label", "rank", "score", "guess", "guess_share"),
    *("hear_start_s", "hear_end_s"),  # called start_s and end_s they would bound the label
)


@dataclass(frozen=True)
class Suggestion:
    """A recording to label; it is worth hearing from `start_s` to `end_s`.

    `guess` is the class with the largest mean probability, `guess_share`. `score` and `uncertainty`
    (0 = sure, 1 = no idea) are those of the formula in `birdinv.ranking`; ranks begin with 1.
    """

    file: str
    rank: int
    score: float
    uncertainty: float
    guess: str
    guess_share: float
    start_s: float
    end_s: float

    @property
    def distance(self) -> float:
        """From what is labelled or suggested before it, 0 … 2; 1 where there is none."""
        return self.score / self.uncertainty if self.uncertainty else 0.0


def is_own(run: Path, store: Store) -> bool:
    """Whether a store is the one that a run was trained on."""
    return bool(store.hash == read_json(run / "run.json", RUN).get("store_hash"))


def require_unfilled(folder: Path) -> None:
    """Raises where someone has begun to label the suggestions in `folder`."""
    path = folder / SUGGESTED
    if not path.exists():
        return
    columns, rows = read_csv(path)
    if "label" not in columns:
        raise BirdinvError(
            f"{path} has no column 'label', so it is not as birdinv wrote it, and may hold labels; "
            "give -o another folder, or remove it first"
        )
    filled = sum(bool(row["label"].strip()) for row in rows)
    if filled:
        raise BirdinvError(
            f"{path} has {counted(filled, 'label')} already, which would be lost; segment with it, "
            "or give -o another folder"
        )


def write_suggestions(
    folder: Path, run: Path, store: Store, suggestions: Sequence[Suggestion]
) -> tuple[Path, Path]:
    """Writes `suggestions.csv` and `known.csv` for `segment --labels`, and returns their paths.

    The first has a row for each suggestion, in the order of rank, and its label is to be filled in.
    The second keeps what is known already where it is: class, group and split of the recordings
    that have a label, as far as the run was given it, and group and split of others. Suggested ones
    stand in it for training, so that no split is drawn for them when they have their label.

    Raises:
        BirdinvError: the labels in a `suggestions.csv` that is there would be lost.
    """
    require_unfilled(folder)
    hidden = read_roles(run)["unlabelled"] if is_own(run, store) else {}
    suggested = {each.file for each in suggestions}
    known = [
        {
            "file": r.file,
            "label": "" if r.file in hidden else r.label,
            "group": r.group,
            "split": r.split,
        }
        for r in store.recordings
        if (r.label and r.file not in hidden)
        or r.group
        or r.split != "train"
        or r.file in suggested
    ]
    write_csv(folder / KNOWN, ("file", "label", "group", "split"), known)
    write_csv(folder / SUGGESTED, COLUMNS, map(_row, suggestions))
    return folder / SUGGESTED, folder / KNOWN


def _row(suggestion: Suggestion) -> Mapping[str, object]:
    return {
        "file": suggestion.file,
        "label": "",
        "rank": suggestion.rank,
        "score": f"{suggestion.score:.6f}",
        "guess": suggestion.guess,
        "guess_share": f"{suggestion.guess_share:.4f}",
        "hear_start_s": f"{suggestion.start_s:.3f}",
        "hear_end_s": f"{suggestion.end_s:.3f}",
    }


def next_command(folder: Path, store: Store) -> str:
    """What makes the next store of the same recordings, INPUT..., with the labels in `folder`."""
    settings = read_json(store.path / "store.json", "a store").get("settings", {})
    usual = SegmentSettings()
    words = ["birdinv segment INPUT... -o NEW_STORE"]
    words += [f"--labels {shlex.quote(str(folder / name))}" for name in (KNOWN, SUGGESTED)]
    for option, value, default in (
        ("--segment", settings.get("segment_s"), usual.segment_s),
        ("--overlap", settings.get("overlap"), usual.overlap),
        ("--sample-rate", store.sample_rate, usual.sample_rate),
    ):
        if value not in (None, default):
            words.append(f"{option} {value}")
    if settings.get("activity") is False:
        words.append("--no-activity")
    return " ".join(words)
