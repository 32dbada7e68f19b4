"""A trained network that hears recordings, and `score`, for other people's programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from birdinv.audio.reading import BLOCK_FRAMES, Reader, Verdict, join_bad, mono_of
from birdinv.audio.windows import Windows
from birdinv.errors import BirdinvError
from birdinv.networks.saved import load_listener
from birdinv.prediction.scoring import ScoredRecording, WindowScorer
from birdinv.prediction.shared import frame_stride
from birdinv.threads import cpu_threads


@dataclass(frozen=True)
class Listener:
    """A trained network and the windows it is given.

    `asked` are the windows of the overlap that was asked for; `windows` are those in use, their hop
    rounded to the strides of the network's first layer where that lets them share frames.
    """

    scorer: WindowScorer
    sample_rate: int
    classes: list[str]
    non_events: list[str]
    asked: Windows

    @classmethod
    def load(
        cls, model: str | os.PathLike[str], *, overlap: float | None = None, exact_hop: bool = False
    ) -> Listener:
        """The network of a run or a model folder.

        Args:
            overlap: of the windows, a fraction in [0, 1); None = as in training.
            exact_hop: keep the hop of that overlap, and hear every window by itself unless it is a
                multiple of the first layer's stride anyway.

        Raises:
            BirdinvError: no such model, one of images, or an overlap out of range.
        """
        network, description, hearing = load_listener(Path(model))
        rate, windows = hearing.sample_rate, hearing.windows
        if overlap is not None:
            hop = Windows.from_seconds(windows.segment / rate, overlap, rate).hop
            windows = Windows(windows.segment, hop)
        stride = frame_stride(network)
        rounded = windows if exact_hop or stride is None else windows.on_strides(stride)
        with cpu_threads(1):
            scorer = WindowScorer(network, rounded)
            if not scorer.shares:  # nothing is won by another hop than the asked one
                scorer = WindowScorer(network, windows, share=False)
        return cls(scorer, rate, description.classes, hearing.non_events, windows)

    @property
    def windows(self) -> Windows:
        """The windows in use."""
        return self.scorer.windows

    def hear(self, recording: Path | _InMemory) -> ScoredRecording:
        """The recording's probabilities, to be iterated over once."""
        apart = self.windows.segment / self.sample_rate
        sound = Reader(recording, join_s=apart) if isinstance(recording, Path) else recording
        return ScoredRecording(sound, self.scorer, self.sample_rate)


@dataclass(frozen=True)
class Scores:
    """What a network hears in a recording, window by window.

    Attributes:
        start_s: where each window begins, in seconds, float64 `[N]`.
        end_s: where it ends, or the recording does.
        probabilities: float32 `[N, K]`; a row sums to 1, or to 0 for a window of digital silence.
        classes: the K names.
        marked: bool `[N]`: the window holds samples that are not finite, heard as zeros.
        verdict: how the reading went; `verdict.status` is ok, partial, empty or unreadable.
    """

    start_s: np.ndarray
    end_s: np.ndarray
    probabilities: np.ndarray
    classes: list[str]
    marked: np.ndarray
    verdict: Verdict


def score(
    model: Listener | str | os.PathLike[str],
    recording: str | os.PathLike[str] | np.ndarray,
    *,
    sample_rate: int | None = None,
    overlap: float | None = None,
    exact_hop: bool = False,
) -> Scores:
    """Probabilities of every class in every window of one recording, as `birdinv predict` has them.

    Args:
        model: a run of `birdinv train`, its model folder, or, to score many recordings, what
            `Listener.load` made of one.
        recording: a file, or samples: `[T]` or `[T, channels]`, floating ones at full scale 1, or
            int16.
        sample_rate: of samples, in Hz; a file has its own.
        overlap: of the windows, a fraction in [0, 1); None = as in training. The hop is rounded to
            a multiple of the network's stride, as far as that makes it faster.
        exact_hop: keep the hop of that overlap.

    Returns:
        Times and probabilities. A file that is no audio gives no windows and a verdict that says
        why; nothing about its content raises.

    Raises:
        BirdinvError: no such model or file, settings out of range, samples of a strange shape or
            type, or no `sample_rate` for samples.

    Example:
        >>> scores = birdinv.prediction.score("run", "dawn.wav")        # doctest: +SKIP
        >>> scores.classes[scores.probabilities[0].argmax()], scores.start_s[0]  # doctest: +SKIP
        ('robin', 0.0)
    """
    if not isinstance(model, Listener):
        model = Listener.load(model, overlap=overlap, exact_hop=exact_hop)
    elif overlap is not None or exact_hop:
        raise BirdinvError("a loaded model has its windows: give the overlap to Listener.load")
    heard = model.hear(_sound(recording, sample_rate))
    with cpu_threads(1):  # as in `predict`
        parts = [probabilities for _, probabilities in heard]
    none = np.zeros((0, len(model.classes)), np.float32)
    probabilities = np.concatenate([none, *parts])
    starts = np.arange(len(probabilities)) * model.windows.hop
    ends = np.minimum(starts + model.windows.segment, heard.frames)
    marked = np.zeros(len(probabilities), bool)
    for first, last in heard.marked:
        marked[first : last + 1] = True
    rate = model.sample_rate
    return Scores(starts / rate, ends / rate, probabilities, model.classes, marked, heard.verdict)


def _sound(recording: Any, sample_rate: Any) -> Path | _InMemory:
    if isinstance(recording, np.ndarray):
        return _InMemory(recording, sample_rate)
    if not isinstance(recording, str | os.PathLike):
        raise BirdinvError(
            f"the recording is a {type(recording).__name__}; expected a path, or samples as an "
            "array of NumPy"
        )
    if sample_rate is not None:
        raise BirdinvError("sample_rate is for samples; a file has its own: leave it out")
    path = Path(recording)
    if not path.exists():
        raise BirdinvError(f"{path} does not exist; give a recording, or samples")
    return path


class _InMemory:
    """Samples read as a file of them would be (`audio.reading.Reader`)."""

    def __init__(self, samples: np.ndarray, sample_rate: Any) -> None:
        if sample_rate is None:
            raise BirdinvError("samples have no sample rate of their own; give sample_rate in Hz")
        if not isinstance(sample_rate, int | np.integer):
            raise BirdinvError(f"sample_rate is {sample_rate!r}; give a whole number of Hz")
        if not 1_000 <= sample_rate <= 1_000_000:
            raise BirdinvError(f"sample_rate is {sample_rate}; give one from 1000 to 1000000 Hz")
        kind: Any = samples.dtype
        if samples.ndim not in (1, 2) or not (kind == np.int16 or kind.kind == "f"):
            raise BirdinvError(
                f"the samples are {kind} of shape {samples.shape}; expected floating ones or int16 "
                "of shape [T] or [T, channels]"
            )
        if samples.ndim == 2 and not 1 <= samples.shape[1] <= 1024:
            raise BirdinvError(
                f"the samples have {samples.shape[1]} channels; expected [T, channels]"
            )
        self._samples = samples if samples.ndim == 2 else samples[:, None]
        self.source_rate = int(sample_rate)
        self.promised_s = len(samples) / sample_rate
        self.bad: list[tuple[int, int]] = []
        self.verdict = Verdict("unreadable", "not read yet")

    def __enter__(self) -> _InMemory:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def __iter__(self) -> Iterator[np.ndarray]:
        nonfinite = 0
        scale = np.float32(1 / 32768 if self._samples.dtype == np.int16 else 1)
        for start in range(0, len(self._samples), BLOCK_FRAMES):
            block = self._samples[start : start + BLOCK_FRAMES].astype(np.float32) * scale
            mono, bad = mono_of(block)
            nonfinite += len(bad)
            join_bad(self.bad, bad + start, 1)
            yield mono
        seconds, total = self.promised_s, len(self._samples)
        reason = "there are no samples" if not total else ""
        if nonfinite:
            reason = (
                f"{nonfinite} of {total} samples were not finite, or as good as infinite, and "
                "became 0"
            )
        lost = "empty" if nonfinite == total else "partial"
        self.verdict = Verdict(
            lost if reason else "ok",  # type: ignore[arg-type]
            reason,
            seconds,
            seconds,
            self.source_rate,
            self._samples.shape[1],
        )
