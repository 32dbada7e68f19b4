"""Splits by recording or coarser: no two windows of one recording lie on two sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from birdinv.audio.store import Recording
from birdinv.errors import BirdinvError, SettingError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Item:
    """A labelled recording to place: `group` is its recordist or site, or "" for itself alone."""

    name: str
    label: str
    group: str = ""


def assign_splits(
    recordings: Sequence[Recording],
    usable: Collection[str],
    fractions: tuple[float, float, float],
    seed: int,
) -> list[Recording]:
    """The recordings, each labelled usable one with a split; unlabelled ones serve training.

    Recordings of one group lie on one side, and so do copies of one file whatever their groups,
    and whatever is tied by several of these. A given split holds for all that is tied to it, and
    unlabelled recordings tied to a test recording are not trained on.

    Args:
        usable: names of the recordings with segments. Only these are drawn and only their copies
            tie, so that an unreadable one changes nobody's split.

    Raises:
        BirdinvError: the given splits put two that are tied on two sides.
    """
    tie = _ties(recordings, usable)
    sides: dict[str, Recording] = {}
    for r in sorted(recordings, key=lambda r: r.file not in usable):
        first = sides.setdefault(tie[r.file], r) if r.split else r
        if first.split != r.split and r.file in usable:
            raise BirdinvError(
                f"{first.file} is given to {first.split} and {r.file} to {r.split}, but they are "
                "copies of one file, or tied by copies within their groups; give them one split"
            )
    items = [r for r in recordings if r.label and r.file in usable and tie[r.file] not in sides]
    names: dict[str, str] = {}  # of each tie, as if it were a group: independent of the unlabelled
    for r in items:
        name = r.group or r.sha256 or r.file
        names[tie[r.file]] = min(name, names.get(tie[r.file], name))
    drawn = draw_splits([Item(r.file, r.label, names[tie[r.file]]) for r in items], fractions, seed)
    split = {t: r.split for t, r in sides.items()} | {tie[file]: s for file, s in drawn.items()}
    return [
        replace(r, split=r.split or split.get(tie[r.file], "" if r.label else "train"))
        for r in recordings
    ]


def _ties(recordings: Sequence[Recording], usable: Collection[str]) -> dict[str, str]:
    """File → one file of all those that it is tied to by a group or by the same bytes."""
    up = {r.file: r.file for r in recordings}  # a forest: each file → itself or one nearer the root

    def root(file: str) -> str:
        while up[file] != file:
            up[file] = file = up[up[file]]
        return file

    first: dict[tuple[str, str], str] = {}
    for r in recordings:
        bytes_alike = r.sha256 if r.file in usable else ""  # all empty files are alike
        for key in (("group", r.group), ("sha256", bytes_alike)):
            if key[1]:
                up[root(r.file)] = root(first.setdefault(key, r.file))
    return {file: root(file) for file in up}


def draw_splits(
    items: Sequence[Item], fractions: tuple[float, float, float], seed: int
) -> dict[str, str]:
    """Recording name → "train", "valid" or "test", stratified by class, whole groups together.

    Groups are placed largest first, in an order drawn from `seed`, each where its classes are most
    short of their share. A class of three groups or more comes to every split, one of two to train
    and test, one of one to train alone, as far as groups of several classes allow it. The result
    does not depend on the order of `items`.

    Raises:
        BirdinvError: fractions that are negative or do not sum to 1, or nothing for training.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or fractions[0] == 0:
        raise SettingError(
            f"the split fractions are {', '.join(f'{f:g}' for f in fractions)}; give three numbers "
            "for train, valid and test, train above 0, that sum to 1, such as 0.7,0.15,0.15"
        )
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in sorted(items, key=lambda item: item.name):
        key = ("group", item.group) if item.group else ("recording", item.name)
        groups.setdefault(key, []).append(item)
    contents = {key: Counter(item.label for item in members) for key, members in groups.items()}
    wanted = _targets(contents, fractions)
    recordings = Counter(item.label for item in items)
    # Splits that a class has to come to and has not come to, and its groups not yet placed.
    empty = {label: {s for s in range(3) if share[s] > 0} for label, share in wanted.items()}
    left = Counter(label for content in contents.values() for label in content)
    placed: dict[tuple[str, str], int] = {}
    keys = sorted(groups)
    order = [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))]
    for key in sorted(order, key=lambda key: -len(groups[key])):

        def need(split: int, content: Counter[str] = contents[key]) -> tuple[int, float, int]:
            last = sum(split in empty[c] and left[c] <= len(empty[c]) for c in content)
            short = sum(n * wanted[c][split] / recordings[c] for c, n in content.items())
            return last, short, -split

        placed[key] = max((s for s in range(3) if fractions[s] > 0), key=need)
        for label, n in contents[key].items():
            wanted[label][placed[key]] -= n
            empty[label].discard(placed[key])
            left[label] -= 1
    return {item.name: SPLITS[placed[key]] for key, members in groups.items() for item in members}


def _targets(
    contents: Mapping[tuple[str, str], Counter[str]], fractions: tuple[float, float, float]
) -> dict[str, list[float]]:
    """How many recordings of each class each split should hold."""
    recordings: Counter[str] = Counter()
    spread: Counter[str] = Counter()
    for content in contents.values():
        recordings.update(content)
        spread.update(content.keys())
    targets = {}
    for label, n in recordings.items():
        valid = max(1.0, fractions[1] * n) if fractions[1] and spread[label] >= 3 else 0.0
        test = max(1.0, fractions[2] * n) if fractions[2] and spread[label] >= 2 else 0.0
        # Train comes last to its share only where the fractions are odd; it never goes without.
        targets[label] = [max(1.0, n - valid - test), valid, test]
    return targets


def hide_labels(
    labels: Mapping[str, str], per_class: int, seed: int
) -> tuple[set[str], dict[str, int]]:
    """(recordings that keep their label, classes with fewer than asked for → how many they have).

    Args:
        labels: recording name → class, of the labelled training recordings.
        per_class: how many recordings of each class keep their label.
        seed: of the draw; every class has a stream of its own, so that one class's recordings do
            not change another's draw.
    """
    if per_class < 1:
        raise SettingError(
            f"--labels-per-class is {per_class}; give the number of recordings of each class "
            "that keep their label, at least 1"
        )
    keep: set[str] = set()
    short: dict[str, int] = {}
    for label in sorted(set(labels.values())):
        names = sorted(name for name, own in labels.items() if own == label)
        if len(names) < per_class:
            short[label] = len(names)
        rng = np.random.default_rng([seed, *label.encode()])
        keep.update(names[i] for i in rng.permutation(len(names))[:per_class])
    return keep, short
