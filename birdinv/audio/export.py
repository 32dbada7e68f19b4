"""Segments as WAV files, for listening and for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from birdinv.audio.store import Recording
from birdinv.audio.store_writer import StoreWriter
from birdinv.files import safe_name, whole_file


def export_segments(
    writer: StoreWriter,
    recordings: Sequence[Recording],
    spans: Mapping[str, Sequence[tuple[int, int]]],
) -> None:
    """Writes every segment as `segments/<class>/<recording>/<first sample>.wav` in the store.

    Args:
        spans: recording → [start, end) in its samples.
    """
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
