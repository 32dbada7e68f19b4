"""The pictures of SW: unpooling beside upsampling (fig. 2), moved digits (figs. 3 and 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from birdinv.data.batches import translated
from birdinv.data.images import read_images
from birdinv.data.manifests import data_root
from birdinv.errors import BirdinvError
from birdinv.networks.saved import load_model
from birdinv.networks.swwae import SWWAE
from birdinv.reporting.figures import show_image
from birdinv.reproduce.cells import Cell
from birdinv.reproduce.curves import BLUE, VERMILION, WIDTH, describe, say
from birdinv.reproduce.reconstructions import first_of_each_class, kept_model
from birdinv.reproduce.sw_rows import KINDS, SHIFT, WINDOWS
from birdinv.training.images import ImageSamples

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DIGITS = 400  # dots of a scatter plot
_DIRECTIONS = {"horizontally": (0, 1), "vertically": (1, 0)}  # down, right


def unpooling_figures(
    cells: Sequence[Cell], runs: Path, root: Path | None
) -> Iterator[tuple[str, Figure]]:
    """Ten digits by upsampling, left, and by unpooling, right, a row a pooling (SW fig. 2).

    Of all rows of the table whose network is kept, also where one alone was asked for.
    """
    from matplotlib.figure import Figure

    every = (replace(cells[0], row=row) for row in cells[0].table.rows)
    kept = {cell.row.name: folder for cell in every if (folder := kept_model(cell, runs))}
    if not kept:
        return
    x = _digits(cells[0], data_root(root))
    figure = Figure(figsize=(WIDTH * 2, 3.9), layout="constrained")
    figure.suptitle(f"Test digits rebuilt by their own network, {describe(cells[0])}", fontsize=10)
    axes = figure.subplots(1 + len(WINDOWS), 2 * len(x), squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    for side, kind in enumerate(KINDS):
        columns = axes[:, side * len(x) : (side + 1) * len(x)]
        columns[0, len(x) // 2].set_title(_SIDES[kind], fontsize=10, loc="center")
        for row, window in enumerate((None, *WINDOWS)):
            pictures, left = x, ""
            name = "digit" if window is None else f"{window} × {window}"
            if window is not None:
                folder = kept.get(f"{kind}-{window}")
                if folder is None:
                    say(columns[row, 0], f"{name}: not run")
                    continue
                pictures = _network(folder)(x, decode=True).x_tilde
                left = f"{100 * float((pictures - x).square().sum() / x.square().sum()):.3g} % left"
            for axis, picture in zip(columns[row], pictures, strict=True):
                show_image(axis, picture.numpy())
            columns[row, 0].set_ylabel(
                f"{name}\n{left}", fontsize=8, rotation=0, ha="right", va="center"
            )
    yield "unpooling", figure


_SIDES = {
    "upsampling": "upsampling: without where, each value in all of its window",
    "unpooling": "unpooling: each value where it was",
}


def capsule_figures(
    cells: Sequence[Cell], runs: Path, root: Path | None
) -> Iterator[tuple[str, Figure]]:
    """What and where of moved digits (SW fig. 3), and reconstructions of them (SW fig. 4)."""
    folder = kept_model(cells[0], runs)
    if folder is not None:
        model, place = _network(folder), data_root(root)
        yield "what-where", _what_and_where(model, cells[0], place)
        yield "moved", _rebuilt(model, cells[0], place)


def _what_and_where(model: SWWAE, cell: Cell, root: Path) -> Figure:
    """Those of digits against those of the same digits moved, one feature plane."""
    from matplotlib.figure import Figure

    x = _digits(cell, root, _DIGITS)
    what, where = _top(model, x)
    plane = int(what.mean(dim=0).argmax())
    # A pixel is 1 / stride of a place, and the places of a window of k go from −1 to 1.
    pool = getattr(model, model.layers[-1]).pool
    stride = x.shape[2] / model.unpooled[-1][0]
    step = 2 / (pool.window[0] - 1) / stride
    figure = Figure(figsize=(WIDTH * 2, 6.4), layout="constrained")
    figure.suptitle(
        f"What and where of one feature plane of {len(what.T)}, {len(x)} test digits and the same "
        f"moved by {SHIFT} pixels, {describe(cell)}",
        fontsize=10,
    )
    axes = figure.subplots(2, 3, squeeze=False)
    for line, (direction, move) in zip(axes, _DIRECTIONS.items(), strict=True):
        moved = {sign: _top(model, _moved(x, move, sign * SHIFT)) for sign in (1, -1)}
        _scatter(line[0], f"what, {direction}", what[:, plane], {
            sign: each[0][:, plane] for sign, each in moved.items()
        }, 0.0)  # fmt: skip
        for axis, d, name in zip(line[1:], (1, 0), "xy", strict=True):
            _scatter(axis, f"where {name}, {direction}", where[:, plane, d], {
                sign: each[1][:, plane, d] for sign, each in moved.items()
            }, SHIFT * step * move[d])  # fmt: skip
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    return figure


def _scatter(
    axis: Axes, title: str, still: Tensor, moved: dict[int, Tensor], expected: float
) -> None:
    """One scatter plot: still digits to the right, moved ones upwards."""
    for sign, colour, marker in ((1, BLUE, "o"), (-1, VERMILION, "^")):
        axis.scatter(
            still, moved[sign], s=9, marker=marker, facecolors="none", edgecolors=colour,
            linewidths=0.7, label=f"moved by {sign * SHIFT:+d}",
        )  # fmt: skip
    low = float(still.min())
    for sign, colour in ((1, BLUE), (-1, VERMILION)):
        axis.axline(
            (low, low + sign * expected), slope=1, color=colour, lw=0.8, ls=":",
            label=f"as the digit moved, {sign * SHIFT:+d}",
        )  # fmt: skip
    by = " and ".join(f"{float((moved[sign] - still).mean()):+.3f}" for sign in (1, -1))
    with np.errstate(invalid="ignore"):  # of a plane that is always the same: nan
        same = float(np.corrcoef(still.repeat(2), torch.cat([moved[1], moved[-1]]))[0, 1])
    axis.set_title(f"{title}\nmoved by {by}, correlation {same:.2f}", fontsize=9)
    axis.set_xlabel("of the digit", fontsize=9)
    axis.set_ylabel("of the digit moved", fontsize=9)


def _rebuilt(model: SWWAE, cell: Cell, root: Path) -> Figure:
    """Digits, their reconstructions, and those of the digits moved both ways."""
    from matplotlib.figure import Figure

    x = _digits(cell, root)
    rows = {
        "digit": x,
        "rebuilt": model(x, decode=True).x_tilde,
        **{
            f"moved {sign * SHIFT:+d},\nrebuilt": model(
                _moved(x, _DIRECTIONS["horizontally"], sign * SHIFT), decode=True
            ).x_tilde
            for sign in (1, -1)
        },
    }
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    figure.suptitle(
        f"Digits and reconstructions, soft pooling over 16 × 16\n{describe(cell)}", fontsize=9
    )
    axes = figure.subplots(len(rows), len(x), squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
            show_image(axis, picture.numpy())
        line[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    return figure


@torch.no_grad()
def _top(model: SWWAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """(what `[N, C]`, where `[N, C, 2]`) of the last pooling, whose map is one place."""
    for name in model.layers[:-1]:
        x = getattr(model, name)(x)
    what, where = getattr(model, model.layers[-1]).split(x)
    return what.flatten(1), where.flatten(2)


def _moved(x: Tensor, direction: tuple[int, int], pixels: int) -> Tensor:
    moves = pixels * torch.tensor(direction)[:, None].expand(2, len(x))
    return translated(x, moves)


def _network(folder: Path) -> SWWAE:
    model, description = load_model(folder)
    if not isinstance(model, SWWAE):
        raise BirdinvError(
            f"{folder} holds {description.network}, which has no decoder; delete its run and run "
            "the cell again"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def _digits(cell: Cell, root: Path, count: int | None = None) -> Tensor:
    """Test images as the network of a cell sees them: the first of each class, or the first."""
    images = read_images(cell.dataset, root, "test")
    which = first_of_each_class(images.labels) if count is None else np.arange(count)
    return ImageSamples(images, which, pad=int(cell.row.settings.get("pad", 0))).inputs(
        np.arange(len(which))
    )
