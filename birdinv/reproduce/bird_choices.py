"""Which recordings keep their label where they are added round by round: by suggestion, by chance.

Every round adds as many as the data set has classes; the first has one of each class, the same for
both ways. A round by suggestion asks the network of the round before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from birdinv.audio.store import Store
from birdinv.data.splits import hide_labels
from birdinv.errors import BirdinvError
from birdinv.suggestions import suggest
from birdinv.training.partition import read_roles

WAYS = ("suggested", "random")


def labelled_so_far(
    store: Store, way: str, labels: int, before: Path | None, seed: int
) -> set[str]:
    """The training recordings that keep their label.

    Args:
        labels: how many in all.
        before: the run of the round before, for "suggested"; None in the first round.

    Raises:
        BirdinvError: the run before is not there.
    """
    train = {
        r.file: r.label
        for r in store.recordings
        if r.label and r.split == "train" and store.spans.get(r.file)
    }
    first, _ = hide_labels(train, 1, seed)
    if labels <= len(first):
        return first
    if way == "random":
        others: Sequence[str] = sorted(train.keys() - first)
        order = np.random.default_rng([seed, len(others)]).permutation(len(others))
        return first | {others[i] for i in order[: labels - len(first)]}
    if before is None or not (before / "model").is_dir():
        raise BirdinvError(
            f"the round before, {before}, is not there; run the smaller numbers of labels too, or "
            "give the folder they were run in with --runs"
        )
    known = set(read_roles(before)["labelled"])
    # Recordings without any label of the store's own are not among those that could get one.
    asked = [s.file for s in suggest(before, store, len(store.recordings)) if s.file in train]
    return known | set(asked[: labels - len(known)])
