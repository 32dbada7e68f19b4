"""What each term of the objective adds, seed by seed: the second table of `mnist-ablation`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from birdinv.reproduce.collected import Found, mean_std, ranges

OBJECTIVES = ("supervised", "entropy", "global", "multiscale", "weighted-entropy", "weighted")
BALANCED = "-balance"  # ends the name of a row with balance
_STEPS = (
    ("supervised", "entropy"),
    ("entropy", "global"),
    ("entropy", "multiscale"),
    ("weighted-entropy", "weighted"),
)
_NOT_RUN = "not run"

Scores = dict[str, dict[int, float]]  # test accuracy in % by row and seed


def ablation_tables(found: Sequence[Found]) -> list[str]:
    """Blocks of Markdown: for each preset and budget the means, then the paired differences."""
    blocks = []
    key = _key
    for (preset, budget), group in itertools.groupby(sorted(found, key=key), key=key):
        scores = {each.cell.row.name: each.scores("test") for each in group}
        common = sorted(set.intersection(*(set(row) for row in scores.values())))
        title = f"### Objective and balance: preset `{preset}`, budget `{budget}`"
        blocks += [title, *_means(scores, common), *_differences(scores)]
    return blocks


def _key(each: Found) -> tuple[str, str]:
    return each.cell.preset, each.cell.budget


def _means(scores: Scores, common: Sequence[int]) -> list[str]:
    if not common:
        return ["No seed has been run for all of these rows, so there are no means to compare."]

    def cell(row: str) -> str:
        return mean_std([scores[row][seed] for seed in common]) if row in scores else _NOT_RUN

    table = _table(
        ("Objective", "without balance", "with balance"),
        [(name, cell(name), cell(name + BALANCED)) for name in OBJECTIVES],
    )
    counted = f"{ranges(common)} (n = {len(common)})"
    return [f"Test accuracy in %, mean ± std over the seeds that all rows have: {counted}.", table]


def _differences(scores: Scores) -> list[str]:
    def cell(less: str, more: str) -> str:
        if less not in scores or more not in scores:
            return _NOT_RUN
        both = sorted(scores[less].keys() & scores[more].keys())
        if not both:
            return "no seed in common"
        steps = [scores[more][seed] - scores[less][seed] for seed in both]
        higher = sum(step > 0 for step in steps)
        return f"{mean_std(steps, signed=True)} (higher on {higher} of {len(both)})"

    lines = [
        (f"{less} → {more}", cell(less, more), cell(less + BALANCED, more + BALANCED))
        for less, more in _STEPS
    ]
    balance = [(name, cell(name, name + BALANCED)) for name in OBJECTIVES]
    return [
        "What a term adds to the test accuracy, in points: mean ± std of the differences between "
        "runs of the same seed, so of the same labels and initial weights.",
        _table(("Step", "without balance", "with balance"), lines),
        _table(("Objective", "what balance adds"), balance),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
