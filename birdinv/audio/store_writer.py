"""Recordings into a store, one stream after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from birdinv.audio.activity import LevelHistogram, active_spans, annotated_spans
from birdinv.audio.reading import Reader, Verdict
from birdinv.audio.resampling import ahead, pcm, resampled
from birdinv.audio.store import FORMAT, HEADER_BYTES, VERSION, Recording
from birdinv.audio.windows import Windows
from birdinv.files import write_csv, write_json


@dataclass(frozen=True)
class Stored:
    """What one recording left in a store being written.

    `past_end` is how many of its annotated stretches begin past its end.
    """

    verdict: Verdict
    offset: int
    frames: int
    spans: list[tuple[int, int]]
    sha256: str
    past_end: int = 0


class StoreWriter:
    """Appends recordings to `audio.npy` in a folder; memory does not grow with their length."""

    def __init__(self, folder: Path, sample_rate: int, windows: Windows, *, activity: bool) -> None:
        self.folder, self.sample_rate, self.windows = folder, sample_rate, windows
        self._activity = activity
        self._frames = 0
        self._file = open(folder / "audio.npy", "w+b")  # noqa: SIM115  closed by close()
        self._file.write(bytes(HEADER_BYTES))

    def add(
        self,
        path: Path,
        heard: Callable[[float, float], None] | None = None,
        *,
        stretches: Sequence[tuple[float, float]] = (),
    ) -> Stored:
        """Streams one recording in; a bad one leaves what could be read of it and its verdict.

        Args:
            stretches: annotated seconds [start, end). Where there are any, they are the spans (see
                `annotated_spans`), whatever sounds in them: someone has said that they count.
            heard: is told, now and then, the seconds read since and those the header promises.
        """
        offset, clipped = self._frames, 0
        levels = LevelHistogram()
        with ThreadPoolExecutor(1) as beside, Reader(path) as reader:
            digest = beside.submit(file_sha256, path)
            blocks = resampled(reader, reader.source_rate, self.sample_rate)
            with ahead(blocks if reader.source_rate else iter(())) as stream:
                for block in stream:
                    samples, over = pcm(block)
                    clipped += over
                    if self._activity and not stretches:
                        levels.update(samples)
                    self._file.write(samples.astype("<i2", copy=False).data)
                    self._frames += len(samples)
                    if heard is not None:
                        heard(len(samples) / self.sample_rate, reader.promised_s)
        frames = self._frames - offset
        rate, long_enough = self.sample_rate, frames >= self.windows.segment
        annotated = [(round(a * rate), round(b * rate)) for a, b in stretches if long_enough]
        spans = self._spans(offset, frames, levels, annotated)
        self._file.seek(0, 2)
        verdict = _with_notes(reader.verdict, clipped, frames, spans, annotated, self)
        past_end = sum(start >= frames for start, _ in annotated)
        return Stored(verdict, offset, frames, spans, digest.result(), past_end)

    def _spans(
        self,
        offset: int,
        frames: int,
        levels: LevelHistogram,
        annotated: Sequence[tuple[int, int]],
    ) -> list[tuple[int, int]]:
        if frames < self.windows.segment:
            return []
        if annotated:
            return annotated_spans(annotated, frames, self.windows)
        if not self._activity:
            return [(0, frames)]
        return active_spans(
            lambda start, end: self.samples(offset + start, offset + end),
            frames,
            self.windows,
            levels.percentile(),
        )

    def samples(self, start: int, end: int) -> np.ndarray:
        """int16 samples [start, end) of all that was added so far, read back from the disk."""
        self._file.seek(HEADER_BYTES + 2 * start)
        return np.frombuffer(self._file.read(2 * (end - start)), "<i2")

    def finish(
        self,
        recordings: list[Recording],
        spans: Mapping[str, list[tuple[int, int]]],
        classes: list[str],
        non_events: list[str],
        settings: Mapping[str, object],
    ) -> None:
        """Writes the tables, fills in the length, closes."""
        write_csv(
            self.folder / "recordings.csv",
            [f.name for f in fields(Recording)],
            (asdict(recording) for recording in recordings),
        )
        write_csv(self.folder / "spans.csv", ["file", "start", "end"], _span_rows(spans))
        info: dict[str, object] = {
            "format": FORMAT,
            "version": VERSION,
            "sample_rate": self.sample_rate,
            "segment_samples": self.windows.segment,
            "hop_samples": self.windows.hop,
            "classes": classes,
            "non_events": non_events,
            "settings": dict(settings),
        }
        digest = hashlib.sha256(repr(sorted(info.items())).encode())
        for table in ("recordings.csv", "spans.csv"):  # the sources' own hashes stand in there
            digest.update((self.folder / table).read_bytes())
        write_json(self.folder / "store.json", {**info, "hash": digest.hexdigest()})
        self._file.seek(0)
        self._file.write(_npy_header(self._frames))
        self.close()

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        self._file.close()


def _span_rows(spans: Mapping[str, list[tuple[int, int]]]) -> Iterator[dict[str, object]]:
    for file, pairs in spans.items():
        for start, end in pairs:
            yield {"file": file, "start": start, "end": end}


def _npy_header(frames: int) -> bytes:
    text = f"{{'descr': '<i2', 'fortran_order': False, 'shape': ({frames},), }}"
    length = HEADER_BYTES - 10
    return (
        b"\x93NUMPY\x01\x00"
        + length.to_bytes(2, "little")
        + text.ljust(length - 1).encode()
        + b"\n"
    )


def _with_notes(
    verdict: Verdict,
    clipped: int,
    frames: int,
    spans: Sequence[object],
    annotated: Sequence[tuple[int, int]],
    writer: StoreWriter,
) -> Verdict:
    """The reader's verdict with what the store has to add: clipped, too short, nothing to use."""
    status, notes = verdict.status, [verdict.reason] if verdict.reason else []
    if clipped:
        notes.append(f"{clipped} of {frames} samples beyond full scale were clipped")
        if clipped > 0.01 * frames and status == "ok":
            status = "partial"
    one_segment = f"one segment of {writer.windows.segment / writer.sample_rate:.3g} s"
    inside = [(start, min(end, frames)) for start, end in annotated if start < frames]
    grown = sum(end - start < writer.windows.segment for start, end in inside)
    if grown:
        notes.append(f"{grown} of {len(annotated)} annotated stretches grew to {one_segment}")
    if len(inside) < len(annotated):
        past_end = len(annotated) - len(inside)
        notes.append(f"{past_end} of {len(annotated)} annotated stretches begin past the end")
    if status in ("ok", "partial") and not spans:
        if annotated:
            status = "empty"
        elif frames < writer.windows.segment:
            status = "empty"
            notes.append(f"{frames / writer.sample_rate:.3f} s is shorter than {one_segment}")
        else:
            notes.append("no active segment")
    return replace(verdict, status=status, reason="; ".join(notes))


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes, "" where they cannot be read."""
    if not path.is_file():  # opening a pipe would wait for ever
        return ""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
