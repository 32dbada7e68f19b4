"""The committed results: every file is whole and of its cell, and the table is made from them."""

import shutil
from pathlib import Path

import pytest

from birdinv.data.manifests import load_manifest
from birdinv.data.rank_lists import DRAWS
from birdinv.reproduce.cells import all_cells
from birdinv.reproduce.rendering import write_readme
from birdinv.reproduce.results import load_result, used_settings
from birdinv.reproduce.tables import TABLES

RESULTS = Path(__file__).parent.parent / "results"
CELLS = [
    cell for table in TABLES.values() for cell in all_cells(table) if cell.file(RESULTS).exists()
]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_result_is_what_its_command_would_make_today(cell):
    result = load_result(cell, cell.file(RESULTS))
    threads = result["config"]["threads"]
    assert result["config"] == used_settings(cell.config(0, threads=threads))
    assert result["deviations"] == list(cell.deviations)
    assert all(len(digest) == 64 for digest in result["split_hash"].values())
    for seed in result["seeds"]:
        assert seed["seed"] < DRAWS
        if cell.table.unit == "reconstruction":
            assert 0 < seed["test_reconstruction"] < 1 and "test_accuracy" not in seed
            continue
        assert len(seed["confusion"]) in (6, 10)
        total = sum(map(sum, seed["confusion"]))
        right = sum(row[i] for i, row in enumerate(seed["confusion"]))
        assert total == 10_000 or load_manifest(cell.dataset).kind == "recordings"
        assert seed["test_accuracy"] == pytest.approx(right / total, abs=1e-6)
        best = max(point["valid_accuracy"] for point in seed["curve"])
        assert seed["valid_accuracy"] == best


def test_the_table_is_the_one_that_its_files_make(tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(RESULTS, folder, ignore=shutil.ignore_patterns("runs", "README.md"))
    made = write_readme(folder).read_text(encoding="utf-8")
    assert made == (RESULTS / "README.md").read_text(encoding="utf-8")
    assert "No result" not in made
    files = [path for path in RESULTS.glob("*/**/*.json") if not {"runs", "inside"} & {*path.parts}]
    assert len(files) == len(CELLS)  # those of two runs compared are docs/inside.md's
