"""Means over the samples a term applies to, of a batch or of the parts of one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from birdinv.samples import Samples

MODEL = nn.Linear(2, 2)
EACH = torch.tensor([1.0, 10.0, 100.0, 1000.0]).double()


def means(samples, each):
    return (
        samples.mean(each).item(),
        samples.mean_of_labelled(each).item(),
        samples.mean_of_unlabelled(each).item(),
    )


@pytest.mark.parametrize(
    ("labels", "labelled", "unlabelled"),
    [
        ([2, -1, 0, -1], 101 / 2, 1010 / 2),
        ([2, 0, 0, -1], 111 / 3, 1000),
        ([-1, -1, 5, -1], 100, 1011 / 3),
        ([0, 0, 0, 0], 1111 / 4, 0),
        ([-1, -1, -1, -1], 0, 1111 / 4),
    ],
)
def test_means_are_over_the_samples_of_their_kind_and_0_without_any(labels, labelled, unlabelled):
    samples = Samples(MODEL, torch.tensor(labels))
    assert means(samples, EACH) == pytest.approx((1111 / 4, labelled, unlabelled))
    assert samples.any_unlabelled.item() == (-1 in labels)
    assert samples.unlabelled.tolist() == [label == -1 for label in labels]
    assert samples.part is None


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [-1, -1, -1, -1], [0, -1, -1, -1]])
def test_gradients_are_finite_and_of_the_samples_of_their_kind_alone(labels):
    y = torch.tensor(labels)
    samples = Samples(MODEL, y)
    each = EACH.clone().requires_grad_()
    rows = torch.ones(4, 3).double().requires_grad_()
    (got,) = torch.autograd.grad(samples.mean_of_labelled(each), each)
    torch.testing.assert_close(got, (y >= 0) / (y >= 0).sum().clamp(min=1), check_dtype=False)
    (got,) = torch.autograd.grad(samples.mean_of_unlabelled(each), each)
    expected = (y < 0) / (y < 0).sum().clamp(min=1)
    torch.testing.assert_close(got, expected, check_dtype=False)
    (got,) = torch.autograd.grad(samples.mean_row_of_unlabelled(rows).sum(), rows)
    torch.testing.assert_close(got, expected[:, None].expand(4, 3), check_dtype=False)


def test_what_other_samples_hold_does_not_matter_be_it_infinite():
    """The entropy of a labelled sample may be anything."""
    each = torch.tensor([1.0, torch.inf, 3.0, torch.nan]).double().requires_grad_()
    mean = Samples(MODEL, torch.tensor([-1, 0, -1, 0])).mean_of_unlabelled(each)
    mean.backward()
    assert mean.item() == 2 and each.grad.tolist() == [0.5, 0, 0.5, 0]
    rows = each.detach()[:, None].expand(4, 2)
    row = Samples(MODEL, torch.tensor([-1, 0, -1, 0])).mean_row_of_unlabelled(rows)
    assert row.tolist() == [2, 2]
    assert Samples(MODEL, torch.tensor([1, -1, 1, -1])).mean_of_labelled(each).item() == 2


def test_the_mean_row_is_that_of_the_unlabelled_samples_of_the_part():
    rows = torch.tensor([[1.0, 0.0], [0.2, 0.8], [0.6, 0.4], [0.0, 1.0]]).double()
    y = torch.tensor([0, -1, -1, -1])
    whole = Samples(MODEL, y)
    assert whole.mean_row_of_unlabelled(rows).tolist() == pytest.approx([0.8 / 3, 2.2 / 3])
    part = Samples(MODEL, y[:3], y)
    assert part.mean_row_of_unlabelled(rows[:3]).tolist() == pytest.approx([0.4, 0.6])
    assert part.part.item() == pytest.approx(2 / 3)


def test_a_part_without_unlabelled_samples_knows_that_it_has_none():
    y = torch.tensor([0, 1, -1, -1])
    part = Samples(MODEL, y[:2], y)
    assert not part.any_unlabelled and part.part == 0
    assert part.mean_row_of_unlabelled(torch.ones(2, 3)).tolist() == [0, 0, 0]
    assert Samples(MODEL, y[2:], y).part == 1


@given(
    parts=st.lists(st.lists(st.integers(-1, 2), min_size=1, max_size=4), min_size=1, max_size=4),
)
def test_means_of_parts_add_up_to_those_of_the_whole(parts):
    whole = torch.tensor([label for part in parts for label in part])
    each = torch.arange(1, len(whole) + 1).double() ** 2
    pieces = each.split([len(part) for part in parts])
    sums = [0.0, 0.0, 0.0]
    shares = 0.0
    for part, piece in zip(parts, pieces, strict=True):
        samples = Samples(MODEL, torch.tensor(part), whole)
        sums = [a + b for a, b in zip(sums, means(samples, piece), strict=True)]
        shares += samples.part.item()
    assert sums == pytest.approx(means(Samples(MODEL, whole), each), rel=1e-6)
    assert shares == pytest.approx(float((whole == -1).any()))
