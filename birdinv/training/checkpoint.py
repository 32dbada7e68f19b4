"""`last.pt`: all that a run needs to go on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from birdinv.errors import BirdinvError
from birdinv.files import whole_file


class Stateful(Protocol):
    """A network, an optimiser, a balance: whatever can be put back as it was."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


@dataclass
class Checkpoint:
    """What a run has come to after `step` steps, beside the parts of its learner.

    Batches and dropout masks are functions of (seed, step), so no generator's state is needed.
    `seconds` and `sums` are the running totals since the last validation; `rows` those of
    `metrics.csv`; `best` the weights at the best of them.
    """

    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, str]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def keep_best(self, model: nn.Module) -> None:
        """Takes a copy of the weights as they are now."""
        self.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def save(self, path: Path, parts: Mapping[str, Stateful]) -> None:
        """Writes `path`, with the state of all `parts` of a learner, whole or not at all."""
        state = {**vars(self), **{name: part.state_dict() for name, part in parts.items()}}
        with whole_file(path, "wb") as file:
            torch.save(state, file)


def load_checkpoint(path: Path, parts: Mapping[str, Stateful]) -> Checkpoint:
    """Puts a saved state back, without running anything the file may contain.

    Raises:
        BirdinvError: it is not a checkpoint of this network by this birdinv.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state.pop(name))
        return Checkpoint(**state)
    except Exception as error:  # torch.load has no end of ways to fail on damaged bytes
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BirdinvError(
            f"{path} cannot be resumed from ({first}); train again into a new folder"
        ) from error
