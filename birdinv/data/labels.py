"""What is known of each recording: its class, its group, its split — from folders or from a CSV."""

from __future__ import annotations

import difflib
import math
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from birdinv.audio.sources import Source
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
    path: Path,
    sources: Sequence[Source],
    *,
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

    Raises:
        BirdinvError: a column is missing, a cell cannot be understood, a name fits two recordings,
            a file has two labels, two groups or two splits, a group lies in two splits.
    """
    columns, rows = read_csv(path)
    for option, column in (
        ("--file-column", file_column),
        ("--label-column", label_column),
        ("--group-column", group_column),
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
    find = _finder(path, sources)
    known: dict[str, Label] = {}
    missing: dict[str, Label] = {}
    for number, row in enumerate(rows, start=2):
        where = f"line {number} of {path}"
        if not row[file_column].strip():
            raise BirdinvError(f"{where} names no file in its column {file_column!r}")
        file = row[file_column].strip()
        if "\0" in file:
            raise BirdinvError(f"{where} names the file {file!r}; expected a path")
        found = find(file)
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
            _stretch(row, where),
        )
        target, key = (missing, file) if name is None else (known, name)
        target[key] = label if key not in target else _merged(target[key], label, file, where)
    if not known:
        raise BirdinvError(_nothing_found(path, sources, list(missing)))
    _require_one_split_a_group(path, known)
    return Labels(known, missing)


def _nothing_found(table: Path, sources: Sequence[Source], files: Sequence[str]) -> str:
    """Why not one row of a table fits a recording."""
    if not files:
        return f"{table} has a header and no rows; expected a row for each labelled recording"
    last = files[0].replace("\\", "/").rpartition("/")[2]
    near = [source.name for source in sources if source.name.rpartition("/")[2] == last]
    guess = f"; did you mean {near[0]}?" if near else ""
    return (
        f"not one of the {len(files)} files that {table} names is below the inputs (the first is "
        f"{files[0]}{guess}); write their paths from the input folder or from the table"
    )


def _finder(table: Path, sources: Sequence[Source]) -> Callable[[str], set[str]]:
    """Gives the names of the recordings that a cell of `table` may mean.

    Names are compared as NFC: macOS and some archives write é as two characters, tables as one.
    """
    names = {source.name for source in sources}
    by_name: dict[str, set[str]] = {}
    by_path: dict[str, set[str]] = {}
    for real, name in {_real(source.path): source.name for source in sources}.items():
        by_path.setdefault(_nfc(real), set()).add(name)
    for name in names:
        by_name.setdefault(_nfc(name), set()).add(name)
    folders = (s.root if s.root.is_dir() else s.root.parent for s in sources)
    roots = list(dict.fromkeys([*folders, table.parent, Path()]))

    def find(file: str) -> set[str]:
        if file in names:
            return {file}
        file = file if os.sep == "\\" else file.replace("\\", "/")  # written on Windows
        paths = (_nfc(_real(root / file)) for root in roots)
        return by_name.get(_nfc(file)) or set().union(*(by_path.get(p, set()) for p in paths))

    return find


def _real(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _stretch(row: Mapping[str, str], where: str) -> tuple[tuple[float, float], ...]:
    start, end = row.get("start_s", "").strip(), row.get("end_s", "").strip()
    if not start and not end:
        return ()
    try:
        times = float(start), float(end)
    except ValueError:
        times = math.nan, math.nan
    if not 0 <= times[0] < times[1] < math.inf:
        raise BirdinvError(
            f"{where} has start_s {start!r} and end_s {end!r}; expected seconds with start < end"
        )
    return (times,)


def _merged(old: Label, new: Label, file: str, where: str) -> Label:
    for what in ("label", "group", "split"):
        if getattr(old, what) != getattr(new, what):
            raise BirdinvError(
                f"{where} gives {file} the {what} {getattr(new, what)!r} after "
                f"{getattr(old, what)!r}; a recording has one {what}: cut it into one file a label"
            )
    both = old.stretches and new.stretches  # a row without times means the whole recording
    return Label(
        old.label,
        old.group,
        old.split,
        _union(old.stretches + new.stretches) if both else (),
    )


def _union(stretches: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The same seconds as stretches apart: what is annotated twice is not to be used twice."""
    apart: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if apart and start <= apart[-1][1]:
            apart[-1] = apart[-1][0], max(apart[-1][1], end)
        else:
            apart.append((start, end))
    return tuple(apart)


def _require_one_split_a_group(path: Path, known: Mapping[str, Label]) -> None:
    splits: dict[str, str] = {}
    for label in known.values():
        if label.group and label.split:
            first = splits.setdefault(label.group, label.split)
            if first != label.split:
                raise BirdinvError(
                    f"{path} puts the group {label.group!r} into both {first} and {label.split}; "
                    "a group must lie on one side of a split: mend the split column or leave "
                    "the group column out"
                )
