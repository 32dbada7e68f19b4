"""Results as text: a line for the terminal, and `README.md` with published and own numbers."""

from __future__ import annotations

import html
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from birdinv.data.manifests import load_manifest
from birdinv.files import whole_file
from birdinv.reproduce.ablation import ablation_tables
from birdinv.reproduce.bird_summary import TABLE, gain_tables, write_summary
from birdinv.reproduce.cells import Cell, all_cells
from birdinv.reproduce.collected import (
    Found,
    collect,
    command,
    in_unit,
    mean_std,
    published,
    ranges,
)
from birdinv.reproduce.figures import has_figures
from birdinv.reproduce.results import is_number
from birdinv.reproduce.sw_summary import BIRDS, comparison
from birdinv.reproduce.table import Table
from birdinv.reproduce.tables import TABLES

_COLUMNS = 80  # of a terminal
_UNITS = {
    "accuracy": "accuracy",
    "error": "error",
    "reconstruction": "what is left of the inputs, Σ‖x − x̃‖² / Σ‖x‖²,",
}
_LONGEST = 400  # characters that are taken over of a text in a result file
_INTRO = """# Results

Written by `birdinv reproduce` from the JSON files beside it: change those by running cells, and \
this file by nothing else.

- A line is one cell: a row of the table at a number of labels, by one preset, within one budget.
- *Published* is the paper's number. *Test* and *validation* are ours: mean ± sample standard \
deviation over the seeds; each seed has its own draw of labels and its own initial weights. \
A single seed has no deviation.
- The epoch was chosen on validation; the test set was read once, after training.
- *Epochs* are passes over the unlabelled set, or over the labelled one where there is no other.
- *Difference* is ours − published, in points of the table's unit: for an error, more is worse.
- A cell without a result is *not run*, and its command is the one that runs it."""


def cell_line(cell: Cell, result: Mapping[str, Any]) -> str:
    """The test accuracy, or error, of a cell in one line: mean ± std, and what was published."""
    found = Found(cell, result)
    where = "" if cell.dataset == cell.table.dataset else f" on {cell.dataset}"
    scores = list(found.scores(cell.table.compared).values())
    if not scores:
        return f"{cell.row.name}{where}, {cell.labels_in_words}: not run"
    what = {"accuracy": "test", "error": "test error", "reconstruction": "left of test images"}[
        cell.table.unit
    ]
    if cell.table.compared == "valid":
        what = what.replace("test", "valid")
    over = f"over {len(scores)} seeds" if len(scores) > 1 else f"with seed {found.seeds[0]}"
    line = f"{cell.row.name}{where}, {cell.labels_in_words}: {what} {mean_std(scores)} % {over}"
    if cell.published is None:
        return line
    number = published(cell, std=False)
    shorter = f"published {published(cell)}", f"published {number}", f"paper {number}"
    whole = [f"{line} ({text})" for text in shorter]
    return next((each for each in whole if len(each) <= _COLUMNS), whole[-1])


def write_readme(results: Path) -> Path:
    """`results/README.md`, whole or not at all, from the result files below `results`.

    With results of birds, `results/birds-few-labels.json` too.

    Files of a table's folder that are no result are named in it with what is wrong. The same
    folder gives the same bytes.
    """
    blocks = [_INTRO, *(block for table in TABLES.values() for block in _section(table, results))]
    write_summary(results)
    path = results / "README.md"
    with whole_file(path) as file:
        file.write("\n\n".join(blocks) + "\n")
    return path


def _section(table: Table, results: Path) -> list[str]:
    """Blocks of Markdown: heading, numbers, and what is to be known of them."""
    found, refused = collect(table, results)
    head = (
        *("Row", "Labels", "Published", "Test", "Validation", "Seeds"),
        *("Preset, budget", "Epochs", "Difference", "Command"),
    )
    drawn = compared = ""
    if table.compared == "valid":
        compared = "The paper's numbers, and so the difference, are of validation samples. "
    if has_figures(table.name):
        drawn = f"; its figures: `birdinv reproduce {table.name} --figure`"
    printed = ", and with `--dataset` ".join(table.printed)
    rule = ["---" if name in ("Row", "Preset, budget", "Command") else "---:" for name in head]
    lines = "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *_lines(table, found)))
    blocks = [
        f"## {table.name}: {table.title}",
        f"Source: {table.source}. Unit: {_UNITS[table.unit]} in %. "
        f"Data set: {printed}. "
        f"{compared}All of it: `birdinv reproduce {table.name} --seeds 0-4 --budget cpu`{drawn}.",
        lines,
    ]
    if table.name == "mnist-ablation":
        blocks += ablation_tables(found)
    if table.name == BIRDS:
        blocks += comparison(found, results)
    if table.name in (TABLE, BIRDS):
        blocks += gain_tables(found)
    if found:
        blocks.append("\n".join(f"- {line}" for line in _facts(found)))
    for picture in sorted((results / table.name / "figures").glob("*.png")):
        blocks.append(f"![{picture.stem}]({picture.relative_to(results).as_posix()})")
    if refused:
        blocks.append("\n".join(f"- **No result**: {_safe(why)}." for why in refused))
    return blocks


def _lines(table: Table, found: Sequence[Found]) -> Iterable[Sequence[str]]:
    """The cells of the table, in its order: those with a result, and those that have none."""
    by_name = {each.cell.name: each for each in found}
    slots: dict[tuple[str, str, int | None], list[Cell]] = {}
    for cell in all_cells(table):
        slots.setdefault((cell.row.name, cell.dataset, cell.labels), []).append(cell)
    for row in table.rows:
        for dataset in table.datasets:
            for labels in table.labels(row, dataset):
                own = slots[row.name, dataset, labels]
                done = [by_name[cell.name] for cell in own if cell.name in by_name]
                if not done and dataset in table.printed:
                    yield _not_run(next(cell for cell in own if cell.budget == "cpu"))
                yield from map(_line, done)


def _line(found: Found) -> Sequence[str]:
    cell, scores = found.cell, list(found.scores("test").values())
    difference = "–"
    if cell.published is not None:
        ours = statistics.fmean(found.scores(cell.table.compared).values())
        difference = f"{ours - in_unit(cell.table, cell.published):+.2f}"
    return (
        *(cell.row.name, _labels(cell), published(cell) or "–", mean_std(scores)),
        *(mean_std(list(found.scores("valid").values())), _counted(found.seeds)),
        *(f"{cell.preset}, {cell.budget}", found.duration, difference),
        f"`{command(cell, found.seeds)}`",
    )


def _not_run(cell: Cell) -> Sequence[str]:
    dashes = ["–"] * 5
    shown = (cell.row.name, _labels(cell), published(cell) or "–", "not run")
    return (*shown, *dashes, f"`{command(cell)}`")


def _labels(cell: Cell) -> str:
    labels = "all" if cell.labels is None else str(cell.labels)
    return labels if cell.dataset == cell.table.dataset else f"{labels} of {cell.dataset}"


def _counted(seeds: Sequence[int]) -> str:
    return ranges(seeds) if len(seeds) == 1 else f"{ranges(seeds)} (n = {len(seeds)})"


def _facts(found: Sequence[Found]) -> Iterable[str]:
    """What is to be known of the results of a table: notes, deviations, machines, versions."""
    for name in dict.fromkeys(each.cell.dataset for each in found):
        if notes := load_manifest(name).notes:
            yield f"{name}: {_safe(notes)}"
    deviating: dict[str, dict[str, list[str]]] = {}
    for each in found:
        stated = each.result.get("deviations")
        words = [_safe(word) for word in stated] if isinstance(stated, list) else ["not stated"]
        setting = f"{_labels(each.cell)} labels, {each.cell.preset}, {each.cell.budget}"
        settings = deviating.setdefault("; ".join(words) or "none", {})
        settings.setdefault(setting, []).append(each.cell.row.name)
    for deviations, settings in deviating.items():
        where = "; ".join(f"{', '.join(rows)} ({setting})" for setting, rows in settings.items())
        yield f"Deviations: {deviations}. In: {where}."
    devices = sorted({_safe(each.result.get("device")) for each in found})
    yield f"Devices: {', '.join(devices)}."
    versions: dict[str, set[str]] = {}
    for each in found:
        libraries = each.result.get("versions")
        for library, version in (libraries if isinstance(libraries, dict) else {}).items():
            versions.setdefault(_safe(library), set()).add(_safe(version))
    of_each = [f"{name} {' and '.join(sorted(them))}" for name, them in sorted(versions.items())]
    yield f"Versions: {', '.join(of_each) or 'not stated'}."
    seconds = [each.result.get("seconds") for each in found]
    hours = sum(number for number in seconds if is_number(number)) / 3600
    yield f"Training took {hours:.2f} hours, all seeds of these cells together."


def _safe(value: Any) -> str:
    """A value of a file that anybody may have written, as one line of Markdown and nothing else."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(text, quote=False))
