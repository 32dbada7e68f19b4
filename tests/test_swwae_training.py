"""Training of what-where auto-encoders: two parts, padded images, and the commands from end to end.

What holds of any run is in `test_training` and `test_image_training`.
"""

import csv
import json
import shlex
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from birdinv_cli.main import main
from test_image_training import Stop, make_task, pictures, rows_of
from test_training import RATE, SETTINGS, assert_same, tones

from birdinv import inversion
from birdinv.audio.store import Store
from birdinv.data import images as reading
from birdinv.data.images import Images
from birdinv.data.manifests import parse_manifest
from birdinv.data.segmenting import segment
from birdinv.data.subsets import ImageSplit
from birdinv.errors import BirdinvError, Interrupted, SettingError
from birdinv.networks.layers import normalise
from birdinv.networks.saved import load_model
from birdinv.prediction import run as prediction
from birdinv.prediction.job import Job
from birdinv.prediction.pool import Here
from birdinv.training import images as module
from birdinv.training.config import TrainConfig
from birdinv.training.guard import train_guarded
from birdinv.training.images import ImageSamples, images_task
from birdinv.training.learner import Learner
from birdinv.training.loop import train, train_task
from birdinv.training.partition import partition
from birdinv.training.recipes import RECIPES, settle
from birdinv.training.recordings import recordings_task
from birdinv.training.scoring import evaluate_run

CPU = torch.device("cpu")
CONFIG = TrainConfig(  # 8 steps an epoch of `make_task`
    network="swwae:(4)3c-2p-(6)3c-2p-Kfc",
    objective="swwae",
    batch_size=8,
    epochs=2,
    check_every=0.5,
    learning_rate=0.003,
    keep="last",
)
WAVES = replace(CONFIG, network="swwae:(4)64c/32-2p-(5)3c-2p-Kfc", batch_size=16, check_every=1)
TWO_PARTS = replace(CONFIG, pretrain=0.5)

pytestmark = pytest.mark.filterwarnings("ignore:.*has emptied", "ignore:.*no unlabelled sample to")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`in`, `more` and their `store`; tests only read them."""
    place = tmp_path_factory.mktemp("swwae")
    tones(place / "in", {"low": 400.0, "high": 1500.0, "noise": 0.0}, 7)
    tones(place / "more", {"x": 400.0, "y": 1500.0}, 3, seed=1)
    segment([place / "in"], place / "store", SETTINGS, unlabelled=[place / "more"])
    return place


@pytest.fixture(scope="module")
def store(place) -> Store:
    return Store(place / "store")


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory) -> Path:
    """Runs on `pictures` and on the store that a test only reads."""
    folder = tmp_path_factory.mktemp("trained")
    train_task(make_task(), folder / "pictures", CONFIG, device="cpu")
    train(store, folder / "waves", WAVES, device="cpu")
    return folder


@pytest.fixture
def birdinv(capfd, monkeypatch):
    """Runs `birdinv <line>` in this process; gives exit code, stdout and stderr."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main has its own
    here = lambda _begin, arguments, workers, *, stall_s: Here(Job, arguments)  # noqa: E731
    monkeypatch.setattr(prediction, "Processes", here)  # each imports torch anew

    def run(line: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(shlex.split(line))
        return (exit_.value.code, *capfd.readouterr())

    return run


def weights(model) -> dict[str, dict[str, torch.Tensor]]:
    """Copies of the weights of each part of a network."""
    parts = {"stage": "encoder", "back": "decoder", "head": "head"}
    found: dict[str, dict[str, torch.Tensor]] = {part: {} for part in parts.values()}
    for name, weight in model.named_parameters():
        (part,) = (part for start, part in parts.items() if name.startswith(start))
        found[part][name] = weight.detach().clone()
    return found


def moved(before, after) -> set[str]:
    """Which parts have a weight that is not the same any more."""
    return {
        part
        for part, old in before.items()
        if any(not torch.equal(old[name], after[part][name]) for name in old)
    }


def movements(learner: Learner) -> list[set[str]]:
    """Which parts each step of a run moves."""
    found = []
    for step in range(learner.steps):
        before = weights(learner.model)
        learner.learn(step)
        found.append(moved(before, weights(learner.model)))
    return found


# A run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pictures", "waves"])
def test_validation_judges_the_reconstructions_of_the_decoder(trained, store, kind):
    waves = recordings_task(store, partition(store, None, 0))
    task = make_task() if kind == "pictures" else waves
    model, _ = load_model(trained / kind)
    x = task.valid.inputs(np.arange(len(task.valid)))
    assert len(x) <= 256
    with torch.no_grad():
        decoded = model(x, decode=True)
    row = rows_of(trained / kind)[-1]  # the weights of which are kept
    for name, (z, z_tilde) in {
        "input": (x, decoded.x_tilde),
        "stage1": decoded.levels["stage1"],
    }.items():
        error = float((z - z_tilde).square().mean())
        assert float(row[f"valid_reconstruction_{name}"]) == pytest.approx(error, rel=1e-4)
    assert row["valid_reconstruction_stage2"] == ""  # the decoder begins with it
    x_hat = inversion.invert(model, x)
    inverted = (x_hat - x).square().mean().item()
    assert float(row["valid_reconstruction_input"]) != pytest.approx(inverted, rel=1e-2)


@pytest.mark.parametrize("kind", ["pictures", "waves"])
def test_a_run_records_the_terms_that_it_has(trained, kind):
    rows = rows_of(trained / kind)
    for row in rows:
        assert row["entropy"] == row["balance"] == row["consistency"] == row["sparsity"] == ""
        total = float(row["cross_entropy"]) + float(row["reconstruction"])
        assert float(row["total"]) == pytest.approx(total, abs=3e-6)
    first, last = (float(rows[i]["valid_reconstruction_input"]) for i in (0, -1))
    assert last < first


def test_the_weights_of_the_loss_are_those_of_the_settings():
    config = replace(CONFIG, lambda_nll=0.6, lambda_rec=0.7, lambda_mid=0.3, sparsity=0.05)
    learner = Learner(make_task(), config, CPU)
    ours = learner._objective
    assert (ours.nll, ours.rec, ours.mid, ours.sparsity) == (0.6, 0.7, 0.3, 0.05)
    found = learner.learn(0)
    expected = 0.6 * found["cross_entropy"] + found["reconstruction"] + 0.05 * found["sparsity"]
    assert found["total"] == pytest.approx(expected, rel=1e-5)


def test_it_learns_to_rebuild_pictures_and_to_name_them(tmp_path):
    config = replace(CONFIG, epochs=25, check_every=25, learning_rate=0.01)
    (row,) = train_task(make_task(), tmp_path / "run", config, device="cpu").rows
    assert float(row["valid_accuracy"]) >= 0.9
    x = make_task().valid.inputs(np.arange(12))
    assert float(row["valid_reconstruction_input"]) < 0.3 * float(x.square().mean())


@pytest.mark.parametrize("objective", ["supervised", "weighted", "multiscale"])
def test_other_objectives_train_it_by_its_inverse_and_leave_the_decoder_alone(objective, tmp_path):
    config = replace(CONFIG, objective=objective, epochs=0.5)
    learner = Learner(make_task(), config, CPU)
    assert movements(learner) == [{"encoder", "head"}] * 4
    train_task(make_task(), tmp_path / "run", config, device="cpu")
    (row,) = rows_of(tmp_path / "run")
    model, _ = load_model(tmp_path / "run")
    task = make_task()
    x = task.valid.inputs(np.arange(len(task.valid)))
    back = inversion.reconstruct(model, x, model.layers)
    for name, (z, z_hat) in {"input": (x, back.x_hat), **back.layers}.items():
        error = (z - z_hat).square().mean().item()
        assert float(row[f"valid_reconstruction_{name}"]) == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"average": 0.9, "balance": 1.0, "balance_memory": 0.5, "translate": 1},
        {"options": {"batch_norm": True}, "dropout": 0.5, "sparsity": 0.01},
        {"pretrain": 0.5},
        {"pretrain": 0.5, "freeze": True},
        {"pretrain": 0.3, "freeze": True, "average": 0.9, "options": {"conv_dropout": 0.2}},
        {"consistency": "mean-teacher", "average": 0.9, "pretrain": 0.5},
    ],
    ids=lambda changes: "-".join([*changes][:2]) or "plain",
)
def test_interrupted_and_resumed_is_uninterrupted(tmp_path, changes):
    """16 steps, of which 8 or 5 are without labels: between the two parts, and within each."""
    config = replace(CONFIG, **changes)
    train_task(make_task(), tmp_path / "whole", config, device="cpu")
    expected = torch.load(tmp_path / "whole/last.pt", weights_only=True)
    for stops in ([8], [3, 5, 15]):
        run = tmp_path / str(stops)
        for i, after in enumerate(stops):
            with pytest.raises(Interrupted):
                stop = Stop(after)
                train_task(make_task(), run, config, device="cpu", resume=i > 0, progress=stop)
        torch.manual_seed(5)
        train_task(make_task(), run, config, device="cpu", resume=True)
        ours, theirs = (
            (r / "model/model.safetensors").read_bytes() for r in (run, tmp_path / "whole")
        )
        assert ours == theirs
        found = torch.load(run / "last.pt", weights_only=True)
        for part in ("model", "average", "balance"):
            assert found.keys() & {part} == expected.keys() & {part}
            for name, value in expected.get(part, {}).items():
                assert torch.equal(found[part][name], value)
        states = expected["optimiser"]["state"]
        assert found["optimiser"]["state"].keys() == states.keys()
        for number, moments in states.items():
            for name, value in moments.items():
                assert torch.equal(found["optimiser"]["state"][number][name], value)
        assert [row | {"seconds": ""} for row in rows_of(run)] == [
            row | {"seconds": ""} for row in rows_of(tmp_path / "whole")
        ]


def test_a_run_on_recordings_in_two_parts_resumes_as_if_uninterrupted(store, tmp_path):
    config = replace(WAVES, pretrain=0.4, freeze=True, average=0.9, augment="light")
    train(store, tmp_path / "whole", config, device="cpu")
    assert rows_of(tmp_path / "whole")[-1]["step"] == "20"
    with pytest.raises(Interrupted):
        train(store, tmp_path / "run", config, device="cpu", progress=Stop(7))
    with pytest.raises(Interrupted):
        train(store, tmp_path / "run", config, device="cpu", resume=True, progress=Stop(11))
    train(store, tmp_path / "run", config, device="cpu", resume=True)
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_other_weights_of_the_loss_are_another_run(tmp_path):
    with pytest.raises(Interrupted):
        train_task(make_task(), tmp_path / "run", CONFIG, device="cpu", progress=Stop(2))
    other = replace(CONFIG, lambda_mid=0.3, pretrain=0.5)
    with pytest.raises(BirdinvError, match=r"begun with other settings \(lambda_mid, pretrain\)"):
        train_task(make_task(), tmp_path / "run", other, device="cpu", resume=True)


# Two parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "first", "second"),
    [
        ({}, {"encoder", "decoder"}, {"encoder", "head"}),
        ({"freeze": True}, {"encoder", "decoder"}, {"head"}),
        ({"sparsity": 0.1}, {"encoder", "decoder"}, {"encoder", "head"}),
        ({"sparsity": 0.1, "freeze": True}, {"encoder", "decoder"}, {"head"}),
        ({"freeze": True, "options": {"batch_norm": True}}, {"encoder", "decoder"}, {"head"}),
        ({"lambda_rec": 0.0, "lambda_mid": 0.0}, set(), {"encoder", "head"}),
    ],
    ids=str,
)
def test_first_without_labels_then_without_the_decoder(changes, first, second):
    learner = Learner(make_task(), replace(TWO_PARTS, **changes), CPU)
    assert learner.steps == 16
    assert movements(learner) == [first] * 8 + [second] * 8


def test_without_two_parts_all_of_the_network_moves_at_every_step():
    learner = Learner(make_task(), CONFIG, CPU)
    assert movements(learner) == [{"encoder", "decoder", "head"}] * 16


def test_the_encoder_that_is_kept_is_the_one_without_labels(tmp_path):
    config = replace(TWO_PARTS, freeze=True)
    learner = Learner(make_task(), config, CPU)
    for step in range(8):
        learner.learn(step)
    expected = weights(learner.model)
    train_task(make_task(), tmp_path / "run", config, device="cpu")
    found = weights(load_model(tmp_path / "run")[0])
    assert moved(expected, found) == {"head"}


@pytest.mark.parametrize(
    ("pretrain", "steps", "first"),
    [
        *[(0.0, 16, 0), (0.5, 16, 8), (0.3, 10, 3), (0.01, 10, 1), (0.99, 10, 9)],
        *[(0.5, 2, 1), (0.5, 1, 0), (0.999, 1000, 999)],
    ],
)
def test_each_part_has_a_step_at_least(pretrain, steps, first):
    assert replace(CONFIG, pretrain=pretrain).steps_without_labels(steps) == first


def test_the_weights_change_with_the_part():
    ours = replace(TWO_PARTS, lambda_rec=0.7, lambda_mid=0.3, lambda_nll=0.6).make_objective(
        10, 5, 2
    )
    for step, expected in {
        0: (0.7, 0.3, 0),
        4: (0.7, 0.3, 0),
        5: (0, 0, 0.6),
        9: (0, 0, 0.6),
    }.items():
        assert (ours.rec(step), ours.mid(step), ours.nll(step)) == expected


@pytest.mark.parametrize("schedule", ["cosine", "constant", "halved"])
def test_the_second_part_has_the_learning_rates_of_a_run_of_its_own(schedule):
    config = replace(TWO_PARTS, schedule=schedule, pretrain=0.25)
    alone = replace(config, pretrain=0.0)
    rates = [config.learning_rate_at(step, 40) for step in range(40)]
    assert rates[:10] == [alone.learning_rate_at(step, 10) for step in range(10)]
    assert rates[10:] == [alone.learning_rate_at(step, 30) for step in range(30)]
    assert rates[10] == 0.003


def test_the_optimiser_has_the_learning_rates_that_the_table_says(tmp_path):
    train_task(make_task(), tmp_path / "run", TWO_PARTS, device="cpu")
    learner = Learner(make_task(), TWO_PARTS, CPU)
    used = []
    for step in range(16):
        learner.learn(step)
        used.append(learner.optimiser.param_groups[0]["lr"])
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows] == ["4", "8", "12", "16"]
    for row in rows:
        assert float(row["learning_rate"]) == pytest.approx(used[int(row["step"]) - 1], rel=1e-6)
    assert used[8] == used[0] == 0.003 and used[7] < 0.0002


def test_the_table_shows_which_part_a_row_is_of(tmp_path):
    train_task(make_task(), tmp_path / "run", TWO_PARTS, device="cpu")
    terms = [
        (bool(r["cross_entropy"]), bool(r["reconstruction"])) for r in rows_of(tmp_path / "run")
    ]
    assert terms == [(False, True)] * 2 + [(True, False)] * 2


def test_freezing_without_a_part_to_freeze_after_is_refused():
    with pytest.raises(SettingError, match="--freeze is True; give False, or a pretrain above"):
        replace(CONFIG, freeze=True)


@pytest.mark.filterwarnings("ignore::UserWarning")  # so short a run may have its alarms
def test_the_guard_compares_with_one_part_of_labels_alone(store, tmp_path):
    config = replace(WAVES, epochs=1, pretrain=0.5, freeze=True, labels_per_class=2)
    train_guarded(store, tmp_path / "run", config, device="cpu")
    whole = replace(WAVES, epochs=1, objective="supervised", labels_per_class=2)
    parts = partition(store, 2, 0)
    task = recordings_task(store, parts, None, paced=True)
    train_task(task, tmp_path / "alone", whole, device="cpu")
    ours, theirs = (
        (tmp_path / run / "model/model.safetensors").read_bytes()
        for run in ("run/supervised", "alone")
    )
    assert ours == theirs


# Settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"network": "bird10"},
            "--network is bird10; give one with a decoder for --objective swwa",
        ),
        ({"network": "resnet2-32"}, "--network is resnet2-32; give one with a decoder"),
        ({"lambda_rec": -0.1}, r"--lambda-rec is -0\.1; give a number from 0"),
        ({"lambda_mid": float("nan")}, "--lambda-mid is nan; give a number from 0"),
        ({"lambda_nll": float("inf")}, "--lambda-nll is inf; give a number from 0"),
        ({"sparsity": -1.0}, r"--sparsity is -1\.0; give a number from 0"),
        ({"pretrain": 1.0}, r"--pretrain is 1\.0; give a fraction from 0 to below 1"),
        ({"pretrain": -0.5}, r"--pretrain is -0\.5; give a fraction from 0 to below 1"),
        ({"pad": -1}, "--pad is -1; give 0 to 1024 pixels"),
        ({"pad": 1025}, "--pad is 1025; give 0 to 1024 pixels"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_a_sentence(changes, sentence):
    with pytest.raises(SettingError, match=sentence):
        replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("changes", "uses"),
    [
        ({}, True),
        ({"lambda_rec": 0.0}, True),
        ({"lambda_mid": 0.0}, True),
        ({"lambda_rec": 0.0, "lambda_mid": 0.0}, False),
        ({"lambda_rec": 0.0, "lambda_mid": 0.0, "sparsity": 0.1}, True),
        ({"lambda_rec": 0.0, "lambda_mid": 0.0, "balance": 1.0}, True),
        ({"lambda_rec": 0.0, "lambda_mid": 0.0, "consistency": "vat"}, True),
    ],
    ids=str,
)
def test_unlabelled_samples_are_drawn_where_they_teach_something(changes, uses):
    config = replace(CONFIG, **changes)
    assert config.uses_unlabelled is uses
    x, y, *_ = Learner(make_task(), config, CPU)._batches.batch(0)
    assert len(x) == (8 if uses else 4) and bool((y == -1).any()) is uses


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"objective": "few-labels", "lambda_rec": 1.0}, "lambda-rec"),
        ({"objective": "weighted", "lambda_mid": 0.2}, "lambda-mid"),
        ({"objective": "supervised", "lambda_rec": 1.0}, "lambda-rec"),
        ({"lambda_mid": 0.2}, "lambda-mid"),
        ({"objective": "swwae", "alpha": 0.5}, "alpha"),
        ({"objective": "swwae", "beta": 0.5}, "beta"),
        ({"objective": "swwae", "gamma": 0.5}, "gamma"),
        ({"objective": "swwae", "threshold": 0.5}, "threshold"),
        ({"objective": "swwae", "ramp": 1.0}, "ramp"),  # it has no entropy to bring in
        ({"objective": "swwae", "enough": 1.0}, "enough"),
    ],
    ids=str,
)
def test_settings_without_effect_are_refused(store, given, option):
    with pytest.raises(SettingError, match=f"--{option} is given, and has no effect with the othe"):
        settle(store, given)


@pytest.mark.parametrize(
    "given",
    [
        {"lambda_rec": 0.5, "lambda_mid": 0.0},
        {"ramp": 1.0, "enough": 2.0, "balance": 0.5},
        {"ramp": 1.0, "consistency": "vat"},
        {"network": "swwae:(8)5c-2p-Kfc", "steps": 3},
    ],
    ids=str,
)
def test_settings_with_an_effect_win_over_the_recipe(store, given):
    config, name = settle(store, {"objective": "swwae", **given})
    assert name == "swwae"
    assert config == TrainConfig(**{**RECIPES["swwae"], **given})


def test_the_network_of_another_objective_has_to_be_said(store):
    with pytest.raises(SettingError, match="--network is bird10; give one with a decoder"):
        settle(store, {"objective": "swwae", "network": "bird10"})
    config, _ = settle(store, {"objective": "few-labels", "network": CONFIG.network})
    assert config.network == CONFIG.network and config.objective == "layer-weighted"


# Padded images -------------------------------------------------------------------------------


def test_images_are_padded_black_before_they_are_normalised():
    images = pictures(9)
    samples = ImageSamples(images, np.array([7, 2, 5]), pad=2)
    got = samples.inputs(np.array([2, 0]))
    bright = np.zeros((2, 1, 24, 24), np.float32)
    bright[:, :, 2:-2, 2:-2] = images.pixels[[5, 7]]
    assert torch.equal(got, normalise(torch.from_numpy(bright)))
    edge = got[:, :, 0, 0]
    assert (got.amin(dim=(2, 3)) == edge).all() and (edge < -0.1).all()  # black, and not the mean
    plain = ImageSamples(images, np.array([7, 2, 5])).inputs(np.array([2, 0]))
    assert torch.equal(plain, normalise(torch.from_numpy(bright[:, :, 2:-2, 2:-2])))


def test_padding_comes_before_a_change_of_the_images():
    seen = []

    def change(samples):
        seen.append(samples)
        return samples

    ImageSamples(pictures(3), np.arange(3), pad=1).inputs(np.arange(2), change)
    assert seen[0].shape == (2, 1, 22, 22) and seen[0].max() == 250 and seen[0].min() == 0


@pytest.fixture
def small(monkeypatch, tmp_path) -> Path:
    """The folder of a data set `small` of pictures with a test split, written as npz files."""
    split = {"train": pictures(36), "test": pictures(15, seed=1)}
    listed = ""
    for name, images in split.items():
        file = tmp_path / f"{name}.npz"
        np.savez(file, x=images.pixels.transpose(0, 2, 3, 1), y=images.labels.astype(np.uint8))
        listed += f'  {{ path = "{name}.npz", split = "{name}" }},\n'
    manifest = parse_manifest(
        f"""
name = "small"
kind = "images"
description = "a test"
homepage = "http://127.0.0.1/"
licence = "none"
classes = ["lying", "standing", "leaning"]
shape = [1, 20, 20]
instructions = "none"
[splits.train]
count = 36
per_class = [12, 12, 12]
[splits.test]
count = 15
per_class = [5, 5, 5]
[[forms]]
name = "small"
description = "small files"
format = "npz"
files = [
{listed}]
"""
    )

    def split_images(_name: str, images: Images, labels: int | None, draw: int) -> ImageSplit:
        at = np.split(np.arange(len(images)), [6, 24])
        return ImageSplit(*at, hash=f"{labels} of draw {draw}")

    monkeypatch.setattr(reading, "load_manifest", lambda _name: manifest)
    monkeypatch.setattr(module, "load_manifest", lambda _name: manifest)
    monkeypatch.setattr(module, "split_images", split_images)
    return tmp_path


@pytest.mark.parametrize("pad", [0, 3])
def test_a_padded_run_is_judged_on_padded_images(small, pad):
    task = images_task("small", small, 6, 0, pad)
    assert task.shape == (1, 20 + 2 * pad, 20 + 2 * pad)
    for samples in (task.labelled, task.unlabelled, task.valid):
        assert samples.inputs(np.arange(2)).shape == (2, *task.shape)
    config = replace(CONFIG, pad=pad, epochs=3, learning_rate=0.01)
    train_task(task, small / "run", config, device="cpu")
    model, description = load_model(small / "run")
    assert description.sizes["shape"] == [1, 20 + 2 * pad, 20 + 2 * pad]
    pixels, labels = (getattr(pictures(15, seed=1), name) for name in ("pixels", "labels"))
    bright = torch.from_numpy(np.pad(pixels, [(0, 0), (0, 0), (pad, pad), (pad, pad)])).float()
    with torch.no_grad():
        answers = model(normalise(bright)).argmax(dim=1).numpy()
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (labels, answers), 1)
    found = evaluate_run(small / "run", resamples=9)
    assert found.confusion_matrix["segments"] == confusion.tolist()
    assert (
        found.segment_accuracy == pytest.approx((answers == labels).mean()) and found.segments == 15
    )
    valid = evaluate_run(small / "run", split="valid", resamples=9)
    row = rows_of(small / "run")[-1]
    assert valid.segment_accuracy == pytest.approx(float(row["valid_accuracy"]), abs=1e-6)


def test_a_run_of_before_there_was_padding_is_judged_without(small):
    train_task(images_task("small", small, 6, 0), small / "run", CONFIG, device="cpu")
    expected = evaluate_run(small / "run", resamples=9).to_dict()
    info = json.loads((small / "run/run.json").read_text())
    del info["config"]["pad"]
    (small / "run/run.json").write_text(json.dumps(info))
    assert evaluate_run(small / "run", resamples=9).to_dict() == expected


# The commands --------------------------------------------------------------------------------


def test_the_path_from_recordings_to_tables_and_a_file_for_others(
    birdinv, place, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    quick = "--sample-rate 11025 --no-activity --overlap 0.5"
    for line, said in (
        (
            f"segment {place / 'in'} --unlabelled {place / 'more'} -o store {quick}",
            "27 inputs: 27 ok",
        ),
        ("train store -o run --objective swwae --steps 20 --device cpu", "objective: swwae\n"),
        ("eval run", "segment accuracy"),
        (f"predict run {place / 'more'} -o tables --min-conf 0", "tables: tables/combined.csv"),
        (f"report run {place / 'more/x/0.wav'}", "run/report.html"),
    ):
        code, out, err = birdinv(line)
        assert code == 0 and said in out and "Traceback" not in err, err
    assert Path("run/report.html").stat().st_size > 10_000

    model, description = load_model(Path("run"))
    assert description.network == RECIPES["swwae"]["network"]
    hearing = description.hearing
    with open("tables/combined.csv", encoding="utf-8", newline="") as file:
        table = {
            (r["file"], r["start_s"], r["label"]): float(r["score"]) for r in csv.DictReader(file)
        }
    expected = {}
    for path in sorted((place / "more").rglob("*.wav")):
        sound = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        windows = sound.unfold(0, hearing.segment_samples, hearing.hop_samples)
        with torch.no_grad():
            shares = model(normalise(windows[:, None])).softmax(dim=1)
        for i, row in enumerate(shares.tolist()):
            start = f"{i * hearing.hop_samples / RATE:.3f}"
            for label, share in zip(description.classes, row, strict=True):
                if label not in hearing.non_events:
                    expected[path.relative_to(place / "more").as_posix(), start, label] = share
    padded = {start for _, start, _ in table.keys() - expected.keys()}
    assert expected.keys() < table.keys() and len(padded) == 1  # the last window, not whole
    for key, share in expected.items():
        assert table[key] == pytest.approx(share, abs=1e-4)

    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed)
    code, out, err = birdinv("export run -o net.onnx")
    assert code == 0 and "net.onnx" in out and "Traceback" not in err
    import onnxruntime

    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    found, _ = session.run(["probabilities", "logits"], {"waveform": windows[:, None].numpy()})
    np.testing.assert_allclose(found, shares.numpy(), atol=1e-5)


def test_the_options_reach_the_run(birdinv, place, tmp_path):
    run = tmp_path / "run"
    line = f"train {place / 'store'} -o {run} --objective swwae --steps 2 --device cpu"
    network = "swwae:(4)64c/32-2p-(5)3c-2p-Kfc"
    code, out, err = birdinv(f"{line} --lambda-rec 0.5 --lambda-mid 0.1 --network '{network}'")
    assert code == 0 and out.startswith("objective: swwae\n"), err
    config = json.loads((run / "run.json").read_text())["config"]
    assert (config["lambda_rec"], config["lambda_mid"], config["network"]) == (0.5, 0.1, network)
    assert config["objective"] == "swwae" and config["steps"] == 2


@pytest.mark.parametrize(
    ("options", "codes", "sentence"),
    [
        (
            "--network 'swwae:(64)5c-2q'",
            (1, 2),
            "the network swwae:(64)5c-2q cannot be built: at character 9, expected p or fc after "
            "2, or (2) for filters, found 'q' (64)5c-2q ^",
        ),
        ("--network 'swwae:(64)5c-2p-4fc'", (1, 2), "its last layer is 4fc, and there are 3 class"),
        ("--network bird10", (2,), "--network is bird10; give one with a decoder for --objective"),
        ("--network swae:2", (2,), "--network is swae:2; give one with a decoder for --objective"),
        ("--lambda-rec -1", (2,), "--lambda-rec is -1.0; give a number from 0"),
        ("--gamma 2", (2,), "--gamma is given, and has no effect with the other options"),
        ("--objective weighted --lambda-mid 1", (2,), "--lambda-mid is given, and has no effect"),
    ],
)
def test_what_cannot_be_trained_gets_a_sentence(birdinv, place, tmp_path, options, codes, sentence):
    line = f"train {place / 'store'} -o {tmp_path / 'run'} --objective swwae --device cpu"
    code, out, err = birdinv(f"{line} {options}")
    assert code in codes and "Traceback" not in out + err
    assert sentence in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()
