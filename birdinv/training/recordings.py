"""A store of recordings as something to learn from."""

from __future__ import annotations

from birdinv.audio.store import Store
from birdinv.data.background import Background
from birdinv.data.batches import Segments
from birdinv.networks.saved import Hearing
from birdinv.training.partition import Partition
from birdinv.training.task import Task


def recordings_task(
    store: Store, parts: Partition, group_s: float | None = None, *, paced: bool = False
) -> Task:
    """The segments of the recordings of a store by role.

    Args:
        group_s: as in `Segments`.
        paced: as in `Task`.
    """
    labelled, unlabelled, valid = (
        Segments(store, part, group_s) for part in (parts.labelled, parts.unlabelled, parts.valid)
    )
    return Task(
        origin=str(store.path),
        classes=store.classes,
        shape=(1, store.windows.segment),
        labelled=labelled,
        unlabelled=unlabelled,
        valid=valid,
        identity={"store_hash": store.hash, "split_hash": parts.hash},
        facts={
            "store": str(store.path.resolve()),
            "classes": store.classes,
            "counts": {
                "labelled_recordings": len(parts.labelled),
                "unlabelled_recordings": len(parts.unlabelled),
                "valid_recordings": len(parts.valid),
                "test_recordings": len(parts.test),
                "labelled_segments": len(labelled),
                "unlabelled_segments": len(unlabelled),
            },
        },
        roles=parts.rows,
        hearing=Hearing(
            sample_rate=store.sample_rate,
            segment_samples=store.windows.segment,
            hop_samples=store.windows.hop,
            non_events=store.non_events,
        ),
        background=Background(store, {**parts.labelled, **parts.unlabelled}),
        paced=paced,
        warnings=parts.warnings,
    )
