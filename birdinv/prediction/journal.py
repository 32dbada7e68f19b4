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
from birdinv.prediction.job import FileResult, stamp_of, table_path

NAME = "journal.jsonl"
FORMAT = "birdinv-journal"
VERSION = 1


class Journal:
    """The journal of a folder of predictions, opened to be read and added to.

    Args:
        identity: what all results of the folder have in common.
        moved: the same inputs may lie at another place now.

    Raises:
        BirdinvError: the folder holds results of another model, other settings or inputs, or its
            journal cannot be read.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any], *, moved: bool = False) -> None:
        self._output, self._moved = output, moved
        self._path = output / NAME
        self._done: dict[str, FileResult] = {}
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
        result = self._done.get(source.name)
        if result is None:
            return None
        table = size_of(table_path(self._output, source.name))
        same = result.stamp == stamp_of(source) and table == result.table_bytes
        return result if same else None

    @property
    def names(self) -> set[str]:
        """The recordings it has a line of."""
        return set(self._done)

    def add(self, source: Source, result: FileResult) -> None:
        """Notes a result whose table is in its place.

        A recording is not noted, and is scored again when the batch goes on, if it changed while it
        was scored, cannot be opened now (its disk is gone), or cost a process its life: memory that
        ran out or a network that stood still are no fault of its own.
        """
        self.require_in_place()
        if result.stamp is None or result.table_bytes < 0 or result.stamp != stamp_of(source):
            return
        if result.status == "unreadable" and not _opens(source.path):
            return
        self._write({"file": source.name, "result": asdict(result)})

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
        with open(self._path, "rb") as file:
            for line in file:
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
        if differing == ["inputs"] and self._moved:
            differing = []
        if differing:
            what = "; ".join(
                f"{key.replace('_', ' ')}: {_short(before.get(key))} there, "
                f"{_short(identity[key])} now"
                for key in differing
            )
            raise BirdinvError(
                f"{self._output} holds predictions that were made otherwise ({what}); give -o a "
                f"new folder, or {_way_on(differing)}"
            )

    def _note(self, line: Mapping[str, Any]) -> None:
        cells = {f.name: line["result"][f.name] for f in fields(FileResult)}
        cells["marked"] = tuple((str(start), str(end)) for start, end in cells["marked"])
        size, mtime_ns = cells["stamp"]
        cells["stamp"] = int(size), int(mtime_ns)
        self._done[line["file"]] = FileResult(**cells)


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


def _opens(path: Path) -> bool:
    if not path.is_file():
        return path.exists()  # a pipe, which opening would wait for
    try:
        with open(path, "rb"):
            return True
    except OSError:
        return False


def _way_on(differing: list[str]) -> str:
    if differing == ["inputs"]:
        return "--moved if these are the same recordings at another place"
    return "the old ones to go on there"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 160 else f"{text[:100]}…{text[-50:]}"


def inputs_of(inputs: Iterable[Path]) -> list[str]:
    """By what inputs are known: two memory cards hold the same names, sizes and times."""
    return sorted(os.path.realpath(path) for path in inputs)
