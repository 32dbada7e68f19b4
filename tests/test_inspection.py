"""A network looked into: what it is given, what the page, its numbers and its sounds hold."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from commands import here as here
from commands import run as run
from PIL import Image
from small import CLASSES, RATE, contents, sound, write
from small_runs import described, image_runs, recording_runs
from small_runs import quick as quick
from small_runs import tested as tested
from small_runs import undrawn as undrawn
from test_reporting import EVIL, Page

import birdinv
from birdinv.audio.reading import Reader
from birdinv.audio.resampling import pcm, resampled
from birdinv.audio.store import Store
from birdinv.errors import BirdinvError, NothingReadable, SettingError
from birdinv.files import safe_name
from birdinv.inspection import page as module
from birdinv.inspection.findings import Finding, look
from birdinv.inspection.page import inspect
from birdinv.inspection.subjects import image_subjects, recording_subject
from birdinv.networks.layers import normalise
from birdinv.networks.saved import Description, Hearing, load_model, save_model
from birdinv.prediction.listener import score
from birdinv.reporting.sounds import loud

EVIL_CLASSES = [EVIL, "../../../escaped", 'Zoë "O\'Neil" \\ & <i>co</i>']
EVIL_FILE = "..<b>\"quoted\" & 'é'$x^$.wav"
PEAK = 32768 * 10 ** (-1 / 20)


class Looked(NamedTuple):
    """A folder that `inspect` wrote, and what it gave back."""

    folder: Path
    page: Page
    found: list[Finding]
    numbers: dict[str, Any]


def looked(run: Path, inputs: list[Path], folder: Path, **more: Any) -> Looked:
    path, found, _ = inspect(run, inputs, folder, **more)
    assert path == folder / "inspection.html"
    numbers = json.loads((folder / "inspection.json").read_text("utf-8"))
    return Looked(folder, Page(path), found, numbers)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`recordings`, `store`, the runs of `small_runs`, and a `model` with EVIL_CLASSES."""
    place = recording_runs(tmp_path_factory.mktemp("inspection"))
    image_runs(place)
    described(place / "run/model", place / "evil", classes=EVIL_CLASSES, non_events=[])
    write(place / "long.wav", np.concatenate([sound(i, 1.7, hz) for i, hz in LONG]))
    write(place / EVIL_FILE, sound(7, 1.0, 2200.0))
    return place


LONG = ((50, 0.0), (51, 900.0), (52, 2200.0), (53, 0.0))


@pytest.fixture(scope="module")
def plain(place: Path) -> Looked:
    """Two recordings, in a run of three classes."""
    inputs = [place / "recordings/robin/robin0.wav", place / "long.wav"]
    return looked(place / "run", inputs, place / "plain")


@pytest.fixture(scope="module")
def evil(place: Path) -> Looked:
    """Names of classes and of a file with whatever does not belong into a page or a path."""
    return looked(place / "evil", [place / EVIL_FILE], place / "parent<i>/of/evil")


def heard(path: Path, start: int, length: int, rate: int = RATE) -> torch.Tensor:
    """The int16 samples of a file as `predict` resamples them, normalised, `[1, 1, T]`."""
    with Reader(path) as reader:
        blocks = list(resampled(reader, reader.source_rate, rate))
    samples, _ = pcm(np.concatenate(blocks))
    return normalise(
        torch.from_numpy(samples[start : start + length].astype(np.float32))[None, None]
    )


def read(path: Path) -> tuple[np.ndarray, soundfile.SoundFile]:
    with soundfile.SoundFile(path) as file:
        return file.read(dtype="int16"), file


# ---------------------------------------------------------------- which half second


@pytest.mark.parametrize("event", CLASSES)
def test_the_window_is_that_of_the_highest_score_of_an_event(place, tmp_path, event):
    others = [name for name in CLASSES if name != event]
    model = described(place / "other/model", tmp_path / "model", non_events=others)
    subject = recording_subject(model, place / "long.wav")
    scores = score(model, place / "long.wav")
    of_event = scores.probabilities[:, scores.classes.index(event)]
    assert subject.start_s == scores.start_s[of_event.argmax()]
    assert len(np.unique(of_event)) > 10


def test_what_is_no_event_is_not_looked_for_though_it_be_the_surest(place, tmp_path):
    scores = score(place / "other", place / "long.wav")
    surest = scores.probabilities.max(axis=1).argmax()
    no_event = scores.probabilities[surest].argmax()
    model = described(
        place / "other/model", tmp_path / "model", non_events=[scores.classes[no_event]]
    )
    events = np.delete(scores.probabilities, no_event, axis=1)
    subject = recording_subject(model, place / "long.wav")
    assert subject.start_s == scores.start_s[events.max(axis=1).argmax()]
    assert subject.start_s != scores.start_s[surest]


@pytest.mark.parametrize("at_s", [0.0, 0.37, 1.1])
def test_at_takes_the_samples_of_the_store_from_there_on(place, at_s):
    store = Store(place / "store")
    (recording,) = (r for r in store.recordings if r.file.endswith("wren2.wav"))
    subject = recording_subject(place / "run", place / "recordings/wren/wren2.wav", at_s)
    first = recording.offset + round(at_s * RATE)
    samples = store.audio[first : first + store.windows.segment].astype(np.float32)
    assert torch.equal(subject.x, normalise(torch.from_numpy(samples)[None, None]))
    assert (subject.sample_rate, subject.truth, subject.name) == (RATE, None, "wren2.wav")
    assert subject.start_s == round(at_s * RATE) / RATE


def test_at_a_recording_of_another_rate_is_heard_as_predict_hears_it(place, tmp_path):
    path = write(tmp_path / "fast.flac", sound(3, 2.0, rate=48000), 48000)
    subject = recording_subject(place / "run", path, 0.9)
    assert torch.equal(subject.x, heard(path, round(0.9 * RATE), subject.x.shape[-1]))


def test_the_network_says_of_the_window_what_predict_says(place, tmp_path):
    path = write(tmp_path / "fast.wav", sound(3, 2.0, rate=44100), 44100)
    model, _ = load_model(place / "run")
    scores = score(place / "run", path)
    subject = recording_subject(place / "run", path)
    with torch.no_grad():
        found = model(subject.x).softmax(dim=1)[0].numpy()
    window = scores.start_s.tolist().index(subject.start_s)
    np.testing.assert_allclose(found, scores.probabilities[window], atol=1e-5)
    spread = np.ptp(scores.probabilities, axis=0)
    assert spread.max() > 1e-3


@pytest.mark.parametrize(("seconds", "at_s"), [(0.35, None), (0.35, 0.0), (0.35, 0.1), (1.6, 1.4)])
def test_a_recording_that_ends_before_the_window_is_filled_with_its_mean(
    place, tmp_path, seconds, at_s
):
    path = write(tmp_path / "short.wav", sound(5, seconds))
    x = recording_subject(place / "run", path, at_s).x
    assert x.shape == (1, 1, 5512)
    start, whole = round((at_s or 0) * RATE), round(seconds * RATE)
    kept = whole - start
    assert len(x[0, 0, kept:].unique()) == 1 and len(x[0, 0, :kept].unique()) > 1000
    samples = pcm(sound(5, seconds))[0][start:]
    assert abs(samples.mean()) > 1
    level = torch.from_numpy(samples.astype(np.float32)) - float(samples.mean())
    ratio = x[0, 0, :kept].double() / level.double()
    loudest = level.abs() > level.abs().max() / 2
    assert torch.allclose(ratio[loudest], ratio[loudest].mean(), rtol=1e-3)


@pytest.mark.parametrize("at_s", [-0.5, -1e-9, float("nan"), float("inf")])
def test_at_is_seconds_from_the_start(place, at_s):
    with pytest.raises(SettingError, match=r"--at is .*; give seconds from the start"):
        recording_subject(place / "run", place / "long.wav", at_s)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("text.wav", "text.wav cannot be looked at: not an audio file: its first bytes"),
        ("text.wav --at 0", "text.wav has no sound at 0.00 s: not an audio file"),
        ("silent.wav", "silent.wav is silent at 0.00 s: there is nothing to see"),
        ("silent.wav --at 0.5", "silent.wav is silent at 0.50 s: there is nothing to see"),
        ("folder.wav", "folder.wav is a folder; give the recordings in it"),
        ("folder.wav --at 0.2", "folder.wav is a folder; give the recordings in it"),
        ("tiny.wav", "tiny.wav cannot be looked at: 0.100 s is shorter than half a window"),
        ("tiny.wav --at 0.2", "tiny.wav has no sound at 0.20 s: it ends after 0.10 s"),
        ("gone.wav", "gone.wav cannot be looked at: cannot be opened: No such file"),
        ("empty.wav", "empty.wav cannot be looked at: the file has 0 bytes"),
        ("text.wav gone.wav", "first bytes are those of no known format; gone.wav cannot"),
        ("long.wav --at 99", "long.wav has no sound at 99.00 s: it ends after 6.80 s"),
        ("long.wav --at 6.8", "long.wav has no sound at 6.80 s: it ends after 6.80 s"),
    ],
)
def test_where_nothing_can_be_looked_at_it_is_4_and_said_why(here, run, line, said):
    (here / "text.wav").write_text("field notes")
    (here / "empty.wav").write_bytes(b"")
    (here / "folder.wav").mkdir()
    write(here / "silent.wav", np.zeros(2 * RATE, np.float32))
    write(here / "tiny.wav", sound(1, 0.1))
    before = {path.name for path in here.iterdir()}
    code, out, err = run(f"inspect run {line} -o out")
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert err.startswith("birdinv: ") and said in err
    assert {path.name for path in here.iterdir()} == before


# ---------------------------------------------------------------- the page


@pytest.mark.parametrize("which", ["plain", "evil"])
def test_the_page_needs_nothing_but_itself(which, request):
    page = request.getfixturevalue(which).page
    text = (request.getfixturevalue(which).folder / "inspection.html").read_text("utf-8")
    assert not {"script", "link", "iframe", "object", "form", "a", "base"} & set(page.tags)
    sources = [value for key, value in page.attributes if key in ("src", "href", "srcset")]
    assert sources and all(source.startswith("data:") for source in sources)
    assert not any(key.startswith("on") for key, _ in page.attributes)
    policy = [value for key, value in page.attributes if key == "content" and "default" in value]
    assert policy == [
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
    ]
    without = re.sub(r'"data:[^"]*"', "", text)
    assert "http:" not in without and "https:" not in without and "url(" not in page.text


@pytest.mark.parametrize("which", ["plain", "evil"])
def test_every_picture_has_words_and_every_figure_says_how_to_read_it(which, request):
    folder = request.getfixturevalue(which).folder
    text = (folder / "inspection.html").read_text("utf-8")
    images = re.findall(r"<img [^>]*>", text)
    assert len(images) == request.getfixturevalue(which).page.tags.count("img") >= 6
    assert all(re.search(r' alt="[^"]{5,}"', image) for image in images)
    figures = re.findall(r"<figure>(.*?)</figure>", text, re.DOTALL)
    assert len(figures) == text.count("<figure") > len(images)
    for figure in figures:
        (caption,) = re.findall(r"<figcaption>(.*?)</figcaption>", figure, re.DOTALL)
        assert len(caption) > (60 if "<img" in figure else 2)
    heard = re.findall(r"<audio [^>]*>", text)
    assert heard and all(re.search(r' aria-label="[^"]+"', each) for each in heard)


def test_the_page_has_a_section_of_each_input_and_its_numbers(plain):
    for one in plain.found:
        start = one.subject.start_s
        end = start + one.subject.x.shape[-1] / RATE
        assert f"{one.subject.name}, {start:.2f} to {end:.2f} s" in plain.page.text
        share = 100 * one.probabilities[one.guess]
        assert f"The network says {one.classes[one.guess]} {share:.1f} %" in plain.page.text
    assert plain.page.tags.count("audio") == 2 * (2 + len(CLASSES) + 2)
    assert "Inside run" in plain.page.text and "tells 3 classes apart" in plain.page.text


def test_names_are_text_and_never_markup(evil):
    assert not {"script", "i"} & set(evil.page.tags)
    text = (evil.folder / "inspection.html").read_text("utf-8")
    for name in (*EVIL_CLASSES, EVIL_FILE):
        assert name in evil.page.text
        if "<" in name:
            assert name not in text
    assert "<b>&quot;quoted" not in text and "<i>co" not in text
    assert {name for key, name in evil.page.attributes if key == "aria-label"} >= {*EVIL_CLASSES}


def test_whatever_the_names_no_file_is_written_elsewhere(evil, place):
    root = place / "parent<i>"
    names = set(contents(root))
    assert names == {f"of/evil/{name}" for name in contents(evil.folder)}
    for name in contents(evil.folder):
        folder, _, file = name.rpartition("/")
        assert folder == ("" if file.startswith("inspection.") else "sounds")
        assert not re.search(r'[\x00-\x1f<>:"\\|?*]', file)
    assert len(contents(evil.folder)) == 2 + 2 + len(EVIL_CLASSES) + 2
    assert not list(place.parent.rglob("*escaped")) and not list(place.glob("sounds"))


def test_what_is_passed_over_or_partly_read_is_3_and_on_the_page(here, run, place, quick):
    whole = (place / "long.wav").read_bytes()
    (here / "cut.wav").write_bytes(whole[: len(whole) * 2 // 3])
    (here / "text.wav").write_text("field notes")
    code, _, err = run("inspect run cut.wav text.wav -o out")
    assert code == 3 and "cut.wav is partial: " in err and "text.wav" in err
    text = Page(here / "out/inspection.html").text
    numbers = json.loads((here / "out/inspection.json").read_text("utf-8"))
    assert "cut.wav is partial: " in text and "text.wav" in text
    assert len(numbers["problems"]) == 2
    assert numbers["inputs"][0]["note"].startswith("cut.wav is partial: ")


def test_filters_are_in_the_numbers_by_rising_pitch(plain):
    pitches = [each["centre_hz"] for each in plain.numbers["first_layer"]]
    assert len(pitches) > 1 and pitches == sorted(pitches)


def test_recordings_of_one_name_have_sounds_of_their_own(place, tmp_path, quick):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(place / "long.wav", tmp_path / folder / "long.wav")
    twice = [tmp_path / folder / "long.wav" for folder in ("a", "b")]
    looked(place / "run", twice[:1], tmp_path / "one", at_s=0.2)
    looked(place / "run", twice, tmp_path / "two", at_s=0.2)
    one, two = (len(list((tmp_path / name / "sounds").iterdir())) for name in ("one", "two"))
    assert two == 2 * one > 0


def test_where_no_class_is_an_event_the_surest_of_all_is_taken(place, tmp_path):
    classes = load_model(place / "run")[1].classes
    model = described(place / "run/model", tmp_path / "model", non_events=classes)
    assert recording_subject(model, place / "long.wav").x.shape[0] == 1


def test_a_recording_above_the_folder_leaves_its_sounds_within(here, place, quick):
    (here / "below").mkdir()
    inspect(place / "run", [here / "below/../long.wav"], here / "below/out")
    assert set(contents(here / "below")) == {f"out/{name}" for name in contents(here / "below/out")}
    assert len(list((here / "below/out/sounds").iterdir())) == 2 + len(CLASSES) + 2


# ---------------------------------------------------------------- the sounds


def test_each_template_is_a_sound_and_the_input_and_the_change_too(plain):
    expected = set()
    for one in plain.found:
        stem = f"{Path(one.subject.name).stem}-{one.subject.start_s:.2f}s"
        kinds = ["input", "reconstruction", "change", "fooled"]
        kinds += [f"template-{k}-{name}" for k, name in enumerate(one.classes)]
        expected |= {f"{stem}-{kind}.wav" for kind in kinds}
    assert {path.name for path in (plain.folder / "sounds").iterdir()} == expected


@pytest.mark.parametrize("which", ["plain", "evil"])
def test_sounds_are_loud_one_channel_of_16_bit_at_the_rate_of_the_model(which, request):
    for path in (request.getfixturevalue(which).folder / "sounds").iterdir():
        samples, file = read(path)
        assert (file.format, file.subtype, file.channels) == ("WAV", "PCM_16", 1)
        assert (file.samplerate, len(samples)) == (RATE, 5512)
        assert np.abs(samples.astype(int)).max() == pytest.approx(PEAK, abs=1)


@pytest.mark.parametrize("which", ["plain", "evil"])
def test_the_sounds_are_what_their_names_say(which, request):
    given = request.getfixturevalue(which)
    for one in given.found:
        stem = f"{safe_name(Path(one.subject.name).stem)}-{one.subject.start_s:.2f}s"
        x, step = one.subject.x[0, 0].numpy(), one.flips.step[0, 0].numpy()
        expected = {
            "input": x,
            "reconstruction": one.templates.reconstruction[0, 0].numpy(),
            "change": step,
            "fooled": x + step,
        }
        for k, name in enumerate(one.classes):
            expected[f"template-{k}-{safe_name(name)}"] = one.templates.A[0, k, 0].numpy()
        for kind, wave in expected.items():
            samples, _ = read(given.folder / "sounds" / f"{stem}-{kind}.wav")
            assert np.abs(samples - 32768 * loud(wave)).max() <= 0.5, kind


def test_of_many_classes_some_are_shown_and_all_are_written(place, tmp_path, quick):
    names = [f"bird {k}" for k in range(13)]
    torch.manual_seed(0)
    model = birdinv.networks.build("bird10", classes=13, shape=(1, 5512))
    heard = Hearing(RATE, 5512, 2756, [])
    save_model(
        tmp_path / "many", model.state_dict(), Description("bird10", model.sizes, names, heard)
    )
    given = looked(tmp_path / "many", [place / "long.wav"], tmp_path / "out")
    written = [p.name for p in (tmp_path / "out/sounds").iterdir() if "-template-" in p.name]
    assert len(written) == 13
    order = given.found[0].templates.logits[0].argsort(descending=True).tolist()
    labels = [value for key, value in given.page.attributes if key == "aria-label"]
    assert labels[2:12] == [names[k] for k in order[:10]]
    assert given.page.tags.count("audio") == 2 + 10 + 2


# ---------------------------------------------------------------- the numbers


def test_probabilities_sum_to_1_and_are_those_of_match_bias_and_gap(plain):
    for one in plain.numbers["inputs"]:
        classes = one["classes"]
        assert list(classes) == sorted(CLASSES)
        found = np.array([each["probability"] for each in classes.values()])
        scores = np.array([e["match"] + e["bias"] + e["gap"] for e in classes.values()])
        assert found.sum() == pytest.approx(1)
        np.testing.assert_allclose(found, np.exp(scores) / np.exp(scores).sum(), rtol=1e-4)
        assert one["guess"] == list(classes)[scores.argmax()]


def test_match_and_bias_are_the_logits_of_the_network_and_the_gap_is_rounding(place, plain):
    model, _ = load_model(place / "run")
    for one, numbers in zip(plain.found, plain.numbers["inputs"], strict=True):
        with torch.no_grad():
            logits = model(one.subject.x)[0].numpy()
        for logit, each in zip(logits, numbers["classes"].values(), strict=True):
            assert each["match"] + each["bias"] == pytest.approx(logit, abs=1e-5)
            assert abs(each["gap"]) < 1e-5 and abs(each["match"]) > 1e-6


def test_the_match_is_of_the_templates_that_autograd_gives(place, plain):
    model, _ = load_model(place / "run")
    for one, numbers in zip(plain.found, plain.numbers["inputs"], strict=True):
        x = one.subject.x
        rows = torch.autograd.functional.jacobian(model, x)[0, :, 0, 0]
        for row, each in zip(rows, numbers["classes"].values(), strict=True):
            match, norm = float(row @ x[0, 0]), float(row.norm())
            assert each["match"] == pytest.approx(match, abs=1e-5)
            assert each["norm"] == pytest.approx(norm, rel=1e-4)
            assert each["cosine"] == pytest.approx(match / norm / float(x.norm()), abs=1e-5)
        unit = torch.nn.functional.normalize(rows, dim=1)
        np.testing.assert_allclose(numbers["template_correlation"], unit @ unit.T, atol=1e-5)


def test_the_error_of_the_reconstruction_is_that_of_invert(place, plain):
    model, _ = load_model(place / "run")
    for one, numbers in zip(plain.found, plain.numbers["inputs"], strict=True):
        x = one.subject.x
        with torch.no_grad():
            rest = birdinv.invert(model, x) - x
        error = float(rest.square().sum() / x.square().sum())
        assert numbers["reconstruction_error"] == pytest.approx(error, rel=1e-5)
        assert numbers["length"] == pytest.approx(float(x.norm()))


def test_the_change_fools_the_network_and_half_of_it_does_not(place, plain):
    model, description = load_model(place / "run")
    for one, numbers in zip(plain.found, plain.numbers["inputs"], strict=True):
        again = look(model, description.classes, one.subject)
        x, step = again.subject.x, again.flips.step
        assert torch.equal(step, one.flips.step)
        with torch.no_grad():
            said = [int(model(x + share * step).argmax()) for share in (0, 0.5, 1)]
        names = [description.classes[k] for k in said]
        assert names == [numbers["guess"], numbers["guess"], numbers["flip"]["to"]]
        assert numbers["guess"] != numbers["flip"]["to"]
        assert numbers["flip"]["norm"] == pytest.approx(float(step.norm()), rel=1e-5)
        level = 20 * np.log10(float(step.norm() / x.norm()))
        assert numbers["flip"]["level_db"] == pytest.approx(level, abs=1e-3)


def test_within_the_distance_to_the_next_region_the_templates_stay(place, plain):
    model, _ = load_model(place / "run")
    generator = torch.Generator().manual_seed(0)
    for one, numbers in zip(plain.found, plain.numbers["inputs"], strict=True):
        x = one.subject.x.double()
        away = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        away *= 0.9 * numbers["boundary_distance"] / away.norm()
        here, there = (torch.autograd.functional.jacobian(model.double(), e) for e in (x, x + away))
        assert numbers["boundary_distance"] > 0
        torch.testing.assert_close(here, there)
        model.float()


def test_the_stretch_has_a_lower_bound_that_is_reached_and_an_upper_one(plain):
    bound = plain.numbers["lipschitz"]
    assert 0 < bound["lower"] <= bound["upper"] == pytest.approx(bound["layers"][-1]["so_far"])
    for one in plain.found:
        norm = float(torch.linalg.matrix_norm(one.templates.A[0, :, 0], ord=2))
        assert norm <= bound["lower"] * (1 + 1e-4)  # the templates here are a stretch, too
    assert plain.numbers["network"] == "bird10"


def test_a_network_that_is_never_fooled_is_said_to_be(place, tmp_path, quick):
    model, description = load_model(place / "run")
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    save_model(tmp_path / "deaf", model.state_dict(), description)
    given = looked(tmp_path / "deaf", [place / "long.wav"], tmp_path / "out")
    assert given.numbers["inputs"][0]["flip"] is None
    assert "No change was found that makes it say something else." in given.page.text
    assert not list((tmp_path / "out/sounds").glob("*-change.wav"))


def test_the_same_run_gives_the_same_numbers_and_sounds_byte_for_byte(
    place, plain, tmp_path, undrawn
):
    inputs = [place / "recordings/robin/robin0.wav", place / "long.wav"]
    inspect(place / "run", inputs, tmp_path / "again")
    files = [contents(folder) for folder in (plain.folder, tmp_path / "again")]
    for each in files:
        del each["inspection.html"]
    assert files[0] == files[1] and len(files[0]) == 1 + 2 * (2 + len(CLASSES) + 2)


def test_a_run_is_left_as_it_was(place, tmp_path, quick):
    before = contents(place / "run")
    inspect(place / "run", [place / "long.wav"], tmp_path / "out")
    assert contents(place / "run") == before


def test_the_model_folder_will_do_for_the_run(place, plain, tmp_path, undrawn):
    given = looked(
        place / "run/model", [place / "recordings/robin/robin0.wav", place / "long.wav"],
        tmp_path / "out",
    )  # fmt: skip
    assert given.numbers == plain.numbers


def test_steps_are_told_from_none_to_all(place, tmp_path, quick):
    told: list[tuple[int, int]] = []
    inputs = [place / "long.wav", place / EVIL_FILE]
    inspect(place / "run", inputs, tmp_path / "out", step=lambda *each: told.append(each))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


# ---------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("fails", ["write_page", "write_json", "by_frequency"])
def test_what_fails_half_way_leaves_nothing(place, tmp_path, monkeypatch, quick, fails):
    class Stop(Exception):
        pass

    def stop(*_args: Any, **_more: Any) -> None:
        assert list(tmp_path.iterdir())  # the sounds are there already, beside the output
        raise Stop

    monkeypatch.setattr(module, fails, stop)
    with pytest.raises(Stop):
        inspect(place / "run", [place / "long.wav"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_taken_is_refused_before_any_work(place, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(BirdinvError, match=r"out already exists; give -o a new folder"):
        inspect(place / "run", [place / "long.wav"], tmp_path / "out")
    assert contents(tmp_path) == {"out/mine.txt": b"mine"}


def test_an_empty_folder_may_be_the_output(place, tmp_path, quick):
    (tmp_path / "out").mkdir()
    path, *_ = inspect(place / "run", [place / "long.wav"], tmp_path / "out")
    assert path.is_file()


# ---------------------------------------------------------------- images


def png(path: Path, pixels: np.ndarray) -> Path:
    """A picture file of uint8 `[H, W]` or `[H, W, C]`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def pixels_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def seen(place: Path) -> Looked:
    """An image file whose name and the run's classes are markup."""
    png(place / EVIL_FILE.replace("wav", "png"), pixels_of(20, 20))
    described(place / "images/model", place / "evil-images", classes=EVIL_CLASSES)
    path = place / EVIL_FILE.replace("wav", "png")
    return looked(place / "evil-images", [path], place / "seen")


def test_an_image_file_is_seen_as_its_pixels_normalised(place, seen):
    x = normalise(torch.from_numpy(pixels_of(20, 20).astype(np.float32))[None, None])
    (one,) = seen.found
    assert torch.equal(one.subject.x, x) and one.subject.start_s is None
    assert set(contents(seen.folder)) == {"inspection.html", "inspection.json"}  # no sounds
    assert seen.numbers["inputs"][0]["start_s"] is None


def test_the_page_of_images_is_made_as_that_of_recordings(seen):
    page = seen.page
    sources = [value for key, value in page.attributes if key in ("src", "href", "srcset")]
    assert len(sources) == 5 and all(source.startswith("data:image/png") for source in sources)
    assert not {"script", "i", "link", "audio"} & set(page.tags)
    assert page.tags.count("figcaption") == page.tags.count("figure") == page.tags.count("img") == 5
    assert len([v for k, v in page.attributes if k == "alt" and v]) == 5
    assert all(name in page.text for name in EVIL_CLASSES)
    assert "your eyes" in page.text and "ears" not in page.text


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("given", ["L", "RGB", "RGBA", "P"])
def test_a_picture_has_the_channels_that_the_network_takes(tmp_path, mode, given):
    path = tmp_path / "a.png"
    picture = Image.fromarray(pixels_of(20, 22, 3)).convert(given)
    picture.save(path)
    channels = {"L": 1, "RGB": 3}[mode]
    description = Description("smallcnn", {"shape": [channels, 20, 22]}, ["a", "b"])
    (subject,) = image_subjects(tmp_path, description, [path], None)
    pixels = np.asarray(picture.convert(mode), np.float32).reshape(20, 22, channels)
    expected = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    assert torch.equal(subject.x, normalise(expected[None]))


def test_a_run_on_padded_images_takes_them_without_their_border(tmp_path):
    png(tmp_path / "a.png", pixels_of(16, 16))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(json.dumps({"config": {"pad": 2}}))
    description = Description("smallcnn", {"shape": [1, 20, 20]}, ["a", "b"])
    (subject,) = image_subjects(tmp_path / "run", description, [tmp_path / "a.png"], None)
    expected = np.pad(pixels_of(16, 16).astype(np.float32), 2)
    assert torch.equal(subject.x, normalise(torch.from_numpy(expected)[None, None]))
    with pytest.raises(BirdinvError, match="takes 16 × 16"):
        png(tmp_path / "b.png", pixels_of(20, 20))
        list(image_subjects(tmp_path / "run", description, [tmp_path / "b.png"], None))


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("wide.png", 4, "wide.png has 30 × 18 pixels, and the network takes 20 × 20; scale it"),
        ("blank.png", 4, "blank.png is of one colour: there is nothing to see"),
        ("text.png", 4, "text.png is no picture; give PNG or JPEG files"),
        ("cut.png", 4, "cut.png cannot be read: "),
        ("gone.png", 4, "gone.png cannot be read: "),
        ("folder", 4, "folder cannot be read: "),
    ],
)
def test_what_is_no_image_of_the_right_size_is_refused(here, run, name, code, said):
    png(here / "wide.png", pixels_of(18, 30))
    png(here / "blank.png", np.full((20, 20), 77, np.uint8))
    (here / "text.png").write_text("field notes")
    whole = png(here / "whole.png", pixels_of(20, 20)).read_bytes()
    (here / "cut.png").write_bytes(whole[: len(whole) // 2])
    (here / "folder").mkdir()
    got, out, err = run(f"inspect images {name} -o out")
    assert (got, out, err.count("\n")) == (code, "", 1) and said in err
    assert not (here / "out").exists()


def test_without_images_the_first_test_image_of_each_class_is_looked_at(
    place, tmp_path, tested, quick
):
    given = looked(place / "images", [], tmp_path / "out")
    names = ["lying", "standing", "leaning"]
    assert [one.subject.name for one in given.found] == [f"pictures test {n}" for n in (3, 0, 2)]
    assert [one["truth"] for one in given.numbers["inputs"]] == names
    for one, n in zip(given.found, (3, 0, 2), strict=True):
        assert torch.equal(one.subject.x, tested.inputs(np.array([n])))
    assert all(f"truly {name}" in given.page.text for name in names)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("inspect images whole.png --at 1", 2, "images, which have no --at; leave it out"),
        ("inspect images --at 0", 2, "was trained on images, which have no --at; leave it out"),
        ("inspect images/model", 1, "says of no data set where to find test images; give images"),
        ("inspect run", 2, "run was trained on recordings: give one or more to look at it with"),
        ("inspect run long.wav --split test", 2, "--split is for --compare; leave it out"),
        ("inspect run long.wav --samples 9", 2, "--samples is for --compare; leave it out"),
        ("inspect run long.wav --at -1", 2, "--at is -1; give seconds from the start"),
        ("inspect", 2, "give a RUN, and recordings to look at it with, or --compare"),
        ("inspect store long.wav", 1, "expected a model folder or a run made by"),
        ("inspect gone long.wav", 1, "gone does not exist; expected a model folder or a run"),
        ("inspect run long.wav --at noon", 2, "'noon' is not a valid float"),
    ],
)
def test_wrong_usage_is_a_sentence(here, run, line, code, said):
    png(here / "whole.png", pixels_of(20, 20))
    got, out, err = run(f"{line} -o out")
    assert (got, out) == (code, "") and said in err and "Traceback" not in err
    assert not (here / "out").exists()


def test_the_output_has_to_be_named(here, run):
    code, _, err = run("inspect run long.wav")
    assert code == 2 and "Missing option '-o'" in err


# ---------------------------------------------------------------- the command


def test_the_command_says_of_each_input_what_it_is_and_what_fools_it(here, run, quick):
    code, out, err = run("inspect run long.wav recordings/wren/wren1.wav -o out --at 0.5")
    numbers = json.loads((here / "out/inspection.json").read_text("utf-8"))
    assert (code, err) == (0, "")
    *lines, last = out.splitlines()
    assert last == "page: out/inspection.html" and len(lines) == 2
    assert max(map(len, out.splitlines())) <= 80
    for line, one, name in zip(lines, numbers["inputs"], ("long", "wren1"), strict=True):
        share = 100 * one["classes"][one["guess"]]["probability"]
        assert line.startswith(f"{name}.wav at 0.50 s: {one['guess']} ({share:.1f} %), ")
        level = f"{one['flip']['level_db']:.1f}"
        assert f"{one['flip']['to']} after a change of {level} dB" in line.replace("−", "-")


def test_the_command_looks_at_images_too(here, run, tested, quick):
    code, out, err = run("inspect images -o out")
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    assert [line.split(":")[0] for line in out.splitlines()] == [
        *("pictures test 3", "pictures test 0", "pictures test 2", "page"),
    ]


def test_one_that_cannot_be_read_among_others_is_3_and_a_note(here, run, quick):
    (here / "text.wav").write_text("field notes")
    code, out, err = run("inspect run long.wav text.wav recordings/wren/wren1.wav -o out")
    assert code == 3 and err.count("\n") == 1
    assert err.startswith("birdinv: note: text.wav cannot be looked at: not an audio file")
    numbers = json.loads((here / "out/inspection.json").read_text("utf-8"))
    assert [one["name"] for one in numbers["inputs"]] == ["long.wav", "wren1.wav"]
    assert "text.wav" not in out


def test_a_taken_output_is_1_and_stays(here, run):
    shutil.copytree(here / "run", here / "mine")
    before = contents(here / "mine")
    code, out, err = run("inspect run long.wav -o mine")
    assert (code, out, err.count("\n")) == (1, "", 1) and "mine already exists" in err
    assert contents(here / "mine") == before


def test_from_python_what_cannot_be_looked_at_raises(place, tmp_path):
    later = described(place / "run/model", tmp_path / "model", version=99)
    with pytest.raises(BirdinvError, match="version 99"):
        inspect(later, [place / "long.wav"], tmp_path / "out")
    with pytest.raises(NothingReadable, match=r"gone\.wav cannot be looked at"):
        inspect(place / "run", [tmp_path / "gone.wav"], tmp_path / "out")
