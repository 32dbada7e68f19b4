"""The store: every recording's samples end to end in one memory map, and tables that say where.

========================  =========================================================================
`store.json`              version, sample rate, segment and hop in samples, classes, settings, hash
`recordings.csv`          a row per input, readable or not (`Recording`)
`spans.csv`               file, start, end: where segments lie, in samples of the recording
`audio.npy`               int16, all recordings end to end
========================  =========================================================================

Segments are arithmetic on spans and never enumerated on disk, so overlap costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from birdinv.audio.windows import Windows
from birdinv.errors import BirdinvError
from birdinv.files import csv_rows, read_json

FORMAT = "birdinv-store"
VERSION = 1
HEADER_BYTES = 128  # of audio.npy; fixed, so that the length can be filled in at the end


@dataclass(frozen=True)
class Recording:
    """A row of `recordings.csv`.

    `offset` and `frames` say which samples of `audio.npy` are this recording's; `label` is "" for
    an unlabelled one; `declared_s` and `read_s` are seconds by the file's header and as read.
    """

    file: str
    label: str
    group: str
    split: str
    status: str
    reason: str
    declared_s: str
    read_s: str
    source_rate: int
    channels: int
    offset: int
    frames: int
    sha256: str


class Store:
    """A store opened for reading; the samples stay on the disk until they are asked for.

    Raises:
        BirdinvError: not a store, a store of a later version, or one whose parts do not fit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        expected = "a store made by `birdinv segment`"
        info = read_json(path / "store.json", expected)
        if info.get("format") != FORMAT:
            raise BirdinvError(f"{path} is not {expected}: its store.json has another format")
        version = info.get("version")
        if version != VERSION:
            raise BirdinvError(
                f"{path} is a store of version {version}; this birdinv reads version {VERSION}: "
                "update birdinv, or segment the recordings again"
            )
        try:
            self.sample_rate = int(info["sample_rate"])
            self.windows = Windows(int(info["segment_samples"]), int(info["hop_samples"]))
            self.classes: list[str] = [str(name) for name in info["classes"]]
            self.non_events: list[str] = [str(name) for name in info["non_events"]]
            self.hash = str(info["hash"])
            self.recordings = [_recording(row) for row in csv_rows(path / "recordings.csv")]
            self.spans: dict[str, list[tuple[int, int]]] = {}
            for row in csv_rows(path / "spans.csv"):
                span = int(row["start"]), int(row["end"])
                self.spans.setdefault(row["file"], []).append(span)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BirdinvError(
                f"{path} is damaged ({type(error).__name__}: {error}); segment the recordings again"
            ) from error
        self._check()

    def _check(self) -> None:
        frames = {recording.file: recording.frames for recording in self.recordings}
        lengths = (self.sample_rate, self.windows.segment, self.windows.hop)
        if min(lengths) < 1 or any(r.offset < 0 or r.frames < 0 for r in self.recordings):
            raise BirdinvError(
                f"{self.path} is damaged (a rate, length or offset that cannot be); "
                "segment the recordings again"
            )
        end = max((r.offset + r.frames for r in self.recordings), default=0)
        if end > len(self.audio):
            raise BirdinvError(
                f"{self.path / 'audio.npy'} holds {len(self.audio)} samples, fewer than the {end} "
                "its tables name; segment the recordings again"
            )
        for file, spans in self.spans.items():
            if any(not 0 <= a < b <= frames.get(file, 0) for a, b in spans):
                raise BirdinvError(f"{self.path} has a span outside {file}; segment again")

    @cached_property
    def audio(self) -> np.ndarray:
        """All samples, int16 `[n]`, a read-only memory map."""
        path = self.path / "audio.npy"
        try:
            if path.stat().st_size <= HEADER_BYTES:
                return np.zeros(0, np.int16)
            audio = np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError) as error:
            raise BirdinvError(
                f"{path} cannot be read ({error}); segment the recordings again"
            ) from error
        if audio.dtype != np.dtype("<i2") or audio.ndim != 1:
            raise BirdinvError(
                f"{path} holds {audio.ndim}-dimensional {audio.dtype}, expected a row of int16; "
                "segment the recordings again"
            )
        return np.asarray(audio)


def _recording(row: Mapping[str, str]) -> Recording:
    whole = {"source_rate", "channels", "offset", "frames"}
    cells: dict[str, Any] = {
        f.name: int(row[f.name]) if f.name in whole else row[f.name] for f in fields(Recording)
    }
    return Recording(**cells)
