"""What to label next in a store, as a run sees it.

How recordings are chosen is said in `birdinv.ranking`, and what is asked of the network in
`birdinv.survey`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from birdinv.audio.store import Store
from birdinv.data.batches import Segments
from birdinv.errors import BirdinvError, SettingError
from birdinv.files import read_json
from birdinv.networks.saved import Hearing, load_listener
from birdinv.progress import Progress
from birdinv.ranking import DIGITS, ranked
from birdinv.ranking import rank as rank
from birdinv.suggestion_tables import RUN, Suggestion, is_own
from birdinv.suggestion_tables import write_suggestions as write_suggestions
from birdinv.survey import BATCH, worth_hearing
from birdinv.survey import Surveyed as Surveyed
from birdinv.survey import survey as survey
from birdinv.threads import cpu_threads
from birdinv.training.partition import read_roles
from birdinv.words import counted

HEAR_S = 5.0


def run_store(run: Path) -> Store:
    """The store a run was trained on, where it then was.

    Raises:
        BirdinvError: no run of recordings, or its store is not there any more.
    """
    named = str(read_json(run / "run.json", RUN).get("store", ""))
    if not named:
        raise BirdinvError(
            f"{run / 'run.json'} names no store of recordings; if the run was trained on "
            "recordings, name one: birdinv suggest RUN STORE"
        )
    if not Path(named).is_dir():
        raise BirdinvError(
            f"the run's store {named} is not there any more; name it: birdinv suggest RUN STORE"
        )
    return Store(Path(named))


def suggest(
    run: Path,
    store: Store,
    n: int,
    *,
    hear_s: float = HEAR_S,
    device: str = "cpu",
    batch: int = BATCH,
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> list[Suggestion]:
    """The `n` recordings of a store that a run is unsure of and that are unlike what it knows.

    The most so come first. Labels chosen so taught no more than as many chosen at random where that
    was simulated (docs/few-labels.md): they show what the network does not know.

    Chosen from are the recordings that serve training and have no label, in the store that the run
    was trained on those whose label was hidden from it too. Recordings to validate or test on are
    never suggested, nor are copies of theirs or of labelled ones. The result depends neither on the
    order of the files nor on `batch`.

    Args:
        store: the run's own (`run_store`), or any other with segments of the same length and rate.
        n: how many; all where there are fewer, which is told.
        hear_s: the longest stretch to listen to, in seconds.
        device: where the network runs, a name for `torch.device`.
        batch: segments that go through the network at once.
        tell: is given sentences about what was left out.
        progress: counts recordings.

    Raises:
        BirdinvError: no finished run of recordings, a store that does not fit it, or nothing to
            suggest.
        SettingError: `n` or `hear_s` out of range.
    """
    if n < 1:
        raise SettingError(f"{n} suggestions were asked for; give -n at least 1")
    if not 0 < hear_s < 3600:
        raise SettingError(f"{hear_s:g} s are to be heard; give a number of seconds above 0")
    tell = tell or (lambda _: None)
    model, description, hearing = load_listener(run)
    _require_fit(run, hearing, store)
    sides = _sides(run, store, tell)
    if sides.copies:
        tell(
            f"{counted(sides.copies, 'recording')} left out: the same bytes as a labelled, "
            "validation or test one"
        )
    if not sides.candidates:
        raise BirdinvError(
            f"{store.path} has no recording to suggest: none with segments serves training and has "
            "no label; segment more of them with --unlabelled"
        )
    if len(sides.candidates) < n:
        tell(f"{n} were asked for and there are {len(sides.candidates)}: all of them are given")
    total = len(sides.candidates) + sum(len(files) for _, files in sides.labelled)
    where = torch.device(device)
    model.to(where)

    def heard(own: Store, files: Sequence[str]) -> Iterator[Surveyed]:
        for each in survey(model, Segments(own, dict.fromkeys(files, "")), where, batch=batch):
            if progress is not None:
                progress.update(1, total=total)
            yield each

    longest = max(1, round(hear_s * store.sample_rate))
    found = {}  # without what grows with the length of a recording
    with cpu_threads(1):
        known = [each.embedding for own, files in sides.labelled for each in heard(own, files)]
        for each in heard(store, sides.candidates):
            recording = store.recordings[each.row]
            first, end = worth_hearing(
                each.starts - recording.offset, each.entropies, store.windows.segment, longest
            )
            seconds = first / store.sample_rate, end / store.sample_rate
            found[recording.file] = each.mean, each.uncertainty, each.embedding, seconds
        files = sorted(found)
        chosen = ranked(
            np.stack([found[file][2] for file in files]),
            np.array([found[file][1] for file in files]),
            n,
            np.stack(known) if known else None,
        )
    suggestions = []
    for place, (index, score) in enumerate(chosen, start=1):
        mean, uncertainty, _, (start_s, end_s) = found[files[index]]
        best = int(np.argmax(np.round(mean, DIGITS)))
        suggestions.append(
            Suggestion(
                file=files[index],
                rank=place,
                score=score,
                uncertainty=uncertainty,
                guess=description.classes[best],
                guess_share=float(mean[best]),
                start_s=start_s,
                end_s=end_s,
            )
        )
    return suggestions


@dataclass(frozen=True)
class _Sides:
    """What to choose from, the labelled recordings by store, and how many copies are in neither."""

    candidates: list[str]
    labelled: list[tuple[Store, list[str]]]
    copies: int


def _sides(run: Path, store: Store, tell: Callable[[str], None]) -> _Sides:
    roles = read_roles(run)
    given = {*roles["labelled"], *roles["valid"], *roles["test"]}
    if is_own(run, store):
        pool = {*roles["unlabelled"], *roles["unused"]}
        labelled = [(store, sorted(roles["labelled"]))]
        taken = {r.sha256 for r in store.recordings if r.file in given}
    else:
        pool = {r.file for r in store.recordings if not r.label}
        labelled = [(store, [r.file for r in store.recordings if r.label and r.split == "train"])]
        taken = {r.sha256 for r in store.recordings if r.label or r.split != "train"}
        try:
            own = run_store(run)
        except BirdinvError:
            own = store
        if is_own(run, own):
            labelled.append((own, sorted(roles["labelled"])))
            taken |= {r.sha256 for r in own.recordings if r.file in given}
        else:
            tell(
                "the store that the run was trained on is not there any more: what it was trained "
                f"and tested on cannot be told from what is in {store.path}"
            )
    # Unlabelled recordings that are not in the training split are tied to one to be tested on.
    usable = [
        r
        for r in store.recordings
        if r.file in pool and r.split == "train" and store.spans.get(r.file)
    ]
    free = [r.file for r in usable if not r.sha256 or r.sha256 not in taken]
    return _Sides(free, labelled, len(usable) - len(free))


def _require_fit(run: Path, hearing: Hearing, store: Store) -> None:
    lengths = hearing.segment_samples, store.windows.segment
    rates = hearing.sample_rate, store.sample_rate
    if lengths[0] != lengths[1] or rates[0] != rates[1]:
        raise BirdinvError(
            f"{store.path} has segments of {lengths[1]} samples at {rates[1]} Hz, and {run} was "
            f"trained on {lengths[0]} samples at {rates[0]} Hz; segment with --segment "
            f"{lengths[0] / rates[0]:g} --sample-rate {rates[0]}"
        )
