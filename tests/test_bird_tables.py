"""Tables of few labelled birds: what is run, who keeps a label, what the numbers add up to."""

import itertools
import json
import math
import statistics
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from small import RATE, SETTINGS, sound, write

from birdinv.audio.store import Store
from birdinv.data.segmenting import segment
from birdinv.errors import BirdinvError
from birdinv.reproduce import bird_rows, bird_stores, running
from birdinv.reproduce.bird_choices import WAYS, labelled_so_far
from birdinv.reproduce.bird_stores import bird_store
from birdinv.reproduce.bird_summary import (
    TABLE,
    Setting,
    gain_tables,
    interval,
    settings_of,
    write_summary,
)
from birdinv.reproduce.cells import Cell, all_cells, cells
from birdinv.reproduce.collected import collect, command
from birdinv.reproduce.figures import write_figures
from birdinv.reproduce.presets import NO_PATIENCE, PRESETS
from birdinv.reproduce.rendering import cell_line, write_readme
from birdinv.reproduce.results import add_seed, begin_result, load_result
from birdinv.reproduce.running import run_cell
from birdinv.reproduce.tables import TABLES
from birdinv.suggestions import suggest
from birdinv.training.learner import Learner
from birdinv.training.partition import read_roles
from birdinv.training.recipes import FEW_LABELS

BIRDS = {f"bird{i}": 500.0 + 700 * i for i in range(6)}
EACH = 10


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Six classes of ten recordings, and the recordist of each: three a class."""
    folder = tmp_path_factory.mktemp("birds") / "bird_kenya6"
    lines = ["filename,primary_label,author"]
    for name, hz in BIRDS.items():
        for i in range(EACH):
            write(folder / name / f"{name}-{i}.wav", sound(i, 0.9, hz))
            lines.append(f"{name}/{name}-{i}.wav,{name},recordist {i % 5}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def stores(recordings, tmp_path_factory) -> dict[int, Store]:
    """The split of each way, in segments so few that a step is quick."""
    folder = tmp_path_factory.mktemp("stores")
    found = {}
    for way in range(2):
        settings = replace(SETTINGS, fractions=(0.6, 0.1, 0.3), seed=way)
        segment([recordings], folder / str(way), settings)
        found[way] = Store(folder / str(way))
    return found


@pytest.fixture
def quick(monkeypatch, stores):
    """Runs of two steps on these stores; gives the splits that were asked for."""
    asked = []

    def made(dataset, root, folder, seed, preset):
        asked.append((dataset, seed, preset.grouped))
        return stores[seed]

    monkeypatch.setattr(running, "bird_store", made)
    for table in (TABLE, "birds-suggest"):
        monkeypatch.setitem(TABLES[table].steps, "smoke", 2)
    return asked


def one(table: str, row: str, labels: int, **choice: str) -> Cell:
    (cell,) = cells(table, rows=[row], labels=[labels], **{"budget": "smoke", **choice})
    return cell


def run(cell: Cell, folder: Path, seeds: list[int]) -> dict:
    places = {"root": folder, "results": folder / "results", "runs": folder / "runs"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two steps teach nothing
        return run_cell(cell, seeds, **places, device="cpu")


def run_folder(cell: Cell, folder: Path, seed: int) -> Path:
    return folder / "runs" / cell.table.name / cell.name / f"seed-{seed}"


# ---------------------------------------------------------------- the rows


def test_the_rows_are_the_recipe_its_parts_and_its_rivals():
    table = TABLES[TABLE]
    settings = {row.name: dict(row.settings) for row in table.rows}
    assert len(settings) == len(table.rows) == 2 + 9 + 2 * 5
    shorter = {k: v for k, v in FEW_LABELS.items() if k not in ("steps", "keep")}
    assert settings["few-labels"] == {"network": "bird10", **shorter}
    for row in table.rows:
        wide = row.name in ("supervised", "few-labels")
        assert tuple(row.published) == (bird_rows.LABELS if wide else (3,))
        assert set(row.published.values()) == {None}
        config = one(TABLE, row.name, 3).config(2)
        own = {"no-averaging": 0.0}.get(row.name, 0.99)
        assert (config.batch_size, config.average, config.seed) == (64, own, 2)
        assert config.class_balanced and config.patience == NO_PATIENCE
        assert config.uses_unlabelled == (row.name != "supervised")
        if row.name.endswith("-and-reconstruction"):
            rival = one(TABLE, row.name.removesuffix("-and-reconstruction"), 3).config(2)
            assert rival.objective == "supervised" and config.objective == "layer-weighted"
            assert config.consistency == rival.consistency != "none"
            assert config.gamma == FEW_LABELS["gamma"] and config.beta == 0
    for name in ("no-reconstruction", "no-balance", "no-agreement", "no-augmentation"):
        changed = {k for k, v in settings[name].items() if settings["few-labels"][k] != v}
        assert len(changed) == 1


@pytest.mark.parametrize("table", [TABLE, "birds-suggest"])
def test_all_rows_take_as_many_steps_and_one_look_at_validation(table):
    for cell in all_cells(TABLES[table]):
        config = cell.config(1)
        assert config.steps == TABLES[table].steps[cell.budget]
        assert round(config.check_every) >= config.steps
        assert cell.duration == f"{config.steps:,} steps" and cell.duration in cell.deviations
        assert cell.published is None


ROWS = ("supervised", "few-labels", "no-balance", "fixmatch", "mean-teacher-and-reconstruction")


def test_rows_are_run_from_end_to_end(tmp_path, quick):
    """Of one seed all rows have the same split and labels, of another seed others."""
    splits: dict[int, set[bytes]] = {0: set(), 1: set()}
    for name in ROWS:
        cell = one(TABLE, name, 3)
        result = run(cell, tmp_path, [0, 1])
        assert load_result(cell, cell.file(tmp_path / "results")) == result
        assert result["config"]["steps"] == 2 and "seed" not in result["config"]
        assert result["deviations"] == list(cell.deviations)
        for entry in result["seeds"]:
            assert {len(entry["confusion"]), len(entry["curve"])} == {6, 1}
            confusion = np.array(entry["confusion"])
            right = np.trace(confusion) / confusion.sum()
            assert entry["test_accuracy"] == pytest.approx(right, abs=1e-6)
            # Of 18 test recordings.
            whole = 18 * entry["test_recording_accuracy"]
            assert whole == pytest.approx(round(whole), abs=1e-4)
            folder = run_folder(cell, tmp_path, entry["seed"])
            splits[entry["seed"]].add((folder / "split.csv").read_bytes())
            config = json.loads((folder / "run.json").read_text("utf-8"))["config"]
            assert config["seed"] == entry["seed"] and not (folder / "last.pt").exists()
        assert cell_line(cell, result).startswith(f"{name}, 3 labels: test ")
    assert [len(each) for each in splits.values()] == [1, 1] and splits[0] != splits[1]
    assert set(quick) == {("bird_kenya6", 0, None), ("bird_kenya6", 1, None)}
    summary = write_readme(tmp_path / "results").read_text("utf-8")
    assert "### bird_kenya6, 3 labelled a class, by-recording, smoke" in summary


def test_seeds_five_apart_share_the_split_but_neither_labels_nor_weights(tmp_path, quick):
    cell = one(TABLE, "few-labels", 3)
    result = run(cell, tmp_path, [0, 5])
    assert quick == [("bird_kenya6", 0, None)] * 2
    near, far = (read_roles(run_folder(cell, tmp_path, seed)) for seed in (0, 5))
    assert near["test"] == far["test"] and near["valid"] == far["valid"]
    assert (
        Counter(near["labelled"].values())
        == Counter(far["labelled"].values())
        == dict.fromkeys(BIRDS, 3)
    )
    assert near["labelled"] != far["labelled"]
    assert {*near["labelled"], *near["unlabelled"]} == {*far["labelled"], *far["unlabelled"]}
    assert result["split_hash"]["0"] != result["split_hash"]["5"]
    weights = [
        (run_folder(cell, tmp_path, seed) / "model" / "model.safetensors").read_bytes()
        for seed in (0, 5)
    ]
    assert weights[0] != weights[1]


def test_supervised_training_takes_the_halves_of_labelled_recordings_that_the_others_take(
    tmp_path, quick, monkeypatch
):
    drawn: dict[str, list[torch.Tensor]] = {"supervised": [], "few-labels": []}
    learn = Learner.learn

    def spied(learner, step):
        name = "few-labels" if learner._config.uses_unlabelled else "supervised"
        x, y, *_ = learner._batches.batch(step)
        drawn[name].append(x[y >= 0])
        return learn(learner, step)

    monkeypatch.setattr(Learner, "learn", spied)
    for name in drawn:
        run(one(TABLE, name, 1), tmp_path, [0])
    assert [len(batches) for batches in drawn.values()] == [2, 2]
    for ours, theirs in zip(*drawn.values(), strict=True):
        assert len(ours) == 32 and torch.equal(ours, theirs)


# ---------------------------------------------------------------- who gets a label


def test_labels_are_added_by_chance_to_those_of_the_round_before(stores):
    store = stores[0]
    train = {r.file: r.label for r in store.recordings if r.split == "train"}
    for seed in (0, 5):
        rounds = [labelled_so_far(store, "random", n, None, seed) for n in bird_rows.ROUNDS]
        assert [len(each) for each in rounds] == list(bird_rows.ROUNDS)
        assert all(a < b for a, b in itertools.pairwise(rounds))
        assert Counter(train[file] for file in rounds[0]) == dict.fromkeys(BIRDS, 1)
        assert rounds[-1] <= train.keys()
        assert rounds[0] == labelled_so_far(store, "suggested", 6, None, seed)  # the same for both
    assert labelled_so_far(store, "random", 12, None, 0) != labelled_so_far(
        store, "random", 12, None, 5
    )


def test_the_suggested_are_asked_of_the_network_of_the_round_before(tmp_path, quick, stores):
    first, second = (one("birds-suggest", "suggested", n) for n in (6, 12))
    with pytest.raises(
        BirdinvError, match=r"round before, .*seed-0, is not there; run the smaller"
    ):
        run(second, tmp_path, [0])
    assert not second.file(tmp_path / "results").exists()
    run(first, tmp_path, [0])
    result = run(second, tmp_path, [0])
    assert result["labels"] == 12 and "test_recording_accuracy" in result["seeds"][0]
    before = run_folder(first, tmp_path, 0)
    known = set(read_roles(before)["labelled"])
    best = [each.file for each in suggest(before, stores[0], 6)]
    added = set(read_roles(run_folder(second, tmp_path, 0))["labelled"])
    assert len(known) == 6 and added == known | set(best)
    chance = one("birds-suggest", "random", 12)
    run(chance, tmp_path, [0])
    other = set(read_roles(run_folder(chance, tmp_path, 0))["labelled"])
    assert known < other and len(other) == 12


def test_no_test_or_validation_recording_gets_a_label(tmp_path, quick, stores):
    for n in (6, 12):
        run(one("birds-suggest", "suggested", n), tmp_path, [1])
    roles = read_roles(run_folder(one("birds-suggest", "suggested", 12), tmp_path, 1))
    split = {r.file: r.split for r in stores[1].recordings}
    for role, side in (("labelled", "train"), ("valid", "valid"), ("test", "test")):
        assert {split[file] for file in roles[role]} == {side}
    assert len(roles["test"]) == 18 and len(roles["unlabelled"]) == 36 - 12


# ---------------------------------------------------------------- stores and presets


@pytest.fixture
def whole(monkeypatch, recordings):
    """The data set is there, wherever it is looked for."""
    found = SimpleNamespace(whole=True, folder=recordings)
    monkeypatch.setattr(bird_stores, "check", lambda name, root: found)
    monkeypatch.setitem(bird_stores._SETTINGS, "bird_kenya6", {"sample_rate": RATE, "overlap": 0.5})
    return found


def test_a_store_is_split_as_the_preset_asks_and_made_once(tmp_path, whole, monkeypatch):
    stores = {
        name: bird_store("bird_kenya6", tmp_path, tmp_path, 1, PRESETS[name])
        for name in ("by-recording", "by-recordist", "inv-bird10")
    }
    kinds = [store.path.name.split("-", 2)[2] for store in stores.values()]
    assert kinds == ["recording-1", "author-1", "1"]
    for name in ("by-recording", "by-recordist"):
        by_split = Counter(r.split for r in stores[name].recordings)
        assert by_split == {"train": 36, "valid": 6, "test": 18} or name == "by-recordist"
    sides: dict[str, set[str]] = {}
    for r in stores["by-recordist"].recordings:
        sides.setdefault(r.group, set()).add(r.split)
    assert len(sides) == 5 and all(len(each) == 1 for each in sides.values())
    assert {r.group for r in stores["by-recording"].recordings} == {""}
    monkeypatch.setattr(bird_stores, "segment", lambda *_, **__: pytest.fail("it is there"))
    again = bird_store("bird_kenya6", tmp_path, tmp_path, 1, PRESETS["by-recordist"])
    assert again.hash == stores["by-recordist"].hash


def test_other_files_are_another_store(tmp_path, whole):
    preset = PRESETS["by-recording"]
    first = bird_store("bird_kenya6", tmp_path, tmp_path / "stores", 0, preset)
    extra = write(whole.folder / "bird0" / "another.wav", sound(50, 0.9, 500.0))
    try:
        second = bird_store("bird_kenya6", tmp_path, tmp_path / "stores", 0, preset)
    finally:
        extra.unlink()
    assert first.path != second.path and first.hash != second.hash


@pytest.mark.parametrize(
    ("dataset", "preset", "column"),
    [("bird_kenya6", "by-speaker", "speaker"), ("fsdd", "by-recordist", "author")],
)
def test_a_preset_that_does_not_fit_the_data_set_is_refused(tmp_path, dataset, preset, column):
    labels = 3
    cell = one(TABLE, "few-labels", labels, dataset=dataset, preset=preset)
    sentence = f"{dataset} does not say the {column} of a recording; take another --preset"
    with pytest.raises(BirdinvError, match=sentence):
        run(cell, tmp_path, [0])
    assert not (tmp_path / "results").exists() and not (tmp_path / "runs").exists()


def test_a_data_set_that_is_not_there_is_said(tmp_path):
    with pytest.raises(BirdinvError, match="bird_kenya6"):
        run(one(TABLE, "few-labels", 3), tmp_path, [0])
    for table, choice in ((TABLE, "by-author"), ("birds-suggest", "by-recordist")):
        with pytest.raises(BirdinvError, match=f"there is no preset of {table} called '{choice}'"):
            cells(table, preset=choice)


@pytest.fixture
def digits(monkeypatch, tmp_path) -> Path:
    """Two digits by three speakers, eight takes each."""
    folder = tmp_path / "fsdd"
    for digit in range(2):
        for number, speaker in enumerate(("ann", "ben", "cid")):
            for take in range(8):
                key = 100 * number + take
                write(folder / f"{digit}_{speaker}_{take}.wav", sound(key, 0.4, 500 + 900 * digit))
    found = SimpleNamespace(whole=True, folder=folder)
    monkeypatch.setattr(bird_stores, "check", lambda name, root: found)
    return folder


def test_spoken_digits_are_split_by_speaker_and_labelled_for_each(tmp_path, digits, monkeypatch):
    monkeypatch.setitem(TABLES[TABLE].steps, "smoke", 1)
    cell = one(TABLE, "supervised", 3, dataset="fsdd", preset="by-speaker")
    result = run(cell, tmp_path, [0])
    assert result["dataset"] == "fsdd" and result["labels"] == 3
    roles = read_roles(run_folder(cell, tmp_path, 0))
    speakers = {
        role: {Path(file).name.split("_")[1] for file in roles[role]}
        for role in ("labelled", "unlabelled", "test")
    }
    assert speakers["labelled"] == speakers["unlabelled"]
    assert not speakers["labelled"] & speakers["test"]
    counts = Counter((label, Path(f).name.split("_")[1]) for f, label in roles["labelled"].items())
    assert set(counts.values()) == {3} and len(counts) == 2 * len(speakers["labelled"])


def test_spoken_digits_may_be_split_by_recording(tmp_path, digits):
    """Every speaker is then on every side; no speaker is a group."""
    store = bird_store("fsdd", tmp_path, tmp_path / "stores", 0, PRESETS["by-recording"])
    assert sorted(store.classes) == ["0", "1"]
    assert {r.group for r in store.recordings} == {""}
    sides: dict[str, set[str]] = {}
    for r in store.recordings:
        sides.setdefault(Path(r.file).name.split("_")[1], set()).add(r.split)
    assert any(len(each) > 1 for each in sides.values())


# ---------------------------------------------------------------- what it adds up to


def write_birds(cell: Cell, results: Path, scores: Mapping[int, tuple[float, float]]) -> dict:
    """The result of a cell whose seeds have these accuracies of recordings and of segments."""
    path = cell.file(results)
    result = begin_result(cell, cell.config(0), "cpu", path)
    for seed, (recording, segment_) in scores.items():
        entry = {
            "seed": seed,
            "valid_accuracy": 0.5,
            "test_accuracy": segment_,
            "test_recording_accuracy": recording,
            "epoch": 1.0,
            "seconds": 60.0,
            "confusion": [],
            "curve": [],
        }
        result = add_seed(cell, result, entry, split_hash=f"hash{seed}", sizes={}, path=path)
    return result


BASE = {0: (0.50, 0.40), 1: (0.60, 0.50), 2: (0.40, 0.30), 5: (0.50, 0.45), 6: (0.70, 0.60)}
OURS = {0: (0.60, 0.45), 1: (0.62, 0.49), 2: (0.50, 0.42), 5: (0.54, 0.46), 6: (0.78, 0.61)}


def test_the_summary_is_what_the_numbers_add_up_to(tmp_path):
    """Gains by hand: 10, 2, 10, 4, 8 points by recording; splits 0, 1, 2 have 7, 5, 10."""
    write_birds(one(TABLE, "supervised", 3, budget="cpu"), tmp_path, {**BASE, 7: (0.9, 0.9)})
    write_birds(one(TABLE, "few-labels", 3, budget="cpu"), tmp_path, {**OURS, 8: (0.1, 0.1)})
    path = write_summary(tmp_path)
    assert path == tmp_path / "birds-few-labels.json"
    summary = json.loads(path.read_text("utf-8"))
    assert list(summary) == ["3"]
    entry = summary["3"]
    assert entry["dataset"] == "bird_kenya6" and entry["seeds"] == [0, 1, 2, 5, 6]
    assert entry["recording_accuracy_gains"] == [10, 2, 10, 4, 8]
    assert entry["recording_accuracy_gain"] == pytest.approx(6.8)
    assert entry["recording_accuracy_gains_by_split"] == [7, 5, 10]
    assert entry["segment_accuracy_gains"] == pytest.approx([5, -1, 12, 1, 1])
    assert entry["segment_accuracy_gain"] == pytest.approx(3.6)
    assert entry["segment_accuracy_gains_by_split"] == pytest.approx([3, 0, 12])
    assert entry["supervised_recording_accuracy"] == pytest.approx([50, 60, 40, 50, 70])
    assert entry["few-labels_recording_accuracy"] == pytest.approx([60, 62, 50, 54, 78])
    assert entry["supervised_segment_accuracy"] == pytest.approx([40, 50, 30, 45, 60])
    assert entry["few-labels_segment_accuracy"] == pytest.approx([45, 49, 42, 46, 61])
    for unit, splits in (("recording", [7, 5, 10]), ("segment", [3, 0, 12])):
        expected = stats.t.interval(
            0.95, 2, loc=statistics.fmean(splits), scale=statistics.stdev(splits) / math.sqrt(3)
        )
        assert entry[f"{unit}_accuracy_gain_interval"] == pytest.approx(expected, abs=1e-3)


def test_other_data_sets_and_splits_lie_below_their_preset(tmp_path):
    for labels, choice in (
        (1, {}),
        (3, {}),
        (3, {"preset": "by-recordist"}),
        (3, {"preset": "by-speaker", "dataset": "fsdd"}),
    ):
        for row, scores in (("supervised", BASE), ("few-labels", OURS)):
            write_birds(one(TABLE, row, labels, budget="cpu", **choice), tmp_path, scores)
    summary = json.loads(write_summary(tmp_path).read_text("utf-8"))
    assert set(summary) == {"1", "3", "by-recordist", "by-speaker"}
    assert summary["by-speaker"]["3"]["dataset"] == "fsdd"
    assert summary["by-recordist"]["3"]["recording_accuracy_gain"] == pytest.approx(6.8)


def test_without_pairs_there_is_no_summary(tmp_path):
    assert write_summary(tmp_path) is None and not list(tmp_path.iterdir())
    for row in ("supervised", "few-labels"):
        write_birds(one(TABLE, row, 3), tmp_path, BASE)  # the budget smoke is no measurement
    assert write_summary(tmp_path) is None
    write_birds(one(TABLE, "supervised", 3, budget="cpu"), tmp_path, BASE)
    assert write_summary(tmp_path) is None
    assert not (tmp_path / "birds-few-labels.json").exists()


def test_one_split_has_no_interval(tmp_path):
    for row, scores in (("supervised", BASE), ("few-labels", OURS)):
        only = {seed: scores[seed] for seed in (0, 5)}
        write_birds(one(TABLE, row, 3, budget="cpu"), tmp_path, only)
    entry = json.loads(write_summary(tmp_path).read_text("utf-8"))["3"]
    assert entry["recording_accuracy_gain_interval"] is None
    assert entry["recording_accuracy_gains_by_split"] == [7]


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_interval_is_that_of_student(n):
    values = np.random.default_rng(n).normal(3, 2, n).tolist()
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval(values) == pytest.approx((expected.low, expected.high))
    assert interval([]) is None and interval([1.0]) is None


def test_gains_are_of_the_seeds_that_both_have_and_of_any_base(tmp_path):
    for row, scores in (("supervised", BASE), ("few-labels", OURS), ("vat", {0: (0.55, 0.45)})):
        write_birds(one(TABLE, row, 3, budget="cpu"), tmp_path, scores)
    (setting,) = settings_of(collect(TABLES[TABLE], tmp_path)[0])
    assert isinstance(setting, Setting) and setting.labels == 3
    assert setting.gains("vat", "recording") == pytest.approx({0: 5})
    assert setting.gains("few-labels", "recording", base="vat") == pytest.approx({0: 5})
    assert setting.gains("fixmatch", "segment") == {} == setting.scores("fixmatch", "segment")
    assert setting.by_split({0: 1.0, 5: 3.0, 9: 7.0}) == {0: 2, 4: 7}
    assert setting.by_split({}) == {}


def test_the_table_of_gains_says_what_the_summary_says(tmp_path):
    write_birds(one(TABLE, "vat", 3, budget="cpu"), tmp_path, {0: (0.55, 0.45)})
    assert list(gain_tables(collect(TABLES[TABLE], tmp_path)[0])) == []  # nothing to compare with
    for row, scores in (("supervised", BASE), ("few-labels", OURS)):
        write_birds(one(TABLE, row, 3, budget="cpu"), tmp_path, scores)
    head, table = gain_tables(collect(TABLES[TABLE], tmp_path)[0])
    assert head == "### bird_kenya6, 3 labelled a class, by-recording, cpu"
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert [line[0] for line in lines] == ["Row", "---", "supervised", "few-labels", "vat"]
    assert len({len(line) for line in lines}) == 1
    gains = [10, 2, 10, 4, 8]
    low, high = interval([7, 5, 10])
    assert lines[3] == [
        "few-labels", f"60.80 ± {statistics.stdev([60, 62, 50, 54, 78]):.2f}",
        f"+6.80 ± {statistics.stdev(gains):.2f}", f"{low:+.1f} to {high:+.1f}",
        f"48.60 ± {statistics.stdev([45, 49, 42, 46, 61]):.2f}",
        f"+3.60 ± {statistics.stdev([5, -1, 12, 1, 1]):.2f}", "5",
    ]  # fmt: skip
    assert lines[2][2] == lines[2][3] == lines[2][5] == "–"
    assert lines[4] == ["vat", "55.00", "+5.00", "–", "45.00", "+5.00", "1"]
    text = write_readme(tmp_path).read_text("utf-8")
    assert f"{head}\n\n{table}\n" in text and "No result" not in text
    assert (tmp_path / "birds-few-labels.json").exists()
    assert write_readme(tmp_path).read_text("utf-8") == text


def test_the_command_of_a_line_runs_that_line():
    cell = one(TABLE, "few-labels", 3, dataset="fsdd", preset="by-speaker", budget="cpu")
    assert command(cell, [0, 1, 5]) == (
        "birdinv reproduce birds-few-labels --row few-labels --labels 3 --seeds 0-1,5 "
        "--budget cpu --preset by-speaker --dataset fsdd"
    )


# ---------------------------------------------------------------- figures


def drawn(asked: list[Cell], folder: Path) -> dict[str, bytes]:
    paths = write_figures(asked, results=folder, runs=folder / "runs", root=None)
    found = {path.name: path.read_bytes() for path in paths}
    assert len(found) == len(paths)
    assert all(content.startswith(b"\x89PNG\r\n\x1a\n") for content in found.values())
    return found


def test_figures_of_few_labels_are_drawn_and_the_same_twice(tmp_path):
    for labels in bird_rows.LABELS:
        for row, scores in (("supervised", BASE), ("few-labels", OURS)):
            write_birds(one(TABLE, row, labels, budget="cpu"), tmp_path, scores)
    for row in ("no-balance", "fixmatch"):
        write_birds(one(TABLE, row, 3, budget="cpu"), tmp_path, {0: (0.5, 0.5)})
    asked = cells(TABLE, budget="cpu")
    first = drawn(asked, tmp_path)
    setting = "bird_kenya6.by-recording.cpu.png"
    assert set(first) == {f"accuracy.{setting}", f"gains-3.{setting}"}
    assert drawn(asked, tmp_path) == first
    text = write_readme(tmp_path).read_text("utf-8")
    assert f"(birds-few-labels/figures/accuracy.{setting})" in text


def test_figures_of_suggestions_are_drawn_and_the_same_twice(tmp_path):
    for i, labels in enumerate(bird_rows.ROUNDS):
        for way in WAYS:
            scores = {0: (0.3 + 0.1 * i, 0.3), 1: (0.4 + 0.1 * i, 0.35)}
            write_birds(one("birds-suggest", way, labels, budget="cpu"), tmp_path, scores)
    asked = cells("birds-suggest", budget="cpu")
    first = drawn(asked, tmp_path)
    assert set(first) == {"accuracy.bird_kenya6.by-recording.cpu.png"}
    assert drawn(asked, tmp_path) == first


def test_a_picture_of_little_is_drawn_without_a_warning(tmp_path):
    write_birds(one(TABLE, "few-labels", 1, budget="cpu"), tmp_path, {0: (0.5, 0.5)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(drawn(cells(TABLE, budget="cpu"), tmp_path)) == 1
    with pytest.raises(BirdinvError, match="there is nothing to draw of birds-few-labels"):
        write_figures(
            cells(TABLE, budget="paper"), results=tmp_path, runs=tmp_path / "runs", root=None
        )


# ---------------------------------------------------------------- the real ones


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "preset"),
    [("bird_kenya6", "by-recording"), ("bird_kenya6", "by-recordist"), ("fsdd", "by-speaker")],
)
def test_the_real_data_sets_are_split_as_the_presets_ask(data, tmp_path, dataset, preset):
    store = bird_store(dataset, data, tmp_path / "stores", 0, PRESETS[preset])
    used = [r for r in store.recordings if store.spans.get(r.file)]
    assert len(store.classes) == {"bird_kenya6": 6, "fsdd": 10}[dataset]
    for side in ("train", "test"):
        assert {r.label for r in used if r.split == side} >= set(store.classes)
    if PRESETS[preset].grouped:
        sides: dict[str, set[str]] = {}
        for r in used:
            sides.setdefault(r.group, set()).add(r.split)
        assert all(len(each) == 1 for name, each in sides.items() if name)
    assert torch.isfinite(torch.from_numpy(np.asarray(store.audio[:1000], np.float32))).all()
