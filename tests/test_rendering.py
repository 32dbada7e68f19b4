"""The README says what the result files say: no more, no less, and nothing that is not so."""

import os
import re
import shlex
import statistics

import pytest
from birdinv_cli.reproduce import command as reproduce
from click.testing import CliRunner
from made_up import cell_of, edit, write_result

from birdinv.reproduce.cells import cells
from birdinv.reproduce.collected import mean_std, ranges
from birdinv.reproduce.rendering import cell_line, write_readme
from birdinv.reproduce.tables import TABLES

MEAN = ("inv-table2", "smallcnn-mean", 50)
WIDE = ("ms-table2", "wide-resnet-lambda", 1000)


def lines_of(text: str, row: str, labels: object) -> list[list[str]]:
    """The cells of the lines of a row in the first table that has it."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(parts) == 10 and parts[:2] == [row, str(labels)]:
            found.append(parts)
    return found


# The line of a cell ----------------------------------------------------------------------------


def test_a_line_says_mean_std_seeds_and_what_was_published(tmp_path):
    cell = cell_of(*MEAN)
    result = write_result(cell, tmp_path, [0.98, 0.985, 0.99])
    assert cell_line(cell, result) == (
        "smallcnn-mean, 50 labels: test 98.50 ± 0.50 % over 3 seeds (published 99.07)"
    )


def test_a_table_of_errors_gets_errors(tmp_path):
    cell = cell_of("ms-table3", "cnn-gamma", 4000)
    line = cell_line(cell, write_result(cell, tmp_path, [0.7]))
    assert line == ("cnn-gamma, 4000 labels: test error 30.00 % with seed 0 (published 25.19)")


def test_nothing_is_published_of_a_stand_in_nor_said_of_no_seed(tmp_path):
    cell = cell_of("ms-table2", "cnn-lambda", 100, dataset="svhn_small")
    result = write_result(cell, tmp_path, [0.7, 0.8])
    assert cell_line(cell, result) == (
        "cnn-lambda on svhn_small, 100 labels: test error 25.00 ± 7.07 % over 2 seeds"
    )
    assert cell_line(cell, {**result, "seeds": []}).endswith("100 labels: not run")


@pytest.mark.parametrize("table", TABLES)
def test_most_lines_fit_a_terminal(table, tmp_path):
    for cell in cells(table):
        line = cell_line(cell, write_result(cell, tmp_path, [0.1, 0.2]))
        assert "\n" not in line and len(line) <= 92
        if len(cell.row.name) <= 15:
            assert len(line) <= 80


# The table of all cells ------------------------------------------------------------------------


def test_numbers_of_a_line(tmp_path):
    test, valid = [0.9812, 0.9774, 0.9908], [0.98, 0.99, 0.97]
    write_result(cell_of(*MEAN), tmp_path, test, valid=valid)
    ((*line, command),) = lines_of(write_readme(tmp_path).read_text("utf-8"), *MEAN[1:])
    percent = [100 * each for each in test]
    mean, std = statistics.mean(percent), statistics.stdev(percent)
    assert line == [
        "smallcnn-mean", "50", "99.07", f"{mean:.2f} ± {std:.2f}", "98.00 ± 1.00", "0-2 (n = 3)",
        "few-labels, cpu", "1", f"{mean - 99.07:+.2f}",
    ]  # fmt: skip
    assert command.endswith("--row smallcnn-mean --labels 50 --seeds 0-2 --budget cpu`")


def test_the_difference_of_errors_is_positive_where_ours_is_worse(tmp_path):
    write_result(cell_of(*WIDE), tmp_path, [0.9])
    (line,) = lines_of(write_readme(tmp_path).read_text("utf-8"), *WIDE[1:])
    assert line[2:5] == ["7.14 ± 0.30", "10.00", "10.00"] and line[8] == "+2.86"


def test_what_was_not_run_has_no_number_but_the_published_one(tmp_path):
    text = write_readme(tmp_path / "none").read_text("utf-8")
    expected = [
        cell
        for name, table in TABLES.items()
        for dataset in table.printed
        for cell in cells(name, dataset=dataset)
    ]
    for cell in expected:
        labels = "all" if cell.labels is None else cell.labels
        if cell.dataset != cell.table.dataset:
            labels = f"{labels} of {cell.dataset}"
        (line,) = lines_of(text, cell.row.name, labels)[:1]
        assert line[3:9] == ["not run", *"–––––"], line
    assert text.count("| not run |") == len(expected)
    assert "hours" not in text  # nothing took any


def test_each_budget_and_preset_has_its_line(tmp_path):
    for choice in ({}, {"budget": "smoke"}, {"preset": "inv-mnist"}):
        write_result(cell_of(*MEAN, **choice), tmp_path, [0.9])
    lines = lines_of(write_readme(tmp_path).read_text("utf-8"), *MEAN[1:])
    assert [line[6] for line in lines] == ["few-labels, smoke", "few-labels, cpu", "inv-mnist, cpu"]
    assert "--preset inv-mnist" in lines[2][9] and "--preset" not in lines[1][9]


def test_a_stand_in_takes_no_ones_place(tmp_path):
    write_result(cell_of("ms-table2", "cnn-lambda", 100, dataset="svhn_small"), tmp_path, [0.8])
    text = write_readme(tmp_path).read_text("utf-8")
    assert lines_of(text, "cnn-lambda", 500)[0][3] == "not run"
    (line,) = lines_of(text, "cnn-lambda", "100 of svhn_small")
    assert line[2] == "–" and line[3] == "20.00" and line[8] == "–"
    assert "svhn_small in place of svhn" in text
    assert "never to be reported as SVHN error" in text


def test_of_a_stand_in_that_the_paper_has_its_numbers_are_shown(tmp_path):
    cell = cell_of("sw-table3", "swwae", None, dataset="cifar100")
    result = write_result(cell, tmp_path, [0.5])
    assert cell_line(cell, result) == (
        "swwae on cifar100, all labels: test 50.00 % with seed 0 (published 69.12)"
    )
    text = write_readme(tmp_path).read_text("utf-8")
    (line,) = lines_of(text, "swwae", "all of cifar100")
    assert line[2:4] == ["69.12", "50.00"] and line[8] == "-19.12"
    (line,) = lines_of(text, "convnet", "all of cifar100")
    assert line[2:4] == ["67.50", "not run"] and line[9].endswith("--dataset cifar100`")
    assert "Data set: cifar10, and with `--dataset` cifar100." in text
    assert "in place of" not in text


def test_epochs_are_those_of_the_runs_and_not_of_the_table_as_it_is_now(tmp_path):
    cell = cell_of(*MEAN)
    write_result(cell, tmp_path, [0.9])
    edit(cell.file(tmp_path), lambda result: result["config"].update(epochs=2.5))
    (line,) = lines_of(write_readme(tmp_path).read_text("utf-8"), *MEAN[1:])
    assert line[7] == "2.5"


def test_below_a_table_is_what_was_not_as_in_the_paper_and_what_it_ran_on(tmp_path):
    first = cell_of("inv-table2", "resnet2-32-mean", 50)
    write_result(first, tmp_path, [0.9] * 3, changes={"versions": {"torch": "2.9"}})
    other = cell_of("inv-table2", "resnet2-32-max", 50)
    write_result(other, tmp_path, [0.9], changes={"device": "cuda:0", "versions": {"torch": "3"}})
    text = write_readme(tmp_path).read_text("utf-8")
    (deviations,) = [line for line in text.splitlines() if line.startswith("- Deviations")]
    assert "0.2 epochs; 5000 training images set apart" in deviations
    assert deviations.endswith("In: resnet2-32-mean, resnet2-32-max (50 labels, few-labels, cpu).")
    assert "- Devices: cpu, cuda:0." in text
    assert "- Versions: torch 2.9 and 3." in text
    assert "took 2.00 hours" in text  # four times half an hour


# Files that are no result ----------------------------------------------------------------------


def cut(path):
    path.write_text(path.read_text("utf-8")[:200], "utf-8")


def change(**changes):
    return lambda path: edit(path, lambda result: result.update(changes))


def seed(**changes):
    return lambda path: edit(path, lambda result: result["seeds"][0].update(changes))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut, id="cut"),
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe"), id="no text"),
        pytest.param(lambda path: path.write_text("[1, 2]"), id="a list"),
        pytest.param(change(format="another"), id="another format"),
        pytest.param(change(row="smallcnn-max"), id="another row"),
        pytest.param(change(labels=100), id="other labels"),
        pytest.param(change(seeds={}), id="no list of seeds"),
        pytest.param(change(seeds=[]), id="no seed"),
        pytest.param(seed(seed=1), id="a seed twice"),
        pytest.param(seed(seed="0"), id="a seed that is text"),
        pytest.param(seed(test_accuracy=98.5), id="percent"),
        pytest.param(seed(test_accuracy=float("nan")), id="nan"),
        pytest.param(seed(test_accuracy=True), id="true"),
        pytest.param(seed(valid_accuracy="high"), id="a word"),
        pytest.param(seed(seconds="long"), id="a time that is text"),
        pytest.param(change(split_hash=None), id="no hashes"),
        pytest.param(change(config=[]), id="no settings"),
    ],
)
def test_a_damaged_file_is_named_and_its_cell_counts_as_not_run(damage, tmp_path):
    cell = cell_of(*MEAN)
    write_result(cell, tmp_path, [0.9, 0.95])
    damage(cell.file(tmp_path))
    text = write_readme(tmp_path).read_text("utf-8")
    (named,) = [line for line in text.splitlines() if line.startswith("- **No result**")]
    assert "inv-table2/mnist-50/smallcnn-mean.few-labels.cpu.json" in named
    (line,) = lines_of(text, *MEAN[1:])
    assert line[3] == "not run"


def test_a_foreign_file_is_named_and_what_lies_outside_of_the_tables_is_nobodys_business(tmp_path):
    (tmp_path / "ms-table3" / "folder.json").mkdir(parents=True)
    (tmp_path / "ms-table3" / "notes.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run.json").write_text("{")
    named = [
        line
        for line in write_readme(tmp_path).read_text("utf-8").splitlines()
        if "No result" in line
    ]
    assert named == ["- **No result**: ms-table3/notes.json is of no cell of ms-table3."]


def test_no_text_of_a_file_gets_out_of_its_line(tmp_path):
    evil = "a | b\n# Head\r\n<script>x</script> [l](http://x) `c` \u2028 ![i](y)"
    changes = {"device": evil, "deviations": [evil, 7], "versions": {evil: [evil], "torch": "2"}}
    write_result(cell_of(*MEAN), tmp_path, [0.9], changes=changes)
    odd = tmp_path / "ms-table3" / "x|<b>`.json"
    odd.parent.mkdir()
    odd.write_text("{}")
    text = write_readme(tmp_path).read_text("utf-8")
    assert "<script>" not in text and "<b>" not in text and "\u2028" not in text
    assert not re.search(r"(?<!\\)\[|(?<!\\)\]", text)
    assert "# Head" not in [line.strip() for line in text.splitlines()]
    assert "a \\| b" in text and "x\\|&lt;b&gt;\\`.json" in text
    long = {"device": "x" * 100_000}
    write_result(cell_of("inv-table2", "smallcnn-max", 50), tmp_path, [0.9], changes=long)
    assert len(write_readme(tmp_path).read_text("utf-8")) < len(text) + 2000


def test_the_same_folder_gives_the_same_bytes_however_it_is_named(tmp_path, monkeypatch):
    write_result(cell_of(*MEAN), tmp_path / "results", [0.9, 0.95])
    write_result(cell_of(*WIDE), tmp_path / "results", [0.9])
    cut(cell_of(*WIDE).file(tmp_path / "results"))
    first = write_readme(tmp_path / "results").read_bytes()
    monkeypatch.chdir(tmp_path)
    again = write_readme(type(tmp_path)("results")).read_bytes()
    assert first == again and b"No result" in first
    assert str(tmp_path).encode() not in first
    assert sorted(os.listdir("results")) == ["README.md", "inv-table2", "ms-table2"]


# Commands --------------------------------------------------------------------------------------


def test_every_command_in_it_is_understood_and_is_for_its_cell(tmp_path):
    for choice in ({}, {"preset": "inv-mnist"}, {"budget": "smoke"}):
        write_result(cell_of(*MEAN, **choice), tmp_path, [0.9])
    stand_in = cell_of("inv-figure2", "alpha1-beta0", None, dataset="bird_kenya6")
    write_result(stand_in, tmp_path, [0.4])
    text = write_readme(tmp_path).read_text("utf-8")
    commands = re.findall(r"`(birdinv reproduce .*?)`", text)
    of_cells = [each for each in commands if "--row" in each]
    assert len(of_cells) > 50
    listed = set()
    for each in commands:
        _, _, *arguments = shlex.split(each)
        shown = CliRunner().invoke(reproduce, [*arguments, "--list"])
        assert shown.exit_code == 0, (each, shown.output)
        if each in of_cells:
            line, about = shown.output.splitlines()
            assert about.startswith("preset ")
            listed.add((arguments[0], line.split(":")[0]))
    assert len(listed) == len(of_cells)
    assert ("inv-table2", cell_of(*MEAN, preset="inv-mnist").name) in listed
    assert ("inv-figure2", stand_in.name) in listed


def test_numbers_in_words():
    assert ranges([0]) == "0" and ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert mean_std([]) == "–" and mean_std([1.0]) == "1.00"
    assert mean_std([1.0, 3.0]) == "2.00 ± 1.41" and mean_std([0.5, 0.5], signed=True) == (
        "+0.50 ± 0.00"
    )


# The ablation ----------------------------------------------------------------------------------


def small_tables(text: str) -> dict[str, list[str]]:
    rows = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| "))
    return {name: rest for name, *rest in rows if len(rest) == 2}


def test_what_a_term_adds_is_counted_seed_by_seed(tmp_path):
    tests = {
        "entropy": [0.80, 0.90, 0.95],
        "global": [0.81, 0.92, 0.94],
        "entropy-balance": [0.97, 0.98, 0.96],
        "multiscale-balance": [0.98, 0.99],
    }
    for row, accuracies in tests.items():
        write_result(cell_of("mnist-ablation", row, 50), tmp_path, accuracies)
    text = write_readme(tmp_path).read_text("utf-8")
    rows = small_tables(text)
    assert "the seeds that all rows have: 0-1 (n = 2)" in text
    assert rows["entropy"] == ["85.00 ± 7.07", "97.50 ± 0.71"]
    assert rows["global"] == ["86.50 ± 7.78", "not run"]
    assert rows["entropy → global"] == ["+0.67 ± 1.53 (higher on 2 of 3)", "not run"]
    assert rows["entropy → multiscale"] == ["not run", "+1.00 ± 0.00 (higher on 2 of 2)"]
    steps = [17.0, 8.0, 1.0]
    assert f"| entropy | {mean_std(steps, signed=True)} (higher on 3 of 3) |" in text


def test_ablations_of_different_length_are_not_mixed(tmp_path):
    write_result(cell_of("mnist-ablation", "entropy", 50), tmp_path, [0.8])
    write_result(cell_of("mnist-ablation", "global", 50, budget="smoke"), tmp_path, [0.3])
    text = write_readme(tmp_path).read_text("utf-8")
    assert text.count("### Objective and balance") == 2
    assert "| entropy → global | not run | not run |" in text and "-50.00" not in text


def test_rows_without_a_seed_in_common_are_not_compared(tmp_path):
    for row in ("entropy", "global"):
        write_result(cell_of("mnist-ablation", row, 50), tmp_path, [0.8])
    path = cell_of("mnist-ablation", "global", 50).file(tmp_path)
    edit(path, lambda result: result["seeds"][0].update(seed=4))
    text = write_readme(tmp_path).read_text("utf-8")
    assert "No seed has been run for all of these rows" in text
    assert "| entropy → global | no seed in common | not run |" in text
