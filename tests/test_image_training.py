"""The training loop on images: few labels, moved images, averaged weights, parts of epochs."""

import copy
import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from birdinv.data.batches import Drawing, TrainingBatches, translated
from birdinv.data.images import Images
from birdinv.errors import BirdinvError, Interrupted, SettingError
from birdinv.networks.layers import normalise
from birdinv.networks.saved import load_listener, load_model
from birdinv.progress import Progress
from birdinv.training.config import TrainConfig
from birdinv.training.images import ImageSamples
from birdinv.training.learner import Learner
from birdinv.training.loop import train_task
from birdinv.training.task import Task

SIZE = 20
CPU = torch.device("cpu")
CONFIG = TrainConfig(
    network="smallcnn",
    objective="weighted",
    batch_size=8,
    epochs=2,
    check_every=0.5,
    learning_rate=0.003,
    balance=2.0,
    balance_memory=0.5,
    average=0.9,
    translate=1,
)


def pictures(count: int, seed: int = 0) -> Images:
    """`count` pictures, of a bar lying, standing or leaning in noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 60, (count, 1, SIZE, SIZE))
    for image, label in zip(pixels[:, 0], labels, strict=True):
        at = rng.integers(6, 14)
        rows = [slice(at, at + 2), slice(4, 16)]
        if label == 2:
            for i in range(4, 16):
                image[i, i] = image[i, i - 1] = 250
        else:
            image[tuple(rows if label else rows[::-1])] = 250
    return Images(pixels.astype(np.uint8), labels.astype(np.int64))


def make_task(unlabelled: int = 32) -> Task:
    images = pictures(6 + unlabelled + 12)
    at = np.split(np.arange(len(images)), [6, 6 + unlabelled])
    return Task(
        origin="pictures",
        classes=["lying", "standing", "leaning"],
        shape=(1, SIZE, SIZE),
        labelled=ImageSamples(images, at[0]),
        unlabelled=ImageSamples(images, at[1], known=False),
        valid=ImageSamples(images, at[2]),
        identity={"dataset": "pictures", "split_hash": "1"},
        facts={"root": "nowhere"},
        paced=True,
    )


class Stop(Progress):
    """Presses Ctrl-C after so many steps."""

    def __init__(self, after: int) -> None:
        super().__init__("train", "steps")
        self.after = after

    def update(self, amount, **more):
        super().update(amount, **more)
        self.after -= amount
        if amount and self.after == 0:
            import signal

            signal.raise_signal(signal.SIGINT)


def rows_of(run):
    with open(run / "metrics.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    run = tmp_path_factory.mktemp("images") / "run"
    train_task(make_task(), run, CONFIG, device="cpu")
    return run


def test_samples_are_the_normalised_pixels_and_their_classes():
    images = pictures(9)
    samples = ImageSamples(images, np.array([7, 2, 5]))
    got = samples.inputs(np.array([2, 0]))
    expected = normalise(torch.from_numpy(images.pixels[[5, 7]]).float())
    assert torch.equal(got, expected) and got.abs().amax(dim=(1, 2, 3)).tolist() == [1, 1]
    assert samples.classes(np.array([1, 0])).tolist() == [2, 1]
    assert samples.recordings.tolist() == [0, 1, 2]


def test_unlabelled_samples_do_not_tell_their_classes():
    hidden = ImageSamples(pictures(9), np.array([7, 2, 5]), known=False)
    assert hidden.labels.tolist() == hidden.classes(np.arange(3)).tolist() == [-1, -1, -1]


def test_a_run_of_images_has_a_row_a_check_and_a_network_that_hears_nothing(reference):
    rows = rows_of(reference)
    assert [row["epoch"] for row in rows] == ["0.5", "1", "1.5", "2"]
    assert [row["step"] for row in rows] == ["4", "8", "12", "16"]
    assert {row["valid_recording_accuracy"] for row in rows} == {""}
    layers = ("input", "block1", "block2", "block3", "block4")
    assert all(float(row[f"valid_reconstruction_{layer}"]) >= 0 for row in rows for layer in layers)
    info = json.loads((reference / "run.json").read_text())
    best = max(
        rows, key=lambda row: (float(row["valid_accuracy"]), -float(row["valid_cross_entropy"]))
    )
    assert info["dataset"] == "pictures" and info["best_epoch"] == float(best["epoch"])
    assert not (reference / "split.csv").exists()
    model, description = load_model(reference)
    assert description.hearing is None and model.sizes["shape"] == [1, SIZE, SIZE]
    with pytest.raises(BirdinvError, match="a network of images; expected one"):
        load_listener(reference)


@pytest.mark.parametrize("stops", [[1], [4], [6, 7], [15]], ids=str)
def test_interrupted_and_resumed_is_uninterrupted(reference, tmp_path, stops):
    run = tmp_path / "run"
    for i, after in enumerate(stops):
        with pytest.raises(Interrupted):
            train_task(make_task(), run, CONFIG, device="cpu", resume=i > 0, progress=Stop(after))
    train_task(make_task(), run, CONFIG, device="cpu", resume=True)
    ours, theirs = ((r / "model/model.safetensors").read_bytes() for r in (run, reference))
    assert ours == theirs
    states = [torch.load(r / "last.pt", weights_only=True) for r in (run, reference)]
    for name in ("model", "average"):
        for key, value in states[0][name].items():
            assert torch.equal(value, states[1][name][key])
    drop = {"seconds"}
    assert [{k: v for k, v in row.items() if k not in drop} for row in rows_of(run)] == [
        {k: v for k, v in row.items() if k not in drop} for row in rows_of(reference)
    ]


def test_resuming_on_other_images_is_refused(tmp_path):
    with pytest.raises(Interrupted):
        train_task(make_task(), tmp_path / "run", CONFIG, device="cpu", progress=Stop(2))
    other = replace(make_task(), identity={"dataset": "pictures", "split_hash": "2"})
    with pytest.raises(BirdinvError, match="begun on another set of images than pictures"):
        train_task(other, tmp_path / "run", CONFIG, device="cpu", resume=True)


def test_the_average_is_that_of_the_weights_step_by_step():
    config = replace(CONFIG, average=0.5)
    learner = Learner(make_task(), config, CPU)
    expected = copy.deepcopy(learner.model.state_dict())
    for step in range(12):
        learner.learn(step)
        keep = min(0.5, (1 + step) / (10 + step))
        for name, value in learner.model.state_dict().items():
            expected[name] = keep * expected[name] + (1 - keep) * value
    for name, value in learner.judged.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert not torch.equal(learner.judged.head[0].weight, learner.model.head[0].weight)


def test_without_an_average_the_network_itself_is_judged():
    learner = Learner(make_task(), replace(CONFIG, average=0.0), CPU)
    assert learner.judged is learner.model
    assert set(learner.parts) == {"model", "optimiser", "balance"}


def test_a_supervised_run_takes_the_labelled_halves_of_the_others():
    task = make_task()
    with_both = TrainingBatches(task.labelled, task.unlabelled, batch_size=8, seed=3)
    alone = TrainingBatches(
        task.labelled, task.unlabelled, batch_size=8, seed=3, labelled_only=True
    )
    assert with_both.steps_per_epoch == alone.steps_per_epoch == 8
    for step in range(9):
        x, y, *_ = with_both.batch(step)
        half_x, half_y, *_ = alone.batch(step)
        assert torch.equal(half_x, x[:4]) and torch.equal(half_y, y[:4]) and len(half_x) == 4
        assert (y[4:] == -1).all()
    learner = Learner(task, replace(CONFIG, objective="supervised", balance=0.0), CPU)
    assert learner.steps == 16 and learner.learn(0)["known"] == 4


def test_translated_moves_each_image_and_repeats_its_edge():
    x = torch.arange(2 * 3 * 4.0).view(2, 1, 3, 4).repeat(1, 2, 1, 1)
    moves = torch.tensor([[1, 0], [0, -2]])  # down, right
    got = translated(x, moves)
    assert got.shape == x.shape and got.is_contiguous()
    assert torch.equal(got[0, :, 1:], x[0, :, :-1]) and torch.equal(got[0, :, 0], x[0, :, 0])
    assert torch.equal(got[1, :, :, :2], x[1, :, :, 2:])
    assert torch.equal(got[1, :, :, 2:], x[1, :, :, 3:].expand(2, 3, 2))


def test_moves_reach_their_limits_and_depend_on_the_step_alone():
    task = make_task()
    batches = TrainingBatches(
        task.labelled, task.unlabelled, batch_size=8, seed=3, drawing=Drawing(translate=2)
    )
    still = TrainingBatches(task.labelled, task.unlabelled, batch_size=8, seed=3)
    found = set()
    for step in range(40):
        moved, plain = batches.batch(step)[0], still.batch(step)[0]
        for one, other in zip(moved, plain, strict=True):
            matches = [
                (dy, dx)
                for dy in range(-3, 4)
                for dx in range(-3, 4)
                if torch.equal(translated(other[None], torch.tensor([[dy], [dx]]))[0], one)
            ]
            assert len(matches) == 1
            found.add(matches[0])
    assert {abs(a) for move in found for a in move} == {0, 1, 2} and len(found) > 20
    again = TrainingBatches(
        task.labelled, task.unlabelled, batch_size=8, seed=3, drawing=Drawing(translate=2)
    )
    assert torch.equal(again.batch(17)[0], batches.batch(17)[0])


def test_translating_what_is_no_image_is_refused():
    task = replace(make_task(), shape=(1, 8000))
    config = replace(CONFIG, network="bird10")
    with pytest.raises(BirdinvError, match=r"--translate is 1, .*are no images; give 0"):
        Learner(task, config, CPU)


def test_bfloat16_trains_in_it_and_keeps_float32_weights():
    learner = Learner(make_task(), replace(CONFIG, precision="bfloat16"), CPU)
    plain = Learner(make_task(), CONFIG, CPU)
    for step in range(3):
        ours, theirs = learner.learn(step), plain.learn(step)
        assert math.isclose(ours["total"], theirs["total"], abs_tol=0.03)
        assert ours["total"] != theirs["total"]
    assert {p.dtype for p in learner.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("objective", "terms"),
    [
        ("supervised", {"cross_entropy"}),
        ("entropy", {"cross_entropy", "entropy"}),
        ("reconstruction", {"cross_entropy", "reconstruction"}),
        ("global", {"cross_entropy", "entropy", "reconstruction"}),
        ("multiscale", {"cross_entropy", "entropy", "reconstruction"}),
        ("weighted", {"cross_entropy", "entropy", "reconstruction"}),
    ],
)
def test_ablations_leave_out_the_terms_that_they_say(objective, terms):
    learner = Learner(make_task(), replace(CONFIG, objective=objective, balance=0.0), CPU)
    found = set(learner.learn(0)) - {"total", "right", "known"}
    assert {name for name in found if not name.startswith("unlabelled_")} == terms


def test_the_schedule_of_the_multiscale_paper_halves_twice():
    config = replace(CONFIG, schedule="halved", learning_rate=0.002)
    rates = [config.learning_rate_at(step, 400) for step in (0, 149, 150, 299, 300, 399)]
    assert rates == [0.002, 0.002, 0.001, 0.001, 0.0005, 0.0005]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("schedule", "linear"),
        ("precision", "float16"),
        ("balance", -1.0),
        ("balance_memory", 1.0),
        ("epochs", 0.0),
        ("check_every", 0.0),
        ("average", 1.0),
        ("translate", -1),
    ],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(SettingError, match=f"--{setting.replace('_', '-')} is {value}; give"):
        replace(CONFIG, **{setting: value})


def test_few_labels_and_many_without_learn_the_pictures(tmp_path):
    config = replace(CONFIG, epochs=12, check_every=3, translate=0)
    result = train_task(make_task(64), tmp_path / "run", config, device="cpu")
    assert float(result.rows[result.best_row - 1]["valid_accuracy"]) > 0.9
