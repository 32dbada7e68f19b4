"""What docs/swwae.md says: its blocks run, its commands are known, its numbers are the results'."""

import json
import re
import shlex
import statistics
from pathlib import Path

import pytest
import torch
from birdinv_cli.main import birdinv
from click.testing import CliRunner

from birdinv.reproduce.cells import cells
from birdinv.reproduce.collected import at_hand, mean_std

PAGE = Path(__file__).parent.parent / "docs" / "swwae.md"
TEXT = PAGE.read_text(encoding="utf-8")
RESULTS = PAGE.parent.parent / "results"


def lines_of(heading: str) -> dict[str, list[str]]:
    """The first table below a heading: cells of each line by the name in its first one."""
    below = TEXT.split(f"### {heading}\n")[1].split("\n### ")[0]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in below.splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_its_blocks_run_one_after_the_other():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 2
    names: dict = {}
    torch.manual_seed(0)
    for block in blocks:
        exec(block, names)
    assert names["decoded"].x_tilde.shape == names["x"].shape
    assert list(names["decoded"].levels) == ["stage1", "stage2", "stage3"]
    assert list(names["terms"].levels) == ["input", "stage1", "stage2"]


def test_no_number_is_left_open_and_no_line_of_text_is_longer_than_105():
    assert "{{" not in TEXT
    lines = [line for line in TEXT.splitlines() if not line.startswith(("|", "![", "birdinv "))]
    lines = [re.sub(r"\]\(\S*\)", "]()", line) for line in lines]
    assert [line for line in lines if len(line) > 105] == []


def test_its_pictures_are_there():
    pictures = re.findall(r"\]\((\S+\.png)\)", TEXT)
    assert len(pictures) == 3
    for picture in pictures:
        assert (PAGE.parent / picture).resolve().read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("line", re.findall(r"^birdinv [^#\n]*", TEXT, re.MULTILINE))
def test_its_commands_have_the_options_it_names(line):
    command, *words = shlex.split(line)[1:]
    help_text = CliRunner().invoke(birdinv, [command, "--help"]).output
    options = [word for word in words if word.startswith("--")]
    assert all(option in help_text for option in options)
    if command == "reproduce":
        listed = CliRunner().invoke(birdinv, [command, *words, "--list"])
        assert listed.exit_code == 0, listed.output


def test_its_errors_on_mnist_are_those_of_the_results():
    found = {
        (each.cell.row.name, each.cell.labels): each
        for each in at_hand(cells("sw-table5"), RESULTS)
    }
    rows = lines_of("MNIST")
    assert {"convnet-dropout", "swwae", "swwae-dropout", "multiscale"} <= rows.keys()
    for row, (hundred, thousand, *_) in rows.items():
        for labels, shown in ((100, hundred), (1000, thousand)):
            one = found.get((row, labels))
            expected = mean_std(list(one.scores("test").values())) if one else "not run"
            assert shown == expected, (row, labels)
            assert one is None or one.seeds == [0, 1, 2]


def test_its_numbers_of_birds_are_those_of_the_results():
    costs = json.loads((RESULTS / "sw-birds-cost.json").read_text("utf-8"))["rows"]
    found = {
        (each.cell.row.name, each.cell.labels): each for each in at_hand(cells("sw-birds"), RESULTS)
    }
    rows = lines_of("Birds")
    assert rows.keys() == {row for row, _ in found}
    for row, shown in rows.items():
        expected = []
        for labels in (3, None):
            for name in ("test_recording_accuracy", "test_accuracy"):
                scores = [100 * seed[name] for seed in found[row, labels].result["seeds"]]
                assert len(scores) == 5
                expected.append(f"{statistics.fmean(scores):.1f}")
        cost = costs[row]
        expected += [
            f"{cost['parameters']:,}",
            f"{cost['times_supervised']:.1f}",
            f"{cost['peak_times_supervised']:.2f}",
        ]
        assert shown == expected, row


def test_what_is_left_of_digits_is_what_the_results_say():
    shown = lines_of("With where and without")
    assert len(shown) == 2
    for kind, cells_ in shown.items():
        expected = []
        for window in (2, 4, 8, 16):
            (one,) = at_hand(cells("sw-figure2", rows=[f"{kind}-{window}"]), RESULTS)
            expected.append(f"{one.scores('test')[0]:.1f}")
        assert cells_ == expected
