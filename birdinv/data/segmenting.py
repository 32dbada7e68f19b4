"""Folders of recordings → a store: find, label, read, split, write."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from birdinv.audio.export import export_segments
from birdinv.audio.sources import Source, find_sources
from birdinv.audio.store import Recording
from birdinv.audio.store_writer import Stored, StoreWriter
from birdinv.audio.windows import Windows
from birdinv.data.labels import Label, Labels, is_non_event, labels_from_csv, labels_from_folders
from birdinv.data.splits import assign_splits, draw_splits
from birdinv.errors import BirdinvError, Interrupted, SettingError
from birdinv.files import require_new, size_of, whole_folder
from birdinv.progress import Progress
from birdinv.words import counted

RATES_HZ = (2_000, 384_000)


@dataclass(frozen=True)
class SegmentSettings:
    """How recordings become a store; every field is kept in `store.json`."""

    segment_s: float = 0.5  # INV A.2
    overlap: float = 0.9  # INV A.2
    sample_rate: int = 22050  # the authors' audio pipeline
    activity: bool = True
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    seed: int = 0


@dataclass(frozen=True)
class Columns:
    """What a labels CSV calls its columns."""

    file: str = "file"
    label: str = "label"
    group: str | None = None


@dataclass(frozen=True)
class Segmented:
    """What `segment` found; every input is one of `recordings`."""

    recordings: list[Recording]
    segments: dict[str, int]  # by recording
    classes: list[str]
    warnings: list[str]

    @property
    def statuses(self) -> Counter[str]:
        """How many recordings ended ok, partial, empty and unreadable."""
        return Counter(recording.status for recording in self.recordings)


def segment(
    inputs: Sequence[Path],
    output: Path,
    settings: SegmentSettings = SegmentSettings(),
    *,
    unlabelled: Sequence[Path] = (),
    labels: Path | Sequence[Path] | None = None,
    columns: Columns = Columns(),
    export: bool = False,
    progress: Progress | None = None,
) -> Segmented:
    """Writes the store `output`, whole or not at all, and says what became of every input.

    Args:
        inputs: recordings and folders of recordings; their class is their folder's name, unless
            `labels` names a CSV, or several that are read together (see `labels_from_csv`).
        unlabelled: folders of recordings without a label; they serve training only. Those that a
            table of `labels` gives a label are labelled like any other.
        export: also writes every segment as a WAV file, below `output/segments`.

    Raises:
        Interrupted: on Ctrl-C; nothing is left behind.
        BirdinvError: bad settings, inputs or labels; `output` exists.
    """
    if not RATES_HZ[0] <= settings.sample_rate <= RATES_HZ[1]:
        raise SettingError(
            f"the sample rate is {settings.sample_rate} Hz; give one from {RATES_HZ[0]} to "
            f"{RATES_HZ[1]} Hz, such as 22050"
        )
    windows = Windows.from_seconds(settings.segment_s, settings.overlap, settings.sample_rate)
    draw_splits([], settings.fractions, settings.seed)  # refuses bad fractions before hours of work
    require_new(output, "store")
    _require_apart(inputs, unlabelled)
    sources = find_sources([*inputs, *unlabelled])
    for locked, reason in sources.unlisted:  # a store that lacks what is in it would mislead
        raise BirdinvError(f"{locked} cannot be listed: {reason}; give what can be read as inputs")
    own = [s for s in sources.found if s.root not in unlabelled]
    others = [s for s in sources.found if s.root in unlabelled]
    tables = [labels] if isinstance(labels, Path) else list(labels or ())
    names = " or ".join(table.name for table in tables)
    known = _labels(own, others, tables, columns)
    named = f"named in {names}, but not found below the inputs" if tables else ""
    with whole_folder(output) as folder:
        writer = StoreWriter(folder, settings.sample_rate, windows, activity=settings.activity)
        try:
            stored = _read_all(writer, sources.found, known, progress)
            recordings = [
                _row(s.name, known.known.get(s.name, Label()), stored[s.name])
                for s in sources.found
            ]
            recordings += [_missing(file, label, named) for file, label in known.missing.items()]
            recordings.sort(key=lambda r: r.file)
            spans = {r.file: stored[r.file].spans for r in recordings if r.file in stored}
            segments = {f: sum(windows.count(b - a) for a, b in ab) for f, ab in spans.items()}
            usable = {file for file, count in segments.items() if count}
            recordings = assign_splits(recordings, usable, settings.fractions, settings.seed)
            classes = sorted({r.label for r in recordings if r.label and r.file in usable})
            if export:
                export_segments(writer, recordings, spans)
            writer.finish(
                recordings,
                spans,
                classes,
                [name for name in classes if is_non_event(name)],
                {
                    "segment_s": settings.segment_s,
                    "overlap": settings.overlap,
                    "activity": settings.activity,
                    "fractions": list(settings.fractions),
                    "seed": settings.seed,
                },
            )
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; {output} was not written, run the same again"
            ) from None
        finally:
            writer.close()
    warnings = _warnings(recordings, usable)
    unnamed = sum(not known.known.get(s.name, Label()).label for s in own)
    if tables and unnamed:
        warnings.append(f"{unnamed} recordings have no label in {names}: unlabelled")
    past_end = sum(s.past_end for s in stored.values())
    if past_end:
        stretches = sum(len(label.stretches) for label in known.known.values())
        warnings.append(
            f"{past_end} of {stretches} annotated stretches begin past the end of their recording"
        )
    roots = {source.root for source in sources.found}
    warnings += [f"no recording in {path}" for path in (*inputs, *unlabelled) if path not in roots]
    if sources.others:
        warnings.append(f"other files beside the recordings, passed over: {sources.others}")
    return Segmented(recordings, segments, classes, warnings)


def _require_apart(inputs: Sequence[Path], unlabelled: Sequence[Path]) -> None:
    """Refuses recordings that would be labelled and unlabelled at once."""
    for own in inputs:
        for other in unlabelled:
            a, b = Path(os.path.realpath(own)), Path(os.path.realpath(other))
            if a.is_relative_to(b) or b.is_relative_to(a):
                raise BirdinvError(
                    f"{own} and --unlabelled {other} overlap, so that recordings would count "
                    "twice; give folders that lie apart"
                )


def _labels(
    sources: Sequence[Source],
    unlabelled: Sequence[Source],
    tables: Sequence[Path],
    columns: Columns,
) -> Labels:
    if not tables:
        return labels_from_folders(sources)
    return labels_from_csv(
        tables,
        sources,
        others=unlabelled,
        file_column=columns.file,
        label_column=columns.label,
        group_column=columns.group,
    )


def _read_all(
    writer: StoreWriter, sources: Sequence[Source], labels: Labels, progress: Progress | None
) -> dict[str, Stored]:
    """Reads every recording once, in the order of their names."""
    sizes = {source.name: size_of(source.path) for source in sources}
    everything, done, hours = max(1, sum(sizes.values())), 0, 0.0
    stored = {}
    for source in sources:
        done += sizes[source.name]
        heard = _teller(progress, hours, everything / max(1, done), source.name)
        stretches = labels.known.get(source.name, Label()).stretches
        stored[source.name] = writer.add(source.path, heard, stretches=stretches)
        hours += stored[source.name].verdict.read_s / 3600
    return stored


def _teller(
    progress: Progress | None, hours: float, ahead: float, name: str
) -> Callable[[float, float], None] | None:
    """Tells `progress` of one recording; `hours` were heard before it.

    The hours to come are guessed from the bytes to come, `ahead` times those so far: to look into
    every header first would cost a visit each.
    """
    if progress is None:
        return None

    def heard(seconds: float, promised_s: float) -> None:
        total = (hours + promised_s / 3600) * ahead
        progress.update(seconds / 3600, total=total, note=name[-30:])

    return heard


def _row(name: str, label: Label, stored: Stored) -> Recording:
    verdict = stored.verdict
    return Recording(
        file=name,
        label=label.label,
        group=label.group,
        split=label.split,
        status=verdict.status,
        reason=verdict.reason,
        declared_s="" if verdict.declared_s is None else f"{verdict.declared_s:.6f}",
        read_s=f"{verdict.read_s:.6f}",
        source_rate=verdict.source_rate,
        channels=verdict.channels,
        offset=stored.offset,
        frames=stored.frames,
        sha256=stored.sha256,
    )


def _missing(file: str, label: Label, reason: str) -> Recording:
    return Recording(
        file=file,
        label=label.label,
        group=label.group,
        split=label.split,
        status="unreadable",
        reason=reason,
        declared_s="",
        read_s="0.000000",
        source_rate=0,
        channels=0,
        offset=0,
        frames=0,
        sha256="",
    )


def _warnings(recordings: Sequence[Recording], usable: Collection[str]) -> list[str]:
    """What is wrong with the classes; `usable` are the names of recordings with segments."""
    warnings = []
    used = [r for r in recordings if r.label and r.file in usable]
    classes = {r.label for r in used}
    lost = {r.label for r in recordings if r.label} - classes
    if lost:
        warnings.append(
            f"no usable recording of {', '.join(sorted(lost))}: not a class of the store"
        )
    if len(used) > 1 and {r.group for r in used} == {used[0].group} != {""}:
        warnings.append(
            f"all labelled recordings are of one group, {used[0].group}: none can be held out from "
            "training; name another column with --group-column, or none"
        )
    known = {r.sha256 for r in used if r.sha256}
    copies = sum(not r.label and r.file in usable and r.sha256 in known for r in recordings)
    if copies:
        warnings.append(
            f"left out of training: {counted(copies, 'unlabelled recording')} with the same bytes "
            "as a labelled one"
        )
    for split, use in (("valid", "select on"), ("test", "test on")):
        absent = sorted(classes - {r.label for r in used if r.split == split})
        if absent:
            warnings.append(
                f"no {split} recording of {', '.join(absent)} to {use}: too few recordings or "
                "groups, or the splits that were given"
            )
    return warnings
