"""SmallCNN, LargeCNN and the CNN of MS are the papers'."""

import pytest
import torch
from torch import nn

import birdinv
from birdinv.errors import BirdinvError
from birdinv.networks import MSCNN, LargeCNN, SmallCNN
from birdinv.networks.pooling import Inhibitor, MeanPool

LARGE = [(96, 28, 28), (96, 30, 30), (96, 16, 16), (192, 14, 14), (192, 16, 16), (192, 7, 7)]
MS = [(96, 32, 32), (96, 34, 34), (96, 18, 18), (192, 16, 16), (192, 18, 18), (192, 8, 8)]


@pytest.mark.parametrize(
    ("name", "shape", "parameters", "inhibited", "expected"),
    [
        # SPL table 6 says 131 512, which is this and a last dense layer of 110.
        (
            "smallcnn",
            (1, 28, 28),
            131_402,
            131_306,
            [(32, 16, 16), (64, 14, 14), (64, 8, 8), (128, 6, 6)],
        ),
        ("largecnn", (1, 28, 28), 1_368_010, 1_367_722, [*LARGE, (192, 5, 5), (192, 5, 5)]),
        ("mscnn", (3, 32, 32), 1_370_986, 1_370_506, [*MS, (192, 6, 6), (192, 1, 1)]),  # 1M3
    ],
)
def test_they_have_the_parameters_and_the_shapes_of_the_papers(
    name, shape, parameters, inhibited, expected
):
    model = birdinv.networks.build(name, classes=10, shape=shape).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    shapes = {}
    for layer in model.layers:
        getattr(model, layer).register_forward_hook(
            lambda _m, _x, z, layer=layer: shapes.update({layer: tuple(z.shape[1:])})
        )
    assert model(torch.zeros(2, *shape)).shape == (2, 10)
    assert list(shapes) == [f"block{i + 1}" for i in range(len(expected))]
    assert list(shapes.values()) == expected
    model = birdinv.networks.build(name, classes=10, shape=shape, pooling="inhibitor")
    assert sum(p.numel() for p in model.parameters()) == inhibited


def test_large_cnn_has_the_paper_s_mean_over_six_by_six_on_cifar():
    model = LargeCNN(classes=10, shape=(3, 32, 32))
    assert sum(p.numel() for p in model.parameters()) == 1_369_738
    kept = []
    model.block8.register_forward_hook(lambda _m, _x, z: kept.append(z.shape[2:]))
    model(torch.zeros(1, 3, 32, 32))
    assert kept == [(6, 6)]


def kinds(layer):
    return [type(part).__name__ for part in layer]


@pytest.mark.parametrize(
    ("options", "pooled", "plain"),
    [
        ({}, ["Conv2d", "LeakyReLU", "MeanPool"], ["Conv2d", "LeakyReLU"]),
        ({"activation": "sigmoid"}, ["Conv2d", "Sigmoid", "MeanPool"], ["Conv2d", "Sigmoid"]),
        # A maximum commutes with what increases, and not with dropout.
        ({"pooling": "max"}, ["Conv2d", "MaxPool2d", "LeakyReLU"], ["Conv2d", "LeakyReLU"]),
        (
            {"pooling": "max", "dropout": 0.1},
            ["Conv2d", "LeakyReLU", "Dropout", "MaxPool2d"],
            ["Conv2d", "LeakyReLU", "Dropout"],
        ),
        (
            {"pooling": "inhibitor", "batch_norm": True, "dropout": 0.2},
            ["Conv2d", "BatchNorm2d", "Inhibitor", "LeakyReLU", "Dropout", "MeanPool"],
            ["Conv2d", "BatchNorm2d", "LeakyReLU", "Dropout"],
        ),
    ],
)
def test_the_parts_of_a_layer_are_in_the_order_of_ms(options, pooled, plain):
    model = SmallCNN(classes=3, shape=(1, 28, 28), **options)
    assert kinds(model.block1) == kinds(model.block3) == pooled
    assert kinds(model.block2) == kinds(model.block4) == plain
    biased = [block[0].bias is not None for block in (model.block1, model.block2)]
    norm = options.get("batch_norm", False)
    assert biased == [not norm and options.get("pooling") != "inhibitor", not norm]
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} <= {options.get("dropout")}


def test_the_cnn_of_ms_has_batch_norm_and_dropout_and_pools_all_that_is_left():
    model = MSCNN(classes=10, shape=(3, 32, 40))
    normal = ["Conv2d", "BatchNorm2d", "LeakyReLU", "Dropout"]
    for name in model.layers:
        pooled = ["MeanPool"] if name in ("block3", "block6", "block8") else []
        assert kinds(getattr(model, name)) == normal + pooled
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.2}
    windows = [m.window for m in model.modules() if isinstance(m, MeanPool | Inhibitor)]
    assert windows == [(2, 2), (2, 2), (6, 8)]


def test_pooling_first_is_the_same_function_as_pooling_last():
    torch.manual_seed(0)
    ours = SmallCNN(classes=3, shape=(1, 21, 20), pooling="max").double()
    theirs = SmallCNN(classes=3, shape=(1, 21, 20), pooling="max").double()
    theirs.load_state_dict(ours.state_dict())
    for block in (theirs.block1, theirs.block3):
        _, pool, activation = block
        del block[1:]
        block.extend([activation, pool])
    x, y = torch.randn(3, 1, 21, 20).double(), torch.tensor([0, 2, -1])
    for model in (ours, theirs):
        birdinv.ParameterFreeObjective("multiscale")(model, x, y).total.backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("smallcnn", (1, 8, 8), r"SmallCNN needs at least 20×20 inputs; got 8×8"),
        ("smallcnn", (1, 19, 28), r"SmallCNN needs at least 20×20 inputs; got 19×28"),
        ("largecnn", (1, 28, 23), r"LargeCNN needs at least 24×24 inputs; got 28×23"),
        ("mscnn", (3, 23, 23), r"MSCNN needs at least 24×24.*less than 4×4 places"),
        ("smallcnn", (1, -5, 28), r"SmallCNN needs at least 20×20 inputs; got -5×28"),
        ("smallcnn", (28, 28), r"SmallCNN takes images; expected \(channels, height, width\), got"),
        ("mscnn", (0, 28, 28), r"MSCNN with channels=0: give a number from 1 to 64"),
    ],
)
def test_impossible_shapes_are_refused_with_a_sentence(name, shape, sentence):
    with pytest.raises(BirdinvError, match=sentence):
        birdinv.networks.build(name, classes=10, shape=shape)


@pytest.mark.parametrize(("network", "side"), [(SmallCNN, 20), (LargeCNN, 24), (MSCNN, 24)])
def test_the_smallest_image_leaves_four_by_four_places_to_the_mean(network, side):
    model = network(classes=2, shape=(1, side, side), batch_norm=False, dropout=0.0)
    kept = []
    last = getattr(model, model.layers[-1])
    last[0].register_forward_hook(lambda _m, _x, z: kept.append(tuple(z.shape[2:])))
    assert model(torch.zeros(1, 1, side, side)).shape == (1, 2)
    assert kept == [(4, 4)]
