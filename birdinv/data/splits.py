"""Splits by recording or coarser: no two windows of one recording lie on two sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from birdinv.errors import BirdinvError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Item:
    """A labelled recording to place: `group` is its recordist or site, or "" for itself alone."""

    name: str
    label: str
    group: str = ""


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
        raise BirdinvError(
            f"the split fractions are {', '.join(f'{f:g}' for f in fractions)}; give three numbers "
            "from 0 to 1 for train, valid and test that sum to 1, such as 0.7,0.15,0.15"
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
        raise BirdinvError(
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
