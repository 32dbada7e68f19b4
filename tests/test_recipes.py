"""`birdinv train` without a word about how: the recipe fits the store, and what is said wins."""

import json
import shlex
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from birdinv_cli.main import main
from test_training import SETTINGS, info, rows, tones

from birdinv.audio.store import Store
from birdinv.data.segmenting import segment
from birdinv.errors import BirdinvError, SettingError
from birdinv.training.config import TrainConfig
from birdinv.training.learner import Learner
from birdinv.training.loop import train
from birdinv.training.partition import partition
from birdinv.training.recipes import FEW_LABELS, RECIPES, settle
from birdinv.training.recordings import recordings_task

CLASSES = {"low": 400.0, "high": 1500.0, "noise": 0.0}
QUICK = "--epochs 1 --device cpu --threads 1"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`store` with unlabelled recordings and `bare` without; tests only read them."""
    place = tmp_path_factory.mktemp("recipes")
    tones(place / "in", CLASSES, 7)
    tones(place / "more", {"x": 400.0, "y": 1500.0}, 3, seed=1)
    segment([place / "in"], place / "store", SETTINGS, unlabelled=[place / "more"])
    segment([place / "in"], place / "bare", SETTINGS)
    return place


@pytest.fixture
def birdinv(capfd, monkeypatch):
    """Runs `birdinv <line>` in this process; gives exit code, stdout and stderr."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main has its own

    def run(line: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(shlex.split(line))
        return (exit_.value.code, *capfd.readouterr())

    return run


# ---------------------------------------------------------------- which recipe


def test_few_labels_is_chosen_where_there_is_unlabelled_audio(place):
    config, name = settle(Store(place / "store"), {})
    assert name == "few-labels"
    assert config == TrainConfig(**FEW_LABELS)


def test_weighted_is_chosen_where_there_is_none(place):
    assert settle(Store(place / "bare"), {}) == (TrainConfig(objective="weighted"), "weighted")


@pytest.mark.parametrize(
    ("labels", "name"), [(2, "few-labels"), (4, "few-labels"), (5, "weighted")]
)
def test_hidden_labels_are_unlabelled_audio_where_any_is_hidden(place, labels, name):
    for seed in (None, 0, 7):
        given = {"labels_per_class": labels, "seed": seed}
        config, found = settle(Store(place / "bare"), given)
        assert (found, config.labels_per_class, config.seed) == (name, labels, seed or 0)


def test_unlabelled_audio_that_is_only_copies_is_none(place, tmp_path):
    shutil.copytree(place / "in" / "low", tmp_path / "copies")
    segment([place / "in"], tmp_path / "store", SETTINGS, unlabelled=[tmp_path / "copies"])
    assert settle(Store(tmp_path / "store"), {})[1] == "weighted"


def test_none_is_as_if_it_were_not_given(place):
    store = Store(place / "store")
    nothing = dict.fromkeys([*FEW_LABELS, "seed", "steps", "dropout"])
    assert settle(store, nothing) == settle(store, {})


# ---------------------------------------------------------------- what is said wins

OTHERS = {
    "alpha": 0.25,
    "beta": 0.5,
    "gamma": 0.75,
    "balance": 2.0,
    "ramp": 0.0,
    "enough": 0.0,
    "group_windows": 0,
    "batch_size": 16,
    "augment": "none",
    "average": 0.0,
    "steps": 20,
    "keep": "best",
}


@pytest.mark.parametrize("name", [name for name in FEW_LABELS if name != "objective"])
def test_a_given_value_wins_over_the_recipe_and_changes_nothing_else(place, name):
    value = OTHERS[name]
    assert value != FEW_LABELS[name]
    config, recipe = settle(Store(place / "store"), {name: value})
    assert recipe == "few-labels"
    assert config == TrainConfig(**{**FEW_LABELS, name: value})


@pytest.mark.parametrize("name", ["batch_size", "augment", "average", "steps"])
def test_a_given_value_wins_over_supervised_too(place, name):
    given = {"objective": "supervised", name: OTHERS[name]}
    config, recipe = settle(Store(place / "store"), given)
    assert recipe == "supervised"
    assert config == TrainConfig(**{**RECIPES["supervised"], **given})


@pytest.mark.parametrize("objective", ["weighted", "global", "multiscale", "layer-weighted"])
def test_a_named_objective_is_no_recipe(place, objective):
    given = {"objective": objective, "batch_size": 20}
    assert settle(Store(place / "store"), given) == (TrainConfig(**given), objective)


def test_few_labels_may_be_asked_for_without_unlabelled_audio(place, tmp_path):
    store = Store(place / "bare")
    given = {"objective": "few-labels", "epochs": 1}
    config, name = settle(store, given)
    assert (config, name) == (
        TrainConfig(**{**FEW_LABELS, "epochs": 1, "steps": None}),
        "few-labels",
    )
    train(store, tmp_path / "run", config, device="cpu")
    (row,) = rows(tmp_path / "run")
    assert row["entropy"] == row["agreement"] == "" and float(row["reconstruction"]) > 0


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
def test_what_supervised_training_has_no_use_for_is_refused(place, name):
    sentence = f"--{name} is given, and has no effect with the other options of this run"
    with pytest.raises(SettingError, match=sentence):
        settle(Store(place / "store"), {"objective": "supervised", name: 0.5})


def test_an_unknown_objective_and_values_out_of_range_are_refused(place):
    store = Store(place / "store")
    with pytest.raises(SettingError, match="--objective is best; give one of supervised, weighted"):
        settle(store, {"objective": "best"})
    with pytest.raises(SettingError, match="--labels-per-class is 0"):
        settle(store, {"labels_per_class": 0})
    with pytest.raises(SettingError, match=r"--average is 1\.0; give a fraction from 0 to below 1"):
        settle(store, {"average": 1.0})


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("store", "options", "name", "objective"),
    [
        ("store", "", "few-labels", "layer-weighted"),
        ("bare", "", "weighted", "weighted"),
        ("bare", "--labels-per-class 2", "few-labels", "layer-weighted"),
        ("store", "--objective supervised", "supervised", "supervised"),
        ("store", "--objective multiscale --batch-size 32", "multiscale", "multiscale"),
    ],
)
def test_the_command_prints_the_objective(
    birdinv, place, tmp_path, store, options, name, objective
):
    code, out, err = birdinv(f"train {place / store} -o {tmp_path / 'run'} {QUICK} {options}")
    assert code == 0, err
    assert out.splitlines()[0] == f"objective: {name}"
    assert info(tmp_path / "run")["config"]["objective"] == objective


def test_a_file_of_settings_wins_over_the_recipe_and_the_command_line_over_both(
    birdinv, place, tmp_path
):
    (tmp_path / "birdinv.toml").write_text(
        'gamma = 0.5\nbatch-size = 32\n[train]\nbalance = 2.0\naugment = "strong"\n[predict]\n'
        "min-conf = 0.5\n"
    )
    line = f"train {place / 'store'} -o {tmp_path / 'run'} {QUICK} --config {tmp_path}/birdinv.toml"
    code, out, err = birdinv(f"{line} --balance 0.25")
    assert code == 0, err
    assert out.startswith("objective: few-labels\n")
    expected = {**FEW_LABELS, "gamma": 0.5, "batch_size": 32, "balance": 0.25, "augment": "strong"}
    expected["steps"] = None  # epochs are given
    config = info(tmp_path / "run")["config"]
    assert {name: config[name] for name in expected} == expected


def test_a_file_of_settings_may_choose_the_objective(birdinv, place, tmp_path):
    (tmp_path / "birdinv.toml").write_text('objective = "supervised"\nclass-balanced = false\n')
    line = f"train {place / 'store'} -o {tmp_path / 'run'} {QUICK} --config {tmp_path}/birdinv.toml"
    code, out, err = birdinv(line)
    assert code == 0, err
    assert out.startswith("objective: supervised\n")
    assert info(tmp_path / "run")["config"]["class_balanced"] is False


@pytest.mark.parametrize(
    ("options", "toml", "code", "sentence"),
    [
        ("--objective best", "", 2, "'best' is not one of 'few-labels', 'supervised'"),
        ("--gama 3", "", 2, "No such option '--gama'"),
        ("--augment loud", "", 2, "'loud' is not one of 'none', 'light', 'strong'"),
        ("--consistency same", "", 2, "'same' is not one of 'none', 'pseudo-labels'"),
        ("", "gama = 3.0", 2, "which `birdinv train` does not know; did you mean gamma?"),
        ("--objective supervised --gamma 3", "", 2, "--gamma is given, and has no effect"),
        ("--objective supervised", "beta = 0.3", 2, "--beta is given, and has no effect"),
        ("--ramp -1", "", 2, "--ramp is -1.0; give a number of epochs from 0"),
        ("--consistency mean-teacher --average 0", "", 2, "--average is 0.0; give a fraction abov"),
    ],
)
def test_what_is_unknown_or_of_no_use_gets_a_sentence(
    birdinv, place, tmp_path, options, toml, code, sentence
):
    (tmp_path / "birdinv.toml").write_text(toml)
    line = f"train {place / 'store'} -o {tmp_path / 'run'} {QUICK} {options}"
    found, _, err = birdinv(f"{line} --config {tmp_path}/birdinv.toml")
    assert "Traceback" not in err and sentence in " ".join(err.replace("│", " ").split())
    assert found == code
    assert not (tmp_path / "run").exists()


def test_supervised_training_has_the_same_weights_without_the_unlabelled_folder(
    birdinv, place, tmp_path
):
    for store in ("store", "bare"):
        line = f"train {place / store} -o {tmp_path / store} --objective supervised --epochs 3"
        code, _, err = birdinv(f"{line} --device cpu --seed 3")
        assert code == 0, err
    assert info(tmp_path / "store")["config"]["class_balanced"] is True
    with_, without = (tmp_path / name / "model" / "model.safetensors" for name in ("store", "bare"))
    assert with_.read_bytes() == without.read_bytes()
    assert rows(tmp_path / "store") == rows(tmp_path / "bare")


def test_as_they_come_turns_balanced_drawing_off(birdinv, place, tmp_path):
    for option in ("--class-balanced", "--as-they-come", ""):
        line = f"train {place / 'store'} -o {tmp_path / f'run{option}'} {QUICK} {option}"
        assert birdinv(line)[0] == 0
    configs = {
        option: TrainConfig(**info(tmp_path / f"run{option}")["config"])
        for option in ("--class-balanced", "--as-they-come", "")
    }
    assert configs["--class-balanced"] == configs[""]
    assert configs["--as-they-come"] == replace(configs[""], class_balanced=False)

    store = Store(place / "store")
    task = recordings_task(store, partition(store, None, 0))
    drawn = {
        option: [Learner(task, config, torch.device("cpu"))._batches.batch(i) for i in range(3)]
        for option, config in configs.items()
    }
    half = FEW_LABELS["batch_size"] // 2
    for balanced, other in zip(drawn[""], drawn["--as-they-come"], strict=True):
        assert not torch.equal(balanced.x[:half], other.x[:half])
        assert torch.equal(balanced.x[half:], other.x[half:])  # the unlabelled half is as it was
    classes = torch.cat([batch.y[:half] for batch in drawn[""]])
    counts = np.bincount(classes.numpy(), minlength=3)
    assert counts.max() - counts.min() <= 1


# ---------------------------------------------------------------- ranges

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(("gamma", value, "a number from 0") for value in (-0.1, INFINITY, NAN)),
        *(("balance", value, "a number from 0") for value in (-1.0, INFINITY, NAN)),
        *(("balance_memory", value, "a fraction from 0 to below 1") for value in (-0.1, 1.0, NAN)),
        ("consistency", "same", "one of none, pseudo-labels, pi-model, mean-teacher, vat, fixm"),
        *(("consistency_weight", value, "a number from 0") for value in (-1.0, INFINITY, NAN)),
        *(("threshold", value, "a number from 0 to 1") for value in (-0.1, 1.1, NAN)),
        *(("enough", value, "a number from 0") for value in (-1.0, INFINITY, NAN)),
        *(("ramp", value, "a number of epochs from 0") for value in (-1.0, INFINITY, NAN)),
        *(("group_windows", value, "0 to 65536") for value in (-1, 65537)),
        *(("group_seconds", value, "seconds above 0") for value in (-1.0, INFINITY, NAN)),
        ("augment", "loud", "one of none, light, strong"),
        *(("steps", value, "at least 1") for value in (0, -1, 2**31)),
        *(("average", value, "a fraction from 0 to below 1") for value in (-0.1, 1.0, NAN)),
    ],
)
def test_new_settings_out_of_range_are_refused_with_a_sentence(name, value, allowed):
    sentence = f"--{name.replace('_', '-')} is {value}; give {allowed}"
    with pytest.raises(SettingError) as caught:
        TrainConfig(**{name: value})
    assert sentence in str(caught.value)


def test_a_stretch_of_no_length_is_refused():
    with pytest.raises(SettingError, match=r"--group-seconds is 0\.0; give seconds above 0"):
        TrainConfig(group_seconds=0.0)


def test_the_mean_teacher_needs_an_average():
    with pytest.raises(SettingError, match=r"--average is 0\.0; give a fraction above 0, such as"):
        TrainConfig(consistency="mean-teacher")
    assert TrainConfig(consistency="mean-teacher", average=0.5).uses_unlabelled


def test_the_recipes_are_settings_that_can_be_kept(place):
    for recipe in RECIPES.values():
        config = TrainConfig(**recipe)
        assert TrainConfig(**json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(BirdinvError, match="at least two classes"):
        tones(place / "one", {"low": 400.0}, 3)
        segment([place / "one"], place / "one-store", SETTINGS)
        settle(Store(place / "one-store"), {})
