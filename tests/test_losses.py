"""Objectives equal the equations written out, and their gradients central finite differences."""

import math
from functools import partial

import pytest
import reference
import torch
from torch import nn

import birdinv
from birdinv.terms import UNLABELED, cross_entropy, entropy

LABELS = {
    "mixed": [2, -1, 0, -1],
    "labelled": [2, 1, 0, 0],
    "unlabelled": [-1, -1, -1, -1],
    "one": [-1, -1, 1, -1],
}


def smooth(width=3):
    """A small network of three stages without kinks, for finite differences."""
    torch.manual_seed(0)
    stages = [
        nn.Sequential(nn.Conv1d(1, width, 4, 2), nn.Softplus()),
        nn.Sequential(nn.Flatten(), nn.Linear(4 * width, 5), nn.Tanh()),
        nn.Linear(5, 3),
    ]
    return nn.Sequential(*stages).double(), torch.randn(4, 1, 10).double()


def bird():
    torch.manual_seed(0)
    model = birdinv.networks.build("bird10", classes=3, shape=(1, 4700), width=4, dense=5)
    return model.double().eval(), torch.randn(4, 1, 4700).double()


OBJECTIVES = {
    "inv": (birdinv.WeightedObjective(0.7, 0.3), partial(reference.weighted, alpha=0.7, beta=0.3)),
    "inv sum": (
        birdinv.WeightedObjective(0.6, 0.5, reduction="sum"),
        partial(reference.weighted, alpha=0.6, beta=0.5, reduction="sum"),
    ),
    "supervised": (
        birdinv.WeightedObjective(1.0, 0.4),
        partial(reference.weighted, alpha=1.0, beta=0.4),
    ),
    "unsupervised": (
        birdinv.WeightedObjective(0.0, 0.2),
        partial(reference.weighted, alpha=0.0, beta=0.2),
    ),
    "entropy alone": (
        birdinv.WeightedObjective(0.5, 0.0),
        partial(reference.weighted, alpha=0.5, beta=0.0),
    ),
    "reconstruction alone": (
        birdinv.WeightedObjective(0.5, 1.0),
        partial(reference.weighted, alpha=0.5, beta=1.0),
    ),
    "global": (
        birdinv.ParameterFreeObjective("global"),
        partial(reference.parameter_free, scale="global"),
    ),
    "multiscale": (
        birdinv.ParameterFreeObjective("multiscale", layers=["0", "1"]),
        partial(reference.parameter_free, scale="multiscale"),
    ),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_its_equation(name, labels):
    model, x = smooth()
    y = torch.tensor(LABELS[labels])
    ours, theirs = OBJECTIVES[name]
    terms = ours(model, x, y)
    expected = theirs(list(model), x, y)
    torch.testing.assert_close(terms.total, expected, rtol=0, atol=1e-10)
    parameters = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad(terms.total, parameters, allow_unused=True),
        torch.autograd.grad(expected, parameters, allow_unused=True),
        strict=True,
    ):
        a, b = (torch.zeros(()) if g is None else g for g in (a, b))
        assert (a - b).abs().max() <= 1e-10


def test_multiscale_on_bird10_takes_the_networks_own_layers():
    model, x = bird()
    y = torch.tensor(LABELS["mixed"])
    stages = [model.block1, model.block2, model.hidden, model.head]
    terms = birdinv.ParameterFreeObjective("multiscale")(model, x, y)
    expected = reference.parameter_free(stages, x, y, scale="multiscale")
    torch.testing.assert_close(terms.total, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_central_finite_differences(name):
    model, x = smooth(width=2)
    y = torch.tensor(LABELS["mixed"])
    objective = OBJECTIVES[name][0]
    objective(model, x, y).total.backward()
    step = 1e-5
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        for i in range(len(flat)):
            old = flat[i].item()
            sides = []
            for way in (step, -step):
                flat[i] = old + way
                sides.append(objective(model, x, y).total.item())
            flat[i] = old
            slope = (sides[0] - sides[1]) / (2 * step)
            assert parameter.grad.view(-1)[i].item() == pytest.approx(slope, abs=1e-8, rel=1e-6)


def test_the_terms_are_those_of_the_total_and_detached():
    model, x = smooth()
    y = torch.tensor(LABELS["mixed"])
    terms = birdinv.WeightedObjective(0.7, 0.3)(model, x, y)
    parts = terms.cross_entropy, terms.entropy, terms.reconstruction, terms.logits
    assert terms.total.requires_grad and terms.total.shape == ()
    assert not any(part.requires_grad for part in parts)
    ce, e, r, logits = parts
    torch.testing.assert_close(terms.total.detach(), 0.7 * ce + 0.3 * (0.3 * r + 0.7 * e))
    torch.testing.assert_close(logits, model(x).detach())
    free = birdinv.ParameterFreeObjective("global")(model, x, y)
    whole = (free.cross_entropy + free.entropy) / math.log(3) + free.reconstruction
    torch.testing.assert_close(free.total.detach(), whole)


@pytest.mark.parametrize(
    ("alpha", "beta", "absent"),
    [
        (1.0, 0.3, {"entropy", "reconstruction"}),
        (0.0, 0.3, {"cross_entropy"}),
        (0.5, 0.0, {"reconstruction"}),
        (0.5, 1.0, {"entropy"}),
    ],
)
def test_a_term_of_weight_zero_is_none(alpha, beta, absent):
    model, x = smooth()
    terms = birdinv.WeightedObjective(alpha, beta)(model, x, torch.tensor(LABELS["mixed"]))
    names = {"cross_entropy", "entropy", "reconstruction"}
    assert {name for name in names if getattr(terms, name) is None} == absent


def test_plain_supervised_training_needs_no_reconstruction():
    """α = 1 works where a reconstruction could not: on logits that do not depend on the input."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return self.bias.expand(len(x), 3)

    x, y = torch.randn(2, 4), torch.tensor([0, 1])
    birdinv.WeightedObjective(1.0, 0.5)(Constant(), x, y).total.backward()
    with pytest.raises(RuntimeError):
        birdinv.WeightedObjective(0.9, 0.5)(Constant(), x, y)


def test_extreme_logits_have_finite_terms_and_gradients():
    logits = torch.tensor([[1e4, -1e4, 0.0], [3e38, -3e38, 0.0]], requires_grad=True)
    log_probs = torch.log_softmax(logits, dim=1)
    unlabelled = torch.full((2,), UNLABELED)
    total = cross_entropy(log_probs[:1], torch.tensor([1])) + entropy(log_probs[:1], unlabelled[:1])
    total.backward()
    assert total.item() == pytest.approx(2e4) and logits.grad.isfinite().all()
    assert cross_entropy(log_probs, unlabelled).item() == 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: birdinv.WeightedObjective(1.1, 0), "alpha is 1.1; expected a number from 0 to 1"),
        (lambda: birdinv.WeightedObjective(0, -0.1), "beta is -0.1; expected a number"),
        (lambda: birdinv.WeightedObjective(math.nan, 0), "alpha is nan"),
        (
            lambda: birdinv.WeightedObjective(0, 0, reduction="max"),
            "reduction is 'max'; expected 'mean' or 'sum'",
        ),
        (
            lambda: birdinv.ParameterFreeObjective("local"),
            "scale is 'local'; expected 'global' or 'multiscale'",
        ),
        (
            lambda: birdinv.ParameterFreeObjective("global", layers=["0"]),
            "global objective reconstructs the input alone",
        ),
        (
            lambda: birdinv.ParameterFreeObjective("multiscale")(
                nn.Linear(4, 3), torch.randn(2, 4), torch.tensor([0, 1])
            ),
            "does not name its layers: pass layers",
        ),
        (
            lambda: birdinv.ParameterFreeObjective("global")(
                nn.Linear(4, 1), torch.randn(2, 4), torch.tensor([0, -1])
            ),
            "one logit; expected at least two",
        ),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        (torch.tensor([0]), r"labels of shape \(1,\) .* for 2 inputs; expected int64 \[2\], -1"),
        (torch.tensor([[0], [1]]), r"labels of shape \(2, 1\)"),
        (torch.tensor([0.0, 1.0]), "type torch.float32"),
        (torch.tensor([0, 3]), "labels from 0 to 3 for 3 logits; expected 0 to 2, -1 where"),
        (torch.tensor([-2, 1]), "labels from -2 to 1 for 3 logits"),
    ],
)
@pytest.mark.parametrize(
    "objective",
    [
        birdinv.WeightedObjective(1.0, 0.0),
        birdinv.WeightedObjective(0.7, 0.3),
        birdinv.ParameterFreeObjective("global"),
    ],
)
def test_bad_labels_are_refused_with_a_sentence(objective, y, sentence):
    with pytest.raises(ValueError, match=sentence):
        objective(nn.Linear(4, 3), torch.randn(2, 4), y)


def test_every_sample_counts_by_its_own_kind_only():
    """Changing an unlabelled sample leaves the cross-entropy, a labelled one the entropy."""
    torch.manual_seed(0)
    log_probs = torch.log_softmax(torch.randn(4, 3), dim=1)
    other = torch.log_softmax(torch.randn(4, 3), dim=1)
    y = torch.tensor([2, UNLABELED, 0, UNLABELED])
    mixed = torch.where((y == UNLABELED)[:, None], other, log_probs)
    assert torch.equal(cross_entropy(mixed, y), cross_entropy(log_probs, y))
    assert torch.equal(entropy(mixed, y), entropy(other, y))
    assert not torch.equal(entropy(mixed, y), entropy(log_probs, y))
