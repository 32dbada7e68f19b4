"""`birdinv inspect`: a page, its numbers and its sounds, about a network and some inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from birdinv.errors import NothingReadable, SettingError
from birdinv.files import require_new, whole_folder, write_json
from birdinv.inspection import figures
from birdinv.inspection.filters import by_frequency, first_kernels
from birdinv.inspection.findings import Finding, bracket, bracket_numbers, look
from birdinv.inspection.sections import section, stretch_table
from birdinv.inspection.subjects import Subject, image_subjects, recording_subject
from birdinv.networks.saved import Description, load_model
from birdinv.reporting.markup import escaped, picture_of, write_page
from birdinv.spline.lipschitz import Lipschitz
from birdinv.words import counted

PAGE, NUMBERS = "inspection.html", "inspection.json"

_FILTERS_NOTE = """What the first layer listens for, sorted by pitch. Left, the shapes of some
filters; right, one row for each filter, dark where it hears, the line at its centre frequency. Dark
spots that are narrow are tuned filters, broad grey rows hear everything and tell little apart."""
_KERNELS_NOTE = """What the first layer looks for: light where it wants light, dark where dark."""
_BRACKET_NOTE = """How much the network can stretch a small change of its input on the way to its
scores, at most, after each operation. The triangle is a stretch that really happens somewhere; the
truth lies on the dotted line. Where it is low, small changes have small effects."""


def inspect(
    run: Path,
    inputs: Sequence[Path],
    output: Path,
    *,
    at_s: float | None = None,
    root: Path | None = None,
    tell: Callable[[str], None] = print,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Path, list[Finding], list[str]]:
    """Looks into a network with some inputs and writes the folder `output`.

    It holds the page, its numbers as JSON, and for recordings the sounds as WAV; it is written
    whole or not at all.

    Args:
        run: of recordings or images, or its model folder.
        inputs: recordings; images, or none for the first test image of each class.
        at_s: where in the recordings to look; None = where the network is surest.
        root: the folder of a run's images, if it has moved.
        tell: given a sentence for each input that cannot be looked at, or not fully read.
        step: told (steps done, steps in all).

    Returns:
        (path of the page, what was found, the sentences of inputs that were passed over or not
        fully read).

    Raises:
        BirdinvError: no run, `output` is taken, or not one input can be looked at.
    """
    require_new(output, "page")
    model, description = load_model(run)
    if description.hearing is not None and not inputs:
        raise SettingError(f"{run} was trained on recordings: give one or more to look at it with")
    if description.hearing is None and at_s is not None:
        raise SettingError(f"{run} was trained on images, which have no --at; leave it out")
    subjects, problems = _subjects(run, description, inputs, at_s, root, tell)
    total = len(subjects) + 1
    found: list[Finding] = []
    for subject in subjects:
        step(len(found), total)
        found.append(look(model, description.classes, subject))
    step(len(found), total)
    points = torch.cat([subject.x for subject in subjects[:8]])
    bound = bracket(model, description.sizes["shape"], points)
    with whole_folder(output) as folder:
        sections = [part for one in found for part in section(one, folder)]
        kernels = first_kernels(model)
        rate = description.hearing.sample_rate if description.hearing else None
        body = [
            f"<p>{_summary(run, description, found)}</p>",
            *(f'<p class="warn">{escaped(problem)}.</p>' for problem in problems),
            *sections,
            "<h2>The network, whatever it is given</h2>",
            _filters(kernels, rate),
            _bracket(bound),
        ]
        title = f"Inside {run.resolve().name}"
        write_page(folder / PAGE, title, body)
        numbers = {
            "network": description.network,
            "inputs": [one.to_dict() for one in found],
            "problems": problems,
            "first_layer": _filter_numbers(kernels, rate),
            "lipschitz": bracket_numbers(bound),
        }
        write_json(folder / NUMBERS, numbers)
    step(total, total)
    return output / PAGE, found, problems


def _subjects(
    run: Path,
    description: Description,
    inputs: Sequence[Path],
    at_s: float | None,
    root: Path | None,
    tell: Callable[[str], None],
) -> tuple[list[Subject], list[str]]:
    """(inputs that can be looked at, why the others cannot)."""
    found: list[Subject] = []
    problems: list[str] = []
    for path in inputs:
        try:
            if description.hearing is not None:
                found.append(recording_subject(run, path, at_s))
            else:
                found.extend(image_subjects(run, description, [path], root))
        except NothingReadable as error:
            problems.append(str(error))
    if not inputs:
        found.extend(image_subjects(run, description, [], root))
    if not found:
        raise NothingReadable("; ".join(problems))
    problems += [subject.note for subject in found if subject.note]
    for problem in problems:
        tell(problem)
    return found, problems


def _summary(run: Path, description: Description, found: Sequence[Finding]) -> str:
    kinds = "recording" if description.hearing is not None else "image"
    return (
        f"The network {escaped(description.network)} of <b>{escaped(run.resolve().name)}</b>, "
        f"which tells {counted(len(description.classes), 'class')} apart, looked into with "
        f"{counted(len(found), kinds)}. For each input such a network is a set of templates, one a "
        "class; the page shows them, what they let through, and how little it would take to change "
        "the answer."
    )


def _filters(kernels: tuple[str, np.ndarray] | None, rate: int | None) -> str:
    if kernels is None:
        return "<p>The network has no convolution whose filters could be shown.</p>"
    name, weights = kernels
    heading = f"<h3>Filters of its first layer, {escaped(name)}</h3>"
    if rate is not None and weights.ndim == 3:
        picture = figures.filters_picture(by_frequency(weights, rate), rate)
        return heading + picture_of(picture, "Filters by centre frequency", _FILTERS_NOTE)
    if weights.ndim == 4 and min(weights.shape[2:]) > 1:
        return heading + picture_of(
            figures.kernels_picture(weights), "Kernels of the first layer", _KERNELS_NOTE
        )
    return ""


def _filter_numbers(
    kernels: tuple[str, np.ndarray] | None, rate: int | None
) -> list[dict[str, float]] | None:
    """Pitch and bandwidth of each filter of waveforms, in Hz; None where there are none."""
    if kernels is None or rate is None or kernels[1].ndim != 3:
        return None
    found = by_frequency(kernels[1], rate)
    columns = (found.numbers, found.centre_hz, found.bandwidth_hz)
    return [
        {"filter": int(n), "centre_hz": float(hz), "bandwidth_hz": float(width)}
        for n, hz, width in zip(*columns, strict=True)
    ]


def _bracket(bound: Lipschitz | str) -> str:
    heading = "<h3>How much it can stretch</h3>"
    if isinstance(bound, str):
        return heading + stretch_table(bound)
    picture = figures.brackets([("the network", bound)])
    return heading + stretch_table(bound) + picture_of(picture, "Lipschitz bracket", _BRACKET_NOTE)
