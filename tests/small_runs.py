"""Small runs on recordings and on images to look into, and images in place of a data set's."""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import make_store
from test_image_training import CONFIG, make_task, pictures

from birdinv.audio.store import Store
from birdinv.inspection import page, sections, subjects
from birdinv.training import scoring
from birdinv.training.config import TrainConfig
from birdinv.training.images import ImageSamples
from birdinv.training.loop import train, train_task

IMAGES = replace(
    CONFIG, network="swwae:(4)5c-2p-Kfc", objective="supervised", steps=20, balance=0.0
)
# Of these the first of each class are the numbers 3, 0 and 2.
TESTED = np.array([4, 7, 8, 3, 0, 1, 5, 6, 2, 9, 10, 11])


def recording_runs(folder: Path) -> Path:
    """`recordings`, their `store`, and on it the runs `run` and `other`, of other seeds."""
    store = Store(make_store(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(store, folder / "run", TrainConfig(epochs=2, batch_size=32), device="cpu")
        train(store, folder / "other", TrainConfig(epochs=6, batch_size=32, seed=1), device="cpu")
    return folder


def image_runs(folder: Path) -> Path:
    """The runs `images` and `images2`, of other seeds, on pictures of 20 × 20 pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed, name in enumerate(("images", "images2")):
            task = make_task()
            task.facts["classes"] = task.classes  # as those of a data set
            train_task(task, folder / name, replace(IMAGES, seed=seed), device="cpu")
    return folder


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> ImageSamples:
    """Pictures in place of the images that a run on images says it is judged on."""
    samples = ImageSamples(pictures(len(TESTED), seed=9), TESTED)
    for module in (subjects, scoring):
        monkeypatch.setattr(module, "samples_to_judge", lambda *_: samples)
    return samples


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture is drawn, which is half of the work."""
    for module in (page, sections):
        monkeypatch.setattr(module, "picture_of", lambda *_: "")


@pytest.fixture
def quick(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture is drawn and no bound is sought, which is most of the rest."""
    monkeypatch.setattr(page, "bracket", lambda *_: "none was sought")


def described(model: Path, copy: Path, **facts: Any) -> Path:
    """A copy of a model folder with other entries in its description."""
    shutil.copytree(model, copy)
    edit(copy / "model.json", lambda info: info.update(facts))
    return copy


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the object in a JSON file."""
    info = json.loads(path.read_text("utf-8"))
    change(info)
    path.write_text(json.dumps(info), "utf-8")
