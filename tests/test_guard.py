"""`--guard`: two whole runs of the same labels, and the better on validation is kept."""

import json
import shlex
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from birdinv_cli.main import main
from small import contents
from test_training import CONFIG, SETTINGS, Stop, assert_same, info, rows, tones

from birdinv.audio.store import Store
from birdinv.data.segmenting import segment
from birdinv.errors import BirdinvError, Interrupted
from birdinv.prediction.job import Job
from birdinv.prediction.pool import Here
from birdinv.reporting.page import write_report
from birdinv.training import guard
from birdinv.training.config import TrainConfig
from birdinv.training.guard import SIDES, train_guarded
from birdinv.training.learner import Learner
from birdinv.training.loop import train
from birdinv.training.partition import partition
from birdinv.training.recipes import FEW_LABELS
from birdinv.training.recordings import recordings_task

CLASSES = {"low": 400.0, "high": 1500.0, "noise": 0.0}
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
# What unlabelled recordings do at their worst: nothing but entropy, and more of it than of labels.
CARELESS = {"alpha": 0.2, "gamma": 0.0, "balance": 0.0, "ramp": 0.0, "learning_rate": 0.003}

pytestmark = pytest.mark.filterwarnings("ignore:.*has emptied", "ignore:.*no unlabelled sample to")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`store` with unlabelled recordings of its classes, `bare` without; tests only read them."""
    place = tmp_path_factory.mktemp("guard")
    tones(place / "in", CLASSES, 7)
    tones(place / "more", {"x": 400.0, "y": 1500.0}, 3, seed=1)
    segment([place / "in"], place / "store", SETTINGS, unlabelled=[place / "more"])
    segment([place / "in"], place / "bare", SETTINGS)
    return place


@pytest.fixture(scope="module")
def store(place) -> Store:
    return Store(place / "store")


@pytest.fixture(scope="module")
def reference(store, tmp_path_factory) -> Path:
    """An uninterrupted guarded run of FEW."""
    run = tmp_path_factory.mktemp("guarded") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train_guarded(store, run, FEW, device="cpu")
    return run


@pytest.fixture
def birdinv(capfd, monkeypatch):
    """Runs `birdinv <line>` in this process; gives exit code, stdout and stderr."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main has its own

    def here(_begin: object, arguments: tuple, workers: int, *, stall_s: float) -> Here:
        return Here(Job, arguments)

    monkeypatch.setattr("birdinv.prediction.run.Processes", here)

    def run(line: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(shlex.split(line))
        return (exit_.value.code, *capfd.readouterr())

    return run


def settled(run: Path) -> dict:
    """`run.json` without what no two calls share."""
    own = ("started", "ended", "command")
    return {key: value for key, value in info(run).items() if key not in own}


def assert_same_guarded(run: Path, expected: Path) -> None:
    """Bit for bit but for the clock: both runs, and what was kept of them."""
    for side in SIDES:
        assert_same(run / side, expected / side)
        assert settled(run / side) == settled(expected / side)
    assert contents(run / "model") == contents(expected / "model")
    assert rows(run) == rows(expected)
    assert (run / "split.csv").read_bytes() == (expected / "split.csv").read_bytes()
    assert settled(run) == settled(expected)


class Bars:
    """Stands in for the bars of both runs, and presses Ctrl-C after so many steps in all."""

    def __init__(self, after: int = 0) -> None:
        self.names: list[str] = []
        self._stop = Stop(after)

    def __call__(self, name: str) -> "Bars":
        self.names.append(name)
        return self

    def update(self, amount: float, **more: object) -> None:
        self._stop.update(amount, **more)

    def close(self) -> None:
        pass


# ---------------------------------------------------------------- two whole runs


def test_both_are_whole_runs_and_the_folder_is_one_too(reference, store, tmp_path):
    names = {"metrics.csv", "model", "run.json", "split.csv"}
    assert {path.name for path in reference.iterdir()} == {*SIDES, *names}
    for side in SIDES:
        assert {path.name for path in (reference / side).iterdir()} == {*names, "last.pt"}
        assert info(reference / side)["outcome"] == "finished"
    train(store, tmp_path / "alone", FEW, device="cpu")
    assert_same(reference / "semi-supervised", tmp_path / "alone")
    assert settled(reference / "semi-supervised") == settled(tmp_path / "alone")


def test_the_other_run_learns_nothing_from_unlabelled_recordings(reference):
    config = TrainConfig(**info(reference / "supervised")["config"])
    assert not config.uses_unlabelled
    assert config == replace(
        FEW, objective="supervised", balance=0.0, group_windows=0, ramp=0.0, consistency="none"
    )
    for row in rows(reference / "supervised"):
        assert row["entropy"] == row["agreement"] == row["unlabelled_low"] == ""


def test_both_take_the_same_halves_of_labelled_segments_for_as_many_steps(reference, store):
    steps = [rows(reference / side)[-1]["step"] for side in SIDES]
    assert steps[0] == steps[1]
    task = recordings_task(store, partition(store, 2, 0), paced=True)
    supervised, other = (
        Learner(task, TrainConfig(**info(reference / side)["config"]), torch.device("cpu"))
        for side in SIDES
    )
    assert supervised.steps == other.steps == int(steps[0])
    for step in range(other.steps):
        ours, theirs = (learner._batches.batch(step) for learner in (supervised, other))
        assert len(ours.x) == len(theirs.x) // 2
        assert torch.equal(ours.x, theirs.x[: len(ours.x)]) and (theirs.y[len(ours.x) :] < 0).all()
        assert torch.equal(ours.y, theirs.y[: len(ours.y)]) and (ours.y >= 0).all()


def test_bars_are_named_after_the_runs(store, tmp_path):
    bars = Bars()
    train_guarded(store, tmp_path / "run", replace(FEW, epochs=1), device="cpu", progress=bars)
    assert bars.names == list(SIDES)


# ---------------------------------------------------------------- which one is kept


@pytest.mark.parametrize(
    ("supervised", "other", "kept"),
    [
        ((0.9, 0.5), (0.1, 0.7), "semi-supervised"),  # recordings come before segments
        ((0.1, 0.7), (0.9, 0.5), "supervised"),
        ((0.8, 0.5), (0.6, 0.5), "supervised"),  # of equals more segments
        ((0.6, 0.5), (0.8, 0.5), "semi-supervised"),
        ((0.6, 0.5), (0.6, 0.5), "semi-supervised"),
        ((0.6, ""), (0.5, ""), "supervised"),  # recordings of one segment each
        ((0.6, ""), (0.6, ""), "semi-supervised"),
    ],
)
def test_the_better_on_validation_is_kept_and_ties_go_to_the_semi_supervised(
    store, tmp_path, monkeypatch, supervised, other, kept
):
    answers = iter((supervised, other))

    def cells(*_):
        segments, recordings = next(answers)
        return {
            "valid_accuracy": f"{segments:.6f}",
            "valid_recording_accuracy": recordings and f"{recordings:.6f}",
            "valid_cross_entropy": "0.250000",
        }

    monkeypatch.setattr("birdinv.training.loop.valid_cells", cells)
    run = tmp_path / "run"
    found = train_guarded(store, run, replace(FEW, epochs=1), device="cpu")
    assert found.kept == kept and set(found.rows) == set(SIDES)
    numbers = info(run)["guard"]
    assert numbers == {
        "kept": kept,
        "recordings": 3,
        **{
            side: {
                "epoch": 1.0,
                "valid_accuracy": pair[0],
                "valid_recording_accuracy": None if pair[1] == "" else pair[1],
                "valid_cross_entropy": 0.25,
            }
            for side, pair in zip(SIDES, (supervised, other), strict=True)
        },
    }
    assert contents(run / "model") == contents(run / kept / "model")
    for name in ("metrics.csv", "split.csv"):
        assert (run / name).read_bytes() == (run / kept / name).read_bytes()
    assert {k: v for k, v in info(run).items() if k != "guard"} == info(run / kept)


def test_each_is_judged_by_its_best_epoch(store, tmp_path, monkeypatch):
    answers = iter([(0.9, 0.9), (0.2, 0.2), (0.3, 0.3), (0.8, 0.8)])

    def cells(*_):
        segments, recordings = (f"{each:.6f}" for each in next(answers))
        return {
            "valid_accuracy": segments,
            "valid_recording_accuracy": recordings,
            "valid_cross_entropy": "1.000000",
        }

    monkeypatch.setattr("birdinv.training.loop.valid_cells", cells)
    found = train_guarded(store, tmp_path / "run", FEW, device="cpu")
    assert found.kept == "supervised" and found.trained.best_row == 1
    epochs = [info(tmp_path / "run")["guard"][side]["epoch"] for side in SIDES]
    assert epochs == [1.0, 2.0]


# ---------------------------------------------------------------- unlabelled audio of other classes


def test_unlabelled_recordings_of_other_sounds_alone_are_found_out(tmp_path):
    """The network that learnt from frogs and crickets is worse; both are told, and it is not kept.

    No sooner than one class has taken all of them there is an alarm too.
    """
    tones(tmp_path / "in", CLASSES, 7)
    tones(tmp_path / "others", {"frog": 3200.0, "cricket": 4500.0}, 6, seed=4)
    segment([tmp_path / "in"], tmp_path / "store", SETTINGS, unlabelled=[tmp_path / "others"])
    config = replace(FEW, epochs=4, **CARELESS)
    run = tmp_path / "run"
    with pytest.warns(UserWarning, match=r"(emptied|is that class among them)"):
        found = train_guarded(Store(tmp_path / "store"), run, config, device="cpu")
    numbers = info(run)["guard"]
    by_segment = {side: numbers[side]["valid_accuracy"] for side in SIDES}
    assert by_segment["supervised"] > by_segment["semi-supervised"] + 0.1
    assert found.kept == numbers["kept"] == "supervised"
    assert contents(run / "model") == contents(run / "supervised" / "model")
    assert info(run / "supervised")["alarms"] == []
    alarms = info(run / "semi-supervised")["alarms"]
    assert info(run)["alarms"] == alarms  # what was found out is not lost with the network
    page = write_report(run).read_text(encoding="utf-8")
    assert "supervised (kept)" in page and "emptied" in page
    assert alarms and all("unlabelled" in text and "--guard" in text for text in alarms)


# ---------------------------------------------------------------- the other commands


def test_every_command_works_on_the_run_that_was_kept(birdinv, place, tmp_path):
    run = tmp_path / "run"
    line = f"train {place / 'store'} -o {run} --guard --epochs 1 --labels-per-class 2 --device cpu"
    code, out, err = birdinv(line)
    assert code == 0, err
    said = out.splitlines()
    assert said[0] == "objective: few-labels"
    kept = info(run)["guard"]["kept"]
    for line, side in zip(said[1:3], SIDES, strict=True):
        number = info(run)["guard"][side]
        end = ", kept" if side == kept else ""
        assert line == (
            f"{side}: validation accuracy: {number['valid_accuracy']:.3f} per segment, "
            f"{number['valid_recording_accuracy']:.3f} per recording{end}"
        )
    assert (run / "report.html").exists()
    dawn = place / "in" / "low" / "0.wav"
    assert birdinv(f"eval {run}")[0] == 0
    code, out, err = birdinv(f"eval {run} --split valid --json")
    assert code == 0, err
    assert json.loads(out)["segment_accuracy"] == pytest.approx(
        info(run)["guard"][kept]["valid_accuracy"], abs=1e-6
    )
    code, out, err = birdinv(f"predict {run} {place / 'more'} -o {tmp_path / 'tables'}")
    assert code == 0, err
    assert (tmp_path / "tables" / "combined.csv").exists()
    code, out, err = birdinv(f"report {run} {dawn}")
    assert code == 0, err
    code, out, err = birdinv(f"suggest {run} -n 3")
    assert code == 0, err
    assert len((run / "suggestions" / "suggestions.csv").read_text().splitlines()) == 4


# ---------------------------------------------------------------- interrupted and resumed


@pytest.mark.parametrize(
    "stops", [[1], [19], [21], [39], [3, 20, 10]], ids=lambda stops: "-".join(map(str, stops))
)
def test_interrupted_anywhere_and_resumed_is_uninterrupted(reference, store, tmp_path, stops):
    """20 steps a run: in the first, in its last step but one, in the second, in both."""
    assert rows(reference / "supervised")[-1]["step"] == "20"
    run = tmp_path / "run"
    for i, after in enumerate(stops):
        with pytest.raises(Interrupted, match=r"run: interrupted; .* --guard --resume -o ") as stop:
            train_guarded(store, run, FEW, device="cpu", resume=i > 0, progress=Bars(after))
        assert str(stop.value).endswith(str(run))  # and not the folder of one of the two
        assert not (run / "run.json").exists() and not (run / "model").exists()
    train_guarded(store, run, FEW, device="cpu", resume=True)
    assert_same_guarded(run, reference)


class Killed(BaseException):
    pass


def test_killed_between_the_runs_it_goes_on_with_the_second(reference, store, tmp_path):
    def bar(name):
        if name == "semi-supervised":
            raise Killed
        return Bars()

    with pytest.raises(Killed):
        train_guarded(store, tmp_path / "run", FEW, device="cpu", progress=bar)
    bars = Bars()
    train_guarded(store, tmp_path / "run", FEW, device="cpu", resume=True, progress=bars)
    assert bars.names == ["semi-supervised"]
    assert_same_guarded(tmp_path / "run", reference)


@pytest.mark.parametrize("what", ["shutil.copyfile", "shutil.copytree", "write_json"])
def test_a_disk_that_is_full_in_the_end_costs_no_training(
    reference, store, tmp_path, monkeypatch, what
):
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    for name in ("model", "run.json", "metrics.csv", "split.csv"):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"birdinv.training.guard.{what}", full)
    with pytest.raises(OSError, match="No space left"):
        train_guarded(store, run, FEW, device="cpu", resume=True)
    assert not (run / "run.json").exists()
    monkeypatch.undo()
    bars = Bars()
    train_guarded(store, run, FEW, device="cpu", resume=True, progress=bars)
    assert bars.names == []
    assert_same_guarded(run, reference)


def test_what_was_to_be_said_is_said_after_a_resumption_too(store, tmp_path):
    config = replace(FEW, labels_per_class=4, epochs=1)
    store = Store(store.path)
    low = [r.file for r in store.recordings if (r.label, r.split) == ("low", "train")]
    store.recordings = [
        replace(r, split="test") if r.file in low[:3] else r for r in store.recordings
    ]
    first = train_guarded(store, tmp_path / "run", config, device="cpu")
    again = train_guarded(store, tmp_path / "run", config, device="cpu", resume=True)
    sentence = "fewer than 4 training recordings: low has 2; all of theirs are used"
    assert again.trained.warnings == first.trained.warnings == (sentence,)
    assert again.kept == first.kept and again.rows == first.rows


@pytest.mark.parametrize("changes", [{"seed": 1}, {"epochs": 3}, {"labels_per_class": 3}])
def test_a_run_of_other_settings_is_not_gone_on_with(reference, store, tmp_path, changes):
    """Neither where both runs are through, nor where one is and the other has not begun."""
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    for _ in range(2):
        with pytest.raises(BirdinvError, match=r"trained with other settings, or on another store"):
            train_guarded(store, run, replace(FEW, **changes), device="cpu", resume=True)
        shutil.rmtree(run / "semi-supervised", ignore_errors=True)
        (run / "run.json").unlink(missing_ok=True)
    assert not (run / "semi-supervised").exists()


def test_what_is_no_guarded_run_is_not_gone_on_with(store, tmp_path):
    with pytest.raises(
        BirdinvError, match=r"nowhere does not exist; expected a run begun with --g"
    ):
        train_guarded(store, tmp_path / "nowhere", FEW, device="cpu", resume=True)
    assert not (tmp_path / "nowhere").exists()
    train(store, tmp_path / "plain", replace(CONFIG, epochs=1), device="cpu")
    before = contents(tmp_path / "plain")
    with pytest.raises(BirdinvError, match=r"plain was begun without --guard; leave that out, or"):
        train_guarded(store, tmp_path / "plain", FEW, device="cpu", resume=True)
    assert contents(tmp_path / "plain") == before


def test_a_folder_that_is_there_is_not_written_into(reference, store):
    before = contents(reference)
    with pytest.raises(BirdinvError, match=r"already exists; .* go on with this one by --resume"):
        train_guarded(store, reference, FEW, device="cpu")
    assert contents(reference) == before


# ---------------------------------------------------------------- nothing to guard


def test_what_cannot_be_guarded_is_refused_with_a_sentence(place, store, tmp_path):
    run = tmp_path / "run"
    for changes in ({"objective": "supervised", "balance": 0.0}, {"objective": "weighted"}):
        config = replace(FEW, alpha=1.0, balance=0.0, objective=changes["objective"])
        with pytest.raises(BirdinvError, match=r"and this run uses none; leave --guard out"):
            train_guarded(store, run, config, device="cpu")
    config = replace(FEW, labels_per_class=None)
    with pytest.raises(BirdinvError, match=r"and this run uses none; leave --guard out"):
        train_guarded(Store(place / "bare"), run, config, device="cpu")
    settings = replace(SETTINGS, fractions=(0.7, 0.0, 0.3))
    segment([place / "in"], tmp_path / "no-valid", settings, unlabelled=[place / "more"])
    with pytest.raises(BirdinvError, match=r"judges on validation recordings, and .*no-valid has"):
        train_guarded(Store(tmp_path / "no-valid"), run, FEW, device="cpu")
    assert not run.exists()


def test_the_command_says_so_too(birdinv, place, tmp_path):
    line = f"train {place / 'store'} -o {tmp_path / 'run'} --guard --objective supervised"
    code, _, err = birdinv(line)
    assert code == 1 and "leave --guard out" in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_the_merit_of_a_run_is_recordings_then_segments():
    row = {"valid_accuracy": "0.25", "valid_recording_accuracy": "0.5"}
    assert guard._merit(row) == (0.5, 0.25)
    assert guard._merit({**row, "valid_recording_accuracy": ""}) == (0.25, 0.25)
