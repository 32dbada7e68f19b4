"""Data sets of recordings as stores, split as a preset asks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from birdinv.audio.store import Store
from birdinv.data.checks import check
from birdinv.data.segmenting import Columns, SegmentSettings, segment
from birdinv.errors import BirdinvError
from birdinv.files import write_csv
from birdinv.reproduce.presets import Preset

# Segments of spoken digits: most takes are shorter than half a second, and none is silent.
_SETTINGS: dict[str, dict[str, Any]] = {"fsdd": {"segment_s": 0.3, "activity": False}}
_GROUPS = {"fsdd": "speaker", "bird_kenya6": "author"}
_FEW = (0.6, 0.1, 0.3)  # the test set large enough to see a difference of some points


def bird_store(dataset: str, root: Path, stores: Path, seed: int, preset: Preset) -> Store:
    """The store of a data set; made where it is not there yet, from all files as they are now.

    Args:
        stores: the folder for such stores.
        seed: of the split.

    Raises:
        BirdinvError: the data set is not at hand or not whole.
    """
    if preset.grouped is not None and preset.grouped != _GROUPS.get(dataset):
        raise BirdinvError(
            f"{dataset} does not say the {preset.grouped} of a recording; take another --preset"
        )
    found = check(dataset, root)
    if not found.whole:
        raise BirdinvError(found.sentence)
    files = sorted(
        (path.relative_to(found.folder).as_posix(), path.stat().st_size)
        for path in found.folder.rglob("*")
        if path.is_file()
    )
    version = hashlib.sha256(repr(files).encode()).hexdigest()[:12]
    way = "" if preset.splits is None else f"-{preset.grouped or 'recording'}"
    path = stores / f"{dataset}-{version}{way}-{seed}"
    if path.exists():
        return Store(path)
    settings: dict[str, Any] = {**_SETTINGS.get(dataset, {}), "seed": seed}
    if preset.splits is not None:
        settings["fractions"] = _FEW
    labels, columns = _labels(found.folder, dataset, stores, preset)
    segment(
        [found.folder],
        path,
        SegmentSettings(**settings),
        labels=labels,
        columns=columns,
    )
    return Store(path)


def _labels(
    folder: Path, dataset: str, stores: Path, preset: Preset
) -> tuple[Path | None, Columns]:
    """The table of labels of a data set, where its folders do not say all."""
    if dataset == "fsdd":  # digit_speaker_take
        stores.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in folder.rglob("*_*_*.*"))
        rows = [
            dict(zip(("label", "speaker"), name.split("_"), strict=False)) | {"file": name}
            for name in names
        ]
        write_csv(stores / "fsdd.csv", ["file", "label", "speaker"], rows)
        return stores / "fsdd.csv", Columns(group=preset.grouped)
    if preset.grouped is None:
        return None, Columns()
    return folder / "metadata.csv", Columns("filename", "primary_label", preset.grouped)
