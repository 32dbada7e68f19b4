"""Recordings in, tables of detections out; one bad file costs itself alone, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from birdinv.audio.sources import Source, find_sources
from birdinv.audio.windows import Windows
from birdinv.errors import BirdinvError, Interrupted, SettingError
from birdinv.files import require_new, size_of, sweep, write_json
from birdinv.prediction.combined import write_combined
from birdinv.prediction.formats import ENDINGS, require_formats
from birdinv.prediction.job import (
    NATIVE,
    Facts,
    FileResult,
    Job,
    Settings,
    convert,
    lost,
    table_path,
)
from birdinv.prediction.journal import NAME as JOURNAL
from birdinv.prediction.journal import Journal, inputs_of
from birdinv.prediction.pool import Here, Processes
from birdinv.prediction.recorders import recorded_at
from birdinv.progress import Progress

STALL_S = 300.0
DEFAULT = Settings()


@dataclass(frozen=True)
class Predicted:
    """What `predict` made: a row per input, the windows it used, and those that were asked for."""

    files: list[FileResult]
    windows: Windows
    asked: Windows
    sample_rate: int
    warnings: tuple[str, ...]
    resumed: int = 0  # files that an earlier, interrupted call had done

    @property
    def statuses(self) -> Counter[str]:
        """How many inputs ended ok, partial, empty and unreadable."""
        return Counter(result.status for result in self.files)


class Crew(Protocol):
    """Who does the work: this process, others on this machine, or a cluster."""

    facts: Facts

    def results(
        self,
        items: Iterable[Source],
        heard: Callable[[Source, float, float], None],
        lost: Callable[[Source, str], FileResult],
    ) -> Generator[FileResult, None, None]:
        """The result of every item, as they are done; see `pool.Processes.results`."""


def predict(
    model: Path,
    inputs: Sequence[Path],
    output: Path,
    *,
    settings: Settings = DEFAULT,
    workers: int = 0,
    cluster: str | None = None,
    rtypes: Sequence[str] = (),
    stall_s: float = STALL_S,
    report: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> Predicted:
    """Scores every window of every recording and writes the tables of detections.

    `output` gets the tree of the inputs with one CSV a recording (`a/b.wav` → `a/b.wav.birdinv.csv`
    with the columns file, start_s, end_s, label, score), `combined.csv` with all of them in the
    order of their names, `files.csv` with a row per input, `marked.csv` with the stretches whose
    samples are not finite, and `run.json`. No row depends on `workers`, `cluster` or what lies
    beside a recording.

    The same call again goes on where one that was interrupted, killed or stopped by a full disk has
    ended, and scores again what has changed since: `journal.jsonl` knows what is done. The tables
    then are those of a call that was never interrupted, byte for byte.

    Args:
        model: a run or a model folder.
        inputs: recordings and folders of recordings.
        workers: processes that read and score, the largest files first; 0 = this process, which a
            file that kills or stalls the decoder then takes along.
        cluster: address of a Dask scheduler, or `local:N`; in place of `workers`.
        rtypes: further formats of the tables (`formats.RTYPES`).
        stall_s: a recording that makes no progress for so long, in seconds, is given up.
        report: write `report.html`, the page about the folder.

    Raises:
        Interrupted: on Ctrl-C; what is done is kept.
        BirdinvError: no such model or input, bad settings, `output` holds something else, or the
            disk is full or gone; what is done is kept.
    """
    if workers < 0:
        raise SettingError(f"--workers is {workers}; give at least 1")
    if not stall_s > 0:
        raise SettingError(f"--stall is {stall_s:g}; give seconds above 0")
    require_formats(rtypes)
    resumes = (output / JOURNAL).is_file()
    if not resumes:
        require_new(output, "predictions")
    sources = find_sources(inputs)
    arguments = (model, settings, output, tuple(rtypes))
    with _crew(arguments, min(workers, len(sources.found)), cluster, stall_s) as crew:
        identity = {
            "model": crew.facts.model_sha256,
            "description": crew.facts.description_sha256,
            **settings.as_dict(),
            "inputs": inputs_of(inputs),
        }
        with closing(Journal(output, identity)) as journal:
            batch = _Batch(model, output, settings, rtypes, sources.found, crew.facts, journal)
            warnings = [*batch.recall()]
            batch.describe(command, identity, "running")
            outcome = "failed"
            try:
                batch.run(crew, progress)
                outcome = "finished"
            except KeyboardInterrupt:
                outcome = "interrupted"
                raise Interrupted(f"interrupted; {batch.kept()}") from None
            except OSError as error:
                raise BirdinvError(_stopped(error, batch)) from error
            finally:
                batch.finish(command, identity, outcome)
    if sources.others:
        warnings.append(f"other files beside the recordings, passed over: {sources.others}")
    if settings.absolute_time:
        timeless = sum(recorded_at(result.file) is None for result in batch.results)
        if timeless:
            warnings.append(f"{timeless} file names tell no time: their absolute_time is empty")
    if report:
        from birdinv.reporting.detections import write_detections_page

        sound = {source.name: source.path for source in sources.found}
        write_detections_page(output, sound, sample_rate=crew.facts.sample_rate)
    facts = crew.facts
    return Predicted(
        batch.results,
        facts.windows,
        facts.asked,
        facts.sample_rate,
        tuple(warnings),
        batch.recalled,
    )


def _crew(
    arguments: tuple[Any, ...], workers: int, cluster: str | None, stall_s: float
) -> AbstractContextManager[Crew]:
    try:
        if cluster is not None:
            from birdinv.prediction.cluster import Cluster

            return Cluster(cluster, arguments, stall_s=stall_s)
        if workers:
            return Processes(Job.in_a_process, arguments, workers, stall_s=stall_s)
        return Here(Job, arguments)
    except KeyboardInterrupt:
        raise Interrupted("interrupted before the first file") from None


class _Batch:
    """The results of one folder of predictions, as they come together."""

    def __init__(
        self,
        model: Path,
        output: Path,
        settings: Settings,
        rtypes: Sequence[str],
        sources: Sequence[Source],
        facts: Facts,
        journal: Journal,
    ) -> None:
        self._model, self._output, self._settings = model, output, settings
        self._rtypes, self._facts, self._journal = tuple(rtypes), facts, journal
        self._sources = {source.name: source for source in sources}
        self.results: list[FileResult] = []
        self.recalled = 0

    def recall(self) -> Iterable[str]:
        """Takes over what the journal has; sentences about what it has and is no longer so."""
        sweep(self._output)
        for source in self._sources.values():
            result = self._journal.done(source)
            if result is not None:
                self.results.append(result)
        self.recalled = len(self.results)
        before = self._journal.names
        if again := len(before & self._sources.keys()) - self.recalled:
            yield f"{again} files have changed since they were scored, and are scored again"
        if gone := len(before - self._sources.keys()):
            yield (
                f"{gone} files that were scored earlier are no longer there: they are not in "
                "combined.csv and files.csv, their own tables are kept"
            )

    def run(self, crew: Crew, progress: Progress | None) -> None:
        """Scores what is left, the largest files first."""
        known = {result.file for result in self.results}
        self._complete_formats()
        sizes = {name: size_of(source.path) for name, source in self._sources.items()}
        left = [source for name, source in self._sources.items() if name not in known]
        left.sort(key=lambda source: (-sizes[source.name], source.name))
        hours = _Hours(progress, sum(sizes[source.name] for source in left), sizes)
        made = crew.results(
            left, lambda item, *amounts: hours.heard(item.name, *amounts), self._lost
        )
        with closing(made):
            for result in made:
                self._journal.add(self._sources[result.file], result)
                self.results.append(result)
                hours.done(result, len(self.results))

    def _complete_formats(self) -> None:
        """Other formats that an earlier call was not asked for, or did not come to."""
        for result in self.results:
            wanted = [
                rtype
                for rtype in self._rtypes
                if not table_path(self._output, result.file, ENDINGS[rtype]).exists()
            ]
            if wanted:
                source = self._sources[result.file]
                convert(source, result, self._output, wanted, self._facts.sample_rate)

    def _lost(self, source: Source, reason: str) -> FileResult:
        result = lost(source, reason, self._output, self._settings)
        if self._rtypes:
            convert(source, result, self._output, self._rtypes, self._facts.sample_rate)
        return result

    def kept(self) -> str:
        """What of the work is safe, and how to go on."""
        return (
            f"the tables of the {len(self.results)} files done so far are in {self._output}: the "
            "same command again goes on from there"
        )

    def finish(self, command: str, identity: dict[str, Any], outcome: str) -> None:
        """Writes the tables about all files; a full disk must not hide why a batch ended."""
        try:
            self._journal.require_in_place()
            sweep(self._output)
            self.results.sort(key=lambda result: result.file)
            if outcome != "finished":  # a table that is in place, and was not counted any more
                counted = {result.file for result in self.results}
                for name in self._sources.keys() - counted:
                    for ending in (NATIVE, *ENDINGS.values()):
                        table_path(self._output, name, ending).unlink(missing_ok=True)
            write_combined(
                self._output,
                [(self._sources[result.file], result) for result in self.results],
                self._settings,
                self._rtypes,
                self._facts.sample_rate,
            )
            self.describe(command, identity, outcome)
        except OSError as error:
            if outcome == "finished":
                raise BirdinvError(_stopped(error, self)) from error

    def describe(self, command: str, identity: dict[str, Any], outcome: str) -> None:
        """Writes `run.json`: the same for the same work, whenever and however it was done."""
        facts = self._facts
        weights = self._model.resolve()
        info = {
            "command": command,
            "model": str(weights),
            "model_sha256": facts.model_sha256,
            "settings": self._settings.as_dict(),
            "identity_sha256": hashlib.sha256(
                json.dumps(identity, sort_keys=True).encode()
            ).hexdigest(),
            "classes": list(facts.classes),
            "sample_rate": facts.sample_rate,
            "segment_samples": facts.windows.segment,
            "hop_samples": facts.windows.hop,
            "overlap": facts.windows.overlap,
            "shared_frames": facts.shared_frames,
            "versions": facts.versions,
            "inputs": len(self._sources),
            "statuses": dict(sorted(Counter(r.status for r in self.results).items())),
            "outcome": outcome,
        }
        write_json(self._output / "run.json", info)


def _stopped(error: OSError, batch: _Batch) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; mend that (space, permissions, path). {batch.kept()}"


class _Hours:
    """Progress in hours of audio; those to come are guessed from the bytes to come."""

    def __init__(self, progress: Progress | None, everything: int, sizes: dict[str, int]) -> None:
        self._progress, self._everything, self._sizes = progress, everything, sizes
        self._hours = self._told = 0.0
        self._read = 0  # bytes
        self._promised: dict[str, float] = {}  # hours, of the files at work

    def heard(self, name: str, seconds: float, promised_s: float) -> None:
        """So many seconds more of a file that promises so many."""
        self._promised[name] = promised_s / 3600
        self._update(seconds / 3600)

    def done(self, result: FileResult, files: int) -> None:
        """A file is through."""
        self._promised.pop(result.file, None)
        self._hours += float(result.read_s) / 3600
        self._read += self._sizes[result.file]
        self._update(max(0.0, self._hours - self._told), note=f"{files} files")

    def _update(self, hours: float, note: str | None = None) -> None:
        self._told += hours
        if self._progress is None:
            return
        at_work = sum(self._sizes[name] for name in self._promised)
        known = self._hours + sum(self._promised.values())
        total = known * self._everything / max(1, self._read + at_work)
        self._progress.update(hours, total=total, note=note)
