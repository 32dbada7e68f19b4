"""Figures are made of what is at hand, say what is not, and come out the same every time."""

import re
import shlex

import numpy as np
import pytest
import torch
from birdinv_cli.reproduce import command as reproduce
from click.testing import CliRunner
from made_up import LAYERS, cell_of, curve_of, edit, write_result
from matplotlib.colors import to_hex

import birdinv
from birdinv.data.images import Images
from birdinv.errors import BirdinvError
from birdinv.files import write_json
from birdinv.networks.layers import normalise
from birdinv.networks.saved import Description, save_model
from birdinv.reproduce import reconstructions
from birdinv.reproduce.cells import cells
from birdinv.reproduce.collected import at_hand
from birdinv.reproduce.curves import BLUE, VERMILION, curve
from birdinv.reproduce.figures import has_figures, write_figures
from birdinv.reproduce.learning import (
    ablation_figures,
    baseline_figures,
    layer_figures,
    training_figures,
)
from birdinv.reproduce.tables import TABLES


def draw(cells_, tmp_path, root=None):
    return write_figures(cells_, results=tmp_path, runs=tmp_path / "runs", root=root)


def drawn(function, cells_, results):
    return dict(function(cells_, at_hand(cells_, results)))


def texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


def brightness(line):
    return sum(int(to_hex(line.get_color())[i : i + 2], 16) for i in (1, 3, 5))


def panel(figure, title):
    return next(axis for axis in figure.axes if axis.get_title().startswith(title))


# Curves ----------------------------------------------------------------------------------------


def test_a_curve_is_mean_and_range_over_the_epochs_that_every_seed_has():
    seeds = [
        {"curve": [{"epoch": 1, "a": 1.0}, {"epoch": 2, "a": 4.0}, {"epoch": 3, "a": 5.0}]},
        {"curve": [{"epoch": 1, "a": 3.0}, {"epoch": 2, "a": float("nan")}, {"epoch": 3, "a": 9}]},
    ]
    found = curve({"seeds": seeds}, "a")
    assert found.epochs.tolist() == [1, 3]
    assert found.mean.tolist() == [2, 7]
    assert found.low.tolist() == [1, 5] and found.high.tolist() == [3, 9]


@pytest.mark.parametrize("entries", [None, [], {}, "x", [1, "y"], [{"epoch": "1", "a": 2}]])
def test_what_is_no_curve_is_an_empty_one(entries, tmp_path):
    assert len(curve({"seeds": [{"curve": entries}]}, "a").epochs) == 0
    cell = cell_of("ms-table3", "cnn-lambda", 4000)
    write_result(cell, tmp_path, [0.7], curves=[entries])
    assert len(draw([cell], tmp_path)) == 2  # of empty panels


# MS fig. 2 and 3 -------------------------------------------------------------------------------


def test_layers_are_blue_for_lambda_and_red_for_gamma_and_darker_inside(tmp_path):
    group = cells("ms-table3", labels=[4000])
    for row, growth in (("cnn-lambda", 0.5), ("cnn-gamma", 30.0), ("wide-resnet-gamma", 2.0)):
        curves = [curve_of(3, growth=growth)]
        write_result(cell_of("ms-table3", row, 4000), tmp_path, [0.7], curves=curves)
    figure = drawn(layer_figures, group, tmp_path)["layers"]
    blue, red = panel(figure, "cnn, multiscale"), panel(figure, "cnn, global")
    for axis, channel in ((blue, slice(5, 7)), (red, slice(1, 3))):
        assert axis.get_yscale() == "log"
        assert [line.get_label() for line in axis.lines] == list(LAYERS)
        shades = [to_hex(line.get_color()) for line in axis.lines]
        strongest = [max(shade[1:3], shade[3:5], shade[5:7]) for shade in shades]
        assert [shade[channel] for shade in shades] == strongest
        levels = [brightness(line) for line in axis.lines]
        assert levels == sorted(levels, reverse=True) and len(set(levels)) == 3
    assert red.lines[2].get_ydata().tolist() == pytest.approx([0.3, 9.0, 270.0])
    assert blue.get_ylim() == red.get_ylim() and blue.get_ylim()[1] > 270
    missing = panel(figure, "wide-resnet, multiscale")
    assert not missing.lines and [text.get_text() for text in missing.texts] == ["not run"]
    assert "deep-resnet" not in " ".join(texts(figure))
    assert "cifar10, 4000 labels, preset ms, budget cpu (" in figure.get_suptitle()


def test_training_shows_what_the_result_holds(tmp_path):
    cell = cell_of("ms-table2", "cnn-gamma", 1000)
    curves = [curve_of(4, level=0.3), curve_of(4, level=0.5)]
    write_result(cell, tmp_path, [0.7, 0.8], curves=curves)
    figure = drawn(training_figures, [cell], tmp_path)["training-cnn-gamma"]
    losses, errors, accuracy = figure.axes
    by_name = {line.get_label(): line.get_ydata().tolist() for line in losses.lines}
    assert by_name["cross-entropy"] == [1, 1 / 2, 1 / 3, 1 / 4]
    assert by_name["entropy"] == pytest.approx([0.8 / i for i in (1, 2, 3, 4)])
    assert len(errors.lines) == 3
    assert accuracy.lines[0].get_ydata().tolist() == pytest.approx([40, 41, 42, 43])
    assert figure.get_suptitle().startswith("cnn-gamma, mean over seeds 0-1\nsvhn, 1000 labels")


@pytest.mark.parametrize("points", [1, 2, 400])
def test_few_points_are_marked(points, tmp_path):
    cell = cell_of("ms-table3", "cnn-lambda", 4000)
    write_result(cell, tmp_path, [0.7], points=points)
    for figure in (
        *drawn(training_figures, [cell], tmp_path).values(),
        *drawn(layer_figures, [cell], tmp_path).values(),
    ):
        markers = {line.get_marker() in ("", "None") for axis in figure.axes for line in axis.lines}
        assert markers == {points == 400}


def test_an_objective_without_entropy_has_no_such_curve(tmp_path):
    cell = cell_of("ms-table3", "cnn-lambda", 4000)
    plain = [{k: v for k, v in entry.items() if k != "entropy"} for entry in curve_of(3)]
    write_result(cell, tmp_path, [0.7], curves=[plain])
    (figure,) = drawn(training_figures, [cell], tmp_path).values()
    assert [line.get_label() for line in figure.axes[0].lines] == ["cross-entropy"]


# INV fig. 2 ------------------------------------------------------------------------------------


def test_the_best_row_is_picked_on_validation(tmp_path):
    group = cells("inv-figure2")
    for row, test, valid in (
        ("alpha1-beta0", 0.50, 0.99),
        ("alpha0.7-beta0.5", 0.60, 0.51),  # the best on the test set
        ("alpha0.7-beta0.3", 0.40, 0.58),
    ):
        cell = cell_of("inv-figure2", row, None)
        write_result(cell, tmp_path, [test, test], valid=[valid, valid - 0.1])
    figure = drawn(baseline_figures, group, tmp_path)["learning"]
    assert panel(figure, "baseline").get_title().endswith("α = 1, β = 0")
    best = panel(figure, "best other")
    assert best.get_title().endswith("α = 0.7, β = 0.3")
    assert {line.get_label(): line.get_color() for line in best.lines} == {
        "training": BLUE,
        "validation": VERMILION,
    }
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(names) == 10 and sum("not run" in name for name in names) == 7
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(legend) == ["ours, mean ± std", "published"]


def test_nothing_is_published_of_another_data_set(tmp_path):
    group = cells("inv-figure2", dataset="bird_kenya6")
    write_result(group[1], tmp_path, [0.4])
    figure = drawn(baseline_figures, group, tmp_path)["learning"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["ours"]
    assert [text.get_text() for text in panel(figure, "baseline").texts] == ["not run"]


# The ablation ----------------------------------------------------------------------------------


def test_each_objective_has_its_colour_in_both_panels_and_a_band(tmp_path):
    group = cells("mnist-ablation")
    for row, level in (("entropy", 0.8), ("global", 0.9), ("entropy-balance", 0.97)):
        curves = [curve_of(2, level=level), curve_of(2, level=level - 0.1)]
        cell = cell_of("mnist-ablation", row, 50)
        write_result(cell, tmp_path, [level, level], curves=curves)
    figure = drawn(ablation_figures, group, tmp_path)["ablation"]
    plain, balanced = (panel(figure, title) for title in ("without", "with balance"))
    colours = {line.get_label(): line.get_color() for line in plain.lines}
    assert list(colours) == ["entropy", "global"] and len(set(colours.values())) == 2
    assert balanced.lines[0].get_color() == colours["entropy"]
    assert plain.lines[0].get_ydata().tolist() == pytest.approx([75, 76])
    band = plain.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (pytest.approx(70), pytest.approx(81))
    low, high = plain.get_ylim()
    assert low < 70 and 98 < high < 100
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(colours)


@pytest.mark.parametrize("level", [0.0, 0.98])
def test_no_accuracy_is_off_the_scale(level, tmp_path):
    cell = cell_of("mnist-ablation", "entropy", 50)
    entries = [{"epoch": i, "valid_accuracy": level + 0.01 * i} for i in (0, 1, 2)]
    write_result(cell, tmp_path, [1.0], curves=[entries])
    (figure,) = drawn(ablation_figures, [cell], tmp_path).values()
    low, high = figure.axes[0].get_ylim()
    assert 0 <= low < high <= 99.9
    assert len(draw([cell], tmp_path)) == 1


# INV fig. 1 ------------------------------------------------------------------------------------


@pytest.fixture
def test_images(monkeypatch):
    """Twenty noisy images of ten classes, in descending order, in place of those of MNIST."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28), np.uint8)
    labels = np.repeat(np.arange(9, -1, -1), 2)

    def read(name, root, split):
        assert (name, split) == ("mnist", "test")
        return Images(pixels, labels)

    monkeypatch.setattr(reconstructions, "read_images", read)
    return pixels


def keep(cell, tmp_path, seed, shape=(1, 28, 28)):
    """Keeps a network with weights of chance as that of a run."""
    torch.manual_seed(seed)
    network, options = cell.row.settings["network"], cell.row.settings["options"]
    model = birdinv.networks.build(network, classes=10, shape=shape, **options)
    folder = tmp_path / "runs" / cell.table.name / cell.name / f"seed-{seed}" / "model"
    description = Description(network, model.sizes, [str(i) for i in range(10)])
    save_model(folder, model.state_dict(), description)
    write_json(folder.parent / "run.json", {"config": cell.config(seed, threads=2).to_dict()})
    return model.eval()


def test_reconstructions_are_those_of_the_lowest_seed_of_each_pooling(tmp_path, test_images):
    group = cells("inv-table2", labels=[50])
    mean, inhibitor = (
        cell_of("inv-table2", f"smallcnn-{pooling}", 50) for pooling in ("mean", "inhibitor")
    )
    keep(mean, tmp_path, 10)
    models = {"mean": keep(mean, tmp_path, 2), "inhibitor": keep(inhibitor, tmp_path, 0)}
    found = dict(reconstructions.reconstruction_figures(group, tmp_path / "runs", tmp_path))
    assert list(found) == ["reconstruction-smallcnn"]
    figure = found["reconstruction-smallcnn"]
    assert len(figure.axes) == 8 * 4
    shown = torch.from_numpy(test_images[18::-2][:8].astype(np.float32))  # classes 0 to 7
    x = normalise(shown)
    heads = [axis.get_title() for axis in figure.axes[:4]]
    for column, (pooling, seed) in {1: ("mean", 2), 3: ("inhibitor", 0)}.items():
        x_hat = birdinv.invert(models[pooling], x).detach()
        error = float(((x_hat - x) ** 2).mean())
        assert heads[column] == f"{pooling}, seed {seed}\nR/D = {error:.3g}"
        for i in range(8):
            (image,) = figure.axes[4 * i + column].images
            assert np.allclose(image.get_array(), x_hat[i, 0].numpy(), atol=1e-6)
            low, high = image.get_clim()
            assert low == -high and high == pytest.approx(float(x_hat[i].abs().max()), rel=1e-4)
    assert heads[2] == "max\nnot run" and not figure.axes[2].images
    assert heads[0] == f"original\n(grey: {float((x**2).mean()):.3g})"


def test_each_network_has_its_file(tmp_path, test_images):
    for row in ("smallcnn-max", "resnet2-32-mean"):
        keep(cell_of("inv-table2", row, 50), tmp_path, 0)
    keep(cell_of("inv-table2", "smallcnn-max-supervised", 1000), tmp_path, 0)
    paths = draw(cells("inv-table2"), tmp_path, tmp_path)
    assert [path.relative_to(tmp_path / "inv-table2" / "figures").name for path in paths] == [
        "reconstruction-smallcnn.mnist-50.few-labels.cpu.png",
        "reconstruction-resnet2-32.mnist-50.few-labels.cpu.png",
        "reconstruction-smallcnn.mnist-1000.inv-supervised.cpu.png",
    ]
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in draw(cells("inv-table2"), tmp_path, tmp_path)] == before


def test_a_network_of_other_images_is_refused(tmp_path, test_images):
    cell = cell_of("inv-table2", "smallcnn-mean", 50)
    keep(cell, tmp_path, 0, (3, 32, 32))
    with pytest.raises(BirdinvError, match=r"takes inputs of shape \[3, 32, 32\].*\[1, 28, 28\]"):
        draw([cell], tmp_path, tmp_path)


def test_networks_without_the_data_set_say_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.delenv("BIRDINV_DATA", raising=False)
    cell = cell_of("inv-table2", "smallcnn-mean", 50)
    keep(cell, tmp_path, 0)
    with pytest.raises(BirdinvError, match="--root"):
        draw([cell], tmp_path)


# Files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [table for table in TABLES if has_figures(table)])
def test_with_nothing_at_hand_there_is_a_command_that_makes_it(table, tmp_path):
    with pytest.raises(BirdinvError, match=f"nothing to draw of {table}") as caught:
        draw(cells(table), tmp_path)
    (command,) = re.findall("`(.*)`", str(caught.value))
    _, _, *arguments = shlex.split(command)
    shown = CliRunner().invoke(reproduce, [*arguments, "--list"])
    assert shown.output.startswith(cells(table)[0].name)
    assert not (tmp_path / table).exists()


def test_a_table_of_numbers_alone_says_so(tmp_path):
    assert not has_figures("sw-table5")
    with pytest.raises(BirdinvError, match="sw-table5 has no figures, only numbers"):
        draw(cells("sw-table5"), tmp_path)


@pytest.mark.parametrize("table", ["inv-figure2", "ms-table2", "mnist-ablation"])
def test_the_same_results_give_the_same_bytes(table, tmp_path):
    group = cells(table)
    for cell in group[:3]:
        write_result(cell, tmp_path, [0.6, 0.7])
    paths = draw(group, tmp_path)
    before = [path.read_bytes() for path in paths]
    assert all(content.startswith(b"\x89PNG") for content in before)
    assert [path.read_bytes() for path in draw(group, tmp_path)] == before
    assert all(path.parent == tmp_path / table / "figures" for path in paths)
    assert {path.name for path in paths[0].parent.iterdir()} == {path.name for path in paths}


def test_budgets_and_label_counts_are_not_mixed(tmp_path):
    paper = cells("ms-table3", rows=["cnn-lambda"], budget="paper")
    both = [*cells("ms-table3", rows=["cnn-lambda"]), *paper]
    for cell in both:
        write_result(cell, tmp_path, [0.7])
    names = {path.name for path in draw(both, tmp_path)}
    assert {name for name in names if name.startswith("layers")} == {
        f"layers.cifar10-{labels}.ms.{budget}.png"
        for labels in (4000, 8000)
        for budget in ("cpu", "paper")
    }
    assert len(names) == 8


def test_a_damaged_result_is_not_left_out_in_silence(tmp_path):
    group = cells("ms-table3", labels=[4000])
    for cell in group[:2]:
        write_result(cell, tmp_path, [0.7])
    group[0].file(tmp_path).write_text("{")
    with pytest.raises(BirdinvError, match="not JSON"):
        draw(group, tmp_path)


def test_a_network_of_other_settings_is_passed_over(tmp_path, test_images):
    cell = cell_of("inv-table2", "smallcnn-mean", 50)
    keep(cell, tmp_path, 0)
    keep(cell, tmp_path, 1)
    runs = tmp_path / "runs"
    old = runs / cell.table.name / cell.name / "seed-0"
    edit(old / "run.json", lambda run: run["config"].update(objective="weighted"))
    kept = reconstructions.kept_model(cell, runs)
    assert kept is not None and kept.parent.name == "seed-1"


def test_other_numbers_of_epochs_of_a_figure_are_told(tmp_path, test_images):
    for pooling in ("mean", "max"):
        keep(cell_of("inv-table2", f"smallcnn-{pooling}", 50), tmp_path, 0)
    group = cells("inv-table2", labels=[50])
    found = dict(reconstructions.reconstruction_figures(group, tmp_path / "runs", tmp_path))
    title = found["reconstruction-smallcnn"].get_suptitle()
    assert "budget cpu (mean 1 epoch, max 0.4 epochs)" in title
