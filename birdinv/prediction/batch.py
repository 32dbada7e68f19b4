"""The results of one folder of predictions, as they come together."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from birdinv.audio.sources import Source, Sources
from birdinv.errors import BirdinvError
from birdinv.files import size_of, sweep, write_json
from birdinv.prediction.combined import write_combined
from birdinv.prediction.formats import ENDINGS
from birdinv.prediction.job import NATIVE, Facts, FileResult, Settings, convert, lost, table_path
from birdinv.prediction.journal import NAME as JOURNAL
from birdinv.prediction.journal import Journal
from birdinv.progress import Progress
from birdinv.words import counted


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

    def close(self) -> None:
        """Ends the work, whatever is in hand; safe to call twice."""


class Batch:
    """The results of one folder of predictions, as they come together."""

    def __init__(
        self,
        model: Path,
        output: Path,
        settings: Settings,
        rtypes: Sequence[str],
        sources: Sources,
        facts: Facts,
        journal: Journal,
    ) -> None:
        self._model, self._output, self._settings = model, output, settings
        self._facts, self._journal = facts, journal
        self._rtypes = tuple(rtypes)
        self._sources = {source.name: source for source in sources.found}
        self.results = [
            FileResult(f"{name}/", "unreadable", f"the folder cannot be listed: {reason}")
            for name, reason in sources.unlisted
        ]
        self._unlisted = len(self.results)
        self._begun: set[str] = set()
        self.recalled = 0

    def recall(self) -> Iterable[str]:
        """Takes over what the journal has; sentences about what it has and is no longer so."""
        sweep(self._output)
        self._require_apart()
        again, before = 0, self._journal.names
        for source in self._sources.values():
            result = self._journal.done(source)
            if result is not None:
                self.results.append(result)
                self.recalled += 1
            elif source.name in before:
                again += 1
                self._forget(source.name)
        if again:
            yield f"scored again, since they have changed: {counted(again, 'file')}"
        if gone := len(before - self._sources.keys()):
            yield (
                f"scored earlier and no longer there: {counted(gone, 'file')}, left out of "
                "combined.csv and files.csv; their own tables are kept"
            )

    def _require_apart(self) -> None:
        """Raises where two tables would be one: `A.wav` and `a.wav` on a disk for Windows."""
        if not (self._output / JOURNAL.upper()).exists():
            return
        taken: dict[str, str] = {}
        for name in self._sources:
            other = taken.setdefault(str(table_path(self._output, name)).casefold(), name)
            if other != name:
                raise BirdinvError(
                    f"the disk of {self._output} does not tell {other} from {name}; give -o a "
                    "folder on another one, or rename one of them"
                )

    def _forget(self, name: str) -> None:
        """Removes the tables of a recording."""
        for ending in (NATIVE, *ENDINGS.values()):
            table_path(self._output, name, ending).unlink(missing_ok=True)

    def run(self, crew: Crew, progress: Progress | None) -> None:
        """Scores what is left, the largest files first."""
        known = {result.file for result in self.results}
        self._complete_formats()
        sizes = {name: size_of(source.path) for name, source in self._sources.items()}
        left = [source for name, source in self._sources.items() if name not in known]
        left.sort(key=lambda source: (-sizes[source.name], source.name))
        hours = Hours(progress, sum(sizes[source.name] for source in left), sizes)
        made = crew.results(
            self._begin(left), lambda item, *amounts: hours.heard(item.name, *amounts), self._lost
        )
        with closing(made):
            for result in made:
                self._journal.add(self._sources[result.file], result)
                self.results.append(result)
                hours.done(result, len(self.results))

    def _begin(self, sources: Iterable[Source]) -> Iterator[Source]:
        """The sources, each noted when it is taken."""
        for source in sources:
            self._begun.add(source.name)
            yield source

    def _complete_formats(self) -> None:
        """Other formats that an earlier call was not asked for, or did not come to."""
        for result in self.results:
            if result.table_bytes < 0:
                continue
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
        if self._rtypes and result.table_bytes >= 0:
            convert(source, result, self._output, self._rtypes, self._facts.sample_rate)
        return result

    def kept(self) -> str:
        """What of the work is safe, and how to go on."""
        return (
            f"the tables of {counted(len(self.results), 'file')} are in {self._output}; the same "
            "command again goes on from there"
        )

    def finish(self, command: str, identity: dict[str, Any], outcome: str) -> None:
        """Writes the tables about all files; a full disk must not hide why a batch ended."""
        try:
            self._journal.require_in_place()
            sweep(self._output)
            self.results.sort(key=lambda result: result.file)
            for name in self._begun - {result.file for result in self.results}:
                self._forget(name)  # a table that is in place, and was not counted any more
            write_combined(
                self._output,
                self.results,
                self._sources,
                self._settings,
                self._rtypes,
                self._facts.sample_rate,
            )
            self.describe(command, identity, outcome)
        except OSError as error:
            if outcome == "finished":
                raise BirdinvError(stopped(error, self)) from error

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
            "inputs": len(self._sources) + self._unlisted,
            "statuses": dict(sorted(Counter(r.status for r in self.results).items())),
            "outcome": outcome,
        }
        write_json(self._output / "run.json", info)


def stopped(error: OSError, batch: Batch) -> str:
    """The sentence about a disk that is full, gone or not ours: what is safe, and what to do."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; mend that (space, permissions, path): {batch.kept()}"


class Hours:
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
