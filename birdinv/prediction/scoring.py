"""A recording's windows, scored as they stream by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from birdinv.audio.reading import Verdict
from birdinv.audio.resampling import ahead, pcm, resampled
from birdinv.audio.windows import Windows
from birdinv.networks.layers import normalise
from birdinv.prediction.shared import shared_frames

# Windows in one pass through the network. Fixed, and counted from the start of each recording: the
# last bits of a matrix product depend on its size, so nothing else may.
BATCH = 64
SHORT_S = 20.0
SHARED_BATCH = 256  # of shared frames, which neighbouring batches compute twice


class Sound(AbstractContextManager["Sound"], Protocol):
    """A recording to be read once, front to back: `audio.reading.Reader`, or one in memory."""

    verdict: Verdict
    bad: list[tuple[int, int]]

    @property
    def source_rate(self) -> int:
        """In Hz, 0 when it cannot be read."""

    @property
    def promised_s(self) -> float:
        """Seconds it promises, 0 when it does not say."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Mono float32 blocks, full scale 1."""


class WindowScorer:
    """Probabilities of windows that follow each other.

    Where the network and the hop allow it the first layers run once for all windows
    (`prediction.shared`), else every window is heard by itself.

    Args:
        network: in eval mode, gives logits `[N, K]` for normalised `[N, 1, T]`.
        windows: what to cut; `windows.segment` is the network's T.
        share: False hears every window by itself in any case.
    """

    def __init__(self, network: nn.Module, windows: Windows, *, share: bool = True) -> None:
        self.windows = windows
        self._network = network
        self._shared = shared_frames(network, windows) if share else None
        self.batch = BATCH if self._shared is None else SHARED_BATCH

    @property
    def shares(self) -> bool:
        """Whether frames are shared."""
        return self._shared is not None

    @torch.no_grad()
    def __call__(self, samples: np.ndarray, count: int) -> np.ndarray:
        """Probabilities `[count, K]` of the first windows of int16 `samples`.

        A last window that reaches over the end is padded with the mean of what it has, rounded to a
        sample. A window of one constant value, such as digital silence, has probability 0 for every
        class.
        """
        segment, hop = self.windows.segment, self.windows.hop
        missing = (count - 1) * hop + segment - len(samples)
        if missing > 0:
            level = np.rint(samples[(count - 1) * hop :].mean())
            samples = np.concatenate([samples, np.full(missing, level, np.int16)])
        if self._shared is not None:
            taken, sounding = self._shared(samples, count)
            return _probabilities(self._network(taken), torch.from_numpy(sounding))
        views = np.lib.stride_tricks.sliding_window_view(samples, segment)[: count * hop : hop]
        x = normalise(torch.from_numpy(views.astype(np.float32))[:, None])
        return _probabilities(self._network(x), x.flatten(1).any(dim=1))


def _probabilities(logits: Tensor, sounding: Tensor) -> np.ndarray:
    return (torch.softmax(logits, dim=1) * sounding[:, None]).numpy()


class ScoredRecording:
    """Iterates over one recording as `(number of the first window, probabilities [B, K])`.

    Windows start every `hop` samples from 0; the last one is padded where the recording ends (see
    `WindowScorer`), so that every sample is covered. Memory does not depend on the length. After
    the iteration `verdict` is set; `frames`, the samples at the model's rate, counts along.

    Args:
        sound: the recording; however damaged, reading it does not raise.
        scorer: of the model.
        sample_rate: of the model, in Hz.
    """

    def __init__(self, sound: Sound, scorer: WindowScorer, sample_rate: int) -> None:
        self._sound, self._score, self._rate = sound, scorer, sample_rate
        self.frames = 0
        self.promised_s = sound.promised_s  # by the header, which may lie
        self.verdict = Verdict("unreadable", "not read yet")

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        windows, batch = self._score.windows, self._score.batch
        full = (batch - 1) * windows.hop + windows.segment
        parts, first = [np.zeros(0, np.int16)], 0  # which begin with window number `first`
        with self._sound as sound:
            blocks = resampled(sound, sound.source_rate, self._rate)
            if not sound.source_rate:
                blocks = iter(())
            # A thread is not worth its start where there is little to do beside it.
            short = 0 < sound.promised_s < SHORT_S
            with nullcontext(blocks) if short else ahead(blocks) as stream:
                for block in stream:
                    samples, _ = pcm(block)
                    self.frames += len(samples)
                    parts.append(samples)
                    if self.frames - first * windows.hop < full:
                        continue
                    held = np.concatenate(parts)
                    while len(held) >= full:
                        yield first, self._score(held[:full], batch)
                        held, first = held[batch * windows.hop :], first + batch
                    parts = [held]
        self.verdict = sound.verdict
        if self.frames < windows.segment / 2:
            if self.verdict.status in ("ok", "partial"):
                reason = (
                    f"{self.frames / self._rate:.3f} s is shorter than half a window of "
                    f"{windows.segment / self._rate:.3g} s"
                )
                notes = [self.verdict.reason, reason] if self.verdict.reason else [reason]
                self.verdict = replace(self.verdict, status="empty", reason="; ".join(notes))
            return
        left = windows.covering(self.frames) - first
        if left > 0:
            yield first, self._score(np.concatenate(parts), left)

    @property
    def marked(self) -> list[tuple[int, int]]:
        """First and last window of each stretch of windows with samples that were not finite."""
        windows, rate, source = self._score.windows, self._rate, self.verdict.source_rate
        most = windows.covering(self.frames) - 1 if self.frames >= windows.segment / 2 else -1
        stretches: list[tuple[int, int]] = []
        for start, end in self._sound.bad:  # whole numbers: samples of both rates in one unit
            first = max(0, (start * rate - windows.segment * source) // (windows.hop * source) + 1)
            last = min(most, (end * rate - 1) // (windows.hop * source))
            if first > last:
                continue
            if stretches and first <= stretches[-1][1] + 1:
                first = stretches.pop()[0]
            stretches.append((first, last))
        return stretches
