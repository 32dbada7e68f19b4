"""The residual networks are the papers'."""

import pytest
import torch
from torch import nn

import birdinv
from birdinv.errors import BirdinvError

MS = {"batch_norm": True, "dropout": 0.2}


@pytest.mark.parametrize(
    ("name", "shape", "options", "parameters"),
    [
        ("resnet3-64", (3, 32, 32), MS, 2_177_994),  # MS says 2M1
        ("resnet6-32", (3, 32, 32), MS, 1_192_746),  # MS says 1M1
        ("resnet3-64", (3, 32, 32), {}, 2_176_586),
        ("resnet6-32", (3, 32, 32), {}, 1_191_370),
        ("resnet2-32", (1, 28, 28), {}, 329_738),
        ("resnet3-16", (1, 28, 28), {}, 136_826),
        ("resnet2-32", (1, 28, 28), {"pooling": "max"}, 329_738),
        ("resnet2-32", (1, 28, 28), {"pooling": "inhibitor"}, 329_642),
        ("resnet3-16", (1, 28, 28), {"pooling": "inhibitor"}, 136_778),
    ],
)
def test_they_have_the_parameters_of_the_papers(name, shape, options, parameters):
    model = birdinv.networks.build(name, classes=10, shape=shape, **options)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_widths_double_and_maps_are_halved_from_stage_to_stage():
    model = birdinv.networks.build("resnet2-8", classes=4, shape=(2, 28, 33))
    shapes = {}
    for name in model.layers:
        getattr(model, name).register_forward_hook(
            lambda _m, _x, z, name=name: shapes.update({name: tuple(z.shape[1:])})
        )
    assert model(torch.zeros(2, 2, 28, 33)).shape == (2, 4)
    assert shapes == {
        "stem": (8, 28, 33),
        "block1": (8, 28, 33),
        "block2": (8, 14, 16),
        "block3": (16, 14, 16),
        "block4": (16, 7, 8),
        "block5": (32, 7, 8),
        "block6": (32, 7, 8),
    }


POOLS = {
    "mean": nn.AvgPool2d(2),
    "max": nn.MaxPool2d(2),
    "inhibitor": nn.AvgPool2d(2),
}


@pytest.mark.parametrize("pooling", POOLS)
@pytest.mark.parametrize("number", [1, 2])
def test_a_block_is_a_linear_part_and_a_bent_one(pooling, number):
    """`Wz + f_conv(z)`, pooled as a whole where the stage ends."""
    torch.manual_seed(0)
    model = birdinv.networks.build("resnet2-4", classes=3, shape=(1, 17, 16), pooling=pooling)
    block = getattr(model.double(), f"block{number}")
    convolution = block.branch[0]
    z = torch.randn(2, 4, 17, 16).double()
    bent = nn.functional.conv2d(z, convolution.weight, convolution.bias, padding=1)
    if pooling == "inhibitor" and number == 2:
        mean = nn.functional.avg_pool2d(bent, 2)
        bent[:, :, :16] -= nn.functional.interpolate(mean, scale_factor=2)
    expected = nn.functional.conv2d(z, block.linear.weight) + nn.functional.leaky_relu(bent, 0.01)
    assert block.linear.bias is None and block.linear.kernel_size == (1, 1)
    torch.testing.assert_close(block(z), expected if number == 1 else POOLS[pooling](expected))


def test_batch_norm_and_dropout_are_in_every_branch_and_in_the_stem():
    model = birdinv.networks.build("resnet3-16", classes=3, shape=(3, 32, 32), **MS)
    parts = ["Conv2d", "BatchNorm2d", "LeakyReLU", "Dropout"]
    branches = [model.stem, *(getattr(model, f"block{i}").branch for i in range(1, 10))]
    assert all([type(part).__name__ for part in branch] == parts for branch in branches)
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.2}
    assert {type(m) for m in model.head} == {nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear}


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("resnet2-32", (1, 8, 8), "Resnet2-32 needs at least 16×16 inputs; got 8×8"),
        ("resnet2-32", (1, 28, 15), "Resnet2-32 needs at least 16×16 inputs; got 28×15"),
        ("resnet2-32", (11025,), r"Resnet2-32 takes images; expected \(channels, height, width\)"),
        ("resnet101-3", (1, 28, 28), "Resnet101-3 with 101 blocks a stage: .* from 1 to 100"),
        ("resnet2-4096", (1, 28, 28), "Resnet2-4096 with 4096 filters: .* from 1 to 1024"),
    ],
)
def test_impossible_sizes_are_refused_with_a_sentence(name, shape, sentence):
    with pytest.raises(BirdinvError, match=sentence):
        birdinv.networks.build(name, classes=10, shape=shape)
