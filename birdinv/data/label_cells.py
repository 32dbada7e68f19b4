"""What cells of a table of labels mean: a recording, a stretch of its seconds."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from birdinv.audio.sources import Source
from birdinv.errors import BirdinvError


def finder(
    sources: Sequence[Source], others: Sequence[Source] = ()
) -> Callable[[Path, str], set[str]]:
    """Gives the names of the recordings that a cell of a table, lying at a path, may mean.

    A cell that is a recording's name means that one. Any other is looked for among `sources`, and
    only where nothing there fits among `others`: by name, then by its path from an input, from the
    table or from here. Names are compared as NFC: macOS and some archives write é as two
    characters, tables as one.
    """
    names = {source.name for source in (*sources, *others)}
    places = [_places(each) for each in (sources, others) if each]

    def find(table: Path, file: str) -> set[str]:
        if file in names:
            return {file}
        file = file if os.sep == "\\" else file.replace("\\", "/")  # written on Windows
        for by_name, by_path, folders in places:
            paths = (_nfc(_real(root / file)) for root in (*folders, table.parent, Path()))
            found = by_name.get(_nfc(file)) or set().union(*(by_path.get(p, set()) for p in paths))
            if found:
                return found
        return set()

    return find


def nothing_found(tables: Sequence[Path], sources: Sequence[Source], files: Sequence[str]) -> str:
    """Why not one row of the tables fits a recording."""
    names = " and ".join(str(table) for table in tables)
    one = len(tables) == 1
    if not files:
        return (
            f"{names} {'has' if one else 'have'} a header and no rows; expected a row for each "
            "labelled recording"
        )
    last = files[0].replace("\\", "/").rpartition("/")[2]
    near = [source.name for source in sources if source.name.rpartition("/")[2] == last]
    guess = f"; did you mean {near[0]}?" if near else ""
    return (
        f"not one of the {len(files)} files that {names} {'names' if one else 'name'} is below the "
        f"inputs (the first is {files[0]}{guess}); write their paths from the input folder or from "
        "the table"
    )


def stretch_of(row: Mapping[str, str], where: str) -> tuple[tuple[float, float], ...]:
    """The seconds [start, end) that a row is about, none where it is about the whole recording."""
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


def _places(
    sources: Sequence[Source],
) -> tuple[dict[str, set[str]], dict[str, set[str]], list[Path]]:
    """Names by what they look like, names by path, and the folders that were given."""
    by_name: dict[str, set[str]] = {}
    by_path: dict[str, set[str]] = {}
    for real, name in {_real(source.path): source.name for source in sources}.items():
        by_path.setdefault(_nfc(real), set()).add(name)
    for source in sources:
        by_name.setdefault(_nfc(source.name), set()).add(source.name)
    folders = (s.root if s.root.is_dir() else s.root.parent for s in sources)
    return by_name, by_path, list(dict.fromkeys(folders))


def _real(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
