"""One progress bar on a terminal, plain lines elsewhere, nothing where nobody asked."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

LINE_EVERY_S = 10.0
# tqdm's own formats write no decimals for hours and 1.2e+04 for steps.
BAR = "{{desc}}: {{percentage:3.0f}}%|{{bar}}| {{n:.{d}f}}/{{total:.{d}f}} {{unit}} "
BAR += "{{elapsed}}<{{remaining}}{{postfix}}"
NO_TOTAL = "{{desc}}: {{n:.{d}f}} {{unit}} {{elapsed}}{{postfix}}"


class Progress:
    """Counts work on stderr in `unit`; `total` may be corrected as better estimates come.

    Args:
        digits: decimals of the counts.
    """

    def __init__(self, description: str, unit: str, *, digits: int = 2) -> None:
        self._description, self._unit, self._digits = description, unit, digits
        self._done = 0.0
        self._total: float | None = None
        self._started = self._spoke = time.monotonic()
        self._note = ""
        self._bar: Any = None
        if sys.stderr.isatty():
            form = NO_TOTAL.format(d=digits)
            self._bar = tqdm(desc=description, unit=unit, bar_format=form, dynamic_ncols=True)

    def update(self, amount: float, *, total: float | None = None, note: str | None = None) -> None:
        """`amount` more is done; `note` is a short text behind the bar."""
        self._done += amount
        total = self._total if total is None else total
        self._total = None if total is None else max(total, self._done)  # a guess is no promise
        self._note = self._note if note is None else note
        if self._bar is not None:
            self._bar.total = self._total
            form = NO_TOTAL if self._total is None else BAR
            self._bar.bar_format = form.format(d=self._digits)
            if note is not None:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
        elif time.monotonic() - self._spoke >= LINE_EVERY_S:
            self._spoke = time.monotonic()
            self._say()

    def close(self) -> None:
        """Leaves the last state standing."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self) -> None:
        counts = [self._done] if self._total is None else [self._done, self._total]
        done = " of ".join(f"{count:.{self._digits}f}" for count in counts)
        elapsed = time.monotonic() - self._started
        print(
            f"{self._description}: {done} {self._unit}, {elapsed:.0f} s"
            + (f", {self._note}" if self._note else ""),
            file=sys.stderr,
            flush=True,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
