"""`suggestions.html`: the recordings to label next, to look at and to listen to.

As on the other pages, whatever comes from a store or a run is untrusted text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from birdinv.audio.store import Recording, Store
from birdinv.reporting.excerpts import CONTEXT_S
from birdinv.reporting.markup import data_uri, escaped, number, write_page
from birdinv.reporting.sounds import wav_of
from birdinv.reporting.thumbnails import small_spectrogram
from birdinv.suggestion_tables import KNOWN, SUGGESTED, Suggestion, next_command

MOST_SHOWN = 50  # of 6 s at 22 050 Hz each they make a page of 18 MB
_UNSURE = ((0.8, "can hardly tell what it is"), (0.4, "is unsure"), (0.0, "is rather sure"))
_UNLIKE = (
    (0.3, "and it sounds like nothing labelled or suggested before it"),
    (0.05, "and it differs from all that is labelled or suggested before it"),
    (0.0, "but it sounds much like one that is labelled or suggested before it"),
)
_NOTE = f"""Time runs to the right, pitch upwards, darker is louder. The frame marks the seconds in
which the network is least sure, around it is up to half a second of context; the sound is that of
the picture. Uncertainty is 0 for one sure class and 1 for no idea; distance is 0 for the same sound
and 1 for nothing in common with what is labelled or suggested before. Their product is the score:
recordings are in its order. The columns hear_start_s and hear_end_s of {SUGGESTED} hold the framed
seconds."""


def write_suggestions_page(
    folder: Path, run: Path, store: Store, suggestions: Sequence[Suggestion]
) -> Path:
    """Write `folder/suggestions.html` beside its two tables and return its path.

    The first `MOST_SHOWN` suggestions have a picture and the sound, 16-bit WAV from the store. The
    file is written whole or not at all, and the same suggestions give the same bytes.

    Raises:
        BirdinvError: the page cannot be written.
    """
    recordings = {recording.file: recording for recording in store.recordings}
    shown = suggestions[:MOST_SHOWN]
    rest = len(suggestions) - len(shown)
    tiles = "".join(_tile(each, recordings[each.file], store) for each in shown)
    body = [
        f"<p>{_summary(run, store, len(suggestions))}</p>",
        f"<h2>What to do</h2>{_steps(folder, store)}",
        f'<h2>Recordings to label</h2><p class="note">{_NOTE}</p>',
        f'<div class="tiles">{tiles}</div>',
        f"<p>And {rest:,} more, see {SUGGESTED}.</p>" if rest else "",
    ]
    return write_page(
        folder / "suggestions.html", f"What to label next: {run.resolve().name}", body
    )


def _summary(run: Path, store: Store, count: int) -> str:
    run_name, store_name = (f"<b>{escaped(path.resolve().name)}</b>" for path in (run, store.path))
    one = count == 1
    return (
        f"Of the recordings in the store {store_name} that have no label, the run {run_name} is "
        f"least sure of {'this one, and it is' if one else f'these {count}, and they are'} unlike "
        f"what it knows. {'It shows' if one else 'They show'} what it does not know; label some "
        "others at random too."
    )


def _steps(folder: Path, store: Store) -> str:
    table, known = (f"<b>{escaped(str(folder / name))}</b>" for name in (SUGGESTED, KNOWN))
    classes = ", ".join(escaped(name) for name in store.classes)
    command = " ".join(
        f'<span style="white-space:nowrap">{word}</span>' if word.startswith("--") else word
        for word in escaped(next_command(folder, store)).split(" ")
    )
    steps = (
        "Listen, and where the seconds below do not tell, to the recording itself.",
        f"Write the class into the column <b>label</b> of {table}, spelt as it is so far "
        f"({classes}) or as a new class. Leave it empty where you cannot tell, or where several "
        "classes are heard. Save it as CSV, in UTF-8 and with commas.",
        "Make the next store, with the recordings and the --unlabelled folders of the last one for "
        f"INPUT...:<br><code>{command}</code><br>{known} keeps the "
        "labels there are, and what is validated and tested on as it is. If your labels hold for "
        "stretches of recordings only, give their table with --labels too.",
        "Train on it, and ask for suggestions again.",
    )
    return f"<ol>{''.join(f'<li>{step}</li>' for step in steps)}</ol>"


def _tile(suggestion: Suggestion, recording: Recording, store: Store) -> str:
    rate = store.sample_rate
    context = round(CONTEXT_S * rate)
    start, end = (round(s * rate) for s in (suggestion.start_s, suggestion.end_s))
    first, last = max(0, start - context), min(recording.frames, end + context)
    samples = store.audio[recording.offset + first : recording.offset + last]
    marked = (start - first) / rate, (end - first) / rate
    picture = data_uri("image/png", small_spectrogram(samples, rate, marked))
    place = f"{_clock(suggestion.start_s)}–{_clock(suggestion.end_s)}"
    what = escaped(f"{suggestion.file} at {place}")
    share = number(suggestion.guess_share, percent=True)
    why = f"The network {_first(_UNSURE, suggestion.uncertainty)} "
    why += (
        f"(uncertainty {suggestion.uncertainty:.2f}), {_first(_UNLIKE, suggestion.distance)} "
        f"(distance {suggestion.distance:.3f})."
    )
    # Browsers play but some dozens of sounds at a time that they were told to prepare.
    return (
        f'<figure><div class="plot"><div><span>{rate / 2000:.3g}</span><span>kHz</span>'
        f'<span>0</span></div><img src="{picture}" alt="Spectrogram of {what}" decoding="async">'
        f'</div><audio controls preload="none" aria-label="Sound of {what}" '
        f'src="{data_uri("audio/wav", wav_of(samples, rate))}"></audio>'
        f"<figcaption><b>{suggestion.rank}. {escaped(suggestion.file)}</b><br>{place}<br>"
        f"Guess: <b>{escaped(suggestion.guess)}</b>, {share}<br>{why}</figcaption></figure>"
    )


def _first(words: Sequence[tuple[float, str]], value: float) -> str:
    return next(text for least, text in words if value >= least)


def _clock(seconds: float) -> str:
    """A place in a recording, as players show it: 0:04:07, to the tenth of a second."""
    tenths = round(10 * seconds)
    return f"{timedelta(seconds=tenths // 10)}.{tenths % 10}"
