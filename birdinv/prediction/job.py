"""One recording in, its table out: the work that processes and clusters share."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from birdinv.audio.sources import Source
from birdinv.audio.windows import Windows
from birdinv.files import row_writer, safe_name, whole_file
from birdinv.prediction.formats import Recorded, write_formats
from birdinv.prediction.recorders import ABSOLUTE_TIME, absolute, recorded_at
from birdinv.prediction.tables import (
    COLUMNS,
    DEFAULT_CHOICE,
    Choice,
    detections,
    native_row,
)

SUFFIX = ".birdinv"
NATIVE = ".csv"
LONGEST_NAME = 255  # bytes that file systems take
# What is wrong with one path, and not with the disk: a folder of that name, a name too long.
OF_ONE_PATH = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)

Heard = Callable[[float, float], None]
"""Told the seconds scored since the last call, and those that the header promises in all."""


@dataclass(frozen=True)
class Settings:
    """What the rows of a table depend on beside the model and the recording.

    Args:
        overlap: of the windows, a fraction in [0, 1); None = as in training.
        exact_hop: keep the hop of that overlap where a rounded one would be many times faster.
        absolute_time: a column with the time of day, from the names that recorders give files.
    """

    choice: Choice = DEFAULT_CHOICE
    overlap: float | None = None
    exact_hop: bool = False
    absolute_time: bool = False

    def as_dict(self) -> dict[str, Any]:
        """All of them by name, for records."""
        own = asdict(self)
        return {**own.pop("choice"), **own}


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one input: a row of `files.csv`, but for the last three.

    `marked` are the stretches, in seconds, of windows that hold samples that are not finite;
    `table_bytes` is the size of its table, -1 where it has none; `stamp` is what the recording was
    before it was read (`stamp_of`), None where that does not say what the next reading would give.
    """

    file: str
    status: str
    reason: str = ""
    declared_s: str = ""
    read_s: str = f"{0:.6f}"
    windows: int = 0
    marked_windows: int = 0
    detections: int = 0
    marked: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    table_bytes: int = -1
    stamp: tuple[int, int] | None = None


@dataclass(frozen=True)
class Facts:
    """What a run is about, known once a worker has the model."""

    sample_rate: int
    windows: Windows
    asked: Windows
    classes: tuple[str, ...]
    shared_frames: bool
    model_sha256: str
    description_sha256: str
    versions: dict[str, str]


class _Unscored(Exception):
    """Something about a recording that nobody foresaw went wrong while it was scored."""


class Job:
    """Scores recordings one by one and writes their tables below `output`."""

    def __init__(
        self, model: Path, settings: Settings, output: Path, rtypes: Sequence[str] = ()
    ) -> None:
        import torch

        import birdinv
        from birdinv.prediction.listener import Listener

        self._settings, self._output, self._rtypes = settings, output, tuple(rtypes)
        self._listener = Listener.load(
            model, overlap=settings.overlap, exact_hop=settings.exact_hop
        )
        weights = model / "model" if (model / "model").is_dir() else model
        self.facts = Facts(
            self._listener.sample_rate,
            self._listener.windows,
            self._listener.asked,
            tuple(self._listener.classes),
            self._listener.scorer.shares,
            _sha256(weights / "model.safetensors"),
            _sha256(weights / "model.json"),
            {
                "birdinv": birdinv.__version__,
                "torch": str(torch.__version__),  # its own kind of text would import torch
                "python": platform.python_version(),
            },
        )

    @classmethod
    def in_a_process(
        cls, model: Path, settings: Settings, output: Path, rtypes: Sequence[str] = ()
    ) -> Job:
        """A job in a process of its own: one thread, whatever the environment says."""
        import torch

        torch.set_num_threads(1)
        return cls(model, settings, output, rtypes)

    def work(self, source: Source, heard: Heard) -> FileResult:
        """Scores one recording and writes its tables; only the writing can raise."""
        from birdinv.threads import cpu_threads

        if not self._output.is_dir():  # a drive that is gone must not be made anew on another
            raise FileNotFoundError(errno.ENOENT, "the folder is gone", str(self._output))
        stamp = stamp_of(source)
        try:
            with cpu_threads(1):  # results do not depend on what else torch is used for
                try:
                    result = self._scored(source, heard)
                except _Unscored as error:
                    reason = f"it cannot be scored: {error}"
                    result = lost(source, reason, self._output, self._settings)
            if self._rtypes and result.table_bytes >= 0:
                convert(source, result, self._output, self._rtypes, self._listener.sample_rate)
        except OSError as error:
            if error.errno not in OF_ONE_PATH:
                raise
            reason = f"its table cannot be written: {error.strerror} ({error.filename})"
            result = FileResult(source.name, "unreadable", reason)
        return replace(result, stamp=stamp)

    def _scored(self, source: Source, heard: Heard) -> FileResult:
        listener, settings = self._listener, self._settings
        rate, windows = listener.sample_rate, listener.windows
        scored = listener.hear(source.path)
        count = found = 0

        def counted() -> Iterator[tuple[int, np.ndarray]]:
            nonlocal count
            try:
                for first, probabilities in scored:
                    count += len(probabilities)
                    heard(len(probabilities) * windows.hop / rate, scored.promised_s)
                    yield first, probabilities
            except Exception as error:
                raise _Unscored(f"{type(error).__name__}: {error}") from error

        start = recorded_at(source.name) if settings.absolute_time else None
        with _native(source, self._output, settings) as write:
            rows = detections(counted(), listener.classes, listener.non_events, settings.choice)
            for detection in rows:
                row = native_row(source.name, detection, windows, rate, scored.frames)
                begin = detection[0] * windows.hop / rate
                time = absolute(start, begin) if start else ""
                write((*row, time) if settings.absolute_time else row)
                found += 1
        verdict = scored.verdict
        marked = scored.marked
        return FileResult(
            source.name,
            verdict.status,
            verdict.reason,
            "" if verdict.declared_s is None else f"{verdict.declared_s:.6f}",
            f"{verdict.read_s:.6f}",
            count,
            sum(last - first + 1 for first, last in marked),
            found,
            tuple(windows.seconds(first, last, rate, scored.frames) for first, last in marked),
            table_path(self._output, source.name).stat().st_size,
        )


def lost(source: Source, reason: str, output: Path, settings: Settings) -> FileResult:
    """The result of a recording that could not be scored, and a table without rows."""
    try:
        with _native(source, output, settings):
            pass
    except OSError as error:
        if error.errno not in OF_ONE_PATH:
            raise
        return FileResult(source.name, "unreadable", reason)
    size = table_path(output, source.name).stat().st_size
    return FileResult(source.name, "unreadable", reason, table_bytes=size)


def convert(
    source: Source, result: FileResult, output: Path, rtypes: Sequence[str], sample_rate: int
) -> None:
    """The table of one recording in other formats."""
    write_formats(
        rtypes,
        [(recorded(source, result), table_path(output, source.name))],
        lambda ending: table_path(output, source.name, ending),
        high_hz=sample_rate / 2,
    )


def recorded(source: Source, result: FileResult) -> Recorded:
    """What other formats say of a recording."""
    root = source.root if source.root.is_dir() else source.root.parent
    return Recorded(
        source.name, os.path.abspath(source.path), os.path.abspath(root), float(result.read_s)
    )


@contextmanager
def _native(
    source: Source, output: Path, settings: Settings
) -> Iterator[Callable[[Sequence[str]], None]]:
    """Opens the table of a recording, its header written, for rows."""
    with whole_file(table_path(output, source.name)) as file:
        write = row_writer(file)
        write(columns(settings))
        yield write


def columns(settings: Settings) -> tuple[str, ...]:
    """The columns of a native table."""
    return (*COLUMNS, ABSOLUTE_TIME) if settings.absolute_time else COLUMNS


def table_path(output: Path, name: str, ending: str = NATIVE) -> Path:
    """Where a table of a recording lies: under its own name where every system takes it.

    What Windows does not take is replaced, a name that would grow too long is cut, and a digest
    keeps such names apart.
    """
    suffix = SUFFIX + ending
    *folders, own = name.split("/")
    safe = safe_name(own + suffix).removesuffix(suffix)
    if safe != own or len(os.fsencode(own + suffix)) > LONGEST_NAME:
        safe = f"{_cut(safe)}-{_digest(own)}"
    parts = [
        part if safe_name(part) == part else f"{_cut(safe_name(part))}-{_digest(part)}"
        for part in folders
    ]
    return output.joinpath(*parts, safe + suffix)


def _cut(name: str) -> str:
    return os.fsencode(name)[:150].decode(errors="ignore")


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def stamp_of(source: Source) -> tuple[int, int] | None:
    """(bytes, time of change in ns) of a recording, None where the system does not say."""
    try:
        info = os.stat(source.path)
    except OSError:
        return None
    return info.st_size, info.st_mtime_ns


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
