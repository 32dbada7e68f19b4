"""Recordings in, tables of detections out; one bad file costs itself alone."""

from __future__ import annotations

import hashlib
import os
import platform
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from birdinv.audio.sources import Source, find_sources
from birdinv.audio.windows import Windows
from birdinv.clock import now
from birdinv.errors import Interrupted, SettingError
from birdinv.files import (
    require_new,
    row_writer,
    size_of,
    sweep,
    whole_file,
    write_csv,
    write_json,
)
from birdinv.networks.saved import Hearing, load_listener
from birdinv.prediction.pool import in_processes, stop_if_told
from birdinv.prediction.scoring import ScoredRecording
from birdinv.prediction.tables import COLUMNS, DEFAULT_CHOICE, Choice, detections, native_row
from birdinv.progress import Progress
from birdinv.threads import cpu_threads

SUFFIX = ".birdinv.csv"
LONGEST_NAME = 255  # bytes that file systems take


@dataclass(frozen=True)
class FileResult:
    """A row of `files.csv`: what became of one input."""

    file: str
    status: str
    reason: str
    declared_s: str
    read_s: str
    windows: int
    detections: int


@dataclass(frozen=True)
class Predicted:
    """What `predict` made: a row per input, and the windows it used."""

    files: list[FileResult]
    windows: Windows
    warnings: tuple[str, ...]

    @property
    def statuses(self) -> Counter[str]:
        """How many inputs ended ok, partial, empty and unreadable."""
        return Counter(result.status for result in self.files)


@dataclass(frozen=True)
class _Job:
    model: nn.Module
    classes: list[str]
    hearing: Hearing
    windows: Windows
    choice: Choice
    output: Path


def predict(
    model: Path,
    inputs: Sequence[Path],
    output: Path,
    *,
    choice: Choice = DEFAULT_CHOICE,
    overlap: float | None = None,
    workers: int = 1,
    command: str = "",
    progress: Progress | None = None,
) -> Predicted:
    """Scores every window of every recording and writes the tables of detections.

    `output` gets the tree of the inputs with one CSV a recording (`a/b.wav` → `a/b.wav.birdinv.csv`
    with the columns file, start_s, end_s, label, score), `combined.csv` with all of them in the
    order of their names, `files.csv` with a row per input, and `run.json`. Rows do not depend on
    `workers`.

    Args:
        model: a run or a model folder.
        inputs: recordings and folders of recordings.
        overlap: of the windows, a fraction in [0, 1); None = as in training.
        workers: processes that read and score.

    Raises:
        Interrupted: on Ctrl-C; the finished tables are kept.
        BirdinvError: no such model or input, bad settings, `output` exists; a worker process that
            dies before it can begin. One that dies over a recording makes it unreadable.
    """
    network, description, hearing = load_listener(model)
    windows = hearing.windows
    if overlap is not None:
        seconds = windows.segment / hearing.sample_rate
        hop = Windows.from_seconds(seconds, overlap, hearing.sample_rate).hop
        windows = Windows(windows.segment, hop)
    if workers < 1:
        raise SettingError(f"--workers is {workers}; give at least 1")
    require_new(output, "predictions")
    sources = find_sources(inputs)
    job = _Job(network, description.classes, hearing, windows, choice, output)
    info = _run_info(model, job, overlap, command)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "run.json", {**info, "outcome": "running"})
    results: list[FileResult] = []
    outcome, hours, told = "failed", 0.0, 0.0
    sizes = {source.name: size_of(source.path) for source in sources.found}
    everything, read = sum(sizes.values()), 0  # bytes

    def heard(name: str, seconds: float, promised_s: float) -> None:
        nonlocal told
        told += seconds / 3600
        if progress is not None:  # the hours to come, guessed from the bytes to come
            total = (hours + promised_s / 3600) * everything / max(1, read + sizes[name])
            progress.update(seconds / 3600, total=total)

    try:
        with closing(_results(job, model, sources.found, workers, heard)) as made:
            for result in made:
                results.append(result)
                hours += float(result.read_s) / 3600
                read += sizes[result.file]
                if progress is not None:
                    total = hours * everything / max(1, read)
                    progress.update(hours - told, total=total, note=f"{len(results)} files")
                told = hours
        outcome = "finished"
    except KeyboardInterrupt:
        outcome = "interrupted"
        listed = {result.file for result in results}
        for source in sources.found:  # one that was written, and stopped before it was counted
            if source.name not in listed:
                _table_path(output, source.name).unlink(missing_ok=True)
        raise Interrupted(
            f"interrupted; the tables of the {len(results)} files done so far are in {output}"
        ) from None
    finally:  # what is done is kept, also after Ctrl-C
        sweep(output)
        results.sort(key=lambda result: result.file)
        _combine(output, results)
        write_csv(output / "files.csv", [f.name for f in fields(FileResult)], map(asdict, results))
        counts = dict(Counter(result.status for result in results))
        info |= {"inputs": len(sources.found), "statuses": counts, "ended": now()}
        write_json(output / "run.json", {**info, "outcome": outcome})
    others = f"other files beside the recordings, passed over: {sources.others}"
    return Predicted(results, windows, (others,) if sources.others else ())


def _results(
    job: _Job,
    model: Path,
    sources: Sequence[Source],
    workers: int,
    heard: Callable[[str, float, float], None],
) -> Generator[FileResult, None, None]:
    """A result for every source, as they are done."""
    if workers > 1 and len(sources) > 1:
        arguments = (model, job.windows, job.choice, job.output)
        yield from in_processes(
            _work,
            sources,
            workers,
            begin=_begin_worker,
            arguments=arguments,
            crashed=lambda source: _crashed(job, source),
        )
        return
    with cpu_threads(1):  # as in a worker
        for source in sources:
            yield _score_file(job, source, heard)


_JOB: _Job | None = None  # of this worker process


def _begin_worker(model: Path, windows: Windows, choice: Choice, output: Path) -> None:
    global _JOB
    torch.set_num_threads(1)
    network, description, hearing = load_listener(model)
    _JOB = _Job(network, description.classes, hearing, windows, choice, output)


def _work(source: Source) -> FileResult:
    if _JOB is None:
        raise RuntimeError("this worker was not begun")
    return _score_file(_JOB, source, lambda *_: stop_if_told())


def _crashed(job: _Job, source: Source) -> FileResult:
    with _table(job, source):
        pass
    reason = "the decoder crashed (its process died)"
    return FileResult(source.name, "unreadable", reason, "", f"{0:.6f}", 0, 0)


def _score_file(
    job: _Job, source: Source, heard: Callable[[str, float, float], None]
) -> FileResult:
    """Scores one recording and writes its table; only the writing can raise."""
    scored = ScoredRecording(source.path, job.model, job.hearing.sample_rate, job.windows)
    windows = found = 0

    def counted() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal windows
        for first, probabilities in scored:
            windows += len(probabilities)
            seconds = len(probabilities) * job.windows.hop / job.hearing.sample_rate
            heard(source.name, seconds, scored.promised_s)
            yield first, probabilities

    classes, non_events = job.classes, job.hearing.non_events
    with _table(job, source) as write:
        for detection in detections(counted(), classes, non_events, job.choice):
            rate = job.hearing.sample_rate
            write(native_row(source.name, detection, job.windows, rate, scored.frames))
            found += 1
    verdict = scored.verdict
    declared = "" if verdict.declared_s is None else f"{verdict.declared_s:.6f}"
    return FileResult(
        source.name,
        verdict.status,
        verdict.reason,
        declared,
        f"{verdict.read_s:.6f}",
        windows,
        found,
    )


@contextmanager
def _table(job: _Job, source: Source) -> Iterator[Callable[[Iterable[object]], None]]:
    """Opens the table of a recording, its header written, for rows."""
    with whole_file(_table_path(job.output, source.name)) as file:
        write = row_writer(file)
        write(COLUMNS)
        yield write


def _table_path(output: Path, name: str) -> Path:
    """Where the table of a recording lies; a name that would grow too long is cut."""
    path = output / (name + SUFFIX)
    encoded = os.fsencode(path.name)
    if len(encoded) <= LONGEST_NAME:
        return path
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return path.with_name(encoded[:150].decode(errors="ignore") + f"-{digest}{SUFFIX}")


def _combine(output: Path, results: Sequence[FileResult]) -> None:
    """All tables as one, a file at a time."""
    with whole_file(output / "combined.csv") as file:
        row_writer(file)(COLUMNS)
        for result in results:
            with open(_table_path(output, result.file), encoding="utf-8", newline="") as table:
                next(table)
                file.writelines(table)


def _run_info(model: Path, job: _Job, overlap: float | None, command: str) -> dict[str, Any]:
    import birdinv

    weights = model / "model" if (model / "model").is_dir() else model
    return {
        "command": command,
        "model": str(model.resolve()),
        "model_sha256": hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest(),
        "settings": {**asdict(job.choice), "overlap": overlap},
        "sample_rate": job.hearing.sample_rate,
        "segment_samples": job.windows.segment,
        "hop_samples": job.windows.hop,
        "versions": {
            "birdinv": birdinv.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "started": now(),
    }
