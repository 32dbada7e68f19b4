"""One progress bar on a terminal, plain lines elsewhere, nothing where nobody asked."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

LINE_EVERY_S = 10.0


class Progress:
    """Counts work on stderr in `unit`; `total` may be corrected as better estimates come."""

    def __init__(self, description: str, unit: str, total: float | None = None) -> None:
        self._description, self._unit = description, unit
        self._done, self._total = 0.0, total
        self._started = self._spoke = time.monotonic()
        self._note = ""
        self._bar: Any = None
        if sys.stderr.isatty():
            form = "{desc}: {percentage:3.0f}%|{bar}| {n:.4g}/{total:.4g} {unit} "
            form += "{elapsed}<{remaining}{postfix}"
            self._bar = tqdm(
                desc=description, unit=unit, total=total, bar_format=form, dynamic_ncols=True
            )

    def update(self, amount: float, *, total: float | None = None, note: str | None = None) -> None:
        """`amount` more is done; `note` is a short text behind the bar."""
        self._done += amount
        self._total = self._total if total is None else max(total, self._done)
        self._note = self._note if note is None else note
        if self._bar is not None:
            self._bar.total = self._total
            if note is not None:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
        elif time.monotonic() - self._spoke >= LINE_EVERY_S:
            self._spoke = time.monotonic()
            self._say()

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the last state standing."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self) -> None:
        total = f" of {self._total:.4g}" if self._total else ""
        elapsed = time.monotonic() - self._started
        print(
            f"{self._description}: {self._done:.4g}{total} {self._unit}, {elapsed:.0f} s"
            + (f", {self._note}" if self._note else ""),
            file=sys.stderr,
            flush=True,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
