"""Generalisation, encodings and sparsity are counted by hand."""

import math

import pytest
import torch
from topologies import PIECEWISE_AFFINE, build
from torch import nn

from birdinv.spline import Generalisation, codes, encode, generalisation, sparsity, templates

DOUBLE = torch.float64


class Sign(nn.Module):
    """Names class 1 where the first number is above zero; drops everything in training."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(1.0)

    def forward(self, x):
        return torch.cat([-x[:, :1], self.drop(x[:, :1])], dim=1)


def batch(values, y):
    return torch.tensor(values, dtype=DOUBLE)[:, None], torch.tensor(y)


# Of four three are right, of five two.
TRAIN = [batch([1, -1], [1, 0]), batch([2, -2], [1, 1])]
TEST = [batch([1, 2, 3], [1, 0, 0]), batch([-1, -2], [0, 1])]


@pytest.mark.parametrize(
    ("train", "test", "gap", "objective"),
    [(0.1, 0.4, 0.3, 0.4), (0.4, 0.1, 0.3, 0.7), (0.2, 0.2, 0.0, 0.2), (0.0, 1.0, 1.0, 1.0)],
)
def test_the_gap_lies_between_the_errors_and_the_objective_adds_it(train, test, gap, objective):
    found = Generalisation(train, test)
    assert found.gap == pytest.approx(gap)
    assert found.objective == pytest.approx(objective)


def test_errors_are_shares_of_all_samples_and_not_means_of_batches():
    found = generalisation(Sign(), TRAIN, TEST)
    assert found == Generalisation(1 / 4, 3 / 5)


def test_batches_may_be_a_generator():
    assert generalisation(Sign(), iter(TRAIN), (b for b in TEST)) == Generalisation(1 / 4, 3 / 5)


def test_the_measure_of_a_network_is_the_errors_of_its_largest_logits():
    model, x = build("resnet")
    x = torch.cat([x, -x, 3 * x])
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    wrong = (model(x).argmax(dim=1) != y).double()
    found = generalisation(model, [(x[:4], y[:4])], [(x[4:], y[4:])])
    assert found == Generalisation(float(wrong[:4].mean()), float(wrong[4:].mean()))


@pytest.mark.parametrize("training", [False, True])
def test_errors_are_those_of_eval_mode_and_the_mode_is_put_back(training):
    model = Sign().train(training)
    model.drop.train(not training)
    assert generalisation(model, TRAIN, TEST).train_error == 1 / 4
    assert (model.training, model.drop.training) == (training, not training)


@pytest.mark.parametrize(("train", "test"), [([], TEST), (TRAIN, []), ([], [])])
def test_errors_without_samples_are_refused(train, test):
    model = Sign()
    with pytest.raises(ValueError, match="there are no samples to measure errors on"):
        generalisation(model, train, test)
    assert model.training and model.drop.training


def test_batches_without_samples_are_no_samples():
    empty = torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="there are no samples"):
        generalisation(Sign(), [empty], TEST)


def test_a_batch_without_samples_does_not_count():
    empty = torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)
    assert generalisation(Sign(), [empty, *TRAIN], TEST).train_error == 1 / 4


def test_outputs_that_are_no_logits_are_refused():
    with pytest.raises(ValueError, match=r"expected logits \[N, K\]"):
        generalisation(nn.Identity(), [(torch.zeros(2, 3, 4), torch.zeros(2))], TEST)


# Encodings (SPL proposition 1).


@pytest.mark.parametrize("name", ["resnet", "bird10", "linear", "1-d cnn"])
@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_the_amplitude_is_how_much_of_each_template_is_in_the_input(name, chunk):
    model, x = build(name)
    expected = templates(model, x).match
    found = encode(model, x, chunk=chunk).amplitude
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PIECEWISE_AFFINE)
def test_the_amplitude_and_the_biases_are_the_logits(name):
    model, x = build(name)
    found = encode(model, x).amplitude + templates(model, x).b
    torch.testing.assert_close(found, model(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["resnet", "bird10", "linear", "1-d cnn"])
def test_the_phase_is_the_codes_of_all_layers(name):
    model, x = build(name)
    found, expected = encode(model, x).phase, codes(model, x)
    assert list(found) == list(expected)
    assert all(torch.equal(found[key].choices, expected[key].choices) for key in expected)


def test_the_amplitude_of_one_layer_is_that_of_its_active_units():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU()).double(), torch.randn(5, 4).double()
    z = model[0](x)
    expected = (z - model[0].bias) * (z > 0)
    torch.testing.assert_close(encode(model, x).amplitude, expected, rtol=0, atol=1e-14)


# Sparsity.


def bent(*layers):
    return nn.Sequential(*layers, nn.Flatten()).double()


HAND = torch.tensor([[[-1.0, 2, 3, -4]], [[-1, -2, -3, -4]], [[1, 7, 8, 9]]], dtype=DOUBLE)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.ReLU(), [0.5, 0, 1]),
        (nn.ReLU(inplace=True), [0.5, 0, 1]),
        (nn.LeakyReLU(0.01), [0.5, 0, 1]),
        (nn.LeakyReLU(0.2), [0.5, 0, 1]),
        (nn.ReLU6(), [0.5, 0, 0.25]),
        (nn.Hardtanh(-2.5, 2.5), [0.5, 0.5, 0.25]),
    ],
)
def test_the_sparsity_is_the_share_of_units_that_pass_their_argument_on(layer, expected):
    found = sparsity(bent(layer), HAND.clone())
    assert {name: each.tolist() for name, each in found.items()} == {"0": expected}


def test_every_nonlinearity_has_a_sparsity_and_no_maximum():
    """Of 2 and 3 above zero 3 wins, of −1 and 2 the 2."""
    model = bent(nn.ReLU(), nn.MaxPool1d(2), nn.LeakyReLU(0.1))
    found = sparsity(model, HAND - 1.5)
    assert list(found) == ["0", "2"]
    assert found["0"].tolist() == [0.5, 0, 0.75]
    assert found["2"].tolist() == [1, 0, 1]


def test_the_active_share_of_a_maximum_is_not_a_number():
    (code,) = codes(bent(nn.MaxPool1d(2)), HAND).values()
    assert code.active.shape == (3,)
    assert all(map(math.isnan, code.active.tolist()))


@pytest.mark.parametrize("name", ["resnet", "u-net", "lean layers"])
def test_the_sparsity_of_a_network_is_that_of_its_codes(name):
    model, x = build(name)
    found = sparsity(model, x)
    for key, code in codes(model, x).items():
        torch.testing.assert_close(
            found[key], code.choices.double().mean(dim=1), rtol=0, atol=1e-15
        )
