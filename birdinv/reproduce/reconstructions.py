"""Test images and what networks make of them by their own inversion (INV fig. 1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from birdinv.data.images import read_images
from birdinv.data.manifests import data_root
from birdinv.errors import BirdinvError
from birdinv.files import read_json
from birdinv.inversion import reconstruct
from birdinv.networks.layers import normalise
from birdinv.networks.saved import load_model
from birdinv.reporting.figures import show_image
from birdinv.reproduce.cells import Cell
from birdinv.reproduce.curves import describe, say
from birdinv.reproduce.tables import POOLINGS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IMAGES = 8


def reconstruction_figures(
    cells: Sequence[Cell], runs: Path, root: Path | None
) -> Iterator[tuple[str, Figure]]:
    """For each network of which a model is kept: its name, and the grid of the poolings.

    Args:
        cells: of one data set, number of labels, preset and budget.
        runs: the folder of the runs; of each cell the lowest seed that was kept is taken.
        root: as in `data_root`; it is not looked at where no model is kept.
    """
    families: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        settings = cell.row.settings
        families.setdefault(settings["network"], {})[settings["options"]["pooling"]] = cell
    for network, poolings in families.items():
        kept = {pooling: kept_model(cell, runs) for pooling, cell in poolings.items()}
        there = {pooling: folder for pooling, folder in kept.items() if folder}
        if there:
            first = next(iter(poolings.values()))
            x = _images(first.dataset, data_root(root))
            title = f"{network}: test images and reconstructions\n{describe(first)}"
            spans = {pooling: poolings[pooling].duration for pooling in there}
            if len(set(spans.values())) > 1:
                each = ", ".join(f"{pooling} {span}" for pooling, span in spans.items())
                title = title.replace(f"({first.duration})", f"({each})")
            yield f"reconstruction-{network}", _grid(x, there, title)


def kept_model(cell: Cell, runs: Path) -> Path | None:
    """The folder of the model of the lowest seed of a cell, None where none is kept.

    A run of settings that the cell has no more is passed over.
    """
    found = {
        int(number): folder
        for folder in (runs / cell.table.name / cell.name).glob("seed-*/model")
        if (number := folder.parent.name.removeprefix("seed-")).isdecimal()
    }
    for seed, folder in sorted(found.items()):
        config = read_json(folder.parent / "run.json", "a run")["config"]
        if config == {**cell.config(seed).to_dict(), "threads": config.get("threads")}:
            return folder
    return None


def _images(dataset: str, root: Path) -> Tensor:
    """The first test image of each class, of eight at most, normalised `[N, C, H, W]`."""
    images = read_images(dataset, root, "test")
    pixels = np.ascontiguousarray(images.pixels[first_of_each_class(images.labels)[:_IMAGES]])
    return normalise(torch.from_numpy(pixels).to(torch.float32))


def first_of_each_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the first image of each class is, int64 `[K]`."""
    return np.unique(labels, return_index=True)[1]


def _grid(x: Tensor, models: Mapping[str, Path], title: str) -> Figure:
    """A row for each image: the original, and the reconstruction by each pooling's network."""
    from matplotlib.figure import Figure

    nothing = float(x.square().mean())
    columns: dict[str, Tensor | None] = {f"original\n(grey: {nothing:.3g})": x}
    for pooling in POOLINGS:
        if pooling in models:
            x_hat = _reconstruction(models[pooling], x)
            error = float((x_hat - x).square().mean())
            seed = models[pooling].parent.name.replace("-", " ")
            columns[f"{pooling}, {seed}\nR/D = {error:.3g}"] = x_hat
        else:
            columns[f"{pooling}\nnot run"] = None
    figure = Figure(figsize=(5.6, 0.9 + 1.2 * len(x)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(len(x), len(columns), squeeze=False)
    for (name, images), column in zip(columns.items(), axes.T, strict=True):
        column[0].set_title(name, fontsize=10)
        for i, axis in enumerate(column):
            axis.set_xticks([])
            axis.set_yticks([])
            if images is None:
                axis.set_frame_on(False)
                say(axis, "not run")
            else:
                show_image(axis, images[i].numpy())
    figure.supxlabel(
        "R/D: mean squared error per pixel, over these images; that of a plain grey picture is\n"
        "above the originals. Grey scales: ± the largest magnitude of each picture, 0 is mid-grey.",
        fontsize=8,
    )
    return figure


def _reconstruction(folder: Path, x: Tensor) -> Tensor:
    model, description = load_model(folder)
    shape = list(description.sizes["shape"])
    if shape != list(x.shape[1:]):
        raise BirdinvError(
            f"{folder} takes inputs of shape {shape}, and the test images have {list(x.shape[1:])}"
            "; delete its run and run the cell again"
        )
    with torch.no_grad():
        return reconstruct(model, x).x_hat
