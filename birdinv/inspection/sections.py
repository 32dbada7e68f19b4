"""What a page shows of one input: sounds and pictures, each with a sentence how to read it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from birdinv.files import safe_name
from birdinv.inspection import figures
from birdinv.inspection.findings import Finding
from birdinv.reporting.markup import (
    card,
    cards_of,
    data_uri,
    escaped,
    number,
    picture_of,
    table_of,
)
from birdinv.reporting.sounds import loud, wav_of
from birdinv.spline.lipschitz import Lipschitz

SOUNDS = "sounds"
MOST_SHOWN = 10  # templates of an input: of more classes, those of the highest scores

_HEARD_NOTE = """Left the waveform, right the spectrogram: time runs to the right, pitch upwards,
darker is louder. The second row is the network's own reconstruction of the first: what is in it is
what the network has taken up, what is missing it has not listened to. Each picture has a scale of
its own, and all sounds are made equally loud."""
_TEMPLATES_NOTE = """What each class is listened for in this very sound: its template is the weight
the network gives to each sample. It scores a class by how much of the template is in the sound (the
match), plus a bias. A template that shows the call, at its pitch and time, has found the bird; one
that shows hum, hiss or the edges of the window has found something else."""
_CLASSES_NOTE = """Score = match + bias + gap; the gap is nothing but rounding for a network of
straight pieces. Cosine: how alike template and input are, whatever their sizes, from −1 to 1."""
_IMAGES_NOTE = """The input, the network's own reconstruction of it, and the template of each class
with its match and bias: grey is nothing, light adds to the score of the class where the input is
light, dark where it is dark. A good template of the right class looks like the input, those of the
others like its negative (SPL figs. 9, 10)."""
_GRAM_NOTE = """How alike the templates of every two classes are: 1 the same, −1 opposite, 0
nothing in common. Two classes with a high number are told apart by their biases or by little. The
best templates there are (theorem 5) would be the input itself for the right class and its negative
for all others: −1 in the row of the right class, 1 among the others."""
_FLIP_NOTE = """The smallest change found that makes the network say something else, alone and then
added. It is scaled up to be seen and heard; its true level is in the text. If the changed sound is
the same to your ears, the answer hung on something that you do not listen to."""


def section(one: Finding, folder: Path) -> Iterator[str]:
    """Pieces of markup about one input; its sounds are written into `folder`."""
    subject = one.subject
    name = subject.name
    if subject.start_s is not None:
        length = subject.x.shape[-1] / (subject.sample_rate or 1)
        name += f", {subject.start_s:.2f} to {subject.start_s + length:.2f} s"
    yield f"<h2>{escaped(name)}</h2>"
    yield _cards(one)
    if subject.sample_rate is not None:
        yield from _sound_section(one, folder, subject.sample_rate)
    else:
        yield from _image_section(one)
    yield "<h3>Class by class</h3>"
    yield _classes_table(one)
    yield "<h3>Which templates are alike</h3>"
    picture = figures.correlations(one.classes, one.templates.correlation[0].numpy())
    yield picture_of(picture, "Correlation of the templates", _GRAM_NOTE)
    if one.to_optimal is not None:
        yield f"<p>Distance to the best templates: {one.to_optimal:.2f}, from 0 to 2.</p>"
    yield _regions(one)


def _cards(one: Finding) -> str:
    flips = one.flips
    share = number(float(one.probabilities[one.guess]), percent=True)
    said = escaped(one.classes[one.guess])
    truth = f"truly {escaped(one.subject.truth)}" if one.subject.truth else "its answer"
    cards = [
        card("The network says", said, share, truth),
        card(
            "Left out", number(one.error, percent=True), "of the input's energy",
            "by its reconstruction; over 100 % it adds what is not there",
        ),
    ]  # fmt: skip
    if one.fooled:
        other = escaped(one.classes[int(flips.after[0])])
        level = f"{_signed(float(flips.level_db[0]), 0)} dB"
        share_of = 100 * float(flips.norm[0]) / one.length
        cards.append(
            card("A change of", level, f"makes it {other}", f"{share_of:.2g} % of the input's size")
        )
    else:
        cards.append(card("A change", "–", "none found", "that makes it say something else"))
    away = 100 * one.boundary / one.length
    shown = f"{away:.2g} %" if math.isfinite(away) else "–"
    where = "of the input's size", "to the nearest other ones"
    if not away:
        where = "it lies on a border", "as where a maximum is of equal numbers"
    cards.append(card("Templates hold", shown, *where))
    return cards_of(cards)


def _sound_section(one: Finding, folder: Path, rate: int) -> Iterator[str]:
    subject, found, flips = one.subject, one.templates, one.flips
    stem = safe_name(Path(subject.name).stem)[:80] or "input"
    if subject.start_s is not None:
        stem += f"-{subject.start_s:.2f}s"
    taken = {path.name for path in folder.glob(f"{SOUNDS}/*-input.wav")}
    numbers = (f"{stem}-{n}" for n in range(2, len(taken) + 3))  # of a name in several folders
    stem = next(each for each in (stem, *numbers) if f"{each}-input.wav" not in taken)
    x = subject.x[0, 0].numpy()
    x_hat = found.reconstruction[0, 0].numpy()
    sounds = [("input", "the sound", x), ("reconstruction", "its reconstruction", x_hat)]
    rows = [("the sound", x), ("its reconstruction", x_hat)]
    yield picture_of(figures.signals(rows, rate), "The sound and its reconstruction", _HEARD_NOTE)
    yield _players(sounds, folder, stem, rate)
    yield "<h3>Templates</h3>"
    order, names = _by_score(one), one.classes
    shown = order[:MOST_SHOWN]
    rows = [(_template_title(one, k), found.A[0, k, 0].numpy()) for k in shown]
    yield picture_of(figures.signals(rows, rate), "Templates of the classes", _TEMPLATES_NOTE)
    yield _players(
        [
            (f"template-{k}-{safe_name(names[k])[:60]}", names[k], found.A[0, k, 0].numpy())
            for k in order
        ],
        folder, stem, rate, shown=len(shown),
    )  # fmt: skip
    yield "<h3>How it could be fooled</h3>"
    if not one.fooled:
        yield "<p>No change was found that makes it say something else.</p>"
        return
    step = flips.step[0, 0].numpy()
    level = f"{_signed(float(flips.level_db[0]), 1)} dB beside the sound"
    rows = [(f"the change, {level}", step), ("the sound and the change", x + step)]
    yield f"<p>{_flip_sentence(one)}</p>"
    yield picture_of(figures.signals(rows, rate), "The change that fools it", _FLIP_NOTE)
    pair = [("change", "the change", step), ("fooled", "the sound with the change", x + step)]
    yield _players(pair, folder, stem, rate)


def _image_section(one: Finding) -> Iterator[str]:
    found = one.templates
    shown = _by_score(one)[:MOST_SHOWN]
    pictures = [
        ("input", one.subject.x[0].numpy()),
        (f"reconstruction\nleft out\n{one.error:.2g}", found.reconstruction[0].numpy()),
        *((_template_title(one, k, "\n"), found.A[0, k].numpy()) for k in shown),
    ]
    yield picture_of(figures.images_row(pictures), "Input and templates", _IMAGES_NOTE)
    yield "<h3>How it could be fooled</h3>"
    if not one.fooled:
        yield "<p>No change was found that makes it say something else.</p>"
        return
    step = one.flips.step[0].numpy()
    x = one.subject.x[0].numpy()
    pictures = [("input", x), ("the change", step), ("both", x + step)]
    yield f"<p>{_flip_sentence(one)}</p>"
    yield picture_of(
        figures.images_row(pictures, 3), "The change that fools it",
        _FLIP_NOTE.replace("changed sound", "changed image").replace("to your ears", "to your eyes")
        .replace("to be seen and heard", "to be seen").replace("listen to", "look at"),
    )  # fmt: skip


def _flip_sentence(one: Finding) -> str:
    flips = one.flips
    return (
        f"Added at {_signed(float(flips.level_db[0]), 1)} dB beside the input "
        f"({100 * float(flips.norm[0]) / one.length:.2g} % of its size, a norm of "
        f"{float(flips.norm[0]):.3g} in the units the network is given), it turns "
        f"{escaped(one.classes[one.guess])} into {escaped(one.classes[int(flips.after[0])])}."
    )


def _by_score(one: Finding) -> list[int]:
    """The classes, that of the highest score first."""
    return [int(k) for k in one.templates.logits[0].argsort(descending=True)]


def _signed(value: float, digits: int = 2) -> str:
    """With a plus, or a minus as long as one."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _template_title(one: Finding, k: int, between: str = ", ") -> str:
    match, bias = float(one.templates.match[0, k]), float(one.templates.b[0, k])
    parts = (one.classes[k], f"match {_signed(match)}", f"bias {_signed(bias)}")
    return between.join(parts)


def _classes_table(one: Finding) -> str:
    found = one.templates
    rows = [
        (
            one.classes[k],
            number(float(one.probabilities[k]), percent=True),
            *(
                _signed(float(values[0, k]), 3)
                for values in (found.logits, found.match, found.b, found.cosine)
            ),
            f"{float(found.gap[0, k]):.0e}".replace("-", "−"),
        )
        for k in _by_score(one)
    ]
    head = ("Class", "Probability", "Score", "Match", "Bias", "Cosine", "Gap")
    return f'{table_of(rows, head=head)}<p class="note">{_CLASSES_NOTE}</p>'


def _regions(one: Finding) -> str:
    rows = [
        (name, str(bits), number(one.active.get(name), percent=True))
        for name, bits in one.bits.items()
    ]
    if not rows:
        return "<p>This network has no kinks, and so no regions.</p>"
    head = ("Nonlinearity or maximum", "Bits of its code", "Active")
    step = f"a step of {100 * one.boundary / one.length:.2g} % of the input's size can do"
    if one.boundary == 0:
        step = (
            "the smallest step can do: the input lies on a border, a maximum of equal numbers, say"
        )
    return (
        f"<h3>Its region</h3>{table_of(rows, head=head)}"
        '<p class="note">The templates above hold as long as none of these bits changes, which '
        f"{step}. Active: the share of units that pass their argument on; a maximum has none.</p>"
    )


def _players(
    sounds: Sequence[tuple[str, str, np.ndarray]],
    folder: Path,
    stem: str,
    rate: int,
    *,
    shown: int | None = None,
) -> str:
    """Writes each sound into the folder, and gives the first ones as players."""
    (folder / SOUNDS).mkdir(exist_ok=True)
    parts = []
    for n, (file, title, samples) in enumerate(sounds):
        wav = wav_of(loud(samples), rate)
        (folder / SOUNDS / f"{stem}-{file}.wav").write_bytes(wav.getvalue())
        if shown is None or n < shown:
            label = escaped(title)
            parts.append(
                f'<figure><audio controls preload="none" aria-label="{label}" '
                f'src="{data_uri("audio/wav", wav)}"></audio>'
                f"<figcaption>{label}</figcaption></figure>"
            )
    return f'<div class="tiles">{"".join(parts)}</div>'


def stretch_table(bound: Lipschitz | str) -> str:
    """The bracket of a network with a row for each operation, or why there is none."""
    if isinstance(bound, str):
        return f"<p>No bound is known: {escaped(bound)}.</p>"
    rows = [
        (
            layer.name or "forward",
            layer.operation,
            *(f"{v:.4g}" if v is not None else "–" for v in (layer.spectral, layer.upper)),
            f"{layer.paper:.3g}" if layer.paper is not None else "–",
            f"{layer.so_far:.4g}",
        )
        for layer in bound.layers
    ]
    head = ("Layer", "Operation", "Norm", "At most", "Paper's bound", "So far, at most")
    return (
        f"<p>Between <b>{bound.lower:.3g}</b> and <b>{bound.upper:.3g}</b> (the paper's "
        f"bound: {bound.paper:.2g}).</p>"
        f"<details><summary>Layer by layer</summary>{table_of(rows, head=head)}</details>"
    )
