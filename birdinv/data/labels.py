"""What is known of each recording: its class, its group, its split — from folders or from a CSV."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from birdinv.audio.sources import Source
from birdinv.data.label_cells import finder, nothing_found, stretch_of
from birdinv.data.splits import SPLITS
from birdinv.errors import BirdinvError
from birdinv.files import read_csv

# Classes that are trained as their own and never reported as a bird.
NON_EVENTS = frozenset({"noise", "background", "other", "silence"})


def is_non_event(name: str) -> bool:
    """Whether a class stands for "no bird" (`noise`, `background`, `other`, `silence`)."""
    return name.lower() in NON_EVENTS


@dataclass(frozen=True)
class Label:
    """What is known of one recording; `""` = not known.

    `stretches` are the annotated seconds [start, end) where the label holds; none = everywhere.
    """

    label: str = ""
    group: str = ""
    split: str = ""
    stretches: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Labels:
    """Labels by recording name, and the CSV's rows whose file was not found."""

    known: dict[str, Label]
    missing: dict[str, Label] = field(default_factory=dict)


def labels_from_folders(sources: Sequence[Source]) -> Labels:
    """The class of a recording is the first folder below its input, or the input's own name.

    Raises:
        BirdinvError: an input holds both recordings and folders of recordings (which of the two
            is the class?), or a single file has no folder to be named after.
    """
    by_root: dict[Path, list[Source]] = {}
    for source in sources:
        by_root.setdefault(source.root, []).append(source)
    known = {}
    for root, members in by_root.items():
        below = [source.path.relative_to(root).parts for source in members]
        direct = sum(len(parts) <= 1 for parts in below)
        if 0 < direct < len(members):
            raise BirdinvError(
                f"{root} holds {direct} recordings beside folders of recordings, so their class is "
                "not clear; move them into a folder named after their class, or use --labels"
            )
        real = Path(os.path.realpath(root))
        own = real.parent.name if root.is_file() else real.name
        for source, parts in zip(members, below, strict=True):
            label = own if len(parts) <= 1 else parts[0]
            # A name that came from the file system undecodable could not be written to a table.
            known[source.name] = Label(label.encode("utf-8", "backslashreplace").decode())
    return Labels(known)


def labels_from_csv(
    tables: Path | Sequence[Path],
    sources: Sequence[Source],
    *,
    others: Sequence[Source] = (),
    file_column: str = "file",
    label_column: str = "label",
    group_column: str | None = None,
) -> Labels:
    """Reads `file,label[,start_s,end_s][,split][,group]`; other columns are left alone.

    A file is named as `recordings.csv` will name it, or by its path from an input, from the CSV or
    from here. Recordings the table does not name have no label. An empty label means unlabelled.

    Annotated stretches are used as they are: no activity detection inside them, nothing outside.
    One shorter than a segment, as most calls are, grows to a segment to both sides; one that begins
    past the end of its recording is counted in a warning.

    Several tables are read together. What two of them say of one recording must agree, as what two
    rows of one table say must; but an empty label, group or split of one table, and times that it
    has no columns for, say nothing against another table.

    Args:
        others: recordings that are unlabelled unless a table names them; a cell that is not the
            name of one is looked for among `sources` first.

    Raises:
        BirdinvError: a column is missing, a cell cannot be understood, a name fits two recordings,
            a file has two labels, two groups or two splits, a group lies in two splits.
    """
    paths = [tables] if isinstance(tables, Path) else list(tables)
    columns = file_column, label_column, group_column
    find = finder(sources, others)
    known: dict[str, _Said] = {}
    missing: dict[str, _Said] = {}
    for path in paths:
        for everything, own in zip((known, missing), _read(path, columns, find), strict=True):
            for name, said in own.items():
                everything[name] = (
                    said if name not in everything else _joined(everything[name], said)
                )
    if not known:
        raise BirdinvError(nothing_found(paths, sources, list(missing)))
    labels = Labels(*({name: s.label for name, s in each.items()} for each in (known, missing)))
    _require_one_split_a_group(paths, labels.known)
    return labels


@dataclass(frozen=True)
class _Said:
    """What one table says of a recording: where, by which name, and whether it could give times."""

    label: Label
    where: str
    file: str
    has_times: bool


def _read(
    path: Path, names: tuple[str, str, str | None], find: Callable[[Path, str], set[str]]
) -> tuple[dict[str, _Said], dict[str, _Said]]:
    """What one table says of recordings by name, and of files that are none."""
    file_column, label_column, group_column = names
    columns, rows = read_csv(path)
    for option, column in zip(
        ("--file-column", "--label-column", "--group-column"), names, strict=True
    ):
        if column is not None and column not in columns:
            near = difflib.get_close_matches(column, columns, 1)
            guess = f" (did you mean {near[0]}?)" if near else ""
            if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
                guess = " (it seems to be separated by semicolons or tabs; save it with commas)"
            raise BirdinvError(
                f"{path} has no column {column!r}{guess}; its columns are {', '.join(columns)}: "
                f"name the right one with {option}"
            )
    if group_column is None and "group" in columns:
        group_column = "group"
    has_times = bool({"start_s", "end_s"} & set(columns))
    known: dict[str, _Said] = {}
    missing: dict[str, _Said] = {}
    for number, row in enumerate(rows, start=2):
        where = f"line {number} of {path}"
        if not row[file_column].strip():
            raise BirdinvError(f"{where} names no file in its column {file_column!r}")
        file = row[file_column].strip()
        if "\0" in file:
            raise BirdinvError(f"{where} names the file {file!r}; expected a path")
        found = find(path, file)
        if len(found) > 1:
            raise BirdinvError(
                f"{where} names {file}, which may be {' or '.join(sorted(found))}; write one of "
                "these, and a line for each that is meant"
            )
        name = next(iter(found), None)
        split = row.get("split", "").strip()
        if split not in ("", *SPLITS):
            raise BirdinvError(
                f"{where} has the split {split!r}; expected train, valid, test or nothing"
            )
        label = Label(
            row[label_column].strip(),
            row[group_column].strip() if group_column is not None else "",
            split,
            stretch_of(row, where),
        )
        target, key = (missing, file) if name is None else (known, name)
        if key in target:
            label = _merged(target[key].label, label, file, where)
        target[key] = _Said(label, where, file, has_times)
    return known, missing


def _merged(old: Label, new: Label, file: str, where: str, earlier: str = "") -> Label:
    for what in ("label", "group", "split"):
        if getattr(old, what) != getattr(new, what):
            raise BirdinvError(
                f"{where} gives {file} the {what} {getattr(new, what)!r} after "
                f"{getattr(old, what)!r}{earlier}; a recording has one {what}: cut it into one "
                "file a label"
            )
    both = old.stretches and new.stretches  # a row without times means the whole recording
    return Label(
        old.label,
        old.group,
        old.split,
        _union(old.stretches + new.stretches) if both else (),
    )


def _joined(old: _Said, new: _Said) -> _Said:
    """What two tables say of one recording: what is empty in one gives way to the other."""
    a, b = (
        replace(
            one.label,
            label=one.label.label or other.label.label,
            group=one.label.group or other.label.group,
            split=one.label.split or other.label.split,
            stretches=one.label.stretches if one.has_times else other.label.stretches,
        )
        for one, other in ((old, new), (new, old))
    )
    label = _merged(a, b, new.file, new.where, f" by {old.where}")
    return _Said(label, new.where, new.file, old.has_times or new.has_times)


def _union(stretches: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The same seconds as stretches apart: what is annotated twice is not to be used twice."""
    apart: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if apart and start <= apart[-1][1]:
            apart[-1] = apart[-1][0], max(apart[-1][1], end)
        else:
            apart.append((start, end))
    return tuple(apart)


def _require_one_split_a_group(tables: Sequence[Path], known: Mapping[str, Label]) -> None:
    splits: dict[str, str] = {}
    for label in known.values():
        if label.group and label.split:
            first = splits.setdefault(label.group, label.split)
            if first != label.split:
                names = " and ".join(str(table) for table in tables)
                raise BirdinvError(
                    f"{names} {'puts' if len(tables) == 1 else 'put'} the group {label.group!r} "
                    f"into both {first} and {label.split}; a group must lie on one side of a "
                    "split: mend the split column or leave the group column out"
                )
