"""A run is complete, repeatable, and resumed = uninterrupted, however it was stopped."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from birdinv_cli.main import main
from safetensors.torch import load_file

from birdinv.audio.store import Store
from birdinv.data.segmenting import SegmentSettings, segment
from birdinv.errors import BirdinvError, Interrupted
from birdinv.networks.saved import load_model
from birdinv.training import loop
from birdinv.training.checkpoint import Checkpoint
from birdinv.training.config import TrainConfig
from birdinv.training.epochs import best_row, stops_early
from birdinv.training.interrupts import interrupts
from birdinv.training.learner import Learner, choose_device
from birdinv.training.loop import train
from birdinv.training.partition import partition, read_roles
from birdinv.training.recipes import FEW_LABELS
from birdinv.training.recordings import recordings_task
from birdinv.training.scoring import evaluate_run

RATE = 11025
FILES = ("metrics.csv", "model", "last.pt", "run.json", "split.csv")
SETTINGS = SegmentSettings(segment_s=0.45, overlap=0.5, sample_rate=RATE, activity=False)
CONFIG = TrainConfig(epochs=3, batch_size=16, learning_rate=0.003)
FEW = TrainConfig(
    **{
        **FEW_LABELS,
        "batch_size": 16,
        "steps": None,
        "epochs": 2,
        "keep": "best",
        "labels_per_class": 2,
    }
)


def tones(folder: Path, classes: dict[str, float], count: int, seed: int = 0) -> Path:
    """`count` recordings of 1.5 s for each class: a tone of its own in noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(1.5 * RATE)) / RATE
    for name, pitch_hz in classes.items():
        for i in range(count):
            wave = 0.3 * np.sin(2 * np.pi * pitch_hz * rng.uniform(0.97, 1.03) * t)
            wave += rng.normal(0, 0.05, len(t))
            path = folder / name / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.clip(wave, -1, 1), RATE, "PCM_16")
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Steps this small only lose by sharing; and the commands run with as many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three classes of 7 recordings (5 to learn from), 6 recordings without a label."""
    folder = tmp_path_factory.mktemp("training")
    labelled = tones(folder / "in", {"low": 400.0, "high": 1500.0, "noise": 0.0}, 7)
    unlabelled = tones(folder / "more", {"x": 400.0, "y": 1500.0}, 3, seed=1)
    segment([labelled], folder / "store", SETTINGS, unlabelled=[unlabelled])
    return Store(folder / "store")


@pytest.fixture(scope="module")
def reference(store, tmp_path_factory):
    """An uninterrupted run of CONFIG."""
    run = tmp_path_factory.mktemp("reference") / "run"
    train(store, run, CONFIG, device="cpu", command="birdinv train …")
    return run


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def info(run: Path) -> dict:
    return json.loads((run / "run.json").read_text("utf-8"))


def last(run: Path) -> dict:
    return torch.load(run / "last.pt", weights_only=True)


def assert_same(run: Path, expected: Path) -> None:
    """Bit for bit: the exported model, the last state of network and optimiser, the metrics."""
    for name in ("model.safetensors", "model.json"):
        assert (run / "model" / name).read_bytes() == (expected / "model" / name).read_bytes()
    assert rows(run) == rows(expected)
    assert (run / "split.csv").read_bytes() == (expected / "split.csv").read_bytes()
    ours, theirs = last(run), last(expected)
    assert ours["step"] == theirs["step"]
    for name, tensor in theirs["model"].items():
        assert torch.equal(ours["model"][name], tensor)
    for part in ("average", "balance"):  # where there is one
        assert ours.keys() & {part} == theirs.keys() & {part}
        for name, tensor in theirs.get(part, {}).items():
            assert torch.equal(ours[part][name], tensor)
    for number, moments in theirs["optimiser"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(ours["optimiser"]["state"][number][name], tensor)


class Stop:
    """Stands in for a progress bar and presses Ctrl-C after so many steps."""

    def __init__(self, after: int, number: int = signal.SIGINT) -> None:
        self.left, self.number = after, number

    def update(self, amount: float, **_: object) -> None:
        self.left -= 1 if amount == 1 else 0
        if amount == 1 and self.left == 0:
            os.kill(os.getpid(), self.number)


def test_a_run_folder_is_complete(reference, store):
    assert sorted(p.name for p in reference.iterdir()) == sorted(FILES)
    table = rows(reference)
    with open(reference / "metrics.csv", encoding="utf-8") as file:
        assert file.readline().strip().split(",") == [
            *("epoch", "step", "learning_rate"),
            *("total", "cross_entropy", "entropy", "reconstruction"),
            *("balance", "consistency", "sparsity"),
            *("train_accuracy", "agreement"),
            *("valid_cross_entropy", "valid_accuracy", "valid_recording_accuracy"),
            "seconds",
            *(f"valid_reconstruction_{layer}" for layer in ("input", "block1", "block2", "hidden")),
            *("unlabelled_high", "unlabelled_low", "unlabelled_noise"),
        ]
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    for row in table:  # the weighted objective has no more terms, and draws no groups
        empty = {name for name, value in row.items() if not value}
        assert empty == {"balance", "consistency", "sparsity", "agreement"}
    steps = int(table[0]["step"])
    assert [int(row["step"]) for row in table] == [steps, 2 * steps, 3 * steps]
    model, description = load_model(reference)
    assert description.classes == store.classes == ["high", "low", "noise"]
    assert description.hearing.non_events == ["noise"]
    assert description.hearing.sample_rate == RATE
    assert description.hearing.windows == store.windows
    assert model(torch.zeros(1, 1, store.windows.segment)).shape == (1, 3)


def test_run_json_says_what_the_run_was_made_from(reference, store):
    found = info(reference)
    assert TrainConfig(**found["config"]) == CONFIG
    assert found["outcome"] == "finished" and found["command"] == "birdinv train …"
    assert found["store"] == str(store.path.resolve()) and found["store_hash"] == store.hash
    assert found["classes"] == store.classes and found["device"] == "cpu"
    assert set(found["versions"]) == {"birdinv", "torch", "numpy", "python"}
    assert found["started"] <= found["ended"] and found["warnings"] == []
    assert found["best_epoch"] == best_row(rows(reference))
    parts = partition(store, None, 0)
    assert found["split_hash"] == parts.hash
    assert found["counts"] == {
        "labelled_recordings": 15,
        "unlabelled_recordings": 6,
        "valid_recordings": 3,
        "test_recordings": 3,
        "labelled_segments": 15 * 5,
        "unlabelled_segments": 6 * 5,
    }


def test_split_csv_is_the_partition(reference, store):
    roles = read_roles(reference)
    split = {r.file: r for r in store.recordings}
    assert {split[f].split for f in roles["labelled"]} == {"train"}
    assert {split[f].split for f in roles["valid"]} == {"valid"}
    assert {split[f].split for f in roles["test"]} == {"test"}
    assert sum(len(files) for files in roles.values()) == len(store.recordings)
    assert set(roles["unlabelled"].values()) == {""}


def test_it_learns(store, tmp_path):
    result = train(store, tmp_path / "run", replace(CONFIG, epochs=8), device="cpu")
    assert float(result.rows[result.best_row - 1]["valid_recording_accuracy"]) == 1
    first, final = (float(result.rows[i]["cross_entropy"]) for i in (0, -1))
    assert final < 0.5 * first


def test_the_same_run_again_is_the_same_and_another_seed_is_not(reference, store, tmp_path):
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002  the global state is the point
    train(store, tmp_path / "same", CONFIG, device="cpu")
    assert_same(tmp_path / "same", reference)
    train(store, tmp_path / "other", replace(CONFIG, seed=1, epochs=1), device="cpu")
    assert rows(tmp_path / "other")[0]["total"] != rows(reference)[0]["total"]


def test_the_callers_random_state_modes_and_handlers_are_left_alone(store, tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(store, tmp_path / "run", replace(CONFIG, epochs=1), device="cpu")
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    "stops", [[1], [7], [10], [11], [29], [3, 1, 20]], ids=lambda stops: "-".join(map(str, stops))
)
def test_interrupted_at_any_step_and_resumed_is_uninterrupted(reference, store, tmp_path, stops):
    """10 steps an epoch: within one, at its end, after it, in the last step but one, repeatedly."""
    assert int(rows(reference)[0]["step"]) == 10
    run, done = tmp_path / "run", 0
    for i, after in enumerate(stops):
        done += after
        with pytest.raises(Interrupted, match=f"interrupted at step {done} of 30; .*--resume -o"):
            train(store, run, CONFIG, device="cpu", resume=i > 0, progress=Stop(after))
        assert last(run)["step"] == done
        found = info(run)
        assert found["outcome"] == "interrupted" and found["ended"] is None
        assert not (run / "model").exists()
    torch.manual_seed(5)
    train(store, run, CONFIG, device="cpu", resume=True)
    assert_same(run, reference)
    assert info(run)["outcome"] == "finished" and info(run)["ended"]
    assert sorted(p.name for p in run.iterdir()) == sorted(FILES)


def test_a_run_that_was_begun_before_there_were_settings_of_decoders_goes_on(
    reference, store, tmp_path
):
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(store, run, CONFIG, device="cpu", progress=Stop(5))
    info = json.loads((run / "run.json").read_text())
    for name in ("lambda_nll", "lambda_rec", "lambda_mid", "sparsity", "pretrain", "freeze", "pad"):
        del info["config"][name]
    (run / "run.json").write_text(json.dumps(info))
    train(store, run, CONFIG, device="cpu", resume=True)
    weights = [folder / "model" / "model.safetensors" for folder in (run, reference)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.filterwarnings("ignore::UserWarning")  # so short a run may have its alarms
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"balance_memory": 0.9, "ramp": 2.0},
        {"augment": "strong", "group_windows": 3, "group_seconds": 0.6},
        {"consistency": "mean-teacher", "consistency_weight": 10.0},
        {"consistency": "fixmatch", "threshold": 0.4, "augment": "strong"},
        {"consistency": "vat", "ramp": 1.5},
        {"class_balanced": False, "objective": "multiscale", "average": 0.0},
    ],
    ids=lambda changes: "-".join([*changes][:2]) or "few-labels",
)
def test_few_labels_interrupted_and_resumed_is_uninterrupted(store, tmp_path, changes):
    """Whatever it draws, changes, remembers and averages: 10 steps an epoch."""
    config = replace(FEW, **changes)
    train(store, tmp_path / "whole", config, device="cpu")
    assert rows(tmp_path / "whole")[0]["step"] == "10"
    for stops in ([14], [1, 9, 7]):
        run = tmp_path / str(len(stops))
        for i, after in enumerate(stops):
            with pytest.raises(Interrupted):
                train(store, run, config, device="cpu", resume=i > 0, progress=Stop(after))
            assert ("average" in last(run)) == (config.average > 0)
        torch.manual_seed(5)
        train(store, run, config, device="cpu", resume=True)
        assert_same(run, tmp_path / "whole")
    if config.balance_memory:
        assert last(run)["balance"]["average"].sum() == pytest.approx(1)
    if config.consistency != "none":
        assert all(float(row["consistency"]) >= 0 for row in rows(run))


def test_ctrl_c_in_the_last_step_finishes(reference, store, tmp_path):
    train(store, tmp_path / "run", CONFIG, device="cpu", progress=Stop(30))
    assert_same(tmp_path / "run", reference)


def test_a_termination_signal_saves_too(store, tmp_path):
    with pytest.raises(Interrupted):
        train(store, tmp_path / "run", CONFIG, device="cpu", progress=Stop(2, signal.SIGTERM))
    assert last(tmp_path / "run")["step"] == 2


def test_seconds_add_up_over_an_interruption(store, tmp_path):
    class Slow(Stop):
        def update(self, amount, **more):
            time.sleep(0.05)
            super().update(amount, **more)

    config = replace(CONFIG, epochs=1)
    with pytest.raises(Interrupted):
        train(store, tmp_path / "run", config, device="cpu", progress=Slow(6))
    result = train(store, tmp_path / "run", config, device="cpu", resume=True, progress=Slow(99))
    assert 0.45 <= float(result.rows[0]["seconds"]) < 20


def test_the_second_ctrl_c_is_an_ordinary_one():
    old = signal.getsignal(signal.SIGINT)
    with interrupts() as flag:
        os.kill(os.getpid(), signal.SIGINT)
        assert flag.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is old


def test_outside_the_main_thread_signals_are_left_alone(store, tmp_path):
    failures = []

    def work():
        try:
            train(store, tmp_path / "run", replace(CONFIG, epochs=1), device="cpu")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures and info(tmp_path / "run")["outcome"] == "finished"


BIRDINV = [sys.executable, "-c", "from birdinv_cli.main import main; main()"]
ARGUMENTS = [
    *("--objective", "weighted", "--epochs", "3", "--batch-size", "16"),
    *("--learning-rate", "0.003", "--device", "cpu"),
]

# Slows the steps of a real command down, so that a signal surely comes in the middle of one run.
SLOWLY = """
import sys, time
from birdinv.training.learner import Learner
from birdinv_cli.main import main
learn = Learner.learn
def slowly(self, step):
    time.sleep(0.1)
    result = learn(self, step)
    print("step", step, file=sys.stderr, flush=True)
    return result
Learner.learn = slowly
main(sys.argv[1:])
"""


def command(store: Path, run: Path, *more: str) -> list[str]:
    return ["train", str(store), "-o", str(run), *ARGUMENTS, "--threads", "1", *more]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_a_command_stopped_by_a_signal_is_resumed_to_the_same_end(
    reference, store, tmp_path, number
):
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, *command(store.path, run)],
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("step 13"):  # in the second epoch
            process.send_signal(number)
            break
    rest = process.stderr.read()
    code = process.wait(60)
    if number == signal.SIGINT:
        assert code == 130
        assert "birdinv: interrupted at step" in rest and "Traceback" not in rest
        assert last(run)["step"] in (14, 15) and info(run)["outcome"] == "interrupted"
    else:
        assert code == -signal.SIGKILL
        assert last(run)["step"] == 10 and info(run)["outcome"] == "running"
    resumed = subprocess.run(
        [*BIRDINV, *command(store.path, run, "--resume")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert_same(run, reference)


def test_killed_before_the_first_epoch_ended_it_begins_again(reference, store, tmp_path):
    class Killed(BaseException):
        pass

    class Kill(Stop):
        def update(self, amount, **_):
            self.left -= 1
            if self.left == 0:
                raise Killed

    with pytest.raises(Killed):
        train(store, tmp_path / "run", CONFIG, device="cpu", progress=Kill(5))
    assert not (tmp_path / "run" / "last.pt").exists()
    assert info(tmp_path / "run")["outcome"] == "failed"
    train(store, tmp_path / "run", CONFIG, device="cpu", resume=True)
    assert_same(tmp_path / "run", reference)


def test_a_model_that_could_not_be_written_is_written_on_resume(
    reference, store, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("birdinv.training.loop.save_model", full)
    with pytest.raises(OSError):
        train(store, tmp_path / "run", CONFIG, device="cpu")
    assert info(tmp_path / "run")["outcome"] == "failed"
    monkeypatch.undo()
    train(store, tmp_path / "run", CONFIG, device="cpu", resume=True)
    assert_same(tmp_path / "run", reference)


def test_what_cannot_be_resumed_is_refused_with_a_sentence(reference, store, tmp_path):
    def resume(run, config=CONFIG, other=store):
        return train(other, run, config, device="cpu", resume=True)

    with pytest.raises(BirdinvError, match=r"is finished; to train again, give -o a new folder"):
        resume(reference)
    with pytest.raises(BirdinvError, match=r"does not exist; expected a run made by"):
        resume(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(store, run, CONFIG, device="cpu", progress=Stop(3))
    with pytest.raises(
        BirdinvError, match=r"other settings \(beta, epochs\); resume with the same"
    ):
        resume(run, replace(CONFIG, epochs=4, beta=0.1))
    tones(tmp_path / "in", {"low": 400.0, "high": 1500.0, "noise": 0.0}, 7, seed=9)
    segment([tmp_path / "in"], tmp_path / "other", SETTINGS)
    with pytest.raises(BirdinvError, match=f"begun on another store than .*{store.path}"):
        resume(run, other=Store(tmp_path / "other"))
    with pytest.raises(BirdinvError, match=r"already exists; .* go on with this one by --resume"):
        train(store, run, CONFIG, device="cpu")
    whole = (run / "last.pt").read_bytes()
    for broken in (b"", b"abc", whole[: len(whole) // 2]):
        (run / "last.pt").write_bytes(broken)
        with pytest.raises(BirdinvError, match=r"cannot be resumed from .*; train again"):
            resume(run)
    torch.save([1], run / "last.pt")
    with pytest.raises(BirdinvError, match="cannot be resumed from"):
        resume(run)
    (run / "run.json").write_text('{"config": 3}')
    with pytest.raises(BirdinvError, match="holds no settings"):
        resume(run)


def test_a_refused_run_leaves_no_folder_behind(store, tmp_path):
    for config, device, sentence in (
        (CONFIG, "cuda:99", "the device 'cuda:99' cannot be used"),
        (CONFIG, "meta", "give cpu or auto"),
        (CONFIG, "toaster", "the device 'toaster' cannot be used"),
        (replace(CONFIG, labels_per_class=0), "cpu", "--labels-per-class is 0"),
        (replace(CONFIG, network="bird11"), "cpu", "no network 'bird11'"),
    ):
        with pytest.raises(BirdinvError, match=sentence):
            train(store, tmp_path / "run", config, device=device)
        assert not (tmp_path / "run").exists()
    assert choose_device("cpu") == torch.device("cpu")


def test_a_store_of_short_segments_or_of_one_class_is_refused(tmp_path):
    tones(tmp_path / "in", {"low": 400.0, "high": 1500.0}, 3)
    segment([tmp_path / "in"], tmp_path / "short", replace(SETTINGS, segment_s=0.3))
    with pytest.raises(BirdinvError, match="at least 4608 samples, and these have 3308"):
        train(Store(tmp_path / "short"), tmp_path / "run", CONFIG, device="cpu")
    segment([tmp_path / "in" / "low"], tmp_path / "one", SETTINGS)
    with pytest.raises(BirdinvError, match=r"at least two classes, and .* has only low"):
        train(Store(tmp_path / "one"), tmp_path / "run", CONFIG, device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objective": "best"}, "--objective is best; give one of supervised, weighted, global"),
        ({"schedule": "step"}, "--schedule is step; give one of cosine, constant"),
        ({"alpha": 1.5}, "--alpha is 1.5; give a number from 0 to 1"),
        ({"beta": float("nan")}, "--beta is nan"),
        ({"epochs": 0}, "--epochs is 0; give a number above 0"),
        ({"batch_size": 1}, "--batch-size is 1; give 2 to 65536"),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0; give a number above 0"),
        ({"learning_rate": float("inf")}, "--learning-rate is inf"),
        ({"patience": 0}, "--patience is 0"),
        ({"dropout": 1.0}, "--dropout is 1.0; give a fraction from 0 to below 1"),
        ({"seed": -1}, "--seed is -1; give 0 to 4294967295"),
    ],
)
def test_settings_out_of_range_are_refused_with_a_sentence(changes, sentence):
    with pytest.raises(BirdinvError, match=sentence):
        TrainConfig(**changes)


def test_a_loss_that_runs_away_names_step_term_and_cure_and_leaves_the_last_epoch(
    reference, store, tmp_path, monkeypatch
):
    learn = Learner.learn

    def spoilt(self, step):
        if step == 14:
            with torch.no_grad():
                self.model.block1[0].weight *= 1e25
        return learn(self, step)

    monkeypatch.setattr(Learner, "learn", spoilt)
    with pytest.raises(
        BirdinvError,
        match=r"not finite at step 15 \(epoch 2\): reconstruction .* smaller --learning-rate than "
        "0.003, or a smaller --beta",
    ) as caught:
        train(store, tmp_path / "run", CONFIG, device="cpu")
    assert caught.value.exit_code == 1
    assert info(tmp_path / "run")["outcome"] == "failed" and info(tmp_path / "run")["ended"]
    assert last(tmp_path / "run")["step"] == 10
    monkeypatch.undo()
    train(store, tmp_path / "run", CONFIG, device="cpu", resume=True)
    assert_same(tmp_path / "run", reference)


def test_weights_that_run_away_in_the_last_step_of_an_epoch_are_not_saved(
    store, tmp_path, monkeypatch
):
    learn = Learner.learn

    def spoilt(self, step):
        result = learn(self, step)
        if step == 9:
            with torch.no_grad():
                self.model.head.bias[0] = float("inf")
        return result

    monkeypatch.setattr(Learner, "learn", spoilt)
    config = replace(CONFIG, objective="supervised")
    with pytest.raises(BirdinvError, match=r"after step 10 \(epoch 2\): head.bias .*than 0.003$"):
        train(store, tmp_path / "run", config, device="cpu")
    assert last(tmp_path / "run")["step"] == 5
    assert all(t.isfinite().all() for t in last(tmp_path / "run")["model"].values())


def test_a_learning_rate_out_of_all_bounds_fails_with_exit_code_1(store, tmp_path):
    done = subprocess.run(
        [
            *(*BIRDINV, "train"),
            *(str(store.path), "-o", str(tmp_path / "run"), "--learning-rate", "1e20"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(r"not finite .*step \d+ \(epoch 1\)", done.stderr)


def rows_of(*accuracies, loss=()):
    losses = loss or [1.0] * len(accuracies)
    return [
        {"valid_accuracy": str(a), "valid_cross_entropy": str(b)}
        for a, b in zip(accuracies, losses, strict=True)
    ]


def test_the_best_epoch_is_that_of_validation_and_ties_go_to_the_lower_loss_then_the_first():
    assert best_row([]) is None
    assert best_row(rows_of(0.5, 0.7, 0.6)) == 2
    assert best_row(rows_of(0.5, 0.5, 0.5, loss=[0.9, 0.3, 0.4])) == 2
    assert best_row(rows_of(0.5, 0.5)) == 1
    assert best_row(rows_of("", "", "", loss=["", "", ""])) == 3


def test_it_stops_after_so_many_epochs_without_a_better_one():
    assert not stops_early([], 1)
    assert not stops_early(rows_of(0.5, 0.7, 0.6), 2)
    assert stops_early(rows_of(0.5, 0.7, 0.6, 0.6), 2)
    assert not stops_early(rows_of("", "", "", loss=["", "", ""]), 1)


def test_early_stopping_keeps_the_best_weights_and_survives_an_interruption(
    store, tmp_path, monkeypatch
):
    """Validation as a fixed series: epoch 2 is the best, three epochs later the run stops."""
    series = [0.4, 0.6, 0.5, 0.6, 0.1, 0.9]
    seen = {}

    def cells(model, *_):
        number = 1 + len(seen)
        seen[number] = {k: v.clone() for k, v in model.state_dict().items()}
        return rows_of(series[number - 1])[0] | {"valid_recording_accuracy": "0"}

    monkeypatch.setattr("birdinv.training.loop.valid_cells", cells)
    config = replace(CONFIG, epochs=6, patience=3)
    result = train(store, tmp_path / "run", config, device="cpu")
    assert result.best_row == 2 and len(result.rows) == 5
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in seen[2].items())
    seen.clear()
    with pytest.raises(Interrupted):
        train(store, tmp_path / "again", config, device="cpu", progress=Stop(33))
    train(store, tmp_path / "again", config, device="cpu", resume=True)
    assert_same(tmp_path / "again", tmp_path / "run")


def test_without_validation_recordings_the_last_epoch_is_kept(tmp_path):
    tones(tmp_path / "in", {"low": 400.0, "high": 1500.0}, 3)
    segment([tmp_path / "in"], tmp_path / "store", replace(SETTINGS, fractions=(0.67, 0.0, 0.33)))
    run = tmp_path / "run"
    result = train(Store(tmp_path / "store"), run, replace(CONFIG, patience=1), device="cpu")
    assert result.best_row == 3 and len(result.warnings) == 1
    assert "the last epoch's weights are kept" in result.warnings[0]
    assert info(run)["warnings"] == list(result.warnings)
    assert {row["valid_accuracy"] for row in rows(run)} == {""}
    kept = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(kept[name], t) for name, t in last(run)["model"].items())


def test_labels_per_class_hides_the_others_which_become_unlabelled(store, tmp_path):
    config = replace(CONFIG, labels_per_class=2, epochs=1)
    result = train(store, tmp_path / "run", config, device="cpu")
    roles = read_roles(tmp_path / "run")
    assert len(roles["labelled"]) == 6 and sorted(set(roles["labelled"].values())) == store.classes
    assert len(roles["unlabelled"]) == 6 + 9 and set(roles["unlabelled"].values()) == {""}
    with open(tmp_path / "run" / "split.csv", encoding="utf-8", newline="") as file:
        hidden = [row["file"] for row in csv.DictReader(file) if row["hidden"] == "yes"]
    assert len(hidden) == 9 and set(hidden) < set(roles["unlabelled"])
    assert len(roles["valid"]) == len(roles["test"]) == 3 and result.warnings == ()
    assert info(tmp_path / "run")["counts"]["labelled_segments"] == 6 * 5
    more = partition(store, 9, 0)
    assert more.warnings == (
        "fewer than 9 training recordings: high has 5, low has 5, noise has 5; "
        "all of theirs are used",
    )


def test_hidden_labels_change_nothing_that_is_learnt(store, tmp_path):
    """What is hidden is not used: a run equals one whose hidden labels are wrong."""
    config = replace(CONFIG, labels_per_class=2, epochs=1)
    parts = partition(store, 2, 0)
    copy = Store(store.path)
    wrong = {"high": "low", "low": "noise", "noise": "high"}
    copy.recordings = [
        replace(r, label=wrong[r.label]) if r.file in parts.hidden else r for r in copy.recordings
    ]

    tasks = [recordings_task(each, parts) for each in (store, copy)]
    learners = [Learner(task, config, torch.device("cpu")) for task in tasks]
    for step in range(3):
        ours, theirs = (learner.learn(step) for learner in learners)
        assert ours == theirs


@pytest.mark.parametrize(
    "changes", [{"objective": "supervised"}, {"objective": "weighted", "alpha": 1.0}]
)
def test_supervised_training_ignores_unlabelled_audio(store, tmp_path, changes):
    """Not even as empty places in its batches: without the unlabelled it is the same run."""
    bare = tmp_path / "bare"
    segment([store.path.parent / "in"], bare, SETTINGS)
    config = replace(CONFIG, epochs=1, **changes)
    for name, source in (("with", store), ("without", Store(bare))):
        train(source, tmp_path / name, config, device="cpu")
    assert rows(tmp_path / "with") == rows(tmp_path / "without")
    row = rows(tmp_path / "with")[0]
    assert row["entropy"] == row["reconstruction"] == "" and row["cross_entropy"]
    weights = [load_file(tmp_path / n / "model" / "model.safetensors") for n in ("with", "without")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("objective", ["global", "multiscale"])
def test_parameter_free_objectives_train(store, tmp_path, objective):
    train(store, tmp_path / "run", replace(CONFIG, objective=objective, epochs=1), device="cpu")
    row = rows(tmp_path / "run")[0]
    total = (float(row["cross_entropy"]) + float(row["entropy"])) / np.log(3)
    assert float(row["total"]) == pytest.approx(total + float(row["reconstruction"]), abs=1e-5)


def test_a_class_without_a_training_recording_is_warned_of(tmp_path):
    root = tones(tmp_path / "in", {"low": 400.0, "high": 1500.0, "rare": 900.0}, 3)
    lines = [f"{p.relative_to(root)},{p.parent.name}," for p in sorted(root.rglob("*.wav"))]
    lines = [line + ("test" if "rare" in line else "") for line in lines]
    (root / "labels.csv").write_text("\n".join(["file,label,split", *lines]))
    segment([root], tmp_path / "store", SETTINGS, labels=root / "labels.csv")
    parts = partition(Store(tmp_path / "store"), None, 0)
    assert parts.warnings == ("no labelled training recording of rare: it will not be recognised",)


def test_the_learning_rate_falls_along_a_cosine_or_stays(reference):
    config = TrainConfig(learning_rate=0.1)
    assert config.learning_rate_at(0, 100) == 0.1
    assert config.learning_rate_at(50, 100) == pytest.approx(0.05)
    assert config.learning_rate_at(100, 100) == pytest.approx(0)
    assert replace(config, schedule="constant").learning_rate_at(99, 100) == 0.1
    assert float(rows(reference)[-1]["learning_rate"]) == pytest.approx(
        0.003 * 0.5 * (1 + np.cos(np.pi * 29 / 30)), rel=1e-6
    )


def test_long_epochs_are_saved_within_and_it_changes_nothing(
    reference, store, tmp_path, monkeypatch
):
    saved = []

    def save(state, *args):
        saved.append(state.step)
        return genuine(state, *args)

    genuine = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", save)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    train(store, tmp_path / "run", CONFIG, device="cpu")
    steps = int(rows(reference)[-1]["step"])
    assert saved == list(range(1, steps + 1))
    assert_same(tmp_path / "run", reference)


def test_recordings_without_a_part_to_play_are_listed_too(tmp_path):
    tones(tmp_path / "in", {"low": 400.0, "high": 1500.0}, 4)
    soundfile.write(tmp_path / "in/low/short.wav", np.zeros(20), RATE)
    segment([tmp_path / "in"], tmp_path / "store", SETTINGS)
    parts = partition(Store(tmp_path / "store"), None, 0)
    assert parts.unused == {"low/short.wav": "low"}
    files = {recording.file for recording in Store(tmp_path / "store").recordings}
    assert {row["file"] for row in parts.rows} == files and len(parts.rows) == len(files)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("low/0.wav,test,whale,no", "has no class 'whale'; it has high, low, noise"),
        ("low/0.wav,guest,low,no", "gives low/0.wav the role 'guest'; expected one of labelled"),
    ],
)
def test_a_split_table_that_was_tampered_with_is_refused(reference, tmp_path, row, sentence):
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    (run / "split.csv").write_text(f"file,role,label,hidden\n{row}\n", "utf-8")
    with pytest.raises(BirdinvError, match=re.escape(sentence)):
        evaluate_run(run)


# ---------------------------------------------------------------- who is learnt from


def with_copies(folder: Path) -> Store:
    """Unlabelled recordings of which some are copies of labelled, validation and test ones."""
    tones(folder / "in", {"low": 400.0, "high": 1500.0, "noise": 0.0}, 7)
    tones(folder / "more", {"x": 400.0}, 2, seed=1)
    for path in (folder / "in" / "low").glob("*.wav"):
        shutil.copy(path, folder / "more" / f"copy-{path.name}")
    segment([folder / "in"], folder / "store", SETTINGS, unlabelled=[folder / "more"])
    return Store(folder / "store")


def test_copies_of_labelled_validation_and_test_recordings_are_left_out_and_counted(tmp_path):
    store = with_copies(tmp_path)
    split = {r.file: r.split for r in store.recordings if r.label == "low"}
    assert set(split.values()) == {"train", "valid", "test"}
    parts = partition(store, None, 0)
    assert sorted(parts.unlabelled) == ["more/x/0.wav", "more/x/1.wav"]
    assert sorted(parts.unused) == [f"more/copy-{i}.wav" for i in range(7)]
    sentence = "left out of training: 7 unlabelled recordings with the same bytes as a labelled one"
    assert parts.warnings == (sentence,)
    result = train(store, tmp_path / "run", replace(CONFIG, epochs=1), device="cpu")
    assert result.warnings == (sentence,) and info(tmp_path / "run")["warnings"] == [sentence]
    assert info(tmp_path / "run")["counts"]["unlabelled_recordings"] == 2


def test_a_copy_of_a_recording_whose_label_is_hidden_tells_nothing_and_stays(tmp_path):
    store = with_copies(tmp_path)
    parts = partition(store, 2, 0)
    bytes_of = {r.file: r.sha256 for r in store.recordings}
    known = {bytes_of[file] for file in (*parts.labelled, *parts.valid, *parts.test)}
    assert not known & {bytes_of[file] for file in parts.unlabelled}
    low = [file for file, label in parts.labelled.items() if label == "low"]
    assert len(low) == 2
    assert sum("copy" in file for file in parts.unlabelled) == 7 - 2 - 1 - 1
    assert parts.warnings == (
        "left out of training: 4 unlabelled recordings with the same bytes as a labelled one",
    )


def test_the_command_says_how_many_copies_it_leaves_out(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main has its own
    with_copies(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["train", str(tmp_path / "store"), "-o", str(tmp_path / "run"), "--steps", "1"])
    said = capfd.readouterr().err
    assert exit_.value.code == 0, said
    sentence = (
        "birdinv: note: left out of training: 7 unlabelled recordings with the same bytes as a "
        "labelled one"
    )
    assert sentence in said.splitlines()


def test_one_copy_is_one_recording(tmp_path):
    tones(tmp_path / "in", {"low": 400.0, "high": 1500.0}, 3)
    shutil.copytree(tmp_path / "in" / "low", tmp_path / "more")
    for path in sorted((tmp_path / "more").iterdir())[1:]:
        path.unlink()
    segment([tmp_path / "in"], tmp_path / "store", SETTINGS, unlabelled=[tmp_path / "more"])
    assert partition(Store(tmp_path / "store"), None, 0).warnings == (
        "left out of training: 1 unlabelled recording with the same bytes as a labelled one",
    )


def test_fewer_labelled_recordings_than_asked_for_are_named(store, tmp_path):
    config = replace(CONFIG, epochs=1, labels_per_class=6)
    result = train(store, tmp_path / "run", config, device="cpu")
    sentence = (
        "fewer than 6 training recordings: high has 5, low has 5, noise has 5; "
        "all of theirs are used"
    )
    assert result.warnings == (sentence,)
    assert len(read_roles(tmp_path / "run")["labelled"]) == 15


def test_one_labelled_recording_in_all_is_refused_with_a_sentence(tmp_path):
    tones(tmp_path / "in", {"low": 400.0}, 1)
    tones(tmp_path / "more", {"x": 900.0}, 3)
    segment([tmp_path / "in"], tmp_path / "store", SETTINGS, unlabelled=[tmp_path / "more"])
    for labels in (None, 1):
        with pytest.raises(
            BirdinvError, match=r"at least two classes, and .* has only low; segment recordings of"
        ):
            partition(Store(tmp_path / "store"), labels, 0)
    segment([], tmp_path / "none", SETTINGS, unlabelled=[tmp_path / "more"])
    with pytest.raises(BirdinvError, match=r"at least two classes, and .* has none; segment"):
        partition(Store(tmp_path / "none"), None, 0)


def test_only_those_that_are_named_keep_their_label(store):
    everyone = partition(store, None, 0)
    low, high = (
        [file for file, label in everyone.labelled.items() if label == name]
        for name in ("low", "high")
    )
    named = [low[0], high[0], high[1], *everyone.valid, "no such recording"]
    parts = partition(store, None, 0, only=named)
    assert parts.labelled == {low[0]: "low", high[0]: "high", high[1]: "high"}
    assert (parts.valid, parts.test) == (everyone.valid, everyone.test)
    assert parts.hidden == everyone.labelled.keys() - parts.labelled.keys()
    assert set(parts.unlabelled) == {*everyone.unlabelled, *parts.hidden}
    assert parts.warnings == ("no labelled training recording of noise: it will not be recognised",)
    both = partition(store, 2, 0, only=low + high)  # no more than both ways of asking leave
    assert both.labelled.keys() == partition(store, 2, 0).labelled.keys() & {*low, *high}
    with pytest.raises(BirdinvError, match="has only low"):
        partition(store, None, 0, only=low)


def test_so_many_labels_of_each_class_and_group(tmp_path):
    """Two speakers of each class in training: two labels of each are four, not two."""
    root = tones(tmp_path / "in", {"low": 400.0, "high": 1500.0}, 9)
    lines = [
        f"{path.relative_to(root)},{path.parent.name},speaker{int(path.stem) % 3}"
        for path in sorted(root.rglob("*.wav"))
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,group", *lines]))
    segment(
        [root],
        tmp_path / "store",
        replace(SETTINGS, fractions=(0.67, 0.0, 0.33)),
        labels=tmp_path / "labels.csv",
    )
    store = Store(tmp_path / "store")
    group = {r.file: r.group for r in store.recordings}
    for seed in (0, 1):
        parts = partition(store, 2, seed, per_group=True)
        counts: dict = {}
        for file, label in parts.labelled.items():
            counts[label, group[file]] = counts.get((label, group[file]), 0) + 1
        assert len(counts) == 4 and set(counts.values()) == {2}
    draws = {tuple(partition(store, 2, seed, per_group=True).labelled) for seed in range(5)}
    assert len(draws) > 1
    assert len(partition(store, 2, 0).labelled) == 4
    (first, *_) = partition(store, 4, 0, per_group=True).warnings
    assert first.startswith("fewer than 4 training recordings: high of speaker")
    assert first.count(" has 3") == 4
