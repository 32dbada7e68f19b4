"""`birdinv inspect --compare`: the page, the numbers and the terminal's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from birdinv.files import whole_folder, write_json
from birdinv.inspection.comparison import EACH_CLASS, Comparison
from birdinv.inspection.figures import brackets
from birdinv.inspection.inside import LEVELS_DB, SEARCHED, Inside
from birdinv.inspection.sections import stretch_table
from birdinv.reporting.figures import COLOURS, WIDTH, name_curves, printable
from birdinv.reporting.markup import escaped, picture_of, table_of, write_page
from birdinv.spline.lipschitz import Lipschitz

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, NUMBERS = "comparison.html", "comparison.json"

# Of each measure: name, how it is printed, and how to read it.
MEASURES = {
    "segment_accuracy": ("Named right, samples", "%", "more is better"),
    "recording_accuracy": ("Named right, recordings", "%", "more is better"),
    "training_accuracy": ("Named right, labelled ones", "%", "what it learned from"),
    "generalisation_gap": ("Gap to those (Def. 6)", "%", "0: does alike on new ones"),
    "generalisation_objective": ("Error + gap (Def. 7)", "%", "0 is best"),
    "reconstruction": ("Left out by reconstruction", "x", "of the energy; 1 = all"),
    "reconstruction_cosine": ("Cosine of reconstruction", "c", "1 = the input, but for size"),
    "cosine_true": ("Cosine, true class", "c", "1 = template is the input"),
    "cosine_predicted": ("Cosine, predicted class", "c", "1 = template is the input"),
    "cosine_others": ("Cosine, wrong classes", "c", "best below 0 (theorem 5)"),
    "optimal": ("Distance to best templates", "x", "0 = theorem 5, 2 = opposite"),
    "bias": ("Bias in the scores", "x", "norm of b beside the scores'"),
    "lipschitz_lower": ("Stretch, at least", "g", "two inputs that were found"),
    "lipschitz_upper": ("Stretch, at most", "g", "from the layers' norms"),
    "flip_db": ("Change that fools it", "dB", "median; higher is safer"),
    "boundary_db": ("Change of templates", "dB", "median; none on a border"),
}

_CURVE_NOTE = """Read from left to right: the louder the change that is allowed, the fewer answers
stay right. It is the share that survives the smallest fooling change found, so the truth is at or
below each line."""
_DISTANCES_NOTE = """One square for each two inputs, sorted by class; the lines are the borders of
classes. Light: the units that are on are the same for both, dark: they have few in common. Above
before training, then after. A network that brings the inputs of a class together has light blocks
on the diagonal, the more so in its last layers (SPL figs. 16 to 18)."""
_BRACKET_NOTE = """How much each network can stretch a small change on the way to its scores, at
most, after each operation; triangles are stretches that were found."""
_ACTIVE_NOTE = """Active: the mean share of units that pass their argument on (SPL §4.3.2). Regions:
how many different codes of that layer the samples have, of as many as there are samples. Within and
between: mean distance of the codes of two inputs of one class, and of different classes, before
training → after; the smaller the first beside the second, the more the layer has sorted."""


def write_comparison(found: Comparison, output: Path) -> Path:
    """Writes the folder with the page and its numbers, whole or not at all; the page's path.

    Raises:
        BirdinvError: it cannot be written.
    """
    a, b = found.a, found.b
    rows = [
        (f"{title}: {note}", *(printed(one.measures.get(key), kind) for one in (a, b)))
        for key, (title, kind, note) in MEASURES.items()
    ]
    known = [(one.name, one.bracket) for one in (a, b) if isinstance(one.bracket, Lipschitz)]
    body = [
        f"<p>{_summary(found)}</p>",
        table_of(rows, head=("", "A", "B")),
        "<h2>How robust they are</h2>",
        picture_of(
            curves_picture(found), "Accuracy under the smallest fooling changes", _CURVE_NOTE
        ),
        "<h2>How they sort the inputs, layer by layer</h2>",
        *(
            f"<h3>{escaped(one.name)}</h3>"
            + picture_of(
                distances_picture(one, found.borders), "Distances of regions", _DISTANCES_NOTE
            )
            for one in (a, b)
            if one.distances
        ),
        _layers(found),
        "<h2>How much they can stretch</h2>",
        picture_of(brackets(known), "Lipschitz brackets", _BRACKET_NOTE) if known else "",
        *(f"<h3>{escaped(one.name)}</h3>{stretch_table(one.bracket)}" for one in (a, b)),
    ]
    with whole_folder(output) as folder:
        write_page(folder / PAGE, f"{a.name} and {b.name}", body)
        write_json(folder / NUMBERS, found.to_dict())
    return output / PAGE


def comparison_text(found: Comparison) -> str:
    """The measures as a table of 78 columns."""
    a, b = found.a, found.b
    samples = f"{found.samples} samples of the {found.split} set{_silent(found)}"
    lines = [samples, f"A: {a.name}", f"B: {b.name}"]
    lines.append(f"{'':<28} {'A':>9} {'B':>9}  how to read it")
    for key, (title, kind, note) in MEASURES.items():
        values = [printed(one.measures.get(key), kind) for one in (a, b)]
        lines.append(f"{title:<28} {values[0]:>9} {values[1]:>9}  {note}")
    return "\n".join(lines)


def printed(value: float | None, kind: str) -> str:
    """A measure as people read it."""
    if value is None:
        return "–"
    if kind == "%":
        return f"{100 * value:.1f} %"
    if kind == "dB":
        return f"{value:.1f} dB".replace("-", "−")
    if kind == "c":
        return f"{value:+.3f}".replace("-", "−")
    return f"{value:#.3g}" if kind == "g" else f"{value:.3f}"


def _summary(found: Comparison) -> str:
    return (
        f"Two networks of {len(found.classes)} classes: A is <b>{escaped(found.a.name)}</b>, B is "
        f"<b>{escaped(found.b.name)}</b>. Accuracies are of all of the {found.split} set, and "
        "of all labelled samples that each learned from; distances between inputs are of up to "
        f"{EACH_CLASS} of each class; stretches were searched for from {SEARCHED} samples on. All "
        f"else is of {found.samples} samples, evenly spread over that set{_silent(found)}."
    )


def _silent(found: Comparison) -> str:
    if not found.silent:
        return ""
    return f", without {found.silent} that are silent or of one colour"


def curves_picture(found: Comparison) -> Figure:
    """The share of answers that stay right, against the level of the change that is allowed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axis = figure.subplots()
    for one, colour in ((found.a, COLOURS[0]), (found.b, COLOURS[1])):
        shares = 100 * np.array(one.robustness)
        axis.plot(LEVELS_DB, shares, "-o", ms=3, color=colour, label="run")
    axis.set_ylim(-3, 103)
    axis.set_xlabel("Level of the change beside the input (dB)")
    axis.set_ylabel("Still named right (%)")
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    name_curves(axis, [found.a.name, found.b.name])
    return figure


def distances_picture(one: Inside, borders: Sequence[int]) -> Figure:
    """Distances of regions, before training above and after it below, a column a layer."""
    from matplotlib.figure import Figure

    shown = list(one.distances.items())
    if len(shown) > 6:  # of deep networks some, evenly spread
        shown = [shown[i * (len(shown) - 1) // 5] for i in range(6)]
    figure = Figure(figsize=(WIDTH, 0.5 + 2 * WIDTH / len(shown)), layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False)
    for column, (name, pair) in zip(axes.T, shown, strict=True):
        for axis, matrix in zip(column, pair, strict=True):
            axis.imshow(matrix, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            for border in borders:
                axis.axhline(border - 0.5, color=COLOURS[1], linewidth=0.5)
                axis.axvline(border - 0.5, color=COLOURS[1], linewidth=0.5)
            axis.set_xticks([])
            axis.set_yticks([])
        column[0].set_title(printable(name, 18), fontsize=8, parse_math=False)
    axes[0, 0].set_ylabel("before", fontsize=9)
    axes[1, 0].set_ylabel("after", fontsize=9)
    return figure


def _layers(found: Comparison) -> str:
    """What each layer does, of both runs."""
    rows = []
    for letter, one in (("A", found.a), ("B", found.b)):
        for name in one.regions:
            active, means = one.active.get(name), one.sorting[name]
            rows.append(
                (
                    f"{letter}: {name}",
                    "–" if active is None else printed(active, "%"),
                    f"{one.regions[name]} of {found.samples}",
                    *(
                        f"{printed(means[f'{key}_before'], 'x')} → {printed(means[key], 'x')}"  # type: ignore[literal-required]
                        for key in ("within", "between")
                    ),
                )
            )
    if not rows:
        return "<p>These networks have no kinks, and so no regions.</p>"
    head = ("Layer", "Active", "Regions", "Within", "Between")
    return f'{table_of(rows, head=head)}<p class="note">{_ACTIVE_NOTE}</p>'
