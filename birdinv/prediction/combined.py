"""The tables about all recordings of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from birdinv.audio.sources import Source
from birdinv.files import row_writer, whole_file, write_csv
from birdinv.prediction.formats import write_formats
from birdinv.prediction.job import FileResult, Settings, columns, recorded, table_path

FILES = [f.name for f in fields(FileResult) if f.name not in ("marked", "table_bytes", "stamp")]
NOT_FINITE = "samples that are not finite, heard as zeros"


def write_combined(
    output: Path,
    results: Sequence[FileResult],
    sources: Mapping[str, Source],
    settings: Settings,
    rtypes: Sequence[str],
    sample_rate: int,
) -> None:
    """`combined.csv`, `files.csv`, `marked.csv` and the combined tables in other formats.

    Args:
        results: in the order of their names.
        sources: the recordings by their names.
    """
    written = [result for result in results if result.table_bytes >= 0]
    with whole_file(output / "combined.csv") as file:
        row_writer(file)(columns(settings))
        for result in written:
            with open(table_path(output, result.file), encoding="utf-8", newline="") as table:
                next(table)
                file.writelines(table)
    rows = ({name: getattr(result, name) for name in FILES} for result in results)
    write_csv(output / "files.csv", FILES, rows)
    with whole_file(output / "marked.csv") as file:
        write = row_writer(file)
        write(("file", "start_s", "end_s", "reason"))
        for result in results:
            for start, end in result.marked:
                write((result.file, start, end, NOT_FINITE))
    write_formats(
        rtypes,
        (
            (recorded(sources[result.file], result), table_path(output, result.file))
            for result in written
        ),
        lambda ending: output / f"combined{ending}",
        high_hz=sample_rate / 2,
    )
