"""`last.pt`: all that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from birdinv.errors import BirdinvError
from birdinv.files import whole_file


@dataclass
class Checkpoint:
    """State between two steps.

    Batches and dropout masks are functions of (seed, step), so no generator's state is needed.
    `sums` are the running totals of the current epoch; `rows` the finished epochs as in
    `metrics.csv`.
    """

    step: int
    model: dict[str, Any]
    optimiser: dict[str, Any]
    sums: dict[str, float]
    rows: list[dict[str, str]]
    best: dict[str, Any] = field(default_factory=dict)  # weights of the best epoch so far

    def save(self, path: Path) -> None:
        """Writes `path` whole or not at all."""
        with whole_file(path, "wb") as file:
            torch.save(vars(self), file)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint without running anything it may contain.

    Raises:
        BirdinvError: it is not a checkpoint of this birdinv.
    """
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (
        OSError,
        RuntimeError,
        TypeError,
        EOFError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BirdinvError(
            f"{path} cannot be resumed from ({first}); train again into a new folder"
        ) from error
