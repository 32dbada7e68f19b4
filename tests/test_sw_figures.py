"""Pictures of SW from kept networks: what they show, what they say is missing, what is expected."""

import numpy as np
import pytest
import torch
from made_up import cell_of, edit
from matplotlib.colors import to_hex
from test_image_training import make_task, pictures
from test_rendering import lines_of
from torch import nn

import birdinv
from birdinv.data.images import Images
from birdinv.errors import BirdinvError
from birdinv.files import write_json
from birdinv.networks.saved import Description, save_model
from birdinv.reproduce import figures, running, sw_figures
from birdinv.reproduce.cells import Cell, cells
from birdinv.reproduce.collected import collect
from birdinv.reproduce.curves import BLUE, VERMILION
from birdinv.reproduce.figures import write_figures
from birdinv.reproduce.rendering import cell_line, write_readme
from birdinv.reproduce.results import load_result
from birdinv.reproduce.sw_figures import capsule_figures, unpooling_figures
from birdinv.reproduce.tables import TABLES
from birdinv.training import images as reading
from birdinv.training import scoring
from birdinv.training.images import ImageSamples
from birdinv.training.scoring import reconstruction_of_run

CLASSES = [str(i) for i in range(10)]
DIGITS, DOTS = 4, 32  # classes, and images of them all
KINDS = ("upsampling", "unpooling")
WINDOWS = (2, 4, 8, 16)


def fresh(cell: Cell, seed: int = 0) -> nn.Module:
    """The network of a cell of padded digits, with weights of chance."""
    torch.manual_seed(seed)
    config = cell.config(seed)
    model = birdinv.networks.build(config.network, classes=10, shape=(1, 32, 32), **config.options)
    return model.eval().requires_grad_(False)


def keep(cell: Cell, folder, model: nn.Module | None = None, seed: int = 0) -> nn.Module:
    """Keeps a network as that of a run of `cell`."""
    model = fresh(cell, seed) if model is None else model
    run = folder / "runs" / cell.table.name / cell.name / f"seed-{seed}"
    description = Description(cell.config(0).network, model.sizes, CLASSES)
    save_model(run / "model", model.state_dict(), description)
    info = {"dataset": "mnist", "root": str(folder), "config": cell.config(seed).to_dict()}
    write_json(run / "run.json", info)
    return model


def draw(table: str, folder) -> list:
    return write_figures(cells(table), results=folder, runs=folder / "runs", root=folder)


def only(drawn) -> tuple:
    """The one figure, and its name."""
    ((name, figure),) = drawn
    return name, figure


def shown(axis) -> np.ndarray:
    (image,) = axis.images
    return np.asarray(image.get_array())


def words(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """Padded to 32 × 32, less the mean, over the largest magnitude."""
    x = np.pad(pixels.astype(np.float64), [(0, 0), (0, 0), (2, 2), (2, 2)])
    x -= x.mean(axis=(1, 2, 3), keepdims=True)
    x /= np.abs(x).max(axis=(1, 2, 3), keepdims=True)
    return torch.from_numpy(x.astype(np.float32))


@pytest.fixture
def digits(monkeypatch) -> np.ndarray:
    """Blocks of 2 × 2 pixels on black, of classes in descending order, in place of MNIST.

    They are at even places, at least 4 pixels from the border, so that one moved by 3 is whole.
    """
    rng = np.random.default_rng(0)
    pixels = np.zeros((DOTS, 1, 28, 28), np.uint8)
    for image, (row, column) in zip(pixels[:, 0], rng.integers(2, 12, (DOTS, 2)), strict=True):
        image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 200
    labels = np.repeat(np.arange(DIGITS)[::-1], DOTS // DIGITS)

    def read(name, root, split):
        assert (name, split) == ("mnist", "test")
        return Images(pixels, labels)

    monkeypatch.setattr(sw_figures, "read_images", read)
    monkeypatch.setattr(sw_figures, "_DIGITS", DOTS)
    return pixels


def first_of_each(pixels: np.ndarray) -> torch.Tensor:
    """The first of each class of `digits`, from 0 on, as the network sees them."""
    return normalised(pixels[:: DOTS // DIGITS][::-1])


# Figure 2 --------------------------------------------------------------------------------------


def test_figure_2_shows_what_each_kept_network_makes_of_a_digit_of_each_class(tmp_path, digits):
    group = cells("sw-figure2")
    models = {
        name: keep(cell_of("sw-figure2", name, None), tmp_path)
        for name in ("upsampling-4", "unpooling-4", "unpooling-16")
    }
    name, figure = only(unpooling_figures(group, tmp_path / "runs", tmp_path))
    assert name == "unpooling" and "mnist, no labels, preset sw" in figure.get_suptitle()
    x = first_of_each(digits)
    axes = np.array(figure.axes).reshape(5, 2, DIGITS)
    for side, kind in enumerate(KINDS):
        assert kind in axes[0, side, DIGITS // 2].get_title()
        for axis, digit in zip(axes[0, side], x, strict=True):
            assert np.allclose(shown(axis), digit[0], atol=1e-6)
        for line, window in enumerate(WINDOWS, 1):
            row = axes[line, side]
            if f"{kind}-{window}" not in models:
                assert words(row[0]) == [f"{window} × {window}: not run"] and not any(
                    axis.images for axis in row
                )
                continue
            made = models[f"{kind}-{window}"](x, decode=True).x_tilde
            for axis, digit in zip(row, made, strict=True):
                assert np.allclose(shown(axis), digit[0], atol=1e-5) and not axis.texts
            left = 100 * float(((made - x) ** 2).sum() / (x**2).sum())
            assert row[0].get_ylabel() == f"{window} × {window}\n{left:.3g} % left"
    assert axes[0, 0, 0].get_ylabel().strip() == "digit"


def test_figure_2_of_one_row_says_not_run_of_no_network_that_is_kept(tmp_path, digits):
    """As every cell draws it anew once it has run."""
    for window in (2, 8):
        keep(cell_of("sw-figure2", f"unpooling-{window}", None), tmp_path)
    asked = cells("sw-figure2", rows=["unpooling-8"])
    _, figure = only(unpooling_figures(asked, tmp_path / "runs", tmp_path))
    axes = np.array(figure.axes).reshape(5, 2, DIGITS)
    assert [bool(axes[line, 1, 0].images) for line in (1, 2, 3, 4)] == [True, False, True, False]


# Figure 3 --------------------------------------------------------------------------------------


def equivariant(cell: Cell) -> nn.Module:
    """A network of figure 3 whose first plane is the input, and whose others are empty."""
    model = fresh(cell)
    for weight in model.parameters():
        weight.zero_()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            middle = module.kernel_size[0] // 2
            module.weight[0, 0, middle, middle] = 1.0
    return model


def capsules(tmp_path) -> tuple[dict, object]:
    """The panels of figure 3 of an equivariant network by the first line of their titles."""
    cell = cell_of("sw-figure3", "soft", None)
    keep(cell, tmp_path, equivariant(cell))
    figure = dict(capsule_figures([cell], tmp_path / "runs", tmp_path))["what-where"]
    return {axis.get_title().split("\n")[0]: axis for axis in figure.axes}, figure


def changes(axis) -> dict[int, np.ndarray]:
    """By sign how much greater each dot is for the moved digit, sorted by colour."""
    found = {}
    for dots in axis.collections:
        (colour,) = {to_hex(each) for each in dots.get_edgecolors()}
        still, moved = np.asarray(dots.get_offsets()).T
        found[{BLUE: 1, VERMILION: -1}[colour.upper()]] = moved - still
    return found


def expected(axis) -> dict[int, float]:
    """By sign how far above the diagonal the dotted line is."""
    found = {}
    for line in axis.lines:
        (x, y), slope = line.get_xy1(), line.get_slope()
        assert slope == 1 and line.get_linestyle() == ":"
        found[{BLUE: 1, VERMILION: -1}[to_hex(line.get_color()).upper()]] = y - x
    return found


def test_a_digit_moved_by_3_pixels_moves_where_as_the_dotted_lines_say(tmp_path, digits):
    """16 places of 2 pixels go from −1 to 1, so 3 pixels are 3/2 · 2/15."""
    panels, _ = capsules(tmp_path)
    assert list(panels) == [
        *("what, horizontally", "where x, horizontally", "where y, horizontally"),
        *("what, vertically", "where x, vertically", "where y, vertically"),
    ]
    for title, axis in panels.items():
        along = title in ("where x, horizontally", "where y, vertically")
        step = 0.2 if along else 0.0
        lines, dots = expected(axis), changes(axis)
        for sign in (1, -1):
            assert lines[sign] == pytest.approx(sign * step, abs=1e-6), title
            assert np.abs(dots[sign] - sign * step).max() < 1e-4, title
        assert f"moved by {step:+.3f} and {-step:+.3f}" in axis.get_title() or not along


def test_where_spreads_over_the_map_as_the_digits_do(tmp_path, digits):
    """So that to stay put and to move alike is no matter of a where that is always the same."""
    panels, _ = capsules(tmp_path)
    rows, columns = (digits[:, 0].any(axis=way).argmax(axis=1) for way in (2, 1))
    for title, at in (("where x, vertically", columns), ("where y, horizontally", rows)):
        still = np.asarray(panels[title].collections[0].get_offsets())[:, 0]
        place = (at + 2) / 2  # of 16, of padded digits
        assert np.allclose(still, 2 * place / 15 - 1, atol=1e-4) and still.std() > 0.2
    what = np.asarray(panels["what, horizontally"].collections[0].get_offsets())
    assert np.allclose(what, 1.0, atol=0.01)  # the first plane, the only one that is not empty


def test_a_panel_has_two_dots_a_digit_and_a_legend_that_names_them(tmp_path, digits):
    panels, figure = capsules(tmp_path)
    for axis in panels.values():
        assert [len(dots.get_offsets()) for dots in axis.collections] == [DOTS, DOTS]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        *("moved by +3", "moved by -3", "as the digit moved, +3", "as the digit moved, -3"),
    ]
    assert f"{DOTS} test digits and the same moved by 3 pixels" in figure.get_suptitle()
    assert "one feature plane of 32" in figure.get_suptitle()


# Figure 4 --------------------------------------------------------------------------------------


def test_figure_4_has_digits_and_what_becomes_of_them_moved_both_ways(tmp_path, digits):
    cell = cell_of("sw-figure3", "soft", None)
    model = keep(cell, tmp_path)
    figure = dict(capsule_figures([cell], tmp_path / "runs", tmp_path))["moved"]
    axes = np.array(figure.axes).reshape(4, DIGITS)
    x = first_of_each(digits)
    right, left = (torch.roll(x, pixels, dims=3) for pixels in (3, -3))
    rows = [x, *(model(each, decode=True).x_tilde for each in (x, right, left))]
    for line, pictures_ in zip(axes, rows, strict=True):
        for axis, picture in zip(line, pictures_, strict=True):
            assert np.allclose(shown(axis), picture[0], atol=1e-5)
    names = [line[0].get_ylabel().replace("\n", " ") for line in axes]
    assert names == ["digit", "rebuilt", "moved +3, rebuilt", "moved -3, rebuilt"]


# All of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["sw-figure2", "sw-figure3"])
def test_the_same_networks_give_the_same_bytes(table, tmp_path, digits, monkeypatch):
    monkeypatch.setattr(figures, "_DPI", 50)  # quicker
    keep(cells(table)[0], tmp_path)
    paths = draw(table, tmp_path)
    before = [path.read_bytes() for path in paths]
    assert len(paths) == {"sw-figure2": 1, "sw-figure3": 2}[table]
    assert all(content.startswith(b"\x89PNG") for content in before)
    assert {path.parent for path in paths} == {tmp_path / table / "figures"}
    assert draw(table, tmp_path) == paths and [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize("table", ["sw-figure2", "sw-figure3"])
def test_where_no_network_is_kept_there_is_a_command_and_no_image_is_read(
    table, tmp_path, monkeypatch
):
    monkeypatch.setattr(sw_figures, "read_images", lambda *_: pytest.fail("it was read"))
    keep(cells(table, budget="smoke")[0], tmp_path)  # another budget
    sentence = (
        f"there is nothing to draw of {table}.*no network is kept.*`birdinv reproduce {table}"
    )
    with pytest.raises(BirdinvError, match=sentence):
        draw(table, tmp_path)
    assert not (tmp_path / table).exists()


@pytest.mark.parametrize("table", ["sw-figure2", "sw-figure3"])
def test_a_network_of_other_settings_is_not_drawn(table, tmp_path, digits):
    cell = cells(table)[0]
    keep(cell, tmp_path)
    run = tmp_path / "runs" / table / cell.name / "seed-0" / "run.json"
    edit(run, lambda info: info["config"].update(lambda_rec=3.0))
    with pytest.raises(BirdinvError, match="nothing to draw"):
        draw(table, tmp_path)


@pytest.mark.parametrize("table", ["sw-figure2", "sw-figure3"])
def test_a_kept_network_without_a_decoder_is_refused_in_a_sentence(table, tmp_path, digits):
    cell = cells(table)[0]
    keep(cell, tmp_path)
    folder = tmp_path / "runs" / table / cell.name / "seed-0" / "model"
    other = birdinv.networks.build("smallcnn", classes=10, shape=(1, 32, 32))
    save_model(folder, other.state_dict(), Description("smallcnn", other.sizes, CLASSES))
    with pytest.raises(BirdinvError, match="smallcnn, which has no decoder; delete its run and"):
        draw(table, tmp_path)


# What is left of the images --------------------------------------------------------------------


@pytest.fixture
def noise(monkeypatch) -> np.ndarray:
    """300 test images, more than are rebuilt at once, of a few white pixels each to many."""
    share = np.linspace(0.02, 0.5, 300).reshape(-1, 1, 1, 1)
    white = np.random.default_rng(1).random((300, 1, 28, 28)) < share
    pixels = 255 * white.astype(np.uint8)
    images = Images(pixels, np.arange(300) % 10)
    monkeypatch.setattr(reading, "read_images", lambda name, root, split: images)
    assert len(images) > scoring.ERROR_SAMPLES
    return pixels


@pytest.mark.parametrize("row", ["unpooling-4", "upsampling-16"])
def test_what_is_left_is_that_of_all_images_together(row, tmp_path, noise):
    cell = cell_of("sw-figure2", row, None)
    model = keep(cell, tmp_path)
    run = tmp_path / "runs" / "sw-figure2" / cell.name / "seed-0"
    x = normalised(noise)
    x_tilde = torch.cat([model(part, decode=True).x_tilde for part in x.split(50)])
    error, whole = (each.double().square().flatten(1).sum(dim=1) for each in (x - x_tilde, x))
    by_hand = float(error.sum() / whole.sum())
    assert reconstruction_of_run(run, "test", tmp_path) == pytest.approx(by_hand, rel=1e-5)
    assert by_hand != pytest.approx(float((error / whole).mean()), rel=1e-4)


def test_a_network_without_a_decoder_leaves_nothing_to_measure(tmp_path):
    model = birdinv.networks.build("smallcnn", classes=10, shape=(1, 28, 28))
    save_model(
        tmp_path / "run" / "model",
        model.state_dict(),
        Description("smallcnn", model.sizes, CLASSES),
    )
    write_json(tmp_path / "run" / "run.json", {"dataset": "mnist", "config": {}})
    with pytest.raises(BirdinvError, match="run is smallcnn, which has no decoder"):
        reconstruction_of_run(tmp_path / "run", "test", tmp_path)


@pytest.fixture
def looks(monkeypatch) -> list[str]:
    """Trains on small pictures where a cell asks for MNIST; gives the splits that are judged."""
    looks: list[str] = []

    def task(_name, _root, labels, draw, _pad):
        found = make_task()
        found.identity.update(labels=labels, draw=draw, split_hash=f"hash {draw}")
        return found

    def judged(_info, split, _root):
        looks.append(split)
        return ImageSamples(pictures(30, seed={"valid": 8, "test": 9}[split]), np.arange(30))

    monkeypatch.setattr(running, "images_task", task)
    monkeypatch.setattr(scoring, "samples_to_judge", judged)
    return looks


def test_a_cell_of_a_figure_leaves_what_is_left_and_no_accuracy(tmp_path, looks):
    (cell,) = cells("sw-figure2", rows=["unpooling-4"], budget="smoke")
    places = {"root": tmp_path, "results": tmp_path / "results", "runs": tmp_path / "runs"}
    result = running.run_cell(cell, [0, 1], **places, device="cpu")
    assert looks == ["valid", "test"] * 2
    assert load_result(cell, cell.file(places["results"])) == result
    tests = []
    for entry in result["seeds"]:
        assert entry.keys() == {
            *("seed", "valid_reconstruction", "test_reconstruction"),
            *("epoch", "seconds", "curve"),
        }
        run = places["runs"] / "sw-figure2" / cell.name / f"seed-{entry['seed']}"
        for split in ("valid", "test"):
            left = reconstruction_of_run(run, split)
            assert entry[f"{split}_reconstruction"] == round(left, 6) and left > 0
        assert entry["valid_reconstruction"] != entry["test_reconstruction"]
        tests.append(100 * entry["test_reconstruction"])
    mean, std = np.mean(tests), np.std(tests, ddof=1)
    assert cell_line(cell, result) == (
        f"unpooling-4, no labels: left of test images {mean:.2f} ± {std:.2f} % over 2 seeds"
    )
    text = write_readme(places["results"]).read_text("utf-8")
    (line,) = lines_of(text, "unpooling-4", "all")
    assert line[2:4] == ["–", f"{mean:.2f} ± {std:.2f}"]
    assert line[5:9] == ["0-1 (n = 2)", "sw, smoke", "10 steps", "–"]
    assert "Unit: what is left of the inputs, Σ‖x − x̃‖² / Σ‖x‖², in %." in text
    assert "No result" not in text


@pytest.mark.parametrize(("left", "well"), [(0.0, True), (1.7, True), (-0.1, False), ("", False)])
def test_more_may_be_left_than_there_was_but_not_less_than_nothing(tmp_path, looks, left, well):
    (cell,) = cells("sw-figure2", rows=["unpooling-2"], budget="smoke")
    results = tmp_path / "results"
    places = {"root": tmp_path, "results": results, "runs": tmp_path / "runs"}
    running.run_cell(cell, [0], **places, device="cpu")
    edit(cell.file(results), lambda r: r["seeds"][0].update(test_reconstruction=left))
    found, refused = collect(TABLES["sw-figure2"], results)
    assert (len(found), len(refused)) == ((1, 0) if well else (0, 1))
    if well:
        assert found[0].scores("test") == {0: pytest.approx(100 * left)}
    else:
        assert "seed 0: its reconstruction is not from 0 to" in refused[0]
