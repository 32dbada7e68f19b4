"""Cells of the papers' tables: what is asked for, what is trained, and the file it leaves."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small import write_classes
from test_image_training import make_task, pictures

from birdinv.data.manifests import load_manifest
from birdinv.errors import BirdinvError, Interrupted, SettingError
from birdinv.networks import build
from birdinv.progress import Progress
from birdinv.reproduce import bird_stores, running
from birdinv.reproduce.cells import all_cells, cells
from birdinv.reproduce.presets import PRESETS
from birdinv.reproduce.results import add_seed, begin_result, load_result
from birdinv.reproduce.table import BUDGETS
from birdinv.reproduce.tables import TABLES
from birdinv.training import scoring
from birdinv.training.images import ImageSamples

DATA = os.environ.get("BIRDINV_DATA", "")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pictures_for_mnist(monkeypatch):
    """Trains on small pictures where a cell asks for MNIST, and counts looks at the test set."""
    looks = []

    def task(_name, _root, labels, draw, _pad):
        found = make_task()
        found.identity.update(labels=labels, draw=draw, split_hash=f"hash {draw}")
        return found

    def judged(_info, split, _root):
        looks.append(split)
        images = pictures(30, seed=9)
        return ImageSamples(images, np.arange(30))

    monkeypatch.setattr(running, "images_task", task)
    monkeypatch.setattr(scoring, "samples_to_judge", judged)
    return looks


CELL = cells("inv-table2", rows=["smallcnn-mean"], budget="smoke")[0]


def run(folder: Path, seeds: list[int], **more: object) -> dict:
    places = {"root": folder, "results": folder / "results", "runs": folder / "runs"}
    return running.run_cell(CELL, seeds, **places, device="cpu", **more)


def numbers(result: dict) -> dict:
    """A result without its times."""
    kept = {k: v for k, v in result.items() if k not in ("seconds", "seeds")}
    drop = {"seconds", "curve"}
    seeds = [{k: v for k, v in seed.items() if k not in drop} for seed in result["seeds"]]
    curves = [
        [{k: v for k, v in point.items() if k != "seconds"} for point in seed["curve"]]
        for seed in result["seeds"]
    ]
    return kept | {"seeds": seeds, "curves": curves}


def test_a_result_tells_a_stranger_what_was_run(tmp_path, pictures_for_mnist):
    result = run(tmp_path, [1, 0])
    file = tmp_path / "results/inv-table2/mnist-50/smallcnn-mean.few-labels.smoke.json"
    assert json.loads(file.read_text()) == result
    assert load_result(CELL, file) == result
    for key, value in {
        "dataset": "mnist",
        "labels": 50,
        "network": "smallcnn",
        "objective": "multiscale",
        "device": "cpu",
        "budget": "smoke",
        "split_hash": {"0": "hash 0", "1": "hash 1"},
    }.items():
        assert result[key] == value
    assert result["config"]["learning_rate"] > 0 and "seed" not in result["config"]
    assert result["versions"]["torch"] == torch.__version__
    assert [seed["seed"] for seed in result["seeds"]] == [0, 1]
    for seed in result["seeds"]:
        right = np.trace(np.array(seed["confusion"]))
        assert seed["test_accuracy"] == round(right / 30, 6) and 0 <= seed["valid_accuracy"] <= 1
        assert seed["valid_accuracy"] == max(point["valid_accuracy"] for point in seed["curve"])
    assert result["seconds"] == pytest.approx(sum(s["seconds"] for s in result["seeds"]))
    assert any("moved" in text for text in result["deviations"])


def test_the_test_set_is_read_once_a_seed_at_the_end(tmp_path, pictures_for_mnist):
    run(tmp_path, [0, 1])
    assert pictures_for_mnist == ["test", "test"]
    run(tmp_path, [0, 1])
    assert pictures_for_mnist == ["test", "test"]


def test_what_is_there_is_not_run_again_and_new_seeds_are_added(
    tmp_path, pictures_for_mnist, monkeypatch
):
    first = run(tmp_path, [0])
    trained = []
    train = running.train_task
    monkeypatch.setattr(
        running, "train_task", lambda *a, **k: trained.append(a[2].seed) or train(*a, **k)
    )
    both = run(tmp_path, [0, 1])
    assert trained == [1] and both["seeds"][0] == first["seeds"][0]


def test_a_deleted_result_comes_back_with_the_same_numbers(tmp_path, pictures_for_mnist):
    first = run(tmp_path, [0, 1])
    for file in (tmp_path / "results").rglob("*.json"):
        file.unlink()
    again = run(tmp_path, [1, 0])
    assert numbers(again) == numbers(first)
    fresh = run(tmp_path / "elsewhere", [0, 1])
    assert numbers(fresh) == numbers(first)


class Stop(Progress):
    def __init__(self, after: int) -> None:
        super().__init__("train", "steps")
        self.after = after

    def update(self, amount, **more):
        super().update(amount, **more)
        self.after -= amount
        if amount and self.after == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def longer(monkeypatch):
    """More than the one step that is smoke, so that there is something to interrupt."""
    monkeypatch.setitem(TABLES["inv-table2"].epochs, "smoke", 1.0)


def test_an_interrupted_cell_goes_on(tmp_path, pictures_for_mnist, longer, monkeypatch):
    expected = run(tmp_path / "whole", [0])
    with pytest.raises(Interrupted):
        run(tmp_path, [0], progress=lambda text: Stop(1))
    assert not (tmp_path / "results").exists()
    resumed = []
    train = running.train_task
    monkeypatch.setattr(
        running, "train_task", lambda *a, **k: resumed.append(k["resume"]) or train(*a, **k)
    )
    assert numbers(run(tmp_path, [0])) == numbers(expected)
    assert resumed == [True]


def test_an_interrupted_cell_says_how_to_go_on(tmp_path, pictures_for_mnist, longer):
    with pytest.raises(Interrupted, match=r"seed 0: interrupted; .* the same command goes on"):
        run(tmp_path, [0], progress=lambda text: Stop(1))


@pytest.mark.parametrize(
    ("key", "value"),
    [("config", {}), ("versions", {}), ("device", "cuda:0"), ("outcome", "failed"), ("draw", 7)],
)
def test_a_run_that_is_not_the_same_is_begun_anew(
    tmp_path, pictures_for_mnist, longer, monkeypatch, key, value
):
    expected = run(tmp_path / "whole", [0])
    with pytest.raises(Interrupted):
        run(tmp_path, [0], progress=lambda text: Stop(1))
    (file,) = (tmp_path / "runs").rglob("run.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    resumed = []
    train = running.train_task
    monkeypatch.setattr(
        running, "train_task", lambda *a, **k: resumed.append(k["resume"]) or train(*a, **k)
    )
    assert numbers(run(tmp_path, [0])) == numbers(expected) and resumed == [False]


def test_results_of_other_settings_are_not_mixed(tmp_path, pictures_for_mnist):
    run(tmp_path, [0])
    with pytest.raises(BirdinvError, match=r"made with other settings \(threads\); delete it"):
        run(tmp_path, [1], threads=2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"device": "cuda:0"}, "device cuda:0"), ({"versions": {"torch": "1.0"}}, "torch 1.0")],
)
def test_seeds_of_other_devices_and_libraries_are_not_mixed(
    tmp_path, pictures_for_mnist, changes, sentence
):
    run(tmp_path, [0])
    file = CELL.file(tmp_path / "results")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(BirdinvError, match=f"made with other settings .*{sentence}"):
        run(tmp_path, [1])


def test_two_processes_on_one_cell_keep_each_others_seeds(tmp_path):
    path = CELL.file(tmp_path)
    first, second = (begin_result(CELL, CELL.config(0), "cpu", path) for _ in range(2))
    for begun, seed in ((first, 1), (second, 0)):
        entry = {"seed": seed, "valid_accuracy": 0.5, "test_accuracy": 0.5, "seconds": 2.0}
        add_seed(CELL, begun, entry, split_hash=f"hash {seed}", sizes={}, path=path)
    result = load_result(CELL, path)
    assert [each["seed"] for each in result["seeds"]] == [0, 1] and result["seconds"] == 4
    assert result["split_hash"] == {"0": "hash 0", "1": "hash 1"}


def test_seeds_that_are_added_at_the_same_moment_are_all_kept(tmp_path):
    path = CELL.file(tmp_path)
    begun = begin_result(CELL, CELL.config(0), "cpu", path)

    def add(seed):
        entry = {"seed": seed, "valid_accuracy": 0.5, "test_accuracy": 0.5, "seconds": 2.0}
        add_seed(CELL, begun, entry, split_hash=f"hash {seed}", sizes={}, path=path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert [each["seed"] for each in load_result(CELL, path)["seeds"]] == list(range(8))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_seeds_without_a_draw_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(SettingError, match="asks for seed 10, and there are 10 draws"):
        run(tmp_path, [0, 10])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("{", "is not JSON"),
        ("{}", "is no result of this version"),
        ('{"format": "birdinv-cell", "version": 1, "seeds": [{}]}', "the result of another cell"),
    ],
)
def test_a_damaged_result_is_said(tmp_path, damage, sentence, pictures_for_mnist):
    file = tmp_path / "results/inv-table2/mnist-50/smallcnn-mean.few-labels.smoke.json"
    file.parent.mkdir(parents=True)
    file.write_text(damage)
    with pytest.raises(BirdinvError, match=sentence):
        run(tmp_path, [0])


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (("inv-tabel2", {}), "no table called 'inv-tabel2'; did you mean inv-table2"),
        (
            ("inv-table2", {"rows": ["smalcnn-mean"]}),
            "no row of inv-table2 called 'smalcnn-mean'; did you mean smallcnn-mean",
        ),
        (("inv-table2", {"labels": [51]}), "no cell of 51 labels there; give 50, 1000"),
        (("inv-table2", {"budget": "huge"}), "no budget called 'huge'; known are smoke, cpu"),
        (("ms-table2", {"dataset": "svhn_smal"}), "did you mean svhn_small"),
        (("inv-table2", {"preset": "inv-mnits"}), "did you mean inv-mnist"),
        (("inv-table2", {"labels": [50, 51]}), "no cell of 51 labels there; give 50, 1000"),
        (
            ("inv-table2", {"rows": ["smallcnn-mean-supervised"], "preset": "inv-mnist"}),
            "smallcnn-mean-supervised is trained by the preset inv-supervised alone",
        ),
    ],
)
def test_what_is_not_known_is_told_the_nearest(asked, sentence):
    name, more = asked
    with pytest.raises(BirdinvError, match=sentence):
        cells(name, **more)


def test_every_cell_has_a_network_settings_and_a_name_of_its_own():
    names = set()
    for table in TABLES.values():
        for cell in all_cells(table):
            config = cell.config(3)
            assert config.seed == 3 and config.steps == cell.steps
            assert cell.steps or config.epochs == cell.epochs > 0
            assert (table.name, cell.name) not in names
            names.add((table.name, cell.name))
            assert cell.budget in BUDGETS and cell.preset in PRESETS
            manifest = load_manifest(cell.dataset)
            if manifest.kind == "images":
                channels, *sides = manifest.shape
                shape = (channels, *(side + 2 * config.pad for side in sides))
                classes = len(manifest.classes)
                with torch.device("meta"):
                    build(config.network, classes=classes, shape=shape, **config.options)


def test_without_the_data_it_is_said_in_a_sentence_what_is_missing(tmp_path):
    cell = cells("sw-table3", dataset="cifar100", budget="smoke")[0]
    places = {"root": tmp_path, "results": tmp_path / "results", "runs": tmp_path / "runs"}
    sentence = "cifar100: .*cifar-100-python/train is missing .*`birdinv data prepare cifar100`"
    with pytest.raises(BirdinvError, match=sentence) as error:
        running.run_cell(cell, [0], **places, device="cpu")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_published_numbers_are_those_of_the_papers():
    """A few of each table, typed from the papers once more."""
    published = {
        (table.name, row.name, labels): accuracy
        for table in TABLES.values()
        for row in table.rows
        for labels, accuracy in row.published.items()
    }
    assert published["inv-table2", "resnet2-32-max", 50] == 99.14
    assert published["inv-table2", "largecnn-inhibitor-supervised", 1000] == 96.1
    assert published["inv-figure2", "alpha0.7-beta0.3", None] == 54.65
    assert published["ms-table2", "wide-resnet-lambda", 1000] == 92.86
    assert published["ms-table3", "cnn-lambda", 4000] == 77.37
    semi = [a for (t, r, n), a in published.items() if t == "inv-table2" and n == 50]
    assert len(semi) == 12 and np.mean(semi) == pytest.approx(98.768, abs=0.01)
    assert np.std(semi) == pytest.approx(0.249, abs=0.01)  # INV table 2 prints both


SW_ERRORS = {  # of each data set by number of labels, as printed; with every label from the text
    ("sw-table1", "convnet", "svhn"): {None: 5.89},
    ("sw-table1", "swwae", "svhn"): {1000: 27.83, None: 4.94},
    ("sw-table1", "swwae-dropout", "svhn"): {1000: 23.56},
    ("sw-table4", "swwae", "mnist"): {100: 10.66, 600: 4.35, 1000: 3.17, 3000: 2.13},
    ("sw-table4", "dropout-on-convolution", "mnist"): {
        100: 14.23,
        600: 4.70,
        1000: 3.37,
        3000: 2.08,
    },
    ("sw-table4", "l1", "mnist"): {100: 10.91, 600: 4.61, 1000: 3.55, 3000: 2.67},
    ("sw-table4", "unsup-sfx", "mnist"): {100: 17.81, 600: 8.41, 1000: 6.40, 3000: 4.76},
    ("sw-table4", "unsup-pretr", "mnist"): {600: 9.80, 1000: 6.135, 3000: 4.41},
    ("sw-table4", "noL2M", "mnist"): {100: 12.41, 600: 4.63, 1000: 3.15, 3000: 2.08},
    ("sw-table5", "convnet", "mnist"): {None: 0.76},
    ("sw-table5", "swwae", "mnist"): {100: 9.17, 600: 4.16, 1000: 3.39, 3000: 2.50, None: 0.71},
    ("sw-table5", "swwae-dropout", "mnist"): {100: 8.71, 600: 3.31, 1000: 2.83, 3000: 2.10},
}
SW_ACCURACIES = {
    ("sw-table2", "convnet", "stl10"): {1000: 57.45},
    ("sw-table2", "swwae", "stl10"): {1000: 74.33},
    ("sw-table3", "convnet", "cifar10"): {None: 91.33},
    ("sw-table3", "swwae", "cifar10"): {None: 92.23},
    ("sw-table3", "convnet", "cifar100"): {None: 67.50},
    ("sw-table3", "swwae", "cifar100"): {None: 69.12},
}
SW_STD = {
    ("sw-table4", "swwae"): {100: 0.55, 600: 0.30, 1000: 0.17, 3000: 0.10},
    ("sw-table4", "dropout-on-convolution"): {100: 0.94, 600: 0.38, 1000: 0.11, 3000: 0.10},
    ("sw-table4", "l1"): {100: 0.29, 600: 0.28, 1000: 0.31, 3000: 0.25},
    ("sw-table4", "unsup-sfx"): {100: 0.06, 600: 0.08, 1000: 0.06, 3000: 0.03},
    ("sw-table4", "unsup-pretr"): {600: 0.06, 1000: 0.03, 3000: 3.11},
    ("sw-table4", "noL2M"): {100: 1.95, 600: 0.24, 1000: 0.22, 3000: 0.18},
    ("sw-table5", "swwae"): {100: 0.11, 600: 0.11, 1000: 0.01, 3000: 0.01},
    ("sw-table5", "swwae-dropout"): {100: 0.34, 600: 0.40, 1000: 0.10, 3000: 0.22},
}


def test_published_numbers_of_sw_are_those_of_its_paper():
    """Every number, and none that the paper has not."""
    typed = {key: {n: 100 - e for n, e in errors.items()} for key, errors in SW_ERRORS.items()}
    found, std = {}, {}
    for name, table in TABLES.items():
        if name.startswith("sw-"):
            for cell in {(c.row.name, c.dataset, c.labels): c for c in all_cells(table)}.values():
                if cell.published is not None:
                    own = found.setdefault((name, cell.row.name, cell.dataset), {})
                    own[cell.labels] = cell.published
                if cell.published_std is not None:
                    std.setdefault((name, cell.row.name), {})[cell.labels] = cell.published_std
    expected = typed | SW_ACCURACIES
    assert set(found) == set(expected) and std == SW_STD
    for key, numbers in expected.items():
        assert found[key] == pytest.approx(numbers, abs=1e-9), key


def test_the_paper_presets_are_the_protocols_of_the_papers():
    inv = cells("inv-table2", rows=["resnet2-32-max"], preset="inv-mnist", budget="paper")[0]
    config = inv.config(0)
    assert (config.alpha, config.beta, config.objective) == (0.7, 0.2, "weighted")
    assert config.learning_rate == pytest.approx(0.01 / 3) and config.balance == 0
    assert config.translate == 0 and config.average == 0 and config.schedule == "constant"
    ms = cells("ms-table3", rows=["cnn-gamma"], labels=[4000], budget="paper")[0]
    config = ms.config(0)
    assert (config.learning_rate, config.schedule, config.epochs) == (0.002, "halved", 400)
    assert config.batch_size == 50 and config.objective == "global"
    assert [words.split()[0] for words in ms.deviations] == ["5000", "initial"]
    assert ms.published == 74.81
    stand_in = cells("ms-table2", rows=["cnn-gamma"], dataset="svhn_small", budget="paper")[0]
    assert stand_in.published is None and stand_in.labels == 100
    assert "svhn_small in place of svhn" in stand_in.deviations
    printed = cells("sw-table3", rows=["swwae"], dataset="cifar100", budget="paper")[0]
    assert printed.published == 69.12 and printed.published_std is None
    assert not any("in place of cifar10" in words for words in printed.deviations)


@pytest.mark.skipif(not DATA, reason="BIRDINV_DATA is not set")
def test_the_command_runs_a_cell_of_real_data(tmp_path):
    command = [
        Path(sys.executable).parent / "birdinv",
        *("reproduce", "ms-table2", "--row", "cnn-lambda", "--dataset", "svhn_small"),
        *("--budget", "smoke", "--results", tmp_path / "results", "--device", "cpu"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "svhn_small-100/cnn-lambda.ms.smoke: " in done.stdout
    readme = (tmp_path / "results/README.md").read_text(encoding="utf-8")
    assert "not run" in readme and "svhn_small" in readme


def test_recordings_take_the_same_way(tmp_path, monkeypatch):
    write_classes(tmp_path / "bird_kenya6", 6)
    (cell,) = cells("inv-figure2", rows=["alpha0.7-beta0.3"], dataset="bird_kenya6", budget="smoke")
    places = {"root": tmp_path, "results": tmp_path / "results", "runs": tmp_path / "runs"}
    with pytest.raises(BirdinvError, match="bird_kenya6 is not whole in"):
        running.run_cell(cell, [0], **places, device="cpu")
    whole = SimpleNamespace(whole=True, folder=tmp_path / "bird_kenya6")
    monkeypatch.setattr(bird_stores, "check", lambda name, root: whole)
    result = running.run_cell(cell, [0], **places, device="cpu")
    assert result["labels"] is None and 0 <= result["seeds"][0]["test_accuracy"] <= 1
    write_classes(tmp_path / "bird_kenya6", 7)  # other recordings: another store
    cell.file(tmp_path / "results").unlink()
    again = running.run_cell(cell, [0], **places, device="cpu")
    assert len(list((tmp_path / "runs" / "stores").iterdir())) == 2
    assert again["split_hash"] != result["split_hash"]


def test_a_run_that_was_interrupted_while_it_was_judged_is_not_trained_again(
    tmp_path, pictures_for_mnist, monkeypatch
):
    def stop(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as first:
        first.setattr(running, "evaluate_run", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, [0])
    with monkeypatch.context() as second:
        second.setattr(running, "train_task", lambda *_a, **_k: pytest.fail("trained again"))
        result = run(tmp_path, [0])
    assert numbers(result) == numbers(run(tmp_path / "elsewhere", [0]))
    assert not list((tmp_path / "runs").rglob("last.pt"))
