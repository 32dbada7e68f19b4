"""Recordings in, tables of detections out; one bad file costs itself alone, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birdinv.audio.sources import find_sources
from birdinv.audio.windows import Windows
from birdinv.errors import BirdinvError, Interrupted, SettingError
from birdinv.files import require_new
from birdinv.prediction.batch import Batch, Crew, stopped
from birdinv.prediction.formats import ENDINGS, require_formats
from birdinv.prediction.job import FileResult, Job, Settings
from birdinv.prediction.journal import NAME as JOURNAL
from birdinv.prediction.journal import Journal, inputs_of
from birdinv.prediction.pool import Here, Processes
from birdinv.prediction.recorders import recorded_at
from birdinv.progress import Progress
from birdinv.words import counted

STALL_S = 300.0
LONGEST_S = 1e6
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
    moved: bool = False,
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
        moved: the inputs of an earlier call are at another place now.

    Raises:
        Interrupted: on Ctrl-C; what is done is kept.
        BirdinvError: no such model or input, bad settings, `output` holds something else, or the
            disk is full or gone; what is done is kept.
    """
    if workers < 0:
        raise SettingError(f"--workers is {workers}; give at least 1")
    if not 0 < stall_s <= LONGEST_S:
        raise SettingError(f"--stall is {stall_s:g}; give seconds above 0, {LONGEST_S:g} at most")
    require_formats(rtypes)
    if not (output / JOURNAL).is_file():
        require_new(output, "predictions")
    # What is there already would tell old news.
    kept_up = [rtype for rtype, end in ENDINGS.items() if (output / f"combined{end}").exists()]
    rtypes = tuple(dict.fromkeys([*rtypes, *kept_up]))
    report = report or (output / "report.html").exists()
    sources = find_sources(inputs)
    arguments = (model, settings, output, rtypes)
    with _crew(arguments, min(workers, len(sources.found)), cluster, stall_s) as crew:
        identity = {
            "model": crew.facts.model_sha256,
            "description": crew.facts.description_sha256,
            **settings.as_dict(),
            "inputs": inputs_of(inputs),
        }
        with closing(Journal(output, identity, moved=moved)) as journal:
            batch = Batch(model, output, settings, rtypes, sources, crew.facts, journal)
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
                raise BirdinvError(stopped(error, batch)) from error
            finally:
                try:
                    if outcome != "finished":
                        crew.close()  # what they have in hand is swept away with what was begun
                    batch.finish(command, identity, outcome)
                except KeyboardInterrupt:  # again
                    raise Interrupted(f"interrupted; {batch.kept()}") from None
    if sources.others:
        warnings.append(f"other files beside the recordings, passed over: {sources.others}")
    if settings.absolute_time:
        timeless = sum(recorded_at(result.file) is None for result in batch.results)
        if timeless:
            warnings.append(
                f"no time in the name of {counted(timeless, 'file')}: their absolute_time is empty"
            )
    if report:
        from birdinv.reporting.detections import write_detections_page

        sound = {source.name: source.path for source in sources.found}

        def drawn(read: int, of: int) -> None:
            if progress is not None:
                progress.update(0, note=f"the page: {read} of {counted(of, 'recording')}")

        rate = crew.facts.sample_rate
        write_detections_page(output, sound, sample_rate=rate, progress=drawn)
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
