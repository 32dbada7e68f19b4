"""What to label next: the ranking, who may be suggested, the way back into a store, the page."""

import base64
import csv
import io
import re
import shlex
import shutil
import warnings
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run as run
from small import RATE, SETTINGS, contents, sound, write, write_classes
from test_reporting import EVIL, Page
from torch import nn

from birdinv.audio.store import Store
from birdinv.data.batches import Segments
from birdinv.data.segmenting import segment
from birdinv.errors import BirdinvError, SettingError
from birdinv.networks.saved import load_model
from birdinv.reporting import suggestions as page_of
from birdinv.reporting.suggestions import write_suggestions_page
from birdinv.suggestion_tables import next_command, require_unfilled
from birdinv.suggestions import rank, run_store, suggest, survey, write_suggestions
from birdinv.survey import worth_hearing
from birdinv.training.config import TrainConfig
from birdinv.training.loop import train
from birdinv.training.partition import read_roles

CPU = torch.device("cpu")


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fill(path: Path, labels: dict[str, str]) -> None:
    """Writes labels into the table of suggestions, as a person with a spreadsheet would."""
    table = rows(path)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(row | {"label": labels.get(row["file"], "")} for row in table)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`rec`, `pool` with copies in it, their `store` and a `run`; tests only read them."""
    place = tmp_path_factory.mktemp("suggestions")
    write_classes(place / "rec", 4)
    for i in range(6):
        write(
            place / f"pool/site{i % 2}/{i}.wav", sound(60 + i, 1.6 + i, (900, 2200, 0, 4000)[i % 4])
        )
    write(place / "pool/<b>&'é.wav", sound(80, 1.0, 3000.0))
    for i in range(4):
        shutil.copy(place / f"rec/robin/robin{i}.wav", place / f"pool/copy{i}.wav")
    segment([place / "rec"], place / "store", SETTINGS, unlabelled=[place / "pool"])
    config = TrainConfig(epochs=2, batch_size=32, labels_per_class=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(Store(place / "store"), place / "run", config, device="cpu")
    return place


# ---------------------------------------------------------------- ranking


def obvious(embeddings, uncertainties, n, known):
    """The formula, one number after the other."""

    def distance(a, b):
        return 1 - float(a @ b) / (float(np.linalg.norm(a)) * float(np.linalg.norm(b)))

    chosen: list[int] = []
    for _ in range(min(n, len(embeddings))):
        best, best_score = -1, -1.0
        for i in range(len(embeddings)):
            others = [*known, *(embeddings[j] for j in chosen)]
            nearest = min((distance(embeddings[i], other) for other in others), default=1.0)
            if i not in chosen and uncertainties[i] * nearest > best_score:
                best, best_score = i, uncertainties[i] * nearest
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("labelled", [0, 1, 7])
def test_the_ranking_is_that_of_the_slow_obvious_way(labelled):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        embeddings, known = rng.normal(size=(20, 4)), rng.normal(size=(labelled, 4))
        uncertainties = rng.random(20)
        for n in (1, 6, 20, 30):
            found = rank(embeddings, uncertainties, n, known)
            assert found == obvious(embeddings, uncertainties, n, known)
            assert len(set(found)) == len(found) == min(n, 20)


def test_the_uncertain_recording_comes_before_the_certain_one():
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert rank(embeddings, np.array([0.1, 0.9]), 2) == [1, 0]
    assert rank(embeddings, np.array([0.9, 0.1]), 2, np.array([[1.0, 1.0]])) == [0, 1]


def test_the_second_of_two_alike_comes_after_one_that_differs():
    embeddings = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    assert rank(embeddings, np.array([0.9, 0.9, 0.3]), 3) == [0, 2, 1]


def test_what_is_like_a_labelled_recording_comes_last_however_uncertain():
    embeddings = np.array([[3.0, 0.0], [1.0, 1.0]])
    assert rank(embeddings, np.array([1.0, 0.4]), 2, np.array([[1.0, 0.0]])) == [1, 0]


def test_ties_go_to_the_first_also_where_float32_could_not_tell_them_apart():
    embeddings = np.eye(3) + 1e-8 * np.random.default_rng(0).normal(size=(3, 3))
    assert rank(embeddings, np.array([0.5, 0.5 + 1e-9, 0.5]), 3) == [0, 1, 2]
    assert rank(np.zeros((2, 3)), np.ones(2), 2) == [0, 1]  # no direction: no number is lost


@pytest.mark.parametrize(
    ("embeddings", "uncertainties", "known", "sentence"),
    [
        (np.ones(3), np.ones(3), None, r"embeddings \[3\]"),
        (np.ones((3, 2)), np.ones(2), None, r"uncertainties \[2\] of 3 recordings"),
        (np.ones((3, 2)), np.ones(3), np.ones((1, 4)), r"known \[1, 4\]"),
        (np.ones((3, 2)), np.array([1, np.nan, 1]), None, "not finite"),
    ],
)
def test_a_ranking_of_what_cannot_be_is_refused(embeddings, uncertainties, known, sentence):
    with pytest.raises(ValueError, match=sentence):
        rank(embeddings, uncertainties, 2, known)


# ---------------------------------------------------------------- what the network makes of them


def test_the_survey_says_what_the_network_says_of_each_recording(place):
    store = Store(place / "store")
    model, _ = load_model(place / "run")
    segments = Segments(store, {r.file: "" for r in store.recordings[:5]})
    found = list(survey(model, segments, CPU))
    assert [each.row for each in found] == list(range(5))
    x = segments.inputs(np.arange(len(segments)))
    with torch.no_grad():
        hidden = model.hidden(model.block2(model.block1(x))).double()
        y_hat = torch.softmax(model.head(hidden.float()).double(), 1)
    for each in found:
        own = segments.recordings == each.row
        mean = y_hat[own].mean(0)
        np.testing.assert_allclose(each.mean, mean, atol=1e-6)
        entropy = -(mean * mean.log()).sum() / np.log(3)
        assert each.uncertainty == pytest.approx(float(entropy), abs=1e-6)
        np.testing.assert_allclose(
            each.embedding, nn.functional.normalize(hidden[own].mean(0), dim=0), atol=1e-6
        )
        entropies = -(y_hat[own] * y_hat[own].log()).sum(1) / np.log(3)
        np.testing.assert_allclose(each.entropies, entropies, atol=1e-6)


def test_a_survey_leaves_the_network_as_it_was(place):
    store = Store(place / "store")
    model, _ = load_model(place / "run")
    model.train()
    list(survey(model, Segments(store, {store.recordings[0].file: ""}), CPU))
    assert model.training and not model.head._forward_pre_hooks


def test_a_network_without_a_dense_layer_is_refused(place):
    store = Store(place / "store")
    model = nn.Sequential(nn.Conv1d(1, 3, 9), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    with pytest.raises(BirdinvError, match="has no dense layer to compare recordings by"):
        list(survey(model, Segments(store, {store.recordings[0].file: ""}), CPU))


def test_the_seconds_worth_hearing_are_those_of_most_entropy():
    starts = np.array([0, 10, 20, 100, 110, 120, 300])
    entropies = np.array([0.9, 0.1, 0.1, 0.5, 0.5, 0.5, 0.8])
    assert worth_hearing(starts, entropies, 20, 40) == (100, 140)
    assert worth_hearing(starts, entropies, 20, 20) == (0, 20)  # one segment
    assert worth_hearing(starts, entropies, 20, 10) == (0, 10)  # the beginning of one
    assert worth_hearing(starts, entropies, 20, 1000) == (0, 320)  # all of it
    assert worth_hearing(starts[::-1], entropies[::-1], 20, 40) == (100, 140)
    assert worth_hearing(starts, np.ones(7), 20, 40) == (0, 40)  # the first of equal ones


# ---------------------------------------------------------------- who is suggested


def test_those_without_a_label_are_suggested_and_never_what_is_tested_on(place):
    store, roles = Store(place / "store"), read_roles(place / "run")
    told: list[str] = []
    found = suggest(place / "run", store, 99, tell=told.append)
    files = {each.file for each in found}
    kept = {*roles["labelled"], *roles["valid"], *roles["test"]}
    taken = {r.sha256 for r in store.recordings if r.file in kept}
    pool = {r.file: r.sha256 in taken for r in store.recordings if r.file.startswith("pool/")}
    assert sum(pool.values()) >= 3  # copies of what is learned from or tested on
    assert files >= {file for file, copied in pool.items() if not copied}
    assert not files & {file for file, copied in pool.items() if copied} and not files & kept
    hidden = files - {*pool}
    assert hidden and hidden <= set(roles["unlabelled"])  # by --labels-per-class
    assert f"99 were asked for and there are {len(files)}: all of them are given" in told
    assert [each.rank for each in found] == list(range(1, len(files) + 1))
    assert suggest(place / "run", store, 3) == found[:3]


def test_copies_of_labelled_recordings_are_counted(place):
    told: list[str] = []
    suggest(place / "run", Store(place / "store"), 1, tell=told.append)
    # Those of a validation or test recording are on its side of the split, and not asked for.
    assert told == ["1 recording left out: the same bytes as a labelled, validation or test one"]


def test_seconds_lie_in_the_recording_where_something_sounds(place):
    store = Store(place / "store")
    frames = {r.file: r.frames for r in store.recordings}
    for each in suggest(place / "run", store, 99):
        assert 0 <= each.start_s < each.end_s <= min(each.start_s + 5, frames[each.file] / RATE)
        spans = store.spans[each.file]
        assert (
            spans[0][0] <= round(each.start_s * RATE) and round(each.end_s * RATE) <= spans[-1][1]
        )
        assert 0 <= each.uncertainty <= 1 and 1 / 3 <= each.guess_share <= 1
        assert each.score == pytest.approx(each.uncertainty * each.distance)
    short = suggest(place / "run", store, 99, hear_s=0.75)
    assert max(each.end_s - each.start_s for each in short) <= 0.75 + 1e-9


def test_neither_the_batch_nor_the_order_of_files_changes_what_is_suggested(place, tmp_path):
    wanted = suggest(place / "run", Store(place / "store"), 99)
    for batch in (1, 3):
        assert_alike(suggest(place / "run", Store(place / "store"), 99, batch=batch), wanted)
    shutil.copytree(place / "store", tmp_path / "store")
    header, *lines = (tmp_path / "store/recordings.csv").read_text().splitlines()
    (tmp_path / "store/recordings.csv").write_text("\n".join([header, *lines[::-1]]) + "\n")
    assert suggest(place / "run", Store(tmp_path / "store"), 99) == wanted


def assert_alike(found, wanted):
    assert [each.file for each in found] == [each.file for each in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert (a.guess, a.start_s, a.end_s) == (b.guess, b.start_s, b.end_s)
        assert a.score == pytest.approx(b.score, abs=2e-6)


def test_another_store_is_searched_for_what_the_run_has_not_learned_or_is_tested_on(
    place, tmp_path
):
    roles = read_roles(place / "run")
    for role in ("labelled", "valid", "test"):
        shutil.copy(place / next(iter(roles[role])), tmp_path / f"{role}.wav")
    for i in range(3):
        write(tmp_path / f"new/{i}.wav", sound(100 + i, 2.0))
        shutil.move(tmp_path / f"{('labelled', 'valid', 'test')[i]}.wav", tmp_path / "new")
    write(tmp_path / "own/dove/a.wav", sound(200))
    other = [tmp_path / "own"], tmp_path / "other", SETTINGS
    segment(*other, unlabelled=[tmp_path / "new"])
    told: list[str] = []
    found = suggest(place / "run", Store(tmp_path / "other"), 3, tell=told.append)
    assert {each.file for each in found} == {f"new/{i}.wav" for i in range(3)}
    assert told == ["3 recordings left out: the same bytes as a labelled, validation or test one"]
    moved = shutil.copytree(place / "run", tmp_path / "run")
    text = (moved / "run.json").read_text().replace(str(place / "store"), str(tmp_path / "gone"))
    (moved / "run.json").write_text(text)
    found = suggest(moved, Store(tmp_path / "other"), 9, tell=told.append)
    assert len(found) == 6 and "trained on is not there any more" in told[1]
    with pytest.raises(BirdinvError, match="gone is not there any more; name it: birdinv suggest"):
        run_store(moved)


def test_what_cannot_be_suggested_from_is_said(place, tmp_path):
    store = Store(place / "store")
    with pytest.raises(SettingError, match="0 suggestions were asked for"):
        suggest(place / "run", store, 0)
    with pytest.raises(SettingError, match="-1 s are to be heard"):
        suggest(place / "run", store, 1, hear_s=-1)
    segment([place / "rec"], tmp_path / "all", SETTINGS)
    with pytest.raises(BirdinvError, match=r"has no recording to suggest: .*--unlabelled"):
        suggest(place / "run", Store(tmp_path / "all"), 1)
    slow = replace(SETTINGS, sample_rate=8000, segment_s=0.75)
    segment([place / "rec"], tmp_path / "slow", slow)
    said = r"segments of 6000 samples at 8000 Hz, .* 5512 samples at 11025 Hz; segment with --seg"
    with pytest.raises(BirdinvError, match=said):
        suggest(place / "run", Store(tmp_path / "slow"), 1)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BirdinvError, match=r"holds no run.json; expected a run made by"):
        run_store(tmp_path / "folder")


# ---------------------------------------------------------------- the tables, and back into a store


def test_labels_filled_in_come_into_the_next_store_and_the_splits_stay(place, tmp_path):
    store = Store(place / "store")
    suggestions = suggest(place / "run", store, 6)
    table, known = write_suggestions(tmp_path / "s", place / "run", store, suggestions)
    columns = "file,label,rank,score,guess,guess_share,hear_start_s,hear_end_s"
    assert table.read_text().splitlines()[0] == columns
    assert [row["file"] for row in rows(table)] == [each.file for each in suggestions]
    assert {row["label"] for row in rows(table)} == {""}
    assert list(rows(known)[0]) == ["file", "label", "group", "split"]
    # Of four doves one would be drawn for testing, had they no split.
    labels = {each.file: ("dove", "wren")[i == 4] for i, each in enumerate(suggestions[:5])}
    fill(table, labels)
    result = segment(
        [place / "rec"],
        tmp_path / "next",
        SETTINGS,
        unlabelled=[place / "pool"],
        labels=[known, table],
    )
    after = {r.file: r for r in result.recordings}
    roles = read_roles(place / "run")
    for r in store.recordings:
        if r.file in labels:
            assert (after[r.file].label, after[r.file].split) == (labels[r.file], "train")
        elif r.label and r.file not in roles["unlabelled"]:
            assert (after[r.file].label, after[r.file].split) == (r.label, r.split)
        else:
            assert (after[r.file].label, after[r.file].split) == ("", r.split)
    assert set(result.classes) == {"dove", "noise", "robin", "wren"}
    assert {*labels} <= {r.file for r in Store(tmp_path / "next").recordings if r.label}


def test_a_label_hidden_from_the_run_is_hidden_in_the_tables_too(place, tmp_path):
    store, hidden = Store(place / "store"), set(read_roles(place / "run")["unlabelled"])
    suggestions = suggest(place / "run", store, 99)
    _, known = write_suggestions(tmp_path, place / "run", store, suggestions)
    labels = {row["file"]: row["label"] for row in rows(known)}
    assert any(file.startswith("rec/") for file in hidden & {*labels})
    assert not any(label for file, label in labels.items() if file in hidden)


def test_groups_stay_with_those_that_get_a_label(place, tmp_path):
    lines = [f"rec/{c}/{c}{i}.wav,{c},g{i}" for c in ("robin", "wren") for i in range(4)]
    lines += [f"pool/site0/{i}.wav,,g{i}" for i in (0, 2)] + [
        f"pool/site1/{i}.wav,,new" for i in (1, 3)
    ]
    (tmp_path / "t.csv").write_text("file,label,group\n" + "\n".join(lines) + "\n")
    inputs = {"unlabelled": [place / "pool"]}
    segment([place / "rec"], tmp_path / "store", SETTINGS, labels=tmp_path / "t.csv", **inputs)
    store = Store(tmp_path / "store")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(store, tmp_path / "run", TrainConfig(epochs=1, batch_size=32), device="cpu")
    suggestions = suggest(tmp_path / "run", store, 99)
    assert {"pool/site1/1.wav", "pool/site1/3.wav"} <= {each.file for each in suggestions}
    split_of = {r.group: r.split for r in store.recordings if r.group}
    tested = {f"pool/site0/{i}.wav" for i in (0, 2) if split_of[f"g{i}"] != "train"}
    assert not tested & {each.file for each in suggestions}
    few = [each for each in suggestions if each.file == "pool/site1/1.wav"]
    table, known = write_suggestions(tmp_path / "s", tmp_path / "run", store, few)
    fill(table, {"pool/site1/1.wav": "wren"})
    segment([place / "rec"], tmp_path / "next", SETTINGS, labels=[known, table], **inputs)
    before, after = ({r.file: r for r in s.recordings} for s in (store, Store(tmp_path / "next")))
    assert after["pool/site1/1.wav"].label == "wren"
    for file, r in before.items():
        assert (after[file].group, after[file].split) == (r.group, r.split)


def test_labels_that_were_filled_in_are_never_overwritten(place, tmp_path):
    store = Store(place / "store")
    suggestions = suggest(place / "run", store, 2)
    arguments = tmp_path, place / "run", store, suggestions
    table, _ = write_suggestions(*arguments)
    first = contents(tmp_path)
    write_suggestions(*arguments)  # nothing is filled in yet
    assert contents(tmp_path) == first
    fill(table, {suggestions[1].file: "wren"})
    for refused in (lambda: require_unfilled(tmp_path), lambda: write_suggestions(*arguments)):
        with pytest.raises(BirdinvError, match="has 1 label already, which would be lost; segment"):
            refused()
    assert "wren" in table.read_text()
    table.write_text(table.read_text().replace(",", ";"))
    with pytest.raises(BirdinvError, match=r"has no column 'label', .* may hold labels; give -o"):
        write_suggestions(*arguments)


def test_the_next_command_repeats_the_settings_of_the_store(place, tmp_path):
    line = next_command(tmp_path / "a b", Store(place / "store"))
    words = shlex.split(line)
    assert words[:5] == ["birdinv", "segment", "INPUT...", "-o", "NEW_STORE"]
    assert words[5:9:2] == ["--labels", "--labels"]
    assert words[6:9:2] == [str(tmp_path / f"a b/{n}.csv") for n in ("known", "suggestions")]
    assert words[9:] == ["--overlap", "0.5", "--sample-rate", "11025", "--no-activity"]


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def page(place, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "<i>out"
    store = Store(place / "store")
    suggestions = suggest(place / "run", store, 99)
    evil = [replace(suggestions[0], guess=EVIL), *suggestions[1:]]
    return write_suggestions_page(folder, place / "run", store, evil)


def test_the_page_has_a_player_and_a_picture_for_each_in_the_order_of_rank(place, page):
    suggestions = suggest(place / "run", Store(place / "store"), 99)
    parsed = Page(page)
    assert page.name == "suggestions.html"
    assert parsed.tags.count("audio") == parsed.tags.count("img") == len(suggestions)
    places = [parsed.text.index(f" {each.rank}. {each.file} ") for each in suggestions]
    assert places == sorted(places)
    assert all(f"{100 * each.guess_share:.1f} %" in parsed.text for each in suggestions)
    assert "suggestions.csv" in parsed.text and "known.csv" in parsed.text
    assert "birdinv segment INPUT... -o NEW_STORE" in parsed.text
    assert "uncertainty 0." in parsed.text or "uncertainty 1." in parsed.text


def test_the_page_holds_text_from_outside_as_text_and_needs_nothing_else(page):
    parsed = Page(page)
    assert not {"script", "i", "link", "iframe", "object", "form"} & set(parsed.tags)
    assert EVIL in parsed.text and "pool/<b>&'é.wav" in parsed.text and "<i>out" in parsed.text
    sources = [value for key, value in parsed.attributes if key in ("src", "href")]
    assert sources and all(source.startswith("data:") for source in sources)
    named = [v for k, v in parsed.attributes if k in ("alt", "aria-label")]
    assert len(named) == len(sources) and all(named)
    assert any("default-src 'none'" in value for _, value in parsed.attributes)


def test_the_sound_is_that_of_the_store_with_half_a_second_around(place, page):
    store = Store(place / "store")
    suggestions = suggest(place / "run", store, 99)
    sounds = re.findall(r'src="data:audio/wav;base64,([^"]*)"', page.read_text("utf-8"))
    recordings = {r.file: r for r in store.recordings}
    for each, text in zip(suggestions, sounds, strict=True):
        with wave.open(io.BytesIO(base64.b64decode(text))) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        r = recordings[each.file]
        first = max(0, round(each.start_s * RATE) - round(RATE / 2))
        last = min(r.frames, round(each.end_s * RATE) + round(RATE / 2))
        np.testing.assert_array_equal(samples, store.audio[r.offset + first : r.offset + last])


def test_a_page_holds_no_more_than_can_be_opened_and_says_so(place, tmp_path, monkeypatch):
    monkeypatch.setattr(page_of, "MOST_SHOWN", 2)
    store = Store(place / "store")
    suggestions = suggest(place / "run", store, 5)
    parsed = Page(write_suggestions_page(tmp_path, place / "run", store, suggestions))
    assert parsed.tags.count("audio") == 2
    assert "And 3 more, see suggestions.csv." in parsed.text
    first = (tmp_path / "suggestions.html").read_bytes()
    write_suggestions_page(tmp_path, place / "run", store, suggestions)
    assert (tmp_path / "suggestions.html").read_bytes() == first


# ---------------------------------------------------------------- the command


def test_the_way_from_a_run_to_the_next_store(place, tmp_path, monkeypatch, run):
    for name in ("rec", "pool", "store"):
        (tmp_path / name).symlink_to(place / name)
    shutil.copytree(place / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    code, out, err = run("suggest run -n 12")
    assert code == 0 and "birdinv: note: 1" in err
    assert max(map(len, out.splitlines()[:12])) <= 80
    assert {p.name for p in Path("run/suggestions").iterdir()} == {
        "known.csv",
        "suggestions.csv",
        "suggestions.html",
    }
    assert "run/suggestions/suggestions.html" in out and "known.csv" in out
    assert run("suggest run -n 3")[0] == 0  # nothing filled in: made anew
    table = rows(Path("run/suggestions/suggestions.csv"))
    assert len(table) == 3
    fill(Path("run/suggestions/suggestions.csv"), {table[0]["file"]: "wren"})
    code, _, err = run("suggest run")
    assert code == 1 and "has 1 label already" in err and err.count("\n") == 1
    assert run("suggest run store -n 2 -o elsewhere")[0] == 0
    assert len(rows(Path("elsewhere/suggestions.csv"))) == 2
    line = out.splitlines()[-1].removeprefix("then: birdinv ")
    line = line.replace("INPUT...", "rec --unlabelled pool").replace("NEW_STORE", "next")
    code, _, err = run(line)
    assert code == 0, err
    after = {r.file: r for r in Store(Path("next")).recordings}
    assert (after[table[0]["file"]].label, after[table[0]["file"]].split) == ("wren", "train")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("suggest run -n 0", 2, "0 suggestions were asked for; give -n at least 1"),
        ("suggest gone", 1, "gone does not exist; expected a run made by"),
        ("suggest run gone", 1, "gone does not exist; expected a store made by"),
        ("suggest store", 1, "store holds no run.json; expected a run made by"),
    ],
)
def test_wrong_usage_is_a_sentence(place, tmp_path, monkeypatch, run, line, code, said):
    (tmp_path / "run").symlink_to(place / "run")
    (tmp_path / "store").symlink_to(place / "store")
    monkeypatch.chdir(tmp_path)
    got, _, err = run(line)
    assert got == code and said in err and err.count("\n") == 1
