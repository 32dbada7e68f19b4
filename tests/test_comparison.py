"""Two runs side by side: every measure by another way, the page, the table and the command."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import here as here
from commands import run as run
from safetensors.torch import save_file
from small import contents
from small_runs import edit, image_runs, recording_runs
from small_runs import tested as tested
from test_reporting import EVIL, Page

import birdinv
from birdinv.audio.store import Store
from birdinv.data.batches import Segments
from birdinv.errors import BirdinvError, SettingError
from birdinv.inspection import comparison as module
from birdinv.inspection import comparison_page, inside
from birdinv.inspection.comparison import Comparison, compare_runs
from birdinv.inspection.comparison_page import (
    MEASURES,
    comparison_text,
    printed,
    write_comparison,
)
from birdinv.inspection.inside import LEVELS_DB, Inside
from birdinv.networks.saved import load_model
from birdinv.spline.adversarial import smallest_flips
from birdinv.spline.boundaries import boundary_distance
from birdinv.spline.regions import codes
from birdinv.training.partition import read_roles
from birdinv.training.scoring import evaluate_run

SAMPLES = 9


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of `small_runs`."""
    return image_runs(recording_runs(tmp_path_factory.mktemp("comparison")))


@pytest.fixture(scope="module")
def hashes(place: Path) -> dict[str, bytes]:
    """All that is in the runs and the store before they are compared."""
    return contents(place)


@pytest.fixture(scope="module")
def found(place: Path, hashes: dict[str, bytes]) -> Comparison:
    return compare_runs((place / "run", place / "other"), samples=SAMPLES)


@pytest.fixture(scope="module")
def written(found: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(found, tmp_path_factory.mktemp("pages") / "out")


@pytest.fixture
def unstretched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bound is sought, which is most of the work."""
    monkeypatch.setattr(inside, "bracket", lambda *_: "none was sought")


class Seen:
    """A run of `place`, its network and the samples that are looked into, by hand."""

    def __init__(self, place: Path, name: str, one: Inside) -> None:
        self.run, self.one = place / name, one
        self.model, self.description = load_model(self.run)
        self.store = Store(place / "store")
        self.valid = Segments(self.store, read_roles(self.run)["valid"])
        count = len(self.valid)
        which = np.array([i * count // SAMPLES for i in range(SAMPLES)])
        assert count > SAMPLES and len(set(which)) == SAMPLES
        self.x, self.y = self.valid.inputs(which), self.valid.classes(which)
        with torch.no_grad():
            self.logits = self.model(self.x)

    def right(self, role: str) -> float:
        """The share of all segments of a role that are named right."""
        segments = Segments(self.store, read_roles(self.run)[role])
        with torch.no_grad():
            said = self.model(segments.inputs(np.arange(len(segments)))).argmax(dim=1)
        return float((said.numpy() == segments.labels).mean())

    @property
    def templates(self) -> torch.Tensor:
        """`[N, K, T]`, by autograd alone."""
        each = [torch.autograd.functional.jacobian(self.model, x[None])[0, :, 0] for x in self.x]
        return torch.stack(each).flatten(2)


@pytest.fixture(params=["run", "other"])
def seen(request: pytest.FixtureRequest, place: Path, found: Comparison) -> Seen:
    one = {"run": found.a, "other": found.b}[request.param]
    assert one.name == request.param
    return Seen(place, request.param, one)


# ---------------------------------------------------------------- the measures


def test_the_two_runs_differ_in_every_measure_of_their_networks(found):
    alike = {name for name in MEASURES if found.a.measures[name] == found.b.measures[name]}
    assert not alike - {name for name in MEASURES if "accuracy" in name or "general" in name}


@pytest.mark.parametrize("split", ["valid", "test"])
def test_accuracies_are_those_of_evaluate_run(place, tmp_path, unstretched, split):
    runs = tuple(shutil.copytree(place / name, tmp_path / name) for name in ("run", "other"))
    found = compare_runs(runs, split=split, samples=2)
    for each, one in zip(runs, (found.a, found.b), strict=True):
        result = evaluate_run(each, split=split, resamples=0)
        assert one.measures["segment_accuracy"] == result.segment_accuracy
        assert one.measures["recording_accuracy"] == result.recording_accuracy
    assert found.split == split


def test_the_gap_is_that_of_the_errors_on_all_that_was_learned_and_not(seen):
    learned, new = seen.right("labelled"), seen.right("valid")
    found = seen.one.measures
    assert found["training_accuracy"] == pytest.approx(learned)
    assert found["segment_accuracy"] == pytest.approx(new)
    assert found["generalisation_gap"] == pytest.approx(abs(learned - new))
    assert found["generalisation_objective"] == pytest.approx(1 - learned + abs(learned - new))


def test_the_reconstruction_is_the_mean_of_what_invert_leaves(seen):
    with torch.no_grad():
        rest = birdinv.invert(seen.model, seen.x) - seen.x
    left = rest.flatten(1).square().sum(dim=1) / seen.x.flatten(1).square().sum(dim=1)
    assert seen.one.measures["reconstruction"] == pytest.approx(float(left.mean()), rel=1e-5)


def test_cosines_are_those_of_the_templates_that_autograd_gives(seen):
    A, x = seen.templates, seen.x.flatten(1)
    cosine = torch.einsum("nkd,nd->nk", A, x) / A.norm(dim=2) / x.norm(dim=1)[:, None]
    true = cosine[range(SAMPLES), seen.y]
    others = (cosine.sum(dim=1) - true) / 2
    said = cosine[range(SAMPLES), seen.logits.argmax(dim=1)]
    found = seen.one.measures
    for name, each in (
        ("cosine_true", true), ("cosine_others", others), ("cosine_predicted", said)
    ):  # fmt: skip
        assert found[name] == pytest.approx(float(each.mean()), abs=1e-6), name


def test_the_distance_to_the_best_templates_is_that_to_theorem_5(seen):
    A, x = seen.templates, seen.x.flatten(1)
    unit = x / x.norm(dim=1)[:, None]
    total = 0.0
    for a, u, k in zip(A, unit, seen.y, strict=True):
        energy, best = float(a.square().sum()), torch.empty_like(a)
        best[:] = -((energy / 6) ** 0.5) * u  # of three classes
        best[k] = (energy * 2 / 3) ** 0.5 * u
        total += float((a - best).norm() / a.norm())
    assert seen.one.measures["optimal"] == pytest.approx(total / SAMPLES, rel=1e-4)


def test_the_bias_is_what_the_templates_do_not_explain(seen):
    match = torch.einsum("nkd,nd->nk", seen.templates, seen.x.flatten(1))
    share = (seen.logits - match).norm(dim=1) / seen.logits.norm(dim=1)
    assert seen.one.measures["bias"] == pytest.approx(float(share.mean()), rel=1e-4)


def test_levels_are_medians_over_the_samples(seen):
    flips = smallest_flips(seen.model, seen.x)
    assert seen.one.measures["flip_db"] == pytest.approx(float(flips.level_db.median()), abs=1e-3)
    away = boundary_distance(seen.model, seen.x) / seen.x.flatten(1).norm(dim=1)
    level = float(20 * np.log10(np.median(away.numpy())))
    assert seen.one.measures["boundary_db"] == pytest.approx(level, abs=1e-3)


def test_robustness_only_falls_and_begins_at_the_accuracy_on_the_samples(seen):
    curve = seen.one.robustness
    right = float((seen.logits.argmax(dim=1) == seen.y).double().mean())
    assert len(curve) == len(LEVELS_DB) and sorted(curve, reverse=True) == curve
    assert sorted(LEVELS_DB) == list(LEVELS_DB)
    assert 0 < curve[0] <= right and curve[-1] < curve[0]


def test_robustness_is_the_share_right_whose_smallest_step_is_louder(seen):
    flips = smallest_flips(seen.model, seen.x)
    right = (seen.logits.argmax(dim=1) == seen.y).tolist()
    for level, share in zip(LEVELS_DB, seen.one.robustness, strict=True):
        loud = [ok and float(db) > level for ok, db in zip(right, flips.level_db, strict=True)]
        assert share == pytest.approx(sum(loud) / SAMPLES)


def test_the_stretch_is_at_least_that_of_a_sample_and_below_its_bound(seen):
    lower, upper = (seen.one.measures[f"lipschitz_{end}"] for end in ("lower", "upper"))
    stretch = float(torch.linalg.matrix_norm(seen.templates, ord=2)[:8].max())
    assert stretch <= lower * (1 + 1e-4) and lower <= upper
    assert (seen.one.bracket.lower, seen.one.bracket.upper) == (lower, upper)


def test_active_is_the_share_of_units_that_are_above_zero(seen):
    shares: dict[str, float] = {}
    for name, layer in seen.model.named_modules():
        if isinstance(layer, torch.nn.LeakyReLU):

            def keep(_layer, _given, out, name=name):
                shares[name] = float((out > 0).double().mean())

            layer.register_forward_hook(keep)
    with torch.no_grad():
        seen.model(seen.x)
    assert len(shares) == 3 and seen.one.active == pytest.approx(shares)


def test_regions_are_the_different_codes_of_the_samples(seen):
    expected = {
        name: len(np.unique(code.choices.numpy(), axis=0))
        for name, code in codes(seen.model, seen.x).items()
    }
    assert seen.one.regions == expected and 1 < max(expected.values()) <= SAMPLES


def test_samples_of_the_matrices_are_sorted_by_class_and_borders_are_between(place, found):
    labels = Segments(Store(place / "store"), read_roles(place / "run")["valid"]).labels
    counts = [min(12, int((labels == k).sum())) for k in range(3)]
    assert found.borders == [counts[0], counts[0] + counts[1]]
    for one in (found.a, found.b):
        for pair in one.distances.values():
            assert all(matrix.shape == (sum(counts), sum(counts)) for matrix in pair)


def sorted_samples(seen: Seen) -> tuple[torch.Tensor, np.ndarray]:
    """(inputs of the matrices of distances, their classes)."""
    which = []
    for k in range(3):
        of_class = np.flatnonzero(seen.valid.labels == k)
        count = min(12, len(of_class))
        which += [int(of_class[i * len(of_class) // count]) for i in range(count)]
    return seen.valid.inputs(np.array(which)), seen.valid.labels[which]


@pytest.mark.parametrize("when", ["before", "after"])
def test_distances_are_those_of_the_network_before_and_after_training(seen, when):
    config = json.loads((seen.run / "run.json").read_text())["config"]
    model = seen.model
    if when == "before":
        torch.manual_seed(config["seed"])
        model = birdinv.networks.build("bird10", classes=3, shape=(1, 5512))
    x, _ = sorted_samples(seen)
    expected = codes(model, x)
    assert list(expected) == list(seen.one.distances)
    for name, pair in seen.one.distances.items():
        here, there = pair if when == "before" else pair[::-1]
        np.testing.assert_array_equal(here, expected[name].distances().numpy())
        assert not here.diagonal().any() and here.max() > 0
        if name == "hidden.2":
            assert not np.array_equal(here, there)


def test_within_and_between_are_the_means_of_the_blocks_before_training_and_after(seen):
    _, y = sorted_samples(seen)
    same = y[:, None] == y
    off = ~np.eye(len(y), dtype=bool)
    for name, pair in seen.one.distances.items():
        means = seen.one.sorting[name]
        for matrix, when in zip(pair, ("_before", ""), strict=True):
            assert means[f"within{when}"] == pytest.approx(matrix[same & off].mean())
            assert means[f"between{when}"] == pytest.approx(matrix[~same].mean())


def test_a_run_beside_itself_gives_two_equal_columns(place, found, unstretched):
    twice = compare_runs((place / "run", place / "run"), samples=SAMPLES)
    a, b = twice.a, twice.b
    for name in ("measures", "robustness", "active", "regions", "sorting", "name"):
        assert getattr(a, name) == getattr(b, name), name
    for name, pair in a.distances.items():
        for one, other in zip(pair, b.distances[name], strict=True):
            np.testing.assert_array_equal(one, other)
    own = {k: v for k, v in found.a.measures.items() if "lipschitz" not in k}
    assert own == {k: v for k, v in a.measures.items() if "lipschitz" not in k}


def test_of_more_samples_than_there_are_all_are_taken(place, unstretched):
    count = len(Segments(Store(place / "store"), read_roles(place / "run")["valid"]))
    found = compare_runs((place / "run", place / "other"), samples=10_000)
    assert found.samples == count
    assert found.a.robustness[0] <= found.a.measures["segment_accuracy"]


def test_runs_of_one_name_are_told_apart_by_their_folders(place, tmp_path, unstretched):
    runs = tuple(tmp_path / row / "seed-0" for row in ("first", "second"))
    for each in runs:
        shutil.copytree(place / "run", each)
    found = compare_runs(runs, samples=2)
    assert (found.a.name, found.b.name) == ("first/seed-0", "second/seed-0")


def test_what_is_compared_is_left_as_it_was(place, hashes, found, written):
    assert contents(place) == hashes and len(hashes) > 20


def test_steps_are_told_to_the_end(place, unstretched):
    told: list[tuple[int, int]] = []
    compare_runs((place / "run", place / "other"), samples=2, step=lambda *e: told.append(e))
    assert told == [(done, 12) for done in range(1, 13)]


def test_a_store_that_has_moved_may_be_named(place, tmp_path, unstretched):
    runs = tuple(shutil.copytree(place / name, tmp_path / name) for name in ("run", "other"))
    shutil.copytree(place / "store", tmp_path / "moved")
    for each in runs:
        edit(each / "run.json", lambda info: info.update(store=str(tmp_path / "gone")))
    with pytest.raises(BirdinvError, match="gone is not there any more; give it with --store"):
        compare_runs(runs, samples=2)
    found = compare_runs(runs, samples=2, store=tmp_path / "moved")
    assert found.a.measures == compare_runs((place / "run", place / "other"), samples=2).a.measures


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"store_hash": "another"}, "stores"),
        ({"dataset": "mnist"}, "data sets"),
        ({"classes": ["noise", "robin"]}, "classes"),
    ],
)
def test_runs_on_different_data_are_refused(place, tmp_path, monkeypatch, change, what):
    shutil.copytree(place / "other", tmp_path / "changed")
    edit(tmp_path / "changed/run.json", lambda info: info.update(change))
    monkeypatch.setattr(module, "look_inside", lambda *_: pytest.fail("it was begun"))
    sentence = f"differ in their {what}: compare runs that are tested on the same data"
    with pytest.raises(BirdinvError, match=sentence):
        compare_runs((place / "run", tmp_path / "changed"), samples=4)


def test_runs_that_are_tested_on_other_recordings_are_refused(place, tmp_path):
    shutil.copytree(place / "other", tmp_path / "changed")
    table = tmp_path / "changed/split.csv"
    table.write_text(table.read_text().replace(",valid,", ",unused,", 1))
    with pytest.raises(BirdinvError, match="differ in their valid sets: compare runs that"):
        compare_runs((place / "run", tmp_path / "changed"), samples=4)


def test_runs_that_learned_from_other_recordings_are_each_measured_on_their_own(
    place, tmp_path, unstretched
):
    shutil.copytree(place / "other", tmp_path / "fewer")
    table = tmp_path / "fewer/split.csv"
    lines = table.read_text().splitlines()
    last = max(n for n, line in enumerate(lines) if ",labelled," in line)
    lines[last] = lines[last].replace(",labelled,", ",unused,")
    table.write_text("\n".join(lines) + "\n")
    edit(tmp_path / "fewer/run.json", lambda info: info.update(split_hash="another"))
    both = compare_runs((place / "other", tmp_path / "fewer"), samples=4)
    assert both.a.measures["segment_accuracy"] == both.b.measures["segment_accuracy"]
    model = load_model(tmp_path / "fewer")[0]
    segments = Segments(Store(place / "store"), read_roles(tmp_path / "fewer")["labelled"])
    which = np.arange(len(segments))
    with torch.no_grad():
        right = model(segments.inputs(which)).argmax(dim=1) == segments.classes(which)
    assert both.b.measures["training_accuracy"] == pytest.approx(float(right.double().mean()))


def test_a_network_without_templates_is_compared_too(place, tmp_path, unstretched):
    model = load_model(place / "run")[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    shutil.copytree(place / "run", tmp_path / "dead")
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, tmp_path / "dead/model/model.safetensors")
    found = compare_runs((place / "run", tmp_path / "dead"), samples=4)
    assert found.b.measures["optimal"] is None
    write_comparison(found, tmp_path / "out")
    text = (tmp_path / "out/comparison.json").read_text("utf-8")
    assert json.loads(text)["runs"]["b"]["measures"]["optimal"] is None


def test_silent_samples_are_left_out_and_counted(place, monkeypatch, unstretched):
    inputs = Segments.inputs

    def with_silence(self, which, change=None):
        x = inputs(self, which, change)
        x[np.asarray(which) == 0] = 0.0
        return x

    monkeypatch.setattr(Segments, "inputs", with_silence)
    found = compare_runs((place / "run", place / "run"), samples=4)
    assert (found.samples, found.silent) == (3, 1)
    assert found.a.measures["reconstruction"] > 0
    assert "without 1 that are silent" in comparison_text(found)


def test_legends_have_the_names_as_they_are(found):
    odd = replace(found, a=replace(found.a, name="_run"), b=replace(found.b, name=r"$\x$"))
    for axis in comparison_page.curves_picture(odd).axes:
        assert [text.get_text() for text in axis.get_legend().get_texts()] == ["_run", r"$\x$"]
        axis.figure.canvas.draw()


def test_a_run_on_images_beside_one_on_recordings_is_refused(place):
    with pytest.raises(BirdinvError, match="images differ in their classes: compare runs that"):
        compare_runs((place / "run", place / "images"), samples=4)


@pytest.mark.parametrize("samples", [1, 0, -3])
def test_fewer_than_two_samples_are_refused(place, samples):
    with pytest.raises(SettingError, match=f"--samples is {samples}; give two at least"):
        compare_runs((place / "run", place / "other"), samples=samples)


def test_an_output_that_is_taken_is_refused_before_any_work(place, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    for name in ("load_model", "read_json", "samples_of_run"):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("it was begun"))
    with pytest.raises(BirdinvError, match="out already exists; give -o a new folder for the comp"):
        compare_runs((place / "run", place / "other"), samples=4, output=tmp_path / "out")
    assert contents(tmp_path) == {"out/mine.txt": b"mine"}


# ---------------------------------------------------------------- page, numbers and text


def test_the_page_needs_nothing_but_itself(written):
    page = Page(written)
    assert written.name == "comparison.html"
    assert set(contents(written.parent)) == {"comparison.html", "comparison.json"}
    assert not {"script", "link", "iframe", "object", "a"} & set(page.tags)
    sources = [value for key, value in page.attributes if key in ("src", "href", "srcset")]
    assert sources and all(source.startswith("data:image/png") for source in sources)
    assert any("default-src 'none'" in value for _, value in page.attributes)
    text = re.sub(r'"data:[^"]*"', "", written.read_text("utf-8"))
    assert "http:" not in text and "https:" not in text and "url(" not in page.text


def test_every_picture_has_words_and_a_sentence_under_it(written):
    text = written.read_text("utf-8")
    figures = re.findall(r"<figure>(.*?)</figure>", text, re.DOTALL)
    assert len(figures) == text.count("<img") == 4  # curves, matrices of both, brackets
    for figure in figures:
        assert re.search(r'<img [^>]* alt="[^"]{5,}"', figure)
        (caption,) = re.findall(r"<figcaption>(.*?)</figcaption>", figure, re.DOTALL)
        assert len(caption) > 60 and caption.rstrip(" .)").count(" ") > 10


def test_the_page_holds_the_measures_of_both_and_how_to_read_them(written, found):
    text = Page(written).text
    for name, (title, kind, note) in MEASURES.items():
        values = [printed(one.measures[name], kind) for one in (found.a, found.b)]
        assert f"{title}: {note} {values[0]} {values[1]}" in text
    assert "Two networks of 3 classes: A is run" in text
    assert f"All else is of {SAMPLES} samples, evenly spread" in text
    for letter, one in (("A", found.a), ("B", found.b)):
        for name, count in one.regions.items():
            active = one.active.get(name)
            shown = "–" if active is None else f"{100 * active:.1f} %"
            assert f"{letter}: {name} {shown} {count} of {SAMPLES} " in text


def test_the_json_has_every_measure_of_both_runs(written, found):
    numbers = json.loads((written.parent / "comparison.json").read_text("utf-8"))
    assert (numbers["split"], numbers["samples"]) == ("valid", SAMPLES)
    assert numbers["levels_db"] == list(LEVELS_DB)
    for key, one in (("a", found.a), ("b", found.b)):
        entry = numbers["runs"][key]
        assert entry["name"] == one.name and set(entry["measures"]) == set(MEASURES)
        assert entry["measures"] == one.measures and None not in entry["measures"].values()
        for name in ("robustness", "active", "regions", "sorting"):
            assert entry[name] == getattr(one, name) and entry[name], name
        assert entry["lipschitz"]["paper"] == one.bracket.paper
        assert len(entry["lipschitz"]["layers"]) == len(one.bracket.layers) > 5


def test_the_text_has_a_line_a_measure_and_80_columns(found):
    lines = comparison_text(found).splitlines()
    assert lines[:3] == [f"{SAMPLES} samples of the valid set", "A: run", "B: other"]
    assert len(lines) == 4 + len(MEASURES) and max(map(len, lines)) <= 80
    for line, (name, (title, kind, note)) in zip(lines[4:], MEASURES.items(), strict=True):
        assert line.startswith(title) and line.endswith(note)
        columns = line[len(title) : -len(note)]
        values = [printed(one.measures[name], kind) for one in (found.a, found.b)]
        assert columns.split() == " ".join(values).split()


def test_the_text_has_80_columns_for_the_widest_numbers(found):
    widest = {"%": -1.0, "dB": -123.4, "c": -1.0, "g": 1.23456e-15, "x": 12345.678}
    measures = {name: widest[kind] for name, (_, kind, _) in MEASURES.items()}
    one = replace(found.a, measures=measures)
    text = comparison_text(replace(found, a=one, b=one))
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_not_known_is_a_dash_and_null(found, tmp_path):
    one = replace(
        found.a,
        bracket="the layer <b>",
        measures={**dict.fromkeys(MEASURES), "segment_accuracy": 0.5},
    )
    page = write_comparison(replace(found, a=one, b=one), tmp_path / "out")
    assert "Stretch, at most: from the layers' norms – –" in Page(page).text
    assert "No bound is known: the layer <b>." in Page(page).text
    numbers = json.loads((tmp_path / "out/comparison.json").read_text("utf-8"))
    assert numbers["runs"]["a"]["measures"]["flip_db"] is None
    assert comparison_text(replace(found, a=one)).count("–") == len(MEASURES) - 1


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (0.123456, "%", "12.3 %"),
        (-42.04, "dB", "−42.0 dB"),
        (-0.01234, "c", "−0.012"),
        (0.01234, "c", "+0.012"),
        (0.000012345, "g", "1.23e-05"),
        (1.41449, "x", "1.414"),
        (None, "%", "–"),
    ],
)
def test_numbers_are_printed_as_people_read_them(value, kind, said):
    assert printed(value, kind) == said


def test_names_of_runs_are_text_and_never_markup(found, tmp_path):
    a = replace(found.a, name=EVIL)
    page = Page(write_comparison(replace(found, a=a), tmp_path / "out"))
    assert not {"script", "i"} & set(page.tags) and page.text.count(EVIL) >= 3


@pytest.mark.parametrize("fails", ["write_page", "write_json"])
def test_what_fails_half_way_leaves_nothing(found, tmp_path, monkeypatch, fails):
    def stop(*_):
        raise RuntimeError("stop")

    monkeypatch.setattr(comparison_page, "picture_of", lambda *_: "")
    monkeypatch.setattr(comparison_page, fails, stop)
    with pytest.raises(RuntimeError, match="stop"):
        write_comparison(found, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_same_comparison_gives_the_same_bytes(found, written, tmp_path):
    write_comparison(found, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(written.parent)


# ---------------------------------------------------------------- images, and the command


def test_runs_on_images_are_compared_too(place, tmp_path, tested):
    found = compare_runs((place / "images", place / "images2"), split="test", samples=4)
    assert found.samples == 4 and found.classes == ["lying", "standing", "leaning"]
    assert found.borders == [4, 8]
    for name, one in (("images", found.a), ("images2", found.b)):
        model, _ = load_model(place / name)
        x = tested.inputs(np.array([0, 3, 6, 9]))
        with torch.no_grad():
            said = model(tested.inputs(np.arange(12))).argmax(dim=1).numpy()
            rest = birdinv.invert(model, x) - x
        left = rest.flatten(1).square().sum(dim=1) / x.flatten(1).square().sum(dim=1)
        assert one.measures["segment_accuracy"] == float((said == tested.labels).mean())
        assert one.measures["recording_accuracy"] == one.measures["segment_accuracy"]
        assert one.measures["reconstruction"] == pytest.approx(float(left.mean()), rel=1e-5)
        assert one.measures["lipschitz_lower"] <= one.measures["lipschitz_upper"]
        assert set(one.measures) == set(MEASURES)
    page = write_comparison(found, tmp_path / "out")
    assert "Accuracies are of all of the test set" in Page(page).text
    assert max(map(len, comparison_text(found).splitlines())) <= 80


def test_the_command_prints_the_table_and_where_the_page_is(here, run, unstretched):
    code, out, err = run("inspect --compare run other --samples 4 --split test -o out")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == ["4 samples of the test set", "A: run", "B: other"]
    assert lines[-1] == "page: out/comparison.html" and max(map(len, lines)) <= 80
    assert len(lines) == 4 + len(MEASURES) + 1
    assert set(contents(here / "out")) == {"comparison.html", "comparison.json"}


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("run --compare run other", 2, "--compare takes two runs and no input; leave RUN and"),
        ("--compare run other --at 1", 2, "--compare takes two runs and no input; leave RUN and"),
        ("--compare run other --samples 1", 2, "--samples is 1; give two at least"),
        ("--compare run other --split train", 2, "'train' is not one of"),
        ("--compare run images", 1, "run and images differ in their classes: compare runs that"),
        ("--compare run gone", 1, "gone does not exist; expected a run made by"),
        ("--compare run store", 1, "store holds no run.json; expected a run made by"),
        ("--compare run run/model", 1, "run/model holds no run.json; expected a run made by"),
        ("--compare run other --store gone", 1, "gone does not exist; expected a store"),
    ],
)
def test_wrong_usage_is_a_sentence(here, run, line, code, said):
    got, out, err = run(f"inspect {line} -o out")
    assert (got, out) == (code, "") and said in err and "Traceback" not in err
    assert not (here / "out").exists()


def test_a_taken_output_is_1_and_stays(here, run):
    (here / "mine").mkdir()
    (here / "mine/a.txt").write_text("mine")
    code, out, err = run("inspect --compare run other -o mine")
    assert (code, out, err.count("\n")) == (1, "", 1) and "mine already exists" in err
    assert contents(here / "mine") == {"a.txt": b"mine"}
