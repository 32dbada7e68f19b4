"""What a batch has done so far, a line a file, so that it can go on after anything.

`journal.jsonl` begins with a line that says whose results these are: the model, the settings, the
inputs. Each further line holds the name, size and time of change of one recording and what became
of it. A line is written in one piece after the recording's table is in its place; a line without
its end, or a table that is not as long as its line says, counts as not done.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from birdinv.audio.sources import Source
from birdinv.errors import BirdinvError
from birdinv.files import size_of
from birdinv.prediction.job import FileResult, table_path

NAME = "journal.jsonl"
FORMAT = "birdinv-journal"
VERSION = 1


class Journal:
    """The journal of a folder of predictions, opened to be read and added to.

    Args:
        identity: what all results of the folder have in common.

    Raises:
        BirdinvError: the folder holds results of another model, other settings or inputs, or its
            journal cannot be read.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any]) -> None:
        self._output = output
        self._path = output / NAME
        self._done: dict[str, tuple[tuple[int, int], FileResult]] = {}
        output.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._descriptor: int | None = os.open(self._path, flags)
        try:
            _take_alone(self._descriptor, output)
            end = self._read(json.loads(json.dumps(dict(identity))))
            os.ftruncate(self._descriptor, end)
            os.lseek(self._descriptor, end, os.SEEK_SET)
            if not end:
                self._write({"format": FORMAT, "version": VERSION, "identity": dict(identity)})
        except BaseException:
            self.close()
            raise

    def done(self, source: Source) -> FileResult | None:
        """The result of a recording that has not changed since, None where it is to be scored."""
        entry = self._done.get(source.name)
        if entry is None:
            return None
        stamp, result = entry
        table = size_of(table_path(self._output, source.name))
        return result if stamp == stamp_of(source) and table == result.table_bytes else None

    @property
    def names(self) -> set[str]:
        """The recordings it has a line of."""
        return set(self._done)

    def add(self, source: Source, result: FileResult) -> None:
        """Notes a result whose table is in its place.

        A recording that cannot be opened now (its disk is gone) or that changed while it was scored
        is not noted: it is scored again when the batch goes on.
        """
        self.require_in_place()
        stamp = stamp_of(source)
        if stamp is None or (result.status == "unreadable" and not _opens(source.path)):
            return
        self._write(
            {
                "file": source.name,
                "size": stamp[0],
                "mtime_ns": stamp[1],
                "result": asdict(result),
            }
        )

    def require_in_place(self) -> None:
        """Raises OSError where the folder is no longer the one it was: its drive is gone.

        What is written then would lie on another drive, below the empty mount point.
        """
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        own = None if self._descriptor is None else os.fstat(self._descriptor)
        if there is None or own is None or not os.path.samestat(there, own):
            raise OSError(errno.ENOENT, "the folder is gone (its drive?)", str(self._output))

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, line: Mapping[str, Any]) -> None:
        rest = json.dumps(line).encode() + b"\n"
        while rest and self._descriptor is not None:  # a disk that fills up takes a part first
            rest = rest[os.write(self._descriptor, rest) :]

    def _read(self, identity: Mapping[str, Any]) -> int:
        """Reads what is there; the bytes of it that are whole lines."""
        end = 0
        for line in self._path.read_bytes().splitlines(keepends=True):
            try:
                if not line.endswith(b"\n"):
                    break
                content = json.loads(line)
                if end:
                    self._note(content)
                else:
                    self._require_same(content, identity)
            except (ValueError, KeyError, TypeError) as error:
                if end:  # a machine that lost its power: what follows is done again
                    break
                raise BirdinvError(
                    f"{self._path} is damaged ({type(error).__name__}: {error}); give -o a new "
                    "folder"
                ) from error
            end += len(line)
        return end

    def _require_same(self, head: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        if head["format"] != FORMAT or head["version"] != VERSION:
            raise BirdinvError(f"{self._path} is of another version of birdinv; give a new folder")
        before = head["identity"]
        differing = [key for key in identity if before.get(key) != identity[key]]
        if differing:
            what = "; ".join(
                f"{key.replace('_', ' ')}: {_short(before.get(key))} there, "
                f"{_short(identity[key])} now"
                for key in differing
            )
            raise BirdinvError(
                f"{self._output} holds predictions that were made otherwise ({what}); give -o a "
                "new folder, or the old settings to go on there"
            )

    def _note(self, line: Mapping[str, Any]) -> None:
        cells = {f.name: line["result"][f.name] for f in fields(FileResult)}
        cells["marked"] = tuple((str(start), str(end)) for start, end in cells["marked"])
        stamp = int(line["size"]), int(line["mtime_ns"])
        self._done[line["file"]] = stamp, FileResult(**cells)


def _take_alone(descriptor: int, output: Path) -> None:
    """Locks the file until it is closed, however this process ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 1 << 40, os.SEEK_SET)  # a byte that nobody reads
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise BirdinvError(
            f"another birdinv predict is writing to {output}; wait for it, or give -o a new folder"
        ) from error
    except OSError:  # a file system without locks
        return


def stamp_of(source: Source) -> tuple[int, int] | None:
    """(bytes, time of change in ns) of a recording, None where the system does not say."""
    try:
        info = os.stat(source.path)
    except OSError:
        return None
    return info.st_size, info.st_mtime_ns


def _opens(path: Path) -> bool:
    if not path.is_file():
        return path.exists()  # a pipe, which opening would wait for
    try:
        with open(path, "rb"):
            return True
    except OSError:
        return False


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else f"{text[:24]}…{text[-8:]}"


def inputs_of(inputs: Iterable[Path]) -> list[str]:
    """The names by which inputs are known, wherever their disk is mounted."""
    return sorted(Path(os.path.realpath(path)).name for path in inputs)
