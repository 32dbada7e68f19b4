"""Which recordings a run learns from, selects on and is tested on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from birdinv.audio.store import Store
from birdinv.data.splits import hide_labels
from birdinv.errors import BirdinvError
from birdinv.files import read_csv, write_csv
from birdinv.words import counted

ROLES = ("labelled", "unlabelled", "valid", "test", "unused")


@dataclass(frozen=True)
class Partition:
    """Recording → class for each role; the labels of unlabelled recordings are "".

    `hidden` are those whose label the store knows and the run may not use; `unused` have no
    segment, or no label on the side of validation or test.
    """

    labelled: dict[str, str]
    unlabelled: dict[str, str]
    valid: dict[str, str]
    test: dict[str, str]
    unused: dict[str, str]
    hidden: frozenset[str]
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of `split.csv`: file, role, label (of unlabelled recordings none), hidden."""
        return sorted(
            (
                {
                    "file": file,
                    "role": role,
                    "label": label,
                    "hidden": "yes" if file in self.hidden else "no",
                }
                for role in ROLES
                for file, label in getattr(self, role).items()
            ),
            key=lambda row: row["file"],
        )

    @property
    def hash(self) -> str:
        """Fingerprint of who plays which role."""
        text = repr([sorted(row.items()) for row in self.rows])
        return hashlib.sha256(text.encode()).hexdigest()


def partition(
    store: Store,
    labels_per_class: int | None,
    seed: int,
    *,
    per_group: bool = False,
    only: Collection[str] | None = None,
) -> Partition:
    """Roles from the splits of the store, with all but `labels_per_class` training labels hidden.

    Args:
        per_group: that many of each class and group, such as a speaker.
        only: the training recordings that keep their label; None = all that may.

    Raises:
        BirdinvError: fewer than two classes have a labelled training recording.
    """
    usable = [r for r in store.recordings if store.spans.get(r.file)]
    train = {r.file: r.label for r in usable if r.label and r.split == "train"}
    keep, warnings = set(train), []
    if labels_per_class is not None:
        kinds = train
        if per_group:
            kinds = {r.file: f"{r.label} of {r.group}" for r in usable if r.file in train}
        keep, short = hide_labels(kinds, labels_per_class, seed)
        if short:
            few = ", ".join(f"{name} has {n}" for name, n in short.items())
            warnings.append(
                f"fewer than {labels_per_class} training recordings: {few}; all of theirs are used"
            )
    if only is not None:
        keep &= set(only)
    hidden = frozenset(train) - keep
    labelled = {file: label for file, label in train.items() if file in keep}
    unlabelled = {r.file: "" for r in usable if not r.label and r.split == "train"}
    unlabelled |= dict.fromkeys(sorted(hidden), "")
    unlabelled, copies = _without_copies(store, unlabelled)
    if copies:
        warnings.append(
            f"left out of training: {counted(copies, 'unlabelled recording')} with the same bytes "
            "as a labelled one"
        )
    classes = Counter(labelled.values())
    if len(classes) < 2:
        found = f"only {next(iter(classes))}" if classes else "none"
        raise BirdinvError(
            f"training needs labelled training recordings of at least two classes, and "
            f"{store.path} has {found}; segment recordings of another class too (a folder named "
            "noise will do)"
        )
    absent = sorted(set(store.classes) - set(classes))
    if absent:
        warnings.append(
            f"no labelled training recording of {', '.join(absent)}: it will not be recognised"
        )
    roles = {
        split: {r.file: r.label for r in usable if r.label and r.split == split}
        for split in ("valid", "test")
    }
    if not roles["valid"]:
        warnings.append("no validation recordings: the last epoch's weights are kept")
    known = {*labelled, *unlabelled, *roles["valid"], *roles["test"]}
    unused = {r.file: r.label for r in store.recordings if r.file not in known}
    return Partition(
        labelled, unlabelled, roles["valid"], roles["test"], unused, hidden, tuple(warnings)
    )


def _without_copies(store: Store, unlabelled: dict[str, str]) -> tuple[dict[str, str], int]:
    """The unlabelled recordings that are no copies of others, and how many copies there were."""
    bytes_of = {r.file: r.sha256 for r in store.recordings}
    known = {r.sha256 for r in store.recordings if r.sha256 and r.file not in unlabelled}
    kept = {file: "" for file in unlabelled if bytes_of[file] not in known}
    # Copies of validation and test recordings are on their side already.
    named = {r.sha256 for r in store.recordings if r.sha256 and r.label}
    aside = sum(
        not r.label and r.split != "train" and r.sha256 in named
        for r in store.recordings
        if store.spans.get(r.file)
    )
    return kept, len(unlabelled) - len(kept) + aside


def read_roles(run: Path) -> dict[str, dict[str, str]]:
    """Role → recording → class, from the `split.csv` of a run."""
    columns, rows = read_csv(run / "split.csv")
    if not {"file", "role", "label"} <= set(columns):
        raise BirdinvError(f"{run / 'split.csv'} has columns {columns}; expected file, role, label")
    roles: dict[str, dict[str, str]] = {role: {} for role in ROLES}
    for row in rows:
        if row["role"] not in roles:
            raise BirdinvError(
                f"{run / 'split.csv'} gives {row['file']} the role {row['role']!r}; expected one "
                f"of {', '.join(ROLES)}"
            )
        roles[row["role"]][row["file"]] = row["label"]
    return roles


def write_roles(run: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Writes `split.csv`."""
    write_csv(run / "split.csv", ["file", "role", "label", "hidden"], rows)
