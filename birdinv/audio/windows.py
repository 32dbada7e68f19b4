"""Overlapping windows as integer arithmetic; seconds appear only when they are printed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from birdinv.errors import SettingError

MIN_SAMPLES = 512  # two activity frames; shorter windows say nothing about a bird


@dataclass(frozen=True)
class Windows:
    """Windows of `segment` samples, one every `hop` samples."""

    segment: int
    hop: int

    @classmethod
    def from_seconds(cls, segment_s: float, overlap: float, sample_rate: int) -> Windows:
        """Windows of `segment_s` seconds of which a fraction `overlap` in [0, 1) is shared."""
        if not 0 <= overlap < 1:
            raise SettingError(
                f"the overlap is {overlap:g}; it is the fraction of a window shared with the next "
                "one: give a number from 0 to below 1, such as 0.9"
            )
        if not 0 < segment_s <= 60:
            raise SettingError(
                f"the segment length is {segment_s:g} s; give a length above 0 and up to 60 s"
            )
        segment = round(segment_s * sample_rate)
        if segment < MIN_SAMPLES:
            raise SettingError(
                f"a segment of {segment_s:g} s has {segment} samples at {sample_rate} Hz; "
                f"at least {MIN_SAMPLES} are needed: take a longer segment or a higher rate"
            )
        # 0.9 is not a binary fraction: rounding the difference keeps the hop at a tenth.
        return cls(segment, max(1, round(segment * (1 - overlap))))

    def on_strides(self, stride: int) -> Windows:
        """The same with the hop rounded to a multiple of `stride`, if the windows overlap at all.

        The hop stays below the segment, so that windows still overlap.
        """
        if self.hop >= self.segment or stride >= self.segment:
            return self
        most = (self.segment - 1) // stride
        return Windows(self.segment, stride * min(most, max(1, round(self.hop / stride))))

    @property
    def overlap(self) -> float:
        """The fraction of a window shared with the next one, after rounding to samples."""
        return 1 - self.hop / self.segment

    def count(self, samples: int) -> int:
        """How many whole windows lie in `samples` samples."""
        return max(0, (samples - self.segment) // self.hop + 1)

    def covering(self, samples: int) -> int:
        """How many windows it takes to cover every sample, the last one padded if need be."""
        if samples <= 0:
            return 0
        return max(0, -(-(samples - self.segment) // self.hop)) + 1

    def seconds(self, first: int, last: int, sample_rate: int, samples: int) -> tuple[str, str]:
        """Start of window `first` and end of window `last`, or of the recording, as printed."""
        end = min(last * self.hop + self.segment, samples)
        return f"{first * self.hop / sample_rate:.3f}", f"{end / sample_rate:.3f}"

    def starts(self, start: int, end: int) -> np.ndarray:
        """First samples (int64) of the whole windows in the span [start, end)."""
        return start + self.hop * np.arange(self.count(end - start), dtype=np.int64)
