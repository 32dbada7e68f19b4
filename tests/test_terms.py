"""The terms are their formulas, sample by sample, and stay finite at the ends of the range."""

import dataclasses
import math

import pytest
import torch

import birdinv
from birdinv.terms import (
    UNLABELED,
    Terms,
    cosine,
    cross_entropy,
    entropy,
    log_probabilities,
    squared,
)

KIND = torch.float64


def test_cross_entropy_is_minus_the_logarithm_of_the_labels_share():
    shares = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], dtype=KIND)
    got = cross_entropy(shares.log(), torch.tensor([1, UNLABELED, 0]))
    assert got.tolist() == pytest.approx([-math.log(0.3), 0.0, -math.log(0.6)], abs=1e-15)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.25, 0.25, 0.25, 0.25], math.log(4)),
        ([0.5, 0.5, 1e-300, 1e-300], math.log(2)),
        ([1.0, 1e-300, 1e-300, 1e-300], 0.0),
        ([0.7, 0.1, 0.1, 0.1], -0.7 * math.log(0.7) - 0.3 * math.log(0.1)),
    ],
)
def test_entropy_is_that_of_the_predicted_distribution(shares, expected):
    got = entropy(torch.tensor([shares, [0.25] * 4], dtype=KIND).log())
    assert got.tolist() == pytest.approx([expected, math.log(4)], abs=1e-12)


def test_a_sample_without_label_gives_the_cross_entropy_no_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    y = torch.tensor([2, UNLABELED, 0])
    cross_entropy(log_probabilities(logits), y).sum().backward()
    assert logits.grad[1].abs().max() == 0
    assert (logits.grad[[0, 2]] != 0).all()


def test_extreme_logits_have_finite_terms_and_gradients():
    logits = torch.tensor([[1e4, -1e4, 0.0], [1e38, -1e38, 0.0]], requires_grad=True)
    log_probs = log_probabilities(logits)
    ce, e = cross_entropy(log_probs, torch.tensor([1, 1])), entropy(log_probs)
    assert ce.tolist() == pytest.approx([2e4, 2e38]) and e.tolist() == [0, 0]
    (ce.sum() + e.sum()).backward()
    assert logits.grad.isfinite().all()
    assert cross_entropy(log_probs, torch.tensor([UNLABELED, UNLABELED])).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_log_probabilities_are_at_least_float32(kind, expected):
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=kind)
    log_probs = log_probabilities(logits)
    assert log_probs.dtype == expected
    total = math.exp(2) + 1 + math.exp(-1)
    by_hand = [math.log(math.exp(z) / total) for z in (2, 0, -1)]
    assert log_probs[0].tolist() == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 3, 4)])
def test_distances_are_their_formulas_sample_by_sample(shape):
    torch.manual_seed(0)
    z_hat, z = torch.randn(2, 4, *shape).double()
    for i in range(4):
        a, b = z_hat[i].flatten().tolist(), z[i].flatten().tolist()
        distance = sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
        product = sum(p * q for p, q in zip(a, b, strict=True))
        assert squared(z_hat, z)[i].item() == pytest.approx(distance, rel=1e-12)
        angle = 1 - product / (math.hypot(*a) * math.hypot(*b))
        assert cosine(z_hat, z)[i].item() == pytest.approx(angle, abs=1e-12)


@pytest.mark.parametrize("distance", [squared, cosine])
def test_distances_are_differentiable_on_both_sides(distance):
    torch.manual_seed(0)
    pair = [torch.randn(2, 3, 2).double().requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(distance, pair)
    assert torch.autograd.gradgradcheck(distance, pair)


def test_cosine_is_blind_to_size_from_0_for_the_same_to_2_for_the_opposite_direction():
    z = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0]])
    z_hat = torch.tensor([[0.6, 0.8], [-30.0, -40.0], [4.0, -3.0]])
    assert cosine(z_hat, z).tolist() == pytest.approx([0, 2, 1], abs=1e-6)


def test_cosine_of_nothing_is_1_without_a_gradient():
    """A network whose last layer starts at zero reconstructs zeros."""
    z_hat = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0], [2.0, 1.0]], requires_grad=True)
    z = torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    distances = cosine(z_hat, z)
    distances.sum().backward()
    assert distances[:3].tolist() == [1, 1, 1]
    assert z_hat.grad[:3].abs().max() == z.grad[:3].abs().max() == 0
    assert z_hat.grad[3].abs().min() > 0 and z.grad[3].abs().min() > 0


def test_no_label_is_minus_one():
    assert birdinv.UNLABELED == -1


def test_terms_cannot_be_changed():
    terms = Terms(torch.tensor(1.0), None, None, None, None, {}, torch.zeros(3), torch.zeros(2, 3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        terms.total = torch.tensor(2.0)
