"""The tables of detections in the formats of other programs."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from importlib import import_module
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, Any

from birdinv.errors import BirdinvError, SettingError
from birdinv.files import csv_rows, row_writer, whole_file
from birdinv.prediction.recorders import ABSOLUTE_TIME
from birdinv.prediction.tables import COLUMNS

ENDINGS: Mapping[str, str] = {
    "raven": ".raven.txt",
    "audacity": ".audacity.txt",
    "kaleidoscope": ".kaleidoscope.csv",
    "birdnet": ".birdnet.csv",
    "parquet": ".parquet",
}
RTYPES: tuple[str, ...] = tuple(ENDINGS)
ROW_GROUP = 65_536  # rows of a Parquet file that wait in memory

# The header line, and what stands below it; `begin_s` and `until_s` are on the clock of the whole
# table. Raven's floats always have decimals: crowsetta takes no integers.
_LAYOUTS = {
    "raven": (
        "Selection|View|Channel|Begin Time (s)|End Time (s)|Low Freq (Hz)|High Freq (Hz)"
        "|Species|Confidence|Begin Path|File Offset (s)",
        "{number}|Spectrogram 1|1|{begin_s:.3f}|{until_s:.3f}|0.0|{high_hz:.1f}"
        "|{label}|{score:.4f}|{path}|{start_s:.3f}",
    ),
    "audacity": ("", "{begin_s:.6f}|{until_s:.6f}|{label} {score:.2f}"),
    "kaleidoscope": (
        "INDIR|FOLDER|IN FILE|OFFSET|DURATION|TOP1MATCH|TOP1DIST",
        "{root}|{folder}|{base}|{start_s:.3f}|{length_s:.3f}|{label}|{distance:.4f}",
    ),
    "birdnet": (
        "Start (s)|End (s)|Scientific name|Common name|Confidence|File",
        "{start_s:.3f}|{end_s:.3f}|{names[0]}|{names[1]}|{score:.4f}|{path}",
    ),
}
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")  # what ends a cell or a line somewhere
_Write = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Recorded:
    """What other formats say of a recording beyond its rows."""

    name: str  # as in the column `file`
    path: str  # absolute
    root: str  # absolute, of the folder that was given or holds the file that was
    seconds: float  # as read; moves on the clock of a table of several recordings


def require_formats(rtypes: Iterable[str]) -> None:
    """Raises SettingError for an unknown format, BirdinvError for one without its library."""
    for rtype in rtypes:
        if rtype not in RTYPES:
            near = difflib.get_close_matches(rtype.lower(), RTYPES, 1)
            guess = f"did you mean {near[0]}?" if near else f"known are {', '.join(RTYPES)}"
            raise SettingError(f"--rtype is {rtype!r}; {guess}")
        if rtype == "parquet":
            _pyarrow()


def write_formats(
    rtypes: Iterable[str],
    recordings: Iterable[tuple[Recorded, Path]],
    target: Callable[[str], Path],
    *,
    high_hz: float,
) -> None:
    """Writes a table per format with the rows of all native tables, in order.

    The native tables are read once, a row at a time. A table without rows has its header alone,
    Audacity's is an empty file. If a row cannot be written, no table is.

    Args:
        rtypes: some of `RTYPES`; one that is named twice is written once.
        recordings: each with its native table, whose columns are file, start_s, end_s, label, score
            and in all of them or in none absolute_time. On the clock of Raven and Audacity each
            begins where the one before it ends, so those without detections belong here, too.
        target: where to write the table with an ending of `ENDINGS`.
        high_hz: the highest frequency that the model hears.

    Raises:
        BirdinvError: as `require_formats`, or a native table is not that of its recording.
    """
    require_formats(rtypes := list(dict.fromkeys(rtypes)))
    pairs = iter(recordings)
    first = list(islice(pairs, 1))
    columns = [*COLUMNS]
    for _, table in first:
        with open(table, encoding="utf-8", errors="replace") as file:
            columns += [ABSOLUTE_TIME] * (ABSOLUTE_TIME in file.readline())
    with ExitStack() as files:
        writers: list[_Write] = []
        for rtype in rtypes:
            form = _parquet if rtype == "parquet" else partial(_text, rtype)
            writers.append(files.enter_context(form(target(ENDINGS[rtype]), columns)))
        for row in _rows(chain(first, pairs), columns, high_hz) if writers else ():
            for write in writers:
                write(row)


def _rows(
    pairs: Iterable[tuple[Recorded, Path]], columns: list[str], high_hz: float
) -> Iterator[dict[str, Any]]:
    """All that a format may say of each row of the native tables."""
    number, clock = count(1), Fraction()  # exact: a sum of a million floats would drift
    for recorded, table in pairs:
        *folders, base = Path(os.path.relpath(recorded.path, recorded.root)).parts
        place = vars(recorded) | {"folder": "/".join(folders), "base": base, "high_hz": high_hz}
        begun = float(clock)
        for cells in csv_rows(table):
            try:
                if [*cells] != columns or cells["file"] != recorded.name:
                    raise ValueError(f"a row is {cells}")
                start, end, score = (float(cells[name]) for name in ("start_s", "end_s", "score"))
            except ValueError as error:
                raise BirdinvError(
                    f"{table} is not the table of {recorded.name} ({error}); predict anew"
                ) from error
            row = cells | place | {"number": next(number), "names": _birdnet_names(cells["label"])}
            row |= {"start_s": start, "end_s": end, "score": score, "distance": 1 - score}
            yield row | {"begin_s": begun + start, "until_s": begun + end, "length_s": end - start}
        clock += Fraction(recorded.seconds)


@cache
def _birdnet_names(label: str) -> tuple[str, str]:
    """(scientific, common) of BirdNET's `Genus species_Common Name`; of another label, it twice."""
    found = re.fullmatch(r"([A-Z][a-z-]+(?: [a-z-]+){1,2})_(.+)", label, re.DOTALL)
    return (found[1], found[2]) if found else (label, label)


@contextmanager
def _text(rtype: str, path: Path, columns: list[str]) -> Iterator[_Write]:
    header, cells = _LAYOUTS[rtype]
    more = columns[len(COLUMNS) :] if header else []
    templates = [*cells.split("|"), *(f"{{{column}}}" for column in more)]
    with whole_file(path) as file:
        write = (row_writer if ENDINGS[rtype].endswith(".csv") else _tab_writer)(file)
        if header:
            write([*header.split("|"), *more])
        yield lambda row: write(template.format_map(row) for template in templates)


def _tab_writer(file: IO[str]) -> Callable[[Iterable[str]], None]:
    """Writes rows without quoting, which Raven and Audacity do not know."""

    def plain(cell: str) -> str:
        cell = _BREAKS.sub(" ", cell)
        # To readers that do know quoting a first " opens a cell that may end lines below.
        return cell.replace('"', "'") if cell.startswith('"') else cell

    return lambda cells: print(*map(plain, cells), sep="\t", file=file)


@contextmanager
def _parquet(path: Path, columns: list[str]) -> Iterator[_Write]:
    pa, pq = _pyarrow()
    text, seconds = pa.dictionary(pa.int32(), pa.string()), pa.float64()
    types = [text, seconds, seconds, text, pa.float32(), pa.string()]
    schema = pa.schema(zip(columns, types, strict=False))
    waiting: list[list[object]] = []
    with whole_file(path, "wb") as file, pq.ParquetWriter(file, schema) as writer:

        def flush() -> None:
            arrays = [*map(pa.array, zip(*waiting, strict=True), schema.types)]
            writer.write_table(pa.table(arrays, schema=schema))
            waiting.clear()

        def write(row: Mapping[str, Any]) -> None:
            waiting.append([None if (cell := row[name]) == "" else cell for name in columns])
            if len(waiting) == ROW_GROUP:
                flush()

        yield write
        if waiting:
            flush()


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise BirdinvError(f"Parquet: {error}; pip install 'birdinv[parquet]' first") from error
