"""When a recording began, from the name that its recorder gave it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

ABSOLUTE_TIME = "absolute_time"  # the last column of tables that have it

# Date, a separator (`T` of Frontier Labs, `$` of a Song Meter SM3 with GPS), time, zone; the `T`
# after the time marks a triggered AudioMoth. A fraction or half a zone after it is not understood,
# and a time without its zone would be wrong, so neither counts.
_STAMP = re.compile(
    r"(?<![0-9A-Za-z])([0-9]{8})[_T$]([0-9]{6})(?:(Z)|([+-])([0-9]{2})([0-9]{2})|T)?"
    r"(?![0-9A-Za-z]|[+-][0-9]|\.[0-9])"
)
_HEX = re.compile(r"([0-9A-F]{8})(?:\.[^.]*)?")


def recorded_at(name: str) -> datetime | None:
    """The start of a recording from its file name, or None.

    Known are `[PREFIX_]20260501_053000[REST].wav` of AudioMoth, Song Meter, SwiftOne and others,
    with `T` for the underscore, and with `Z` or `+0200` after the time, which make the result
    aware; otherwise it is naive, what the recorder's clock said. `5CE8B2C0.WAV` of early AudioMoths
    is in UTC. Dates that do not exist, years but 1990–2100 (hexadecimal 2015–2100), and names
    with two different times say nothing.

    Args:
        name: a path with forward slashes; its folders are not looked at.

    >>> recorded_at("site 3/SM4_0+1_20260501_053000.wav")
    datetime.datetime(2026, 5, 1, 5, 30)
    """
    base = name.rsplit("/", 1)[-1]
    if found := _HEX.fullmatch(base):
        start = datetime.fromtimestamp(int(found[1], 16), UTC)
        return start if 2015 <= start.year <= 2100 else None
    times = {time for found in _STAMP.finditer(base) if (time := _time(found)) is not None}
    return times.pop() if len(times) == 1 else None


def _time(found: re.Match[str]) -> datetime | None:
    try:
        start = datetime.strptime(found[1] + found[2], "%Y%m%d%H%M%S")
    except ValueError:
        return None
    if not 1990 <= start.year <= 2100:
        return None
    if found[3]:
        return start.replace(tzinfo=UTC)
    if found[4]:
        hours, minutes = int(found[5]), int(found[6])
        if hours > 14 or minutes > 59:  # the farthest zone is +14:00
            return None
        ahead = timedelta(hours=hours, minutes=minutes)
        return start.replace(tzinfo=timezone(-ahead if found[4] == "-" else ahead))
    return start


def absolute(start: datetime, seconds: float) -> str:
    """`start` + `seconds` to the millisecond in ISO 8601, without a zone if `start` is naive.

    >>> absolute(datetime(2026, 5, 1, 5, 30), 90.0625)
    '2026-05-01T05:31:30.062'
    """
    # Rounded as a table's seconds are printed; isoformat alone would cut.
    return (start + timedelta(seconds=round(seconds, 3))).isoformat(timespec="milliseconds")
