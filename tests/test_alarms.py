"""What goes wrong with unlabelled samples is said once, by name, and in every place that tells."""

import csv
import io
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_reporting import EVIL, Page, make_run
from test_training import SETTINGS, Stop, info, rows, tones

from birdinv.audio.store import Store
from birdinv.data.segmenting import segment
from birdinv.errors import BirdinvError, Interrupted
from birdinv.files import read_csv, write_csv
from birdinv.reporting import learning
from birdinv.reporting.page import write_report
from birdinv.training.alarms import LOOKS, SHARES, alarms, all_alarms, new_alarms
from birdinv.training.config import TrainConfig
from birdinv.training.epochs import train_cells
from birdinv.training.learner import Learner
from birdinv.training.loop import train
from birdinv.training.partition import partition
from birdinv.training.recipes import FEW_LABELS, RECIPES
from birdinv.training.recordings import recordings_task

CLASSES = ["lark", "wren"]
ODD = ['Larus, "fuscus"', "зяблик ♪", "$\\frac$ _x_", "_hidden", "noise"]
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


def series(*lark: float | str, known: tuple[float | str, ...] = ()) -> list[dict[str, str]]:
    """Rows in which `lark` has these shares, `wren` the rest; `known`: labelled accuracies."""
    found = []
    for i, share in enumerate(lark):
        rest = "" if share == "" else f"{1 - float(share):.6f}"
        accuracy = known[i] if known else 1.0
        found.append(
            {
                "epoch": str(i + 1),
                "train_accuracy": str(accuracy),
                SHARES + "lark": "" if share == "" else f"{share:.6f}",
                SHARES + "wren": rest,
            }
        )
    return found


# ---------------------------------------------------------------- what is said


def test_a_class_that_was_there_and_is_not_has_emptied():
    assert alarms(series(0.4, 0.01), CLASSES) == {
        "lark": "the class lark has emptied: at epoch 2 it is the answer for 1.0% of the "
        "unlabelled samples, and was for up to 40.0% of them; unless it is that rare, give more "
        "--balance, a longer --ramp, or --guard"
    }
    assert set(alarms(series(0.4, 1.0), CLASSES)) == {"wren"}


def test_less_than_a_twentieth_of_its_fair_share_is_empty():
    assert alarms(series(0.5, 0.025), CLASSES) == {}
    assert set(alarms(series(0.5, 0.024), CLASSES)) == {"lark"}
    eight = [*CLASSES, *"abcdef"]
    assert alarms(series(0.5, 0.024), eight) == {}  # 1/160 is enough then


def test_a_class_that_was_never_there_is_named_after_some_looks():
    for looks in range(1, LOOKS):
        assert alarms(series(*[0.0] * looks), CLASSES) == {}
    assert alarms(series(*[0.001] * LOOKS), CLASSES) == {
        "lark": "no unlabelled sample to speak of is taken for lark (0.1% at epoch 3): is that "
        "class among them? If so, give more --balance, or --guard"
    }


def test_a_class_that_has_returned_is_no_alarm():
    assert alarms(series(0.4, 0.0, 0.3), CLASSES) == {}
    assert alarms(series(*[0.0] * LOOKS, 0.3), CLASSES) == {}


def test_labelled_samples_that_are_named_right_less_often():
    assert alarms(series(0.5, 0.5, 0.5, known=(0.6, 0.9, 0.7)), CLASSES) == {
        "": "the labelled samples are named right less often than before, 70.0% at epoch 3 and up "
        "to 90.0% earlier: the unlabelled ones may be of other classes; give --guard, or a longer "
        "--ramp"
    }
    assert alarms(series(0.5, 0.5, known=(0.9, 0.81)), CLASSES) == {}
    assert alarms(series(0.5, 0.5, 0.5, known=(0.9, 0.7, 0.9)), CLASSES) == {}


def test_nothing_wrong_is_nothing_said():
    assert alarms([], CLASSES) == {} and new_alarms([], CLASSES) == []
    assert all_alarms([], CLASSES) == []
    good = series(0.5, 0.4, 0.45, known=(0.5, 0.7, 0.9))
    assert all_alarms(good, CLASSES) == []
    assert all_alarms(series("", "", ""), CLASSES) == []  # supervised: there are no shares
    only_losses = [{"epoch": "1", "train_accuracy": ""}]
    assert all_alarms(only_losses, CLASSES) == []


def test_each_reason_is_said_once_until_it_has_gone():
    course = series(0.4, 0.0, 0.0, 0.01, 0.3, 0.0, 0.0)
    said = [new_alarms(course[:n], CLASSES) for n in range(1, len(course) + 1)]
    assert [len(texts) for texts in said] == [0, 1, 0, 0, 0, 1, 0]
    assert "at epoch 2" in said[1][0] and "at epoch 6" in said[5][0]
    assert all_alarms(course, CLASSES) == [said[1][0], said[5][0]]


def test_several_reasons_at_once_are_as_many_sentences():
    course = series(0.4, 0.0, known=(0.9, 0.5))
    texts = new_alarms(course, CLASSES)
    assert len(texts) == 2 and "lark has emptied" in texts[0] and "labelled samples" in texts[1]


@pytest.mark.parametrize("name", ODD)
def test_any_name_of_a_class_is_told_as_it_is(name):
    course = [
        {"epoch": str(i), "train_accuracy": "1", SHARES + name: share, SHARES + "other": "0.5"}
        for i, share in enumerate(["0.5", "0.0"])
    ]
    (text,) = all_alarms(course, [name, "other"])
    assert text.startswith(f"the class {name} has emptied: ")


# ---------------------------------------------------------------- where the numbers come from


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Three classes of 7 recordings, 6 unlabelled ones of two of them."""
    folder = tmp_path_factory.mktemp("alarms")
    tones(folder / "in", {"low": 400.0, "high": 1500.0, "noise": 0.0}, 7)
    tones(folder / "more", {"x": 400.0, "y": 1500.0}, 3, seed=1)
    segment([folder / "in"], folder / "store", SETTINGS, unlabelled=[folder / "more"])
    return Store(folder / "store")


def shares_of(row: dict[str, str], classes: list[str]) -> list[float]:
    return [float(row[SHARES + name]) for name in classes]


@pytest.mark.parametrize("changes", [{}, {"group_windows": 3}, {"group_seconds": 0.5}])
def test_shares_and_agreement_are_those_of_the_slow_obvious_way(
    store, tmp_path, monkeypatch, changes
):
    """Sample by sample and group by group, from the logits of every step of an epoch."""
    config = replace(FEW, epochs=1, **changes)
    seen = []

    def spied(learner, step, learn=Learner.learn):
        objective = learner._objective

        def spy(model, x, y, *, groups, **more):
            terms = objective(model, x, y, groups=groups, **more)
            seen.append((terms.logits.detach().clone(), y.clone(), groups.clone()))
            return terms

        learner._objective = spy
        try:
            return learn(learner, step)
        finally:
            learner._objective = objective

    monkeypatch.setattr(Learner, "learn", spied)
    train(store, tmp_path / "run", config, device="cpu")
    (row,) = rows(tmp_path / "run")
    counts, agreeing, grouped = np.zeros(3), 0, 0
    for logits, y, groups in seen:
        unlabelled = [i for i in range(len(y)) if y[i] < 0]
        assert len(unlabelled) == len(y) // 2 and all(groups[i] >= 0 for i in unlabelled)
        for i in unlabelled:
            others = [j for j in unlabelled if groups[j] == groups[i]]
            mean = sum(logits[j].double().softmax(dim=0) for j in others) / len(others)
            counts[logits[i].argmax()] += 1
            agreeing += int(logits[i].argmax() == mean.argmax())
            grouped += 1
    assert len(seen) == int(row["step"]) and grouped
    assert float(row["agreement"]) == pytest.approx(agreeing / grouped, abs=1e-6)
    assert shares_of(row, store.classes) == pytest.approx(counts / counts.sum(), abs=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")  # so few samples a row have their alarms
def test_shares_add_up_to_one_in_every_row(store, tmp_path):
    train(store, tmp_path / "run", replace(FEW, epochs=3, check_every=0.5), device="cpu")
    found = rows(tmp_path / "run")
    assert len(found) == 6
    for row in found:
        assert sum(shares_of(row, store.classes)) == pytest.approx(1, abs=2e-6)
        assert 0 < float(row["agreement"]) <= 1


@pytest.mark.parametrize(
    ("changes", "shares", "agreement"),
    [
        ({"objective": "weighted"}, True, True),
        ({"group_windows": 0}, True, False),
        ({"group_windows": 1}, True, True),
        (
            {
                **RECIPES["supervised"],
                "balance": 0.0,
                "ramp": 0.0,
                "group_windows": 0,
                "steps": None,
            },
            False,
            False,
        ),
        ({"objective": "supervised", "balance": 0.0}, False, False),
    ],
)
def test_what_a_run_has_no_use_for_it_has_no_number_of(store, tmp_path, changes, shares, agreement):
    config = replace(FEW, **{**changes, "batch_size": 16, "epochs": 1})
    train(store, tmp_path / "run", config, device="cpu")
    (row,) = rows(tmp_path / "run")
    assert bool(row["agreement"]) == agreement
    assert {bool(row[SHARES + name]) for name in store.classes} == {shares}


def test_cells_are_means_over_the_steps_between_two_rows():
    sums = {"total": 3.0, "right": 6.0, "known": 8.0, "agreeing": 3.0, "grouped": 4.0}
    sums |= {SHARES + "lark": 1.0, SHARES + "wren": 3.0}
    assert train_cells(sums, 2, CLASSES) == {
        "total": "1.500000",
        "train_accuracy": "0.750000",
        "agreement": "0.750000",
        SHARES + "lark": "0.250000",
        SHARES + "wren": "0.750000",
    }
    none = {"right": 0.0, "known": 0.0, "agreeing": 0.0, "grouped": 0.0}
    assert train_cells(none, 2, CLASSES) == {"train_accuracy": "0.000000"}


# ---------------------------------------------------------------- a run says it


@pytest.fixture
def course(monkeypatch, store):
    """Numbers of a run whose class `noise` empties, returns, and empties again."""
    series = [(4, 1.0), (0, 1.0), (0, 0.5), (4, 0.5), (0, 1.0)]
    learn = Learner.learn

    def told(self, step):
        noise, right = series[step // self.steps_per_epoch]
        found = learn(self, step)
        total = sum(found[SHARES + name] for name in self._classes)
        found |= dict.fromkeys([SHARES + name for name in self._classes], 0.0)
        found |= {SHARES + "noise": float(noise), SHARES + "low": total - noise}
        found |= {SHARES + "high": 0.0, "right": right * found["known"]}
        return found

    monkeypatch.setattr(Learner, "learn", told)
    return replace(FEW, epochs=5, patience=99)


def test_a_run_warns_as_it_goes_and_keeps_the_sentences(store, tmp_path, course):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(store, tmp_path / "run", course, device="cpu")
    said = [str(each.message) for each in caught]
    assert info(tmp_path / "run")["alarms"] == said
    kinds = ["noise has emptied", "labelled samples", "taken for high", "noise has emptied"]
    for kind, epoch in zip(kinds, (2, 3, 3, 5), strict=True):
        assert sum(kind in text and f"epoch {epoch}" in text for text in said) == 1, said
    assert len(said) == len(kinds)


@pytest.mark.parametrize("stops", [[5], [10], [15], [25], [41], [11, 20]])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_resumed_run_says_what_an_uninterrupted_one_says(store, tmp_path, course, stops):
    train(store, tmp_path / "whole", course, device="cpu")
    assert rows(tmp_path / "whole")[0]["step"] == "10"
    expected = info(tmp_path / "whole")["alarms"]
    assert len(expected) == 4
    run = tmp_path / "run"
    for i, after in enumerate(stops):
        with pytest.raises(Interrupted):
            train(store, run, course, device="cpu", resume=i > 0, progress=Stop(after))
        done = sum(stops[: i + 1]) // 10
        assert info(run)["alarms"] == all_alarms(rows(tmp_path / "whole")[:done], store.classes)
    train(store, run, course, device="cpu", resume=True)
    assert info(run)["alarms"] == expected and rows(run) == rows(tmp_path / "whole")


def test_a_run_in_which_nothing_goes_wrong_keeps_an_empty_list(store, tmp_path):
    train(store, tmp_path / "run", replace(FEW, epochs=1), device="cpu")
    assert info(tmp_path / "run")["alarms"] == []


def test_classes_of_any_name_keep_their_column(tmp_path):
    """Commas, quotes and what is no ASCII come back from `metrics.csv` as they went in."""
    tones(tmp_path / "in", {str(i): 400.0 * (1 + i) for i in range(len(ODD))}, 4)
    table = [
        {"file": f"{i}/{n}.wav", "label": name} for i, name in enumerate(ODD) for n in range(4)
    ]
    write_csv(tmp_path / "labels.csv", ["file", "label"], table)
    segment([tmp_path / "in"], tmp_path / "store", SETTINGS, labels=tmp_path / "labels.csv")
    store = Store(tmp_path / "store")
    assert store.classes == sorted(ODD)
    train(store, tmp_path / "run", replace(FEW, labels_per_class=1), device="cpu")
    columns, found = read_csv(tmp_path / "run" / "metrics.csv")
    assert columns[-len(ODD) :] == [SHARES + name for name in store.classes]
    for row in found:
        assert sum(shares_of(row, store.classes)) == pytest.approx(1, abs=5e-6)
    page = Page(write_report(tmp_path / "run"))
    assert "This cannot be shown" not in page.text
    assert "What unlabelled samples were taken for" in page.text


# ---------------------------------------------------------------- the page


def with_metrics(run: Path, classes: list[str], table: list[list[float]]) -> Path:
    """Puts shares of classes, one list a row, behind the columns of a made-up run."""
    with (run / "metrics.csv").open(newline="") as file:
        columns, *found = csv.reader(file)
    with (run / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *(SHARES + name for name in classes)])
        writer.writerows([*row, *more] for row, more in zip(found, table, strict=True))
    return run


@pytest.mark.parametrize("names", [[EVIL, "Parus major"], ODD])
def test_the_page_shows_sentences_and_shares_and_they_are_text(tmp_path, names):
    shares = [[1 / len(names)] * len(names), [1.0, *[0.0] * (len(names) - 1)]]
    course = [
        {"epoch": str(i + 1), "train_accuracy": "1"}
        | {SHARES + name: str(share) for name, share in zip(names, row, strict=True)}
        for i, row in enumerate(shares)
    ]
    said = all_alarms(course, names)
    assert len(said) == len(names) - 1
    run = make_run(tmp_path / "run", epochs=2, alarms=said, classes=names)
    page = Page(write_report(with_metrics(run, names, shares)))
    for text in said:
        assert " ".join(f"Note: {text}.".split()) in page.text
    assert not {"script", "i"} & set(page.tags)
    assert page.attributes.count(("class", "warn")) == len(said)
    assert ("alt", "What unlabelled samples were taken for") in page.attributes
    assert "A colour that vanishes is a class that has emptied" in page.text
    assert page.tags.count("img") == 2 and "This cannot be shown" not in page.text


def test_a_page_without_alarms_or_shares_says_nothing_of_them(tmp_path):
    run = make_run(tmp_path / "run", epochs=2)
    page = Page(write_report(with_metrics(run, CLASSES, [["", ""]] * 2)))
    assert "Note:" not in page.text and "taken for" not in page.text
    assert page.tags.count("img") == 1
    damaged = make_run(tmp_path / "damaged", epochs=1, alarms="<script>")
    assert "Note:" not in Page(write_report(damaged)).text
    mixed = make_run(tmp_path / "mixed", epochs=1, alarms=[3, None, {"<b>": 1}])
    page = Page(write_report(mixed))
    assert 'Note: {"<b>": 1}.' in page.text and "b" not in page.tags


def test_the_picture_names_every_class_as_it_is():
    """No name is read as a formula, hidden for its first letter, or cut without a sign."""
    names = [*ODD, "x" * 40, "two\nlines"]
    table = [
        {"epoch": str(e), **{SHARES + name: str(1 / len(names)) for name in names}} for e in (1, 2)
    ]
    figure = learning.predicted_shares(table, names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a font may lack a letter
        figure.savefig(io.BytesIO(), format="png")
    (axis,) = figure.axes
    texts = axis.get_legend().get_texts()
    assert [text.get_text() for text in texts] == [*ODD, "x" * 23 + "…", "two?lines"]
    assert not any(text.get_parse_math() for text in texts)


def test_the_columns_of_the_picture_are_the_shares():
    table = [
        {"epoch": "1", SHARES + "lark": "0.25", SHARES + "wren": "0.75"},
        {"epoch": "2", SHARES + "lark": "", SHARES + "wren": ""},  # nothing unlabelled was seen
        {"epoch": "3", SHARES + "lark": "1.0", SHARES + "wren": "0.0"},
    ]
    (axis,) = learning.predicted_shares(table, CLASSES).axes
    lark, wren = axis.containers
    assert [bar.get_height() for bar in lark] == [25, 100]
    assert [(bar.get_y(), bar.get_height()) for bar in wren] == [(25, 75), (100, 0)]
    assert [bar.get_x() + bar.get_width() / 2 for bar in lark] == pytest.approx([1, 3])
    for empty in ([], [{"epoch": "1", SHARES + "lark": "", SHARES + "wren": ""}]):
        with pytest.raises(ValueError, match="no shares of classes"):
            learning.predicted_shares(empty, CLASSES)
    with pytest.raises(ValueError, match="no shares of classes"):
        learning.predicted_shares(table, [])


def test_many_classes_differ_by_more_than_colour(tmp_path):
    names = [f"class {i}" for i in range(30)]
    table = [{"epoch": "1", **{SHARES + name: str(1 / 30) for name in names}}]
    figure = learning.predicted_shares(table, names)
    looks = {(c[0].get_facecolor(), c[0].get_hatch()) for c in figure.axes[0].containers}
    assert len(looks) == 24  # six colours by four hatches; the others repeat
    memory = io.BytesIO()
    figure.savefig(memory, format="png")
    assert Image.open(memory).size[0] > 300


def test_the_learner_says_it_and_not_its_objective_as_well(store):
    task = recordings_task(store, partition(store, 2, 0))
    assert Learner(task, FEW, torch.device("cpu"))._objective.watch is None
    with pytest.raises(BirdinvError, match="at least two classes"):
        partition(store, None, 0, only=[])
    assert json.loads(json.dumps(FEW.to_dict())) == FEW.to_dict()
