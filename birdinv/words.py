"""Numbers in sentences."""

from __future__ import annotations

from typing import Any


def counted(count: Any, noun: str) -> str:
    """A count and what is counted: 1 class, 2 classes, 1,204 recordings; a dash for no number."""
    text = f"{count:,}" if type(count) is int else "–"
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{text} {noun if text == '1' else plural}"
