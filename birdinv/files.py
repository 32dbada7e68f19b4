"""Files that are written whole or not at all, and the two text formats everything is kept in."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from birdinv.errors import BirdinvError

# A name that the file system gives undecodable is written as it can be.
_TEXT: dict[str, Any] = {"encoding": "utf-8", "newline": "", "errors": "backslashreplace"}


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary neighbour of `path` and moves it there if the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    text: dict[str, Any] = {} if "b" in mode else _TEXT
    try:
        with open(temporary, mode, **text) as file:
            yield file
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        _name(error, path)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that becomes `path` if the block ends without error.

    Raises:
        BirdinvError: `path` was taken meanwhile; the folder is kept where the sentence says.
    """
    path = Path(os.path.realpath(path))  # "." has no name, and a link is no folder to replace
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        yield temporary
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name(error, path)
        raise
    try:
        if path.is_dir():
            path.rmdir()  # an empty one was allowed by `require_new`
        os.replace(temporary, path)
    except OSError as error:  # what took hours is not thrown away for its name
        raise BirdinvError(
            f"{path} cannot be made ({error.strerror or error}); all is done and kept in "
            f"{temporary}: move it to where it should be"
        ) from error


def _name(error: BaseException, path: Path) -> None:
    """Says which file it was where the system did not: a full disk is found out in mid-write."""
    if isinstance(error, OSError) and (error.filename is None or error.filename2 is not None):
        error.filename, error.filename2 = str(path), None


def _temporary(path: Path) -> Path:
    """A free name beside `path`; not made from its name, which may be as long as a name can be."""
    return path.with_name(f".birdinv-{uuid4().hex}.tmp")


def sweep(folder: Path) -> None:
    """Removes what processes that were killed have left of files in and below `folder`."""
    for path in folder.rglob(".birdinv-*.tmp"):
        if path.is_file():
            path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where the system does not say."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def require_new(path: Path, what: str, hint: str = "") -> None:
    """Raises unless `path` is free or an empty folder."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise BirdinvError(
            f"{path} already exists; give -o a new folder for the {what}{hint}, "
            "or remove the old one first"
        )


def row_writer(file: IO[str]) -> Callable[[Iterable[object]], None]:
    """Writes rows of a table with \\n line ends into `file`; None becomes an empty cell."""
    plain = csv.writer(file, lineterminator="\n")
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(row: Iterable[object]) -> None:
        cells = list(row)  # a \r in a file name would end the line, and csv quotes only the \n
        (quoting if any("\r" in str(cell) for cell in cells) else plain).writerow(cells)

    return write


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Writes a UTF-8 table with the `columns` of every row."""
    with whole_file(path) as file:
        names, write = list(columns), row_writer(file)
        write(names)
        for row in rows:
            if unknown := row.keys() - set(names):
                raise ValueError(f"fields not in fieldnames: {', '.join(sorted(unknown))}")
            write(row.get(name) for name in names)


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """(columns, rows) of a UTF-8 table with a header line.

    Raises:
        BirdinvError: the file is missing, is not UTF-8 text, or has no or an ambiguous header.
    """
    with _table(path) as (columns, rows):
        return columns, list(rows)


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of `read_csv` one at a time, for tables of millions; raises what it raises."""
    with _table(path) as (_, rows):
        yield from rows


@contextmanager
def _table(path: Path) -> Iterator[tuple[list[str], Iterator[dict[str, str]]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            columns = list(reader.fieldnames or [])
            if not columns:
                raise BirdinvError(
                    f"{path} is empty; expected a table whose first line names its columns"
                )
            if len(set(columns)) < len(columns):
                raise BirdinvError(f"{path} names a column twice: {', '.join(columns)}")
            yield columns, ({k: v for k, v in row.items() if k is not None} for row in reader)
    except OSError as error:
        raise BirdinvError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BirdinvError(f"{path} is not a UTF-8 CSV table: {error}; save it as UTF-8") from error


def write_json(path: Path, value: object) -> None:
    """Writes indented UTF-8 JSON; NaN and infinity are refused."""
    with whole_file(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in `path`; `what`, its folder, is named in the error sentence."""
    if not path.parent.is_dir():
        raise BirdinvError(f"{path.parent} does not exist; expected {what}")
    if not path.exists():
        raise BirdinvError(f"{path.parent} holds no {path.name}; expected {what}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BirdinvError(
            f"{path} cannot be read ({error.strerror or error}); expected {what}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BirdinvError(f"{path} is not JSON ({error}); expected {what}") from error
    if not isinstance(value, dict):
        raise BirdinvError(f"{path} holds no JSON object; expected {what}")
    return value


def safe_name(text: str) -> str:
    """`text` as one component of a path that is valid on Linux, macOS and Windows."""
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", text)
    name = name.encode("utf-8", "replace")[:200].decode("utf-8", "ignore").strip(" .")
    reserved = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name, re.IGNORECASE)
    return f"_{name}" if reserved or not name else name
