"""What a run learns from, be it recordings or images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from birdinv.data.background import Background
from birdinv.data.batches import Source
from birdinv.networks.saved import Hearing


@dataclass(frozen=True)
class Task:
    """Samples by role, and what a run folder has to say about them.

    Args:
        origin: where the data is, for sentences.
        shape: of one input, without the batch.
        identity: the entries of `run.json` that tell this data and split from any other.
        facts: further entries of `run.json`.
        roles: the rows of `split.csv`; None where `identity` says who plays which role.
        hearing: how recordings become inputs; None for images.
        background: what may be mixed into recordings; None for images.
        paced: an epoch is a pass over the unlabelled samples also for an objective that learns
            nothing from them: it then takes the same labelled halves for as many steps (MS §3.1).
    """

    origin: str
    classes: list[str]
    shape: tuple[int, ...]
    labelled: Source
    unlabelled: Source
    valid: Source
    identity: Mapping[str, Any]
    facts: Mapping[str, Any]
    roles: Sequence[Mapping[str, str]] | None = None
    hearing: Hearing | None = None
    background: Background | None = None
    paced: bool = False
    warnings: tuple[str, ...] = ()
