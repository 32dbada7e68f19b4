"""Disks that take nothing, or fill up."""

import errno
import os
from typing import Any

import pytest

from birdinv import files
from birdinv.audio import store_writer


class LittleDisk:
    """A file on a disk with so many bytes of room left."""

    def __init__(self, file: Any, room: list[int]) -> None:
        self._file, self._room = file, room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "LittleDisk":
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        self._room[0] -= len(data) if isinstance(data, str) else memoryview(data).nbytes
        if self._room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self._file.write(data))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


def refuse_writes(monkeypatch: pytest.MonkeyPatch, kind: int, room: int = 0) -> None:
    """Lets everything that is written fail as a disk would, a full one after `room` bytes."""
    real, left_over = open, [room]

    def opened(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not set(mode) & set("wxa+"):
            return real(path, mode, *args, **kwargs)
        if kind != errno.ENOSPC:
            raise OSError(kind, os.strerror(kind), str(path))
        return LittleDisk(real(path, mode, *args, **kwargs), left_over)

    for module in (files, store_writer):
        monkeypatch.setattr(module, "open", opened, raising=False)
