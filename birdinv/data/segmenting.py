"""Folders of recordings → a store: find, label, read, split, write."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from birdinv.audio.sources import Source, find_sources
from birdinv.audio.store import Recording, Stored, StoreWriter
from birdinv.audio.windows import Windows
from birdinv.data.labels import Label, Labels, is_non_event, labels_from_csv, labels_from_folders
from birdinv.data.splits import Item, draw_splits
from birdinv.errors import BirdinvError, Interrupted
from birdinv.files import require_new, safe_name, whole_file, whole_folder
from birdinv.progress import Progress

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
    labels: Path | None = None,
    columns: Columns = Columns(),
    export: bool = False,
    progress: Progress | None = None,
) -> Segmented:
    """Writes the store `output`, whole or not at all, and says what became of every input.

    Args:
        inputs: recordings and folders of recordings; their class is their folder's name, unless
            `labels` names a CSV (see `labels_from_csv`).
        unlabelled: folders of recordings without a label; they serve training only.
        export: also writes every segment as a WAV file, below `output/segments`.

    Raises:
        Interrupted: on Ctrl-C; nothing is left behind.
        BirdinvError: bad settings, inputs or labels; `output` exists.
    """
    if not RATES_HZ[0] <= settings.sample_rate <= RATES_HZ[1]:
        raise BirdinvError(
            f"the sample rate is {settings.sample_rate} Hz; give one from {RATES_HZ[0]} to "
            f"{RATES_HZ[1]} Hz, such as 22050"
        )
    windows = Windows.from_seconds(settings.segment_s, settings.overlap, settings.sample_rate)
    draw_splits([], settings.fractions, settings.seed)  # refuses bad fractions before hours of work
    require_new(output, "store")
    _require_apart(inputs, unlabelled)
    sources = find_sources([*inputs, *unlabelled])
    known = _labels([s for s in sources.found if s.root not in unlabelled], labels, columns)
    named = f"named in {labels.name}, but not found below the inputs" if labels else ""
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
            segments = {f: sum(windows.count(b - a) for a, b in own) for f, own in spans.items()}
            recordings = _with_splits(recordings, segments, settings)
            usable = [r for r in recordings if segments.get(r.file)]
            classes = sorted({r.label for r in usable if r.label})
            if export:
                _export(writer, recordings, spans)
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
    warnings = _warnings(recordings, usable, labels)
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


def _labels(sources: Sequence[Source], labels: Path | None, columns: Columns) -> Labels:
    if labels is None:
        return labels_from_folders(sources)
    return labels_from_csv(
        labels,
        sources,
        file_column=columns.file,
        label_column=columns.label,
        group_column=columns.group,
    )


def _read_all(
    writer: StoreWriter, sources: Sequence[Source], labels: Labels, progress: Progress | None
) -> dict[str, Stored]:
    """Reads every recording once, in the order of their names."""
    sizes = {source.name: _size(source.path) for source in sources}
    everything, done, hours = max(1, sum(sizes.values())), 0, 0.0
    stored = {}
    for source in sources:
        done += sizes[source.name]
        heard = _teller(progress, hours, everything / max(1, done), source.name)
        own = writer.add(source.path, heard)
        hours += own.verdict.read_s / 3600
        stretches = labels.known.get(source.name, Label()).stretches
        stored[source.name] = _within(own, stretches, writer) if stretches else own
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


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _within(
    stored: Stored, stretches: Sequence[tuple[float, float]], writer: StoreWriter
) -> Stored:
    """Only what lies in the annotated stretches (seconds)."""
    rate, shortest = writer.sample_rate, writer.windows.segment
    spans = [
        (max(a, round(start_s * rate)), min(b, round(end_s * rate)))
        for start_s, end_s in stretches
        for a, b in stored.spans
    ]
    return replace(stored, spans=[(a, b) for a, b in spans if b - a >= shortest])


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
        file,
        label.label,
        label.group,
        label.split,
        "unreadable",
        reason,
        "",
        "0.000000",
        0,
        0,
        0,
        0,
        "",
    )


def _with_splits(
    recordings: Sequence[Recording], segments: Mapping[str, int], settings: SegmentSettings
) -> list[Recording]:
    """Draws a split for every labelled recording that has none; unlabelled ones serve training.

    Only recordings with segments take part, so that an unreadable one changes nobody's split. Two
    copies of one file count as one group. A group lies on one side whole, its unlabelled recordings
    too: those of a test group are not trained on.
    """

    def group(recording: Recording) -> str:
        return recording.group or recording.sha256 or recording.file

    sides = {group(r): r.split for r in recordings if r.split}
    items = [
        Item(r.file, r.label, group(r))
        for r in recordings
        if r.label and not r.split and group(r) not in sides and segments.get(r.file)
    ]
    drawn = draw_splits(items, settings.fractions, settings.seed)
    sides |= {item.group: drawn[item.name] for item in items}
    return [
        replace(r, split=r.split or sides.get(group(r), "" if r.label else "train"))
        for r in recordings
    ]


def _export(
    writer: StoreWriter,
    recordings: Sequence[Recording],
    spans: dict[str, list[tuple[int, int]]],
) -> None:
    """Every segment as `segments/<class>/<recording>/<first sample>.wav`."""
    import soundfile

    taken: set[Path] = set()
    for recording in recordings:
        folder = writer.folder / "segments" / safe_name(recording.label or "unlabelled")
        for name in recording.file.split("/"):
            folder /= safe_name(name)
        while folder in taken:  # two names may become safe in the same way
            folder = folder.with_name(f"{folder.name}_")
        taken.add(folder)
        for span in spans.get(recording.file, []):
            for start in writer.windows.starts(*span):
                first = recording.offset + int(start)
                samples = writer.samples(first, first + writer.windows.segment)
                with whole_file(folder / f"{start:010d}.wav", "wb") as file:
                    soundfile.write(
                        file, np.asarray(samples), writer.sample_rate, "PCM_16", format="WAV"
                    )


def _warnings(
    recordings: Sequence[Recording], usable: Sequence[Recording], labels: Path | None
) -> list[str]:
    warnings = []
    lost = {r.label for r in recordings if r.label} - {r.label for r in usable}
    if lost:
        warnings.append(
            f"no usable recording of {', '.join(sorted(lost))}: not a class of the store"
        )
    for split, use in (("valid", "select on"), ("test", "test on")):
        present = {r.label for r in usable if r.split == split}
        absent = sorted({r.label for r in usable if r.label} - present)
        if absent:
            warnings.append(
                f"no {split} recording of {', '.join(absent)}: too few recordings to {use}"
            )
    if labels is not None:
        count = sum(not r.label for r in recordings)
        if count:
            warnings.append(f"{count} recordings have no label in {labels.name}: unlabelled")
    return warnings
