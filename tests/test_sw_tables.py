"""Rows of SW's tables are trained as their names say, by the networks that the paper states."""

import functools
import shlex
import warnings

import pytest
import torch
from birdinv_cli.main import main
from torch import nn

from birdinv.data.manifests import load_manifest
from birdinv.loss_weights import weight_at
from birdinv.networks.swwae import SWWAE
from birdinv.networks.what_where import SoftSwitches, Switches, Upsampling
from birdinv.reproduce.cells import Cell, all_cells, cells
from birdinv.reproduce.tables import TABLES
from birdinv.training.config import TrainConfig
from birdinv.training.learner import fresh_model

# SW §4.1, 4.2, 4.3.1, 4.3.2 and 4.4.1, typed once more; X is the window of the row.
NETWORKS = {
    "sw-figure2": "(16)5c-(32)3c-Xp",
    "sw-figure3": "(32)5c-(32)3c-2p-(32)3c-16p",
    "sw-table1": "(128)5c-2p-(128)3c-(256)3c-2p-(256)3c-2p-10fc",
    "sw-table2": "(64)3c-4p-(64)3c-3p-(128)3c-(128)3c-2p-(256)3c-(256)3c-(256)3c-(512)3c-(512)3c-"
    "(512)3c-2p-10fc",
    "sw-table3": "(128)3c-(256)3c-2p-(256)3c-(512)3c-2p-(512)3c-(512)3c-2p-(512)3c-(512)3c-2p-"
    "128fc-10fc",
    "sw-table4": "(64)5c-2p-(64)3c-2p-(64)3c-2p-10fc",
    "sw-table5": "(64)5c-2p-(64)3c-2p-(64)3c-2p-10fc",
}
OF_THE_PAPER = (*NETWORKS, "sw-birds")
CONVNETS = ("convnet", "convnet-dropout", "dropout-on-convolution", "swwae-encoder")
FIGURES = [name for name in NETWORKS if name.startswith("sw-figure")]


def every_cell(*tables: str) -> list[Cell]:
    return [cell for name in tables or OF_THE_PAPER for cell in all_cells(TABLES[name])]


def config_of(table: str, row: str) -> TrainConfig:
    """The settings of a row at its first number of labels."""
    return cells(table, rows=[row])[0].config(0)


def changed(table: str, row: str, other: str) -> set[str]:
    """The settings in which two rows of a table are not the same."""
    ours, theirs = (config_of(table, name).to_dict() for name in (row, other))
    return {name for name, value in ours.items() if theirs[name] != value}


@functools.cache
def network_of(table: str, row: str, dataset: str, preset: str) -> nn.Module:
    """The network that a run begins with, without its weights."""
    cell = cells(table, rows=[row], dataset=dataset, preset=preset)[0]
    manifest, config = load_manifest(dataset), cell.config(0)
    channels, *sides = manifest.shape
    shape = (channels, *(side + 2 * config.pad for side in sides))
    with torch.device("meta"):
        return fresh_model(config, len(manifest.classes), shape)


def network(cell: Cell) -> nn.Module:
    return network_of(cell.table.name, cell.row.name, cell.dataset, cell.preset)


def dropped(module: nn.Module) -> set[float]:
    """The fractions that are dropped in a network, 0 left out."""
    return {part.p for part in module.modules() if isinstance(part, nn.Dropout)} - {0}


# The networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("table", NETWORKS)
def test_every_network_is_the_one_that_the_paper_states(table):
    for cell in every_cell(table):
        classes = len(load_manifest(cell.dataset).classes)
        stated = NETWORKS[table].replace("X", cell.row.name.rpartition("-")[2])
        stated = stated.replace("10fc", f"{classes}fc")
        built = cell.config(0).network
        if cell.row.name == "smallcnn-multiscale-moved":  # INV's, which is said to be no SWWAE
            assert built == "smallcnn"
            continue
        kind, colon, notation = built.partition(":")
        assert (kind, colon) == ("swwae", ":")
        assert notation.replace("Kfc", f"{classes}fc") == stated, cell.name


def test_digits_of_mnist_are_32_pixels_wide_as_in_the_paper_and_28_for_the_network_of_inv():
    for cell in every_cell():
        if cell.dataset == "mnist":
            own = 28 if cell.row.name.startswith("smallcnn") else 32
            assert network(cell).sizes["shape"] == [1, own, own], cell.name
    for table, side in (("sw-table1", 32), ("sw-table2", 96), ("sw-table3", 32)):
        for cell in every_cell(table):
            assert network(cell).sizes["shape"] == [3, side, side]


def test_batch_norm_is_where_the_paper_has_it_in_both_directions():
    """After every convolution of STL-10 and CIFAR; not after the one that makes the input."""
    for cell in every_cell(*NETWORKS):
        model = network(cell)
        if not isinstance(model, SWWAE):
            continue
        there, back = (
            sum(
                isinstance(part, nn.BatchNorm2d)
                for name, part in model.named_modules()
                if name.startswith(side)
            )
            for side in ("stage", "back")
        )
        many = cell.config(0).network.count(")")  # of convolutions
        of_it = cell.table.name in ("sw-table2", "sw-table3")
        assert (there, back) == ((many, many - 1) if of_it else (0, 0)), cell.name


def test_classifiers_have_hard_pooling():
    """SW §4.3.1."""
    for table in ("sw-table1", "sw-table2", "sw-table3", "sw-table4", "sw-table5"):
        for cell in every_cell(table):
            pools = [part for part in network(cell).modules() if isinstance(part, Switches)]
            assert {type(pool) for pool in pools} <= {Switches}
            assert pools or cell.row.name == "smallcnn-multiscale-moved"


# What a row's name says ------------------------------------------------------------------------


def test_a_convnet_has_neither_a_decoder_to_learn_nor_unlabelled_samples():
    seen = set()
    for cell in every_cell():
        config = cell.config(0)
        if cell.row.name in CONVNETS:
            seen.add(cell.row.name)
            assert config.objective == "swwae" and config.lambda_nll == 1
            assert (config.lambda_rec, config.lambda_mid, config.sparsity) == (0, 0, 0)
            assert config.pretrain == 0 and config.balance == 0 and config.consistency == "none"
            assert not config.uses_unlabelled
        else:
            assert config.uses_unlabelled == (cell.row.name != "supervised"), cell.name
    assert seen == set(CONVNETS)


@pytest.mark.parametrize("table", ["sw-table1", "sw-table2", "sw-table3", "sw-table5"])
def test_a_convnet_is_of_the_same_configuration_as_swwae(table):
    assert changed(table, "convnet", "swwae") == {"lambda_rec", "lambda_mid"}


def test_the_weights_of_losses_are_those_that_the_paper_states():
    def weights(table, row):
        config = config_of(table, row)
        return config.lambda_nll, config.lambda_rec, config.lambda_mid

    assert weights("sw-table1", "swwae") == (1, 0.8, 0.8)
    assert weights("sw-table1", "swwae-dropout") == (1, 0.4, 0.4)
    assert weights("sw-table3", "swwae") == (1, 1, 0.2)
    # Of MNIST it says that the two are equal, and chosen by validation.
    of_mnist = {weights("sw-table5", row) for row in ("swwae", "swwae-dropout")}
    ((nll, rec, mid),) = of_mnist | {weights("sw-table4", "swwae")}
    assert nll == 1 and rec == mid > 0


def test_rows_with_dropout_differ_from_those_without_in_nothing_else():
    assert changed("sw-table1", "swwae-dropout", "swwae") == {"dropout", "lambda_rec", "lambda_mid"}
    for row in ("swwae", "convnet"):
        assert changed("sw-table5", f"{row}-dropout", row) == {"dropout"}
    moved = changed("sw-table5", "swwae-dropout-moved", "swwae-dropout")
    assert moved == {"translate", "average"}


@pytest.mark.parametrize("table", ["sw-table1", "sw-table2", "sw-table3", "sw-table5"])
def test_half_is_dropped_of_what_fully_connected_layers_hear_where_a_row_says_so(table):
    for cell in every_cell(table):
        model = network(cell)
        drops = "dropout" in cell.row.name
        assert dropped(model) == ({0.5} if drops else set()), cell.name
        if drops:
            assert dropped(model.head) == {0.5}
            assert not any(dropped(getattr(model, name)) for name in model.layers)


# Table 4 ---------------------------------------------------------------------------------------


def test_all_of_table_4_drop_half_at_the_fully_connected_layer_and_are_judged_on_validation():
    assert TABLES["sw-table4"].compared == "valid"
    assert {TABLES[name].compared for name in OF_THE_PAPER if name != "sw-table4"} == {"test"}
    for cell in every_cell("sw-table4"):
        model = network(cell)
        assert dropped(model.head) == {0.5}
        convolved = {0.5} if cell.row.name == "dropout-on-convolution" else set()
        for name in model.layers:
            assert dropped(getattr(model, name)) == convolved


def test_a_regulariser_takes_the_place_of_the_decoder():
    for row, names in (("dropout-on-convolution", {"options"}), ("l1", {"sparsity"})):
        assert changed("sw-table4", row, "swwae") == {"lambda_rec", "lambda_mid", *names}
        config = config_of("sw-table4", row)
        assert (config.lambda_rec, config.lambda_mid) == (0, 0)
    assert config_of("sw-table4", "l1").sparsity > 0


def test_no_l2m_is_swwae_without_the_levels_between():
    assert changed("sw-table4", "noL2M", "swwae") == {"lambda_mid"}
    config = config_of("sw-table4", "noL2M")
    assert config.lambda_mid == 0 and config.lambda_rec > 0


def test_disjoint_training_begins_without_labels_and_goes_on_with_nothing_else():
    """Both keep the last weights; of the two only unsup-sfx freezes the encoder."""
    parts = {"pretrain", "keep"}
    assert changed("sw-table4", "unsup-pretr", "swwae") == parts
    assert changed("sw-table4", "unsup-sfx", "swwae") == {*parts, "freeze"}
    for row in ("unsup-sfx", "unsup-pretr"):
        config = config_of("sw-table4", row)
        assert config.keep == "last" and config.freeze == (row == "unsup-sfx")
        first = config.steps_without_labels(config.steps)
        assert 0 < first < config.steps
        objective = config.make_objective(config.steps, config.steps, 3)
        each = [objective.nll, objective.rec, objective.mid]
        before, after = ([weight_at("", w, at) for w in each] for at in (first - 1, first))
        assert before == [0, config.lambda_rec, config.lambda_mid] and min(before[1:]) > 0
        assert after == [1, 0, 0]


# The figures -----------------------------------------------------------------------------------


def test_figures_are_of_networks_that_learn_without_labels():
    for cell in every_cell(*FIGURES):
        config = cell.config(0)
        assert (config.objective, config.lambda_nll, config.labels_per_class) == ("swwae", 0, None)
        assert config.lambda_rec > 0 and config.pretrain == 0 and config.sparsity == 0
        assert cell.labels is None and cell.table.unit == "reconstruction"
        assert cell.published is None


def test_figure_2_has_each_window_with_where_and_without():
    found = {}
    for cell in cells("sw-figure2"):
        kind, _, window = cell.row.name.rpartition("-")
        model = network(cell)
        assert cell.config(0).translate == 0
        (pool,) = [each for name in model.layers if (each := getattr(model, name).pool)]
        assert type(pool) is {"upsampling": Upsampling, "unpooling": Switches}[kind]
        assert pool.window == (int(window), int(window))
        found.setdefault(kind, []).append(int(window))
    assert found == {"upsampling": [2, 4, 8, 16], "unpooling": [2, 4, 8, 16]}
    for window in (2, 4, 8, 16):
        assert changed("sw-figure2", f"upsampling-{window}", f"unpooling-{window}") == {"options"}


def test_figures_3_and_4_are_of_one_network():
    assert cells("sw-figure4") == cells("sw-figure3")


def test_capsules_learn_from_digits_moved_by_3_pixels_with_soft_pooling():
    (cell,) = cells("sw-figure3")
    assert cell.config(0).translate == 3
    model = network(cell)
    pools = [getattr(model, name).pool for name in model.layers]
    assert {type(pool) for pool in pools} == {SoftSwitches}
    assert [pool.window for pool in pools] == [(2, 2), (16, 16)]
    assert {pool.beta for pool in pools} == {100}


# The numbers of the paper ----------------------------------------------------------------------


def test_published_errors_are_those_of_the_paper():
    """SW tables 1 to 5 typed once more, in the unit in which they are printed."""
    few = (100, 600, 1000, 3000)
    tables = {
        ("sw-table1", "swwae"): {1000: 27.83, None: 4.94},
        ("sw-table1", "swwae-dropout"): {1000: 23.56},
        ("sw-table1", "convnet"): {None: 5.89},
        ("sw-table4", "swwae"): dict(zip(few, (10.66, 4.35, 3.17, 2.13), strict=True)),
        ("sw-table4", "dropout-on-convolution"): dict(
            zip(few, (14.23, 4.70, 3.37, 2.08), strict=True)
        ),
        ("sw-table4", "l1"): dict(zip(few, (10.91, 4.61, 3.55, 2.67), strict=True)),
        ("sw-table4", "unsup-sfx"): dict(zip(few, (17.81, 8.41, 6.40, 4.76), strict=True)),
        ("sw-table4", "unsup-pretr"): {600: 9.80, 1000: 6.135, 3000: 4.41},
        ("sw-table4", "noL2M"): dict(zip(few, (12.41, 4.63, 3.15, 2.08), strict=True)),
        ("sw-table5", "swwae"): {
            **dict(zip(few, (9.17, 4.16, 3.39, 2.50), strict=True)),
            None: 0.71,
        },
        ("sw-table5", "swwae-dropout"): dict(zip(few, (8.71, 3.31, 2.83, 2.10), strict=True)),
        ("sw-table5", "convnet"): {None: 0.76},
        ("sw-table2", "convnet"): {1000: 100 - 57.45},
        ("sw-table2", "swwae"): {1000: 100 - 74.33},
    }
    found = {}
    for cell in every_cell("sw-table1", "sw-table2", "sw-table4", "sw-table5"):
        if cell.published is not None:
            assert cell.dataset == cell.table.dataset
            errors = found.setdefault((cell.table.name, cell.row.name), {})
            errors[cell.labels] = 100 - cell.published
    assert found.keys() == tables.keys()
    for key, errors in tables.items():
        assert found[key] == pytest.approx(errors), key
    cifar = {(cell.row.name, cell.dataset): cell.published for cell in every_cell("sw-table3")}
    assert cifar == {
        ("convnet", "cifar10"): 91.33,
        ("convnet", "cifar100"): 67.50,
        ("swwae", "cifar10"): 92.23,
        ("swwae", "cifar100"): 69.12,
    }


def test_spreads_stand_beside_the_numbers_that_they_are_of():
    stated = {
        ("sw-table4", "swwae"): (0.55, 0.30, 0.17, 0.10),
        ("sw-table4", "dropout-on-convolution"): (0.94, 0.38, 0.11, 0.10),
        ("sw-table4", "l1"): (0.29, 0.28, 0.31, 0.25),
        ("sw-table4", "unsup-sfx"): (0.06, 0.08, 0.06, 0.03),
        ("sw-table4", "unsup-pretr"): (None, 0.06, 0.03, 3.11),
        ("sw-table4", "noL2M"): (1.95, 0.24, 0.22, 0.18),
        ("sw-table5", "swwae"): (0.11, 0.11, 0.01, 0.01),
        ("sw-table5", "swwae-dropout"): (0.34, 0.40, 0.10, 0.22),
    }
    for name in NETWORKS:
        for row in TABLES[name].rows:
            spreads = stated.get((name, row.name), (None,) * 4)
            each = zip((100, 600, 1000, 3000), spreads, strict=True)
            assert row.std == {n: spread for n, spread in each if spread is not None}


# Rivals on the same terms ----------------------------------------------------------------------


@pytest.mark.parametrize("table", OF_THE_PAPER)
def test_all_rows_of_a_table_take_as_many_steps_of_as_many_samples(table):
    for budget, steps in TABLES[table].steps.items():
        for cell in cells(table, budget=budget):
            config = cell.config(0)
            assert (config.steps, config.schedule) == (steps, "cosine")
            assert config.batch_size == (64 if table == "sw-birds" else 50)
            assert config.check_every >= steps  # one look at validation, at the end


def test_networks_on_birds_differ_in_network_objective_and_its_weights_alone():
    allowed = {"network", "objective", "alpha", "beta", "lambda_rec", "lambda_mid"}
    rows = [row.name for row in TABLES["sw-birds"].rows]
    assert rows == [
        *("supervised", "weighted", "multiscale"),
        *("swwae-encoder", "swwae-encoder-weighted", "swwae"),
    ]
    for row in rows[1:]:
        names = changed("sw-birds", row, "supervised")
        assert {"objective"} <= names <= allowed
    assert changed("sw-birds", "swwae-encoder", "swwae") == {"lambda_rec", "lambda_mid"}
    configs = {row: config_of("sw-birds", row) for row in rows}
    assert [c.network == "bird10" for c in configs.values()] == [True] * 3 + [False] * 3
    for row in ("weighted", "swwae-encoder-weighted"):
        assert (configs[row].alpha, configs[row].beta) == (0.7, 0.3)  # INV's of birds
    assert {config.dropout for config in configs.values()} == {None}  # each network's own
    assert {cell.labels for cell in every_cell("sw-birds")} == {3, None}


# Commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "dataset"), [("sw-table1", "svhn"), ("sw-table2", "stl10")])
def test_without_the_data_set_there_is_one_sentence(table, dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main has its own
    root, results = tmp_path / "root", tmp_path / "results"
    root.mkdir()
    line = f"reproduce {table} --root {root} --results {results} --device cpu"
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(line))
    out, err = capsys.readouterr()
    assert caught.value.code == 1
    assert out.splitlines() == [f"{cells(table)[0].name}: 300 steps, budget cpu"]
    (sentence,) = err.splitlines()
    assert sentence.startswith("birdinv: ") and "unexpected" not in sentence
    assert dataset in sentence and str(root) in sentence
    assert not results.exists() and not list(root.iterdir())
