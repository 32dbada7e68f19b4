"""The time, as records of runs give it."""

from __future__ import annotations

import datetime


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
