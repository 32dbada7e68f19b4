"""A recording with what a network hears in it, for the page of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from birdinv.audio.reading import Reader
from birdinv.audio.resampling import resampled
from birdinv.errors import NothingReadable
from birdinv.prediction.listener import Listener
from birdinv.prediction.tables import Choice, detections
from birdinv.reporting.figures import Detection
from birdinv.reporting.page import RecordingView
from birdinv.threads import cpu_threads

LONGEST_S = 30.0


def view_recording(run: Path, path: Path, *, min_conf: float = 0.5) -> RecordingView:
    """The first 30 s of a recording at the model's rate, with its detections, merged.

    Raises:
        NothingReadable: there is no sound in it.
    """
    listener = Listener.load(run)
    rate, windows = listener.sample_rate, listener.windows
    scored = listener.hear(path)
    last = int(LONGEST_S * rate)

    def first_windows() -> Iterator[tuple[int, np.ndarray]]:
        for first, probabilities in scored:
            if first * windows.hop >= last:
                return
            yield first, probabilities

    choice = Choice(min_conf, merge=0)
    classes, non_events = listener.classes, listener.non_events
    with cpu_threads(1):  # as in `predict`
        found = [
            Detection(
                a * windows.hop / rate,
                min(b * windows.hop + windows.segment, scored.frames) / rate,
                label,
                score,
            )
            for a, b, label, score in detections(first_windows(), classes, non_events, choice)
            if a * windows.hop < last
        ]
    parts: list[np.ndarray] = []
    with Reader(path) as reader:
        blocks = resampled(reader, reader.source_rate, rate) if reader.source_rate else ()
        for block in blocks:
            parts.append(block)
            if sum(map(len, parts)) >= last:
                break
        verdict = reader.verdict
    if not any(map(len, parts)):
        raise NothingReadable(f"{path} cannot be shown: {verdict.reason}")
    waveform = np.concatenate(parts)[:last]
    cut = f" (first {LONGEST_S:.0f} s)" if sum(map(len, parts)) > last else ""
    return RecordingView(path.name + cut, waveform, rate, found)
