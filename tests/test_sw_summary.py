"""The table of SWWAE beside inversion on birds says what results and costs say, and no more."""

import json
from pathlib import Path

import pytest
from made_up import cell_of, edit, write_result
from test_bird_tables import write_birds

from birdinv.files import write_json
from birdinv.reproduce.bird_summary import gain_tables
from birdinv.reproduce.collected import collect
from birdinv.reproduce.rendering import write_readme
from birdinv.reproduce.sw_summary import COSTS, comparison
from birdinv.reproduce.tables import TABLES

ROWS = ("supervised", "weighted", "multiscale", "swwae-encoder", "swwae")
# By seed the accuracies of recordings and of segments.
BASE = {0: (0.50, 0.40), 1: (0.60, 0.50)}
SWWAE = {0: (0.56, 0.44), 1: (0.62, 0.49)}
ALL = {0: (0.80, 0.70)}
COST = {
    "parameters": 1_234_567,
    "seconds_a_step": 0.04321,
    "times_supervised": 1.256,
    "peak_mb": 512.4,
    "peak_times_supervised": 1.5,
}
DASHES = ["–"] * 5


def write(results: Path, row: str, labels: int | None, scores, budget: str = "cpu") -> None:
    write_birds(cell_of("sw-birds", row, labels, budget=budget), results, scores)


def write_costs(results: Path, rows: object) -> Path:
    path = results / COSTS
    write_json(path, {"turns": 15, "steps_a_turn": 3, "rows": rows, "versions": {}})
    return path


def blocks(results: Path) -> list[str]:
    found, refused = collect(TABLES["sw-birds"], results)
    assert not refused
    return list(comparison(found, results))


def table(results: Path) -> dict[str, list[str]]:
    """The lines of the table by row; the head's name is `Row`."""
    _, text, _ = blocks(results)
    lines = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines()]
    assert len({len(line) for line in lines}) == 1 and set("".join(lines[1])) == {"-", ":"}
    found = {name: rest for name, *rest in (lines[0], *lines[2:])}
    assert len(found) == len(lines) - 1
    return found


@pytest.fixture
def results(tmp_path) -> Path:
    """Two rows with 3 labelled a class, one of them with all labelled too."""
    write(tmp_path, "supervised", 3, BASE)
    write(tmp_path, "supervised", None, ALL)
    write(tmp_path, "swwae", 3, SWWAE)
    return tmp_path


def test_a_line_has_accuracies_of_recordings_and_segments_and_what_a_row_costs(results):
    write_costs(results, {"swwae": COST, "supervised": {**COST, "seconds_a_step": 0.01}})
    assert (results / "sw-birds-cost.json").exists()
    lines = table(results)
    assert lines["Row"] == [
        *("Recordings, 3 labelled a class", "Segments, 3 labelled a class"),
        *("Recordings, all labelled", "Segments, all labelled"),
        *("Parameters", "A step, ms", "× supervised", "Peak memory, MB", "× supervised"),
    ]
    assert lines["swwae"] == [
        *("59.00 ± 4.24 (n = 2)", "46.50 ± 3.54 (n = 2)", "not run", "not run"),
        *("1,234,567", "43.2", "1.26", "512", "1.50"),
    ]
    assert lines["supervised"] == [
        *("55.00 ± 7.07 (n = 2)", "45.00 ± 7.07 (n = 2)", "80.00 (n = 1)", "70.00 (n = 1)"),
        *("1,234,567", "10.0", "1.26", "512", "1.50"),
    ]
    heading, _, about = blocks(results)
    assert heading == "### SWWAE and inversion, same splits, same steps"
    assert "mean ± std over the runs" in about


def test_rows_stand_in_the_order_of_the_table_and_only_those_that_were_run(tmp_path):
    for row in reversed(ROWS):
        if row != "weighted":
            write(tmp_path, row, 3, BASE)
    assert list(table(tmp_path)) == ["Row", *(row for row in ROWS if row != "weighted")]


def test_a_row_that_was_run_with_every_label_alone_has_its_line(tmp_path):
    write(tmp_path, "swwae", 3, SWWAE)
    write(tmp_path, "multiscale", None, ALL)
    lines = table(tmp_path)
    assert lines["multiscale"][:4] == ["not run", "not run", "80.00 (n = 1)", "70.00 (n = 1)"]
    assert lines["swwae"][2:4] == ["not run", "not run"]


def test_of_one_number_of_labels_there_are_no_columns_of_the_other(tmp_path):
    write(tmp_path, "swwae", None, ALL)
    lines = table(tmp_path)
    assert lines["Row"][:3] == ["Recordings, all labelled", "Segments, all labelled", "Parameters"]
    assert lines["swwae"] == ["80.00 (n = 1)", "70.00 (n = 1)", *DASHES]


def test_results_without_accuracies_of_recordings_lack_those_alone(tmp_path):
    write_result(cell_of("sw-birds", "swwae", 3), tmp_path, [0.4, 0.5])
    assert table(tmp_path)["swwae"][:2] == ["not run", "45.00 ± 7.07 (n = 2)"]


# Costs -----------------------------------------------------------------------------------------


def test_where_nobody_has_measured_there_are_dashes(results):
    assert {row: line[-5:] for row, line in table(results).items() if row != "Row"} == {
        "supervised": DASHES,
        "swwae": DASHES,
    }


def test_a_row_that_was_not_measured_has_dashes_and_the_others_their_numbers(results):
    write_costs(results, {"swwae": COST, "multiscale": COST})
    lines = table(results)
    assert lines["supervised"][-5:] == DASHES and lines["swwae"][-5] == "1,234,567"
    assert "multiscale" not in lines  # measured, and not run


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        [],
        {},
        {name: value for name, value in COST.items() if name != "peak_mb"},
        {**COST, "parameters": "many"},
        {**COST, "times_supervised": None},
        {**COST, "seconds_a_step": True},
        {**COST, "seconds_a_step": float("nan")},
        {**COST, "peak_mb": float("inf")},
        {**COST, "peak_mb": 10**400},
        {**COST, "peak_times_supervised": [1.5]},
    ],
)
def test_costs_that_are_no_numbers_are_dashes(results, entry):
    path = results / COSTS
    path.write_text(json.dumps({"rows": {"swwae": entry, "supervised": COST}}), "utf-8")
    lines = table(results)
    assert lines["swwae"][-5:] == DASHES
    assert lines["supervised"][-5:] == ["1,234,567", "43.2", "1.26", "512", "1.50"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"rows": {"swwae"',
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"null",
        b"{}",
        b'{"rows": null}',
        b'{"rows": ["swwae"]}',
        b'{"rows": 3}',
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:16]),
)
def test_a_damaged_file_of_costs_costs_the_columns_alone(results, content):
    without = table(results)
    (results / COSTS).write_bytes(content)
    assert table(results) == without
    assert "| swwae | 59.00 ± 4.24 (n = 2) |" in write_readme(results).read_text("utf-8")


# Nothing to say --------------------------------------------------------------------------------


def test_of_no_results_there_is_no_table(tmp_path):
    write_costs(tmp_path, {"swwae": COST})
    assert blocks(tmp_path) == []
    assert "SWWAE and inversion" not in write_readme(tmp_path).read_text("utf-8")


def test_runs_that_are_no_measurement_are_not_in_it(results):
    before = blocks(results)
    for budget in ("smoke", "paper"):
        write(results, "swwae", 3, {0: (0.1, 0.1)}, budget)
        write(results, "multiscale", None, {0: (0.1, 0.1)}, budget)
    assert blocks(results) == before
    only = results / "only"
    write(only, "swwae", 3, SWWAE, "smoke")
    assert blocks(only) == []


# README.md -------------------------------------------------------------------------------------


def section(text: str, name: str) -> str:
    (found,) = [each for each in text.split("\n## ") if each.startswith(f"{name}: ")]
    return found


def test_the_readme_has_it_and_the_paired_gains_in_the_section_of_the_birds(results):
    write_costs(results, {"swwae": COST})
    write(results, "swwae", None, {0: (0.83, 0.71)})
    text = write_readme(results).read_text("utf-8")
    found, _ = collect(TABLES["sw-birds"], results)
    own = section(text, "sw-birds")
    for block in (*comparison(found, results), *gain_tables(found)):
        assert f"\n\n{block}\n" in own and text.count(block) == 1
    heads = [line for line in own.splitlines() if line.startswith("### ")]
    assert heads == [
        "### SWWAE and inversion, same splits, same steps",
        "### bird_kenya6, 3 labelled a class, by-recording, cpu",
        "### bird_kenya6, all labelled, by-recording, cpu",
    ]
    assert "No result" not in text
    assert write_readme(results).read_text("utf-8") == text


def test_gains_are_of_pairs_of_runs_of_one_seed(results):
    """By hand: 6 and 2 points of recordings, 4 and −1 of segments; of all labelled 3 and 1."""
    write(results, "swwae", None, {0: (0.83, 0.71), 4: (0.10, 0.10)})
    own = section(write_readme(results).read_text("utf-8"), "sw-birds")
    few, every = own.split("### bird_kenya6, ")[1:]
    assert few.startswith("3 labelled a class, ") and every.startswith("all labelled, ")
    lines = [
        [part.strip() for part in line.split("|")[1:-1]]
        for part in (few, every)
        for line in part.splitlines()
        if line.startswith("| swwae |")
    ]
    low, high = 4 - 12.7062 * 2, 4 + 12.7062 * 2  # Student's t of two splits
    assert lines == [
        [
            *("swwae", "59.00 ± 4.24", "+4.00 ± 2.83", f"{low:+.1f} to {high:+.1f}"),
            *("46.50 ± 3.54", "+1.50 ± 3.54", "2"),
        ],
        ["swwae", "46.50 ± 51.62", "+3.00", "–", "40.50 ± 43.13", "+1.00", "1"],
    ]


def test_without_supervised_training_there_is_nothing_to_gain_on(tmp_path):
    write(tmp_path, "swwae", 3, SWWAE)
    own = section(write_readme(tmp_path).read_text("utf-8"), "sw-birds")
    assert "### SWWAE and inversion" in own and "### bird_kenya6" not in own


@pytest.mark.parametrize("value", [None, "high", [0.5], True, float("nan"), 98.5])
def test_an_accuracy_of_recordings_that_is_no_share_is_no_result_and_says_so(results, value):
    cell = cell_of("sw-birds", "swwae", 3)

    def damage(result):
        result["seeds"][0]["test_recording_accuracy"] = value

    edit(cell.file(results), damage)
    text = write_readme(results).read_text("utf-8")
    assert "46.50 ± 3.54" not in text and "| supervised |" in text
    assert "seed 0: its accuracy per recording is not from 0 to 1" in text
