"""Bird10 is the paper's; every option of every network; normalise, to any numbers."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import birdinv
from birdinv.errors import BirdinvError
from birdinv.inversion import reconstruct
from birdinv.networks.frames import FrameConv1d
from birdinv.networks.layers import normalise


def shapes(model, x):
    """Output shape of each named child, without the batch."""
    found = {}
    for name, child in model.named_children():
        x = child(x)
        found[name] = tuple(x.shape[1:])
    return found


def test_bird10_has_the_shapes_and_the_parameters_of_the_paper():
    model = birdinv.networks.build("bird10", classes=10, shape=(1, 11025))
    assert shapes(model, torch.zeros(2, 1, 11025)) == {
        "block1": (42, 9),
        "block2": (42, 4),
        "hidden": (32,),
        "head": (10,),
    }
    counts = {n: sum(p.numel() for p in c.parameters()) for n, c in model.named_children()}
    assert counts == {
        "block1": 1024 * 42 + 42,
        "block2": 3 * 42 * 42 + 42,
        "hidden": 42 * 4 * 32 + 32,
        "head": 32 * 10 + 10,
    }
    convolution, pooling, activation = model.block1
    assert isinstance(convolution, FrameConv1d) and isinstance(model.block2[0], FrameConv1d)
    assert isinstance(pooling, nn.MaxPool1d) and (pooling.kernel_size, pooling.stride) == (4, 2)
    assert isinstance(activation, nn.LeakyReLU) and isinstance(model.block2[1], nn.LeakyReLU)
    slopes = {m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.01} and model.hidden[3].p == 0.5
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    assert set(model.layers) < {name for name, _ in model.named_modules()}


def test_bird10_is_the_paper_s_network_that_pools_after_the_nonlinearity():
    """A maximum commutes with what increases: the same logits, the same gradients."""
    torch.manual_seed(0)
    ours = birdinv.networks.build("bird10", classes=3, shape=(1, 11025)).double().eval()
    theirs = copy.deepcopy(ours)
    theirs.block1 = nn.Sequential(theirs.block1[0], nn.LeakyReLU(0.01), nn.MaxPool1d(4, 2))
    x = torch.randn(4, 1, 11025).double()
    results = []
    for model in (ours, theirs):
        back = reconstruct(model, x, ["block1", "block2"])
        levels = [(z_hat - z).square().sum() for z, z_hat in back.layers.values()]
        total = back.squared_error().sum() + sum(levels) + back.logits.square().sum()
        total.backward()
        results.append((back, [p.grad for p in model.parameters()]))
    (ours_back, ours_gradients), (theirs_back, theirs_gradients) = results
    assert torch.equal(ours_back.logits, theirs_back.logits)
    assert torch.equal(ours_back.layers["block1"][0], theirs_back.layers["block1"][0])
    assert [g.shape for g in ours_gradients] == [g.shape for g in theirs_gradients]
    scale = max(g.abs().max() for g in theirs_gradients)
    for a, b in zip(ours_gradients, theirs_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * float(scale))


@settings(max_examples=30, deadline=None)
@given(samples=st.integers(4608, 40_000), channels=st.integers(1, 3), classes=st.integers(1, 5))
def test_bird10_takes_every_segment_that_is_long_enough(samples, channels, classes):
    model = birdinv.networks.build("bird10", classes=classes, shape=(channels, samples), width=2)
    assert model(torch.zeros(2, channels, samples)).shape == (2, classes)
    assert model.sizes["shape"] == [channels, samples]


@pytest.mark.parametrize(
    ("name", "sizes", "sentence"),
    [
        ("bird11", {}, "no network 'bird11'; did you mean bird10. There are bird10, smallcnn"),
        ("Resnet2-32", {}, "no network 'Resnet2-32'; did you mean resnet2-32"),
        ("resnet0-32", {}, "did you mean resnet.*resnetN-K, as resnet2-32: N blocks a stage"),
        ("xyz", {}, "there is no network 'xyz'. There are bird10"),
        ("bird10", {"shape": (1, 4607)}, "segments of at least 4608 samples, and these have 4607"),
        ("bird10", {"shape": (1, 5)}, "at least 4608 samples.*longer --segment"),
        ("bird10", {"shape": (1, -5)}, "at least 4608 samples"),
        ("bird10", {"shape": (5000,)}, "cannot be built: not enough values"),
        ("bird10", {"classes": 0}, "classes=0: give a number from 1 to 100000"),
        ("bird10", {"shape": (0, 5000)}, "channels=0: give a number from 1 to 64"),
        ("bird10", {"width": 10**9}, "width=1000000000: give a number from 1 to 4096"),
        ("bird10", {"dense": -1}, "dense=-1"),
        ("bird10", {"dropout": 1.0}, "dropout=1: give a fraction from 0 to below 1"),
        ("bird10", {"dropout": float("nan")}, "dropout=nan"),
        ("bird10", {"width": "42"}, "the network bird10 cannot be built"),
        ("bird10", {"depth": 3}, "cannot be built: it has no option 'depth', only width, dense"),
        ("resnet2-32", {"width": 3}, "it has no option 'width', only pooling, activation"),
        ("smallcnn", {"pooling": "avg"}, "pooling is 'avg'; expected mean, max, inhibitor"),
        ("mscnn", {"activation": "relu"}, "activation is 'relu'; expected leaky, sigmoid"),
        ("largecnn", {"batch_norm": "yes"}, "batch_norm is 'yes'; expected True or False"),
        ("resnet3-16", {"dropout": 1}, "dropout is 1; expected a fraction from 0 to below 1"),
        ("smallcnn", {"dropout": "0"}, "the network smallcnn cannot be built"),
        ("smallcnn", {"pooling": ["max"]}, "the network smallcnn cannot be built"),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_sentence(name, sizes, sentence):
    with pytest.raises(BirdinvError, match=sentence):
        birdinv.networks.build(name, **{"classes": 3, "shape": (1, 5000), **sizes})


IMAGES = ("smallcnn", "largecnn", "mscnn", "resnet1-4")


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("pooling", ["mean", "max", "inhibitor"])
@pytest.mark.parametrize("activation", ["leaky", "sigmoid"])
def test_every_combination_of_options_is_trained_on_all_its_layers(name, pooling, activation):
    """Built, run forwards and back on the multiscale objective, and built again by its sizes."""
    shapes = itertools.cycle([(1, 24, 25), (3, 26, 24)])
    for batch_norm, dropout in itertools.product([False, True], [0.0, 0.2]):
        torch.manual_seed(0)
        shape = next(shapes)
        model = birdinv.networks.build(
            name,
            classes=3,
            shape=shape,
            pooling=pooling,
            activation=activation,
            batch_norm=batch_norm,
            dropout=dropout,
        )
        x, y = torch.rand(2, *shape), torch.tensor([0, -1])
        terms = birdinv.ParameterFreeObjective("multiscale")(model, x, y)
        terms.total.backward()
        assert list(terms.levels) == ["input", *model.layers]
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().max() > 0, key
        sizes = json.loads(json.dumps(model.sizes))
        again = birdinv.networks.build(name, **sizes).eval()
        again.load_state_dict(model.state_dict())
        assert again.sizes == model.sizes
        back, same = (reconstruct(m, x, list(m.layers)).layers for m in (model.eval(), again))
        for layer in model.layers:
            assert back[layer][0].shape == back[layer][1].shape
            assert torch.equal(back[layer][1], same[layer][1])


def test_the_multiscale_objective_is_differentiated_exactly_in_batch_norm_and_inhibitors():
    """Its gradient by finite differences, through batch statistics."""
    torch.manual_seed(0)
    model = birdinv.networks.build(
        "resnet1-2",
        classes=2,
        shape=(1, 16, 16),
        pooling="inhibitor",
        activation="sigmoid",
        batch_norm=True,
    ).double()
    x, y = torch.randn(3, 1, 16, 16).double(), torch.tensor([0, 1, -1])
    objective = birdinv.ParameterFreeObjective("multiscale")
    objective(model, x, y).total.backward()
    step = 1e-6
    for key, parameter in model.named_parameters():
        direction = torch.randn_like(parameter)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
            ends.append(objective(model, x, y).total.item())
            with torch.no_grad():
                parameter -= sign * step * direction
        slope = (ends[0] - ends[1]) / (2 * step)
        expected = (parameter.grad * direction).sum().item()
        assert slope == pytest.approx(expected, rel=1e-4, abs=1e-7), key


def slow_normalise(x):
    x = np.asarray(x, np.float64)
    y = x - x.mean()
    peak = np.abs(y).max()
    return y / peak if peak > 0 else y


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(1, 50), (3, 40), (1, 5, 7), (2, 4, 4)]),
    scale=st.floats(-37, 36).map(lambda e: 10.0**e),
    offset=st.floats(-100, 100),
    seed=st.integers(0, 1000),
)
def test_normalised_samples_have_no_mean_and_a_peak_of_one(shape, scale, offset, seed):
    """Each sample by itself, all channels together, whatever its scale and offset."""
    rng = np.random.default_rng(seed)
    x = np.float32(rng.uniform(-1, 1, (2, *shape)) * scale)
    x[1] += offset * scale
    y = normalise(torch.from_numpy(x)).numpy()
    for got, one in zip(y, x, strict=True):
        np.testing.assert_allclose(got, slow_normalise(one), atol=1e-4)
        assert np.abs(got).max() == pytest.approx(1, abs=1e-6)
    again = normalise(torch.from_numpy(y)).numpy()
    np.testing.assert_allclose(again, y, atol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1.4e38, -1.4e38])
def test_numbers_at_the_end_of_float32_do_not_overflow(offset):
    x = np.float32(np.random.default_rng(0).uniform(-2e38, 2e38, (2, 1, 5000)) + offset)
    got = normalise(torch.from_numpy(x)).numpy()
    for one, sample in zip(got, x, strict=True):
        np.testing.assert_allclose(one, slow_normalise(sample), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1e-40, 3e38, -3.4e38, 32767.0])
@pytest.mark.parametrize("length", [1, 7, 11025])
def test_a_constant_becomes_zeros(value, length):
    x = torch.full((2, 1, length), value)
    assert torch.equal(normalise(x), torch.zeros_like(x))


def test_a_silent_sample_leaves_its_neighbours_alone_and_has_no_nan_gradient():
    x = torch.randn(3, 1, 50)
    x[1] = 0
    y = normalise(x)
    assert torch.equal(y[1], torch.zeros(1, 50))
    assert torch.equal(y[[0, 2]], normalise(x[[0, 2]]))
    x.requires_grad_()
    normalise(x).square().sum().backward()
    assert x.grad.isfinite().all()


def test_the_faintest_signal_of_a_16_bit_recording_is_kept():
    x = torch.zeros(1, 1, 11025)
    x[..., 5000] = 1  # one step of 65536, in a recording with a constant offset
    assert normalise(x + 32000).abs().max() == 1
