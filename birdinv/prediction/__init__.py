"""Scoring recordings and writing tables of detections.

The names below are for other people's programs; they are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birdinv.prediction.job import Settings as Settings
    from birdinv.prediction.listener import Listener as Listener
    from birdinv.prediction.listener import Scores as Scores
    from birdinv.prediction.listener import score as score
    from birdinv.prediction.run import predict as predict
    from birdinv.prediction.tables import Choice as Choice

_HOME = {
    "Choice": "tables",
    "Listener": "listener",
    "Scores": "listener",
    "Settings": "job",
    "predict": "run",
    "score": "listener",
}

__all__ = ["Choice", "Listener", "Scores", "Settings", "predict", "score"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
