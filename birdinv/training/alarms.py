"""What goes wrong while a run learns from unlabelled samples, in sentences with the classes' names.

Both follow from the rows of `metrics.csv` alone, so that a resumed run says what an uninterrupted
one would have said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SHARES = (
    "unlabelled_"  # and the name of a class: the share of unlabelled samples predicted to be it
)
EMPTY = 0.05  # of its fair share, 1/K: a class with less than that has emptied
LOOKS = 3  # rows after which a class that never had more is named too
FALL = 0.15  # of the accuracy on labelled training samples, from its highest
WORSE = 0.1  # of the accuracy on validation samples, likewise


def alarms(rows: Sequence[Mapping[str, str]], classes: Sequence[str]) -> dict[str, str]:
    """What the last row gives reason to say: a sentence for each class, and two for all of them."""
    found: dict[str, str] = {}
    if not rows:
        return found
    epoch = rows[-1]["epoch"]
    least = EMPTY / len(classes)
    for name in classes:
        shares = [float(cell) for row in rows if (cell := row.get(SHARES + name, ""))]
        if not shares or shares[-1] >= least:
            continue
        if max(shares) >= least:
            found[name] = (
                f"the class {name} has emptied: at epoch {epoch} it is the answer for "
                f"{shares[-1]:.1%} of the unlabelled samples, and was for up to {max(shares):.1%} "
                "of them; unless it is that rare, give more --balance, a longer --ramp, or --guard"
            )
        elif len(shares) >= LOOKS:
            found[name] = (
                f"no unlabelled sample to speak of is taken for {name} ({shares[-1]:.1%} at epoch "
                f"{epoch}): is that class among them? If so, give more --balance, or --guard"
            )
    known = [float(row["train_accuracy"]) for row in rows if row["train_accuracy"]]
    if known and known[-1] < max(known) - FALL:
        found[""] = (
            f"the labelled samples are named right less often than before, {known[-1]:.1%} at "
            f"epoch {epoch} and up to {max(known):.1%} earlier: the unlabelled ones may be of "
            "other classes; give --guard, or a longer --ramp"
        )
    judged = [float(cell) for row in rows if (cell := row.get("valid_accuracy", ""))]
    if judged and judged[-1] < max(judged) - WORSE:
        found["validation"] = (
            f"validation segments are named right less often than before, {judged[-1]:.1%} at "
            f"epoch {epoch} and up to {max(judged):.1%} earlier; compare with --guard, or --keep "
            "best"
        )
    return found


def new_alarms(rows: Sequence[Mapping[str, str]], classes: Sequence[str]) -> list[str]:
    """The sentences of the last row whose reason the row before did not have."""
    before = alarms(rows[:-1], classes)
    return [text for key, text in alarms(rows, classes).items() if key not in before]


def all_alarms(rows: Sequence[Mapping[str, str]], classes: Sequence[str]) -> list[str]:
    """The sentences of a whole run, in the order in which they came."""
    return [text for i in range(len(rows)) for text in new_alarms(rows[: i + 1], classes)]
