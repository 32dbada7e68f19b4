"""What training recordings hold besides their birds, to be mixed into segments."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from birdinv.audio.store import Store


class Background:
    """Stretches of training recordings that nothing is learnt from, as long as a segment.

    They are the gaps between spans, in which nothing was heard, or of a recording with annotated
    stretches what was not annotated, and the segments of classes that stand for no bird.

    Args:
        store: where the samples are.
        labels: as in `Segments`; only these recordings take part.
    """

    def __init__(self, store: Store, labels: Mapping[str, str]) -> None:
        length = store.windows.segment
        gaps: list[tuple[int, int]] = []  # first and last start of a stretch
        for r in store.recordings:
            if r.file not in labels:
                continue
            spans = store.spans.get(r.file, [])
            if labels[r.file] in store.non_events and labels[r.file]:
                free = spans
            else:
                # Annotated spans may overlap, or one lie in another.
                ends = accumulate((end for _, end in sorted(spans)), max, initial=0)
                starts = [*(start for start, _ in sorted(spans)), r.frames]
                free = list(zip(ends, starts, strict=True))
            gaps += [(r.offset + a, r.offset + b - length) for a, b in free if b - a >= length]
        self._first = np.array([first for first, _ in gaps], np.int64)
        self._ends = np.cumsum([last - first + 1 for first, last in gaps], dtype=np.int64)
        self._audio, self._length = store.audio, length

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __call__(self, where: np.ndarray) -> Tensor:
        """Float32 stretches `[n, 1, T]` for numbers `[n]` in [0, 1), any place as likely."""
        place = (where * len(self)).astype(np.int64)
        gap = np.searchsorted(self._ends, place, side="right")
        before = np.where(gap > 0, self._ends[gap - 1], 0)
        windows = np.lib.stride_tricks.sliding_window_view(self._audio, self._length)
        stretches = windows[self._first[gap] + place - before]
        return torch.from_numpy(stretches)[:, None].to(torch.float32)
