"""Scoring recordings and writing tables of detections.

`score` and `Listener` are for other people's programs; they are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birdinv.prediction.listener import Listener as Listener
    from birdinv.prediction.listener import Scores as Scores
    from birdinv.prediction.listener import score as score

__all__ = ["Listener", "Scores", "score"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from birdinv.prediction import listener

        return getattr(listener, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
