"""A decoder against inversion on birds: accuracy, parameters, time and memory in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from birdinv.errors import BirdinvError
from birdinv.files import read_json
from birdinv.reproduce.bird_summary import UNITS, settings_of
from birdinv.reproduce.collected import Found, mean_std
from birdinv.reproduce.results import is_number

BIRDS = "sw-birds"
COSTS = f"{BIRDS}-cost.json"  # in the folder of results; written by benchmarks/swwae.py


def comparison(found: Sequence[Found], results: Path) -> Iterator[str]:
    """Blocks of Markdown: the table, and what its columns are."""
    settings = [setting for setting in settings_of(found) if setting.budget == "cpu"]
    if not settings:
        return
    costs = _costs(results)
    head = ["Row"]
    for setting in settings:
        head += [f"{unit.capitalize()}s, {setting.count}" for unit in UNITS]
    head += ["Parameters", "A step, ms", "× supervised", "Peak memory, MB", "× supervised"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in dict.fromkeys(row for setting in settings for row in setting.rows):
        line = [row]
        for setting in settings:
            scores = [list(setting.scores(row, unit).values()) for unit in UNITS]
            line += [
                f"{mean_std(each)} (n = {len(each)})" if each else "not run" for each in scores
            ]
        lines.append([*line, *_cost(costs.get(row))])
    yield "### SWWAE and inversion, same splits, same steps"
    yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    yield (
        "Test accuracy in %, mean ± std over the runs. *A step* is a whole one, in the median, on "
        "one CPU thread; `swwae-encoder` is the encoder of `swwae` trained without its decoder."
    )


def _costs(results: Path) -> dict[str, Any]:
    try:
        rows = read_json(results / COSTS, "costs written by benchmarks/swwae.py").get("rows")
    except BirdinvError:  # nobody has measured them
        return {}
    return rows if isinstance(rows, dict) else {}


def _cost(entry: Any) -> list[str]:
    names = ("parameters", "seconds_a_step", "times_supervised", "peak_mb", "peak_times_supervised")
    values: list[Any] = [entry.get(name) for name in names] if isinstance(entry, dict) else []
    if not values or not all(is_number(value) for value in values):
        return ["–"] * len(names)
    parameters, seconds, times, peak, peaks = values
    return [
        f"{parameters:,.0f}",
        f"{1000 * seconds:.1f}",
        f"{times:.2f}",
        f"{peak:.0f}",
        f"{peaks:.2f}",
    ]
