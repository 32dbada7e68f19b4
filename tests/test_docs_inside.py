"""docs/inside.md: its block runs, its commands are known, its numbers are those of the results."""

import json
import re
import shlex
import statistics
from pathlib import Path

import pytest
import torch
from birdinv_cli.main import birdinv

from birdinv.inspection.comparison_page import MEASURES, printed
from birdinv.spline import __all__ as names_of_spline

PAGE = Path(__file__).parent.parent / "docs" / "inside.md"
TEXT = PAGE.read_text(encoding="utf-8")
RESULTS = PAGE.parent.parent / "results" / "inside"
ROWS = {
    row[0]: row[1:]
    for line in TEXT.splitlines()
    if line.startswith("| ") and "of 3 |" in line
    for row in [[cell.strip() for cell in line.split("|")[1:-1]]]
}


def runs(labels):
    """The two runs of each split."""
    files = [RESULTS / f"{labels}-labels-split-{split}.json" for split in range(3)]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def sorting(run):
    """Mean distances in the last layer."""
    return run["sorting"]["hidden.2"]


def cells(pairs, kind):
    """Both means, and on how many splits the second is higher, as the table has them."""
    a, b = zip(*pairs, strict=True)
    higher = sum(y > x for x, y in pairs)
    return [printed(statistics.mean(a), kind), printed(statistics.mean(b), kind), f"{higher} of 3"]


@pytest.mark.parametrize("key", [key for key in MEASURES if MEASURES[key][0] in ROWS])
def test_a_row_of_measures_is_the_mean_of_the_results(key):
    title, kind, _ = MEASURES[key]
    expected = []
    for labels in ("all", "3"):
        both = [(each["runs"]["a"], each["runs"]["b"]) for each in runs(labels)]
        expected += cells([(a["measures"][key], b["measures"][key]) for a, b in both], kind)
    assert ROWS[title] == expected


def test_active_units_and_distances_are_those_of_the_results():
    active, sorted_ = [], []
    for labels in ("all", "3"):
        both = [(each["runs"]["a"], each["runs"]["b"]) for each in runs(labels)]
        shares = [tuple(statistics.mean(r["active"].values()) for r in pair) for pair in both]
        active += cells(shares, "%")
        last = [tuple(sorting(r)["within"] / sorting(r)["between"] for r in p) for p in both]
        sorted_ += cells(last, "x")
    assert ROWS["Active units"] == active
    assert ROWS["Last layer: distance within classes / between"] == sorted_


def test_what_is_said_of_distances_and_borders_is_the_mean_of_the_results():
    found = [each["runs"]["b"] for each in runs("all")]
    before, after = (
        [f"{statistics.mean(sorting(run)[f'{key}{when}'] for run in found):.2f}" for key in KINDS]
        for when in ("_before", "")
    )
    words = " ".join(TEXT.split())
    assert f"classes went from {before[0]} to {after[0]}, that between them from" in words
    assert f"between them from {before[1]} to {after[1]} (`weighted`" in words
    border = statistics.mean(run["measures"]["boundary_db"] for run in found)
    assert f"a change of −{-border:.0f} dB is enough" in words


KINDS = ("within", "between")


def test_its_table_has_the_measures_of_the_issue():
    asked = ("segment_accuracy", "reconstruction", "cosine_true", "lipschitz_lower")
    asked += ("lipschitz_upper", "boundary_db", "flip_db", "generalisation_gap")
    assert {MEASURES[key][0] for key in asked} <= set(ROWS)


def test_the_results_are_of_the_test_set_of_the_same_two_rows():
    for labels in ("all", "3"):
        for found in runs(labels):
            assert found["split"] == "test" and found["samples"] == 256
            a, b = (found["runs"][key]["name"] for key in "ab")
            assert a.startswith("supervised.") and b.startswith("weighted.")
            assert a.split("/")[1] == b.split("/")[1]


def test_its_block_runs():
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    torch.manual_seed(0)
    exec(block, names)
    assert names["found"].A.shape == (8, 3, 1, 11025)
    assert names["bound"].lower <= names["bound"].upper


def test_its_calls_are_those_of_the_package():
    table = [line for line in TEXT.splitlines() if line.startswith("| ") and "`" in line]
    called = {
        name.split(".")[0]
        for line in table
        if "of 3 |" not in line
        for name in re.findall(r"`(\w+(?:\.\w+)?)`", line)
    }
    assert len(called) >= 12
    assert called <= set(names_of_spline)


def test_no_number_is_left_open_and_no_line_of_text_is_longer_than_110():
    assert "{{" not in TEXT
    lines = [line for line in TEXT.splitlines() if not line.startswith(("|", "![", "birdinv "))]
    lines = [re.sub(r"\]\(\S*\)", "]()", line) for line in lines]
    assert [line for line in lines if len(line) > 110] == []


def test_its_pictures_are_there_and_its_recording_is_credited():
    pictures = re.findall(r"\]\((\S+\.png)\)", TEXT)
    assert len(pictures) == 5
    for picture in pictures:
        assert (PAGE.parent / picture).resolve().read_bytes().startswith(b"\x89PNG")
    assert re.search(r"XC\d+.*CC BY-NC-SA", TEXT)


@pytest.mark.parametrize("line", re.findall(r"^birdinv [^#\n]*", TEXT, re.MULTILINE))
def test_its_commands_have_the_options_it_names(line):
    _, name, *words = shlex.split(line)
    known = {option for p in birdinv.get_command(None, name).params for option in p.opts}
    assert {word for word in words if word.startswith("-")} <= known
