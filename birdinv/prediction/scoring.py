"""A recording's windows, scored as they stream by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from birdinv.audio.reading import Reader, Verdict
from birdinv.audio.resampling import ahead, pcm, resampled
from birdinv.audio.windows import Windows
from birdinv.networks.layers import normalise

# Windows in one pass through the network. Fixed, and counted from the start of each recording: the
# last bits of a matrix product depend on its size, so nothing else may.
BATCH = 64


class ScoredRecording:
    """Iterates over one recording as `(number of the first window, probabilities [B, K])`.

    Windows start every `hop` samples from 0; the last one is padded with its own mean where the
    recording ends, so that every sample is covered. A window of one constant value, such as digital
    silence, has probability 0 for every class. Memory does not depend on the length. After
    the iteration `verdict` is set, and `frames`, the samples at the model's rate, counts along.

    Args:
        path: the recording; however damaged, reading it does not raise.
        model: in eval mode, gives logits `[N, K]` for normalised `[N, 1, T]`.
        sample_rate: of the model, in Hz.
        windows: what to cut; `windows.segment` is the model's T.
    """

    def __init__(self, path: Path, model: nn.Module, sample_rate: int, windows: Windows) -> None:
        self._path, self._model = path, model
        self._rate, self._windows = sample_rate, windows
        self.frames = 0
        self.promised_s = 0.0  # seconds, by the header
        self.verdict = Verdict("unreadable", "not read yet")

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        segment, hop = self._windows.segment, self._windows.hop
        full = (BATCH - 1) * hop + segment
        held, first = np.zeros(0, np.int16), 0  # `held` begins with window number `first`
        with Reader(self._path) as reader:
            self.promised_s = reader.promised_s
            blocks = resampled(reader, reader.source_rate, self._rate)
            with ahead(blocks if reader.source_rate else iter(())) as stream:
                for block in stream:
                    samples, _ = pcm(block)
                    self.frames += len(samples)
                    held = np.concatenate([held, samples])
                    while len(held) >= full:
                        yield first, self._score(held[:full])
                        held, first = held[BATCH * hop :], first + BATCH
        self.verdict = reader.verdict
        if self.frames < segment / 2:
            if self.verdict.status in ("ok", "partial"):
                reason = (
                    f"{self.frames / self._rate:.3f} s is shorter than half a window of "
                    f"{segment / self._rate:.3g} s"
                )
                notes = [self.verdict.reason, reason] if self.verdict.reason else [reason]
                self.verdict = replace(self.verdict, status="empty", reason="; ".join(notes))
            return
        left = self._windows.covering(self.frames) - first
        if left > 0:
            yield first, self._score(held, left)

    @torch.no_grad()
    def _score(self, samples: np.ndarray, count: int = BATCH) -> np.ndarray:
        segment, hop = self._windows.segment, self._windows.hop
        whole = min(count, self._windows.count(len(samples)))
        parts: list[Tensor] = []
        if whole:
            views = np.lib.stride_tricks.sliding_window_view(samples, segment)[: whole * hop : hop]
            parts.append(torch.from_numpy(views.astype(np.float32)))
        for number in range(whole, count):
            rest = torch.from_numpy(samples[number * hop :].astype(np.float32))
            padded = rest.mean().repeat(segment)
            padded[: len(rest)] = rest
            parts.append(padded[None])
        x = normalise(torch.cat(parts)[:, None])
        logits: Tensor = self._model(x)
        sounding = x.flatten(1).any(dim=1, keepdim=True)
        return (torch.softmax(logits, dim=1) * sounding).numpy()
