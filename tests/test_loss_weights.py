"""Schedules are their formulas."""

import math

import pytest
import torch
from torch import nn

import birdinv
from birdinv.loss_weights import constant, cosine, linear, piecewise, reconstruction_first


def test_schedules_are_their_formulas():
    assert [constant(0.3)(step) for step in (0, 10**6)] == [0.3, 0.3]
    line = linear(0.2, 1.0, steps=4, begin=2)
    assert [line(t) for t in range(8)] == pytest.approx([0.2, 0.2, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    half = cosine(1.0, 0.2, steps=4)
    bend = math.sqrt(0.5)  # cos(π/4)
    expected = [1.0, 0.6 + 0.4 * bend, 0.6, 0.6 - 0.4 * bend, 0.2, 0.2]
    assert [half(t) for t in range(6)] == pytest.approx(expected)
    parts = piecewise({1000: 0.5, 0: 1.0, 2000: 0.0})
    steps = [0, 999, 1000, 1999, 2000, 10**6]
    assert [parts(t) for t in steps] == [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("kind", [linear, cosine])
@pytest.mark.parametrize(("start", "end"), [(0.1, 0.7), (0.3, 0.0), (1 / 3, 0.9)])
def test_schedules_hold_their_ends_exactly(kind, start, end):
    schedule = kind(start, end, steps=7, begin=3)
    assert {schedule(t) for t in range(4)} == {start}
    assert {schedule(t) for t in range(10, 30)} == {end}
    inside = [schedule(t) for t in range(3, 11)]
    assert inside == sorted(inside, reverse=end < start) and len(set(inside)) == len(inside)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: constant(-1), "value is -1; expected a number of at least 0"),
        (lambda: constant(math.inf), "value is inf; expected a number of at least 0"),
        (lambda: linear(-1, 0, 10), "start is -1; expected a number of at least 0"),
        (lambda: cosine(0, math.nan, 10), "end is nan; expected a number of at least 0"),
        (lambda: linear(0, 1, 0), "steps is 0; expected at least 1"),
        (lambda: cosine(0, 1, 10, begin=-1), "begin is -1; expected a step, from 0"),
        (lambda: piecewise({}), r"the steps are \[\]; expected the first to be 0"),
        (lambda: piecewise({10: 1.0}), r"the steps are \[10\]; expected the first to be 0"),
        (lambda: piecewise({-1: 1.0, 0: 0.5}), r"steps are \[-1, 0\]; expected the first"),
        (lambda: piecewise({0: 1.0, 5: -2.0}), "value from step 5 is -2.0; expected a number"),
        (lambda: reconstruction_first(0), "steps is 0; expected at least 1"),
        (lambda: reconstruction_first(10, kept=1.1), "kept is 1.1; expected a number from 0 to 1"),
        (lambda: reconstruction_first(10, gamma=-1), "start is -1; expected a number"),
    ],
)
def test_bad_schedules_are_refused_with_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_reconstruction_comes_first_and_then_the_labels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 5), nn.Softplus()), nn.Linear(5, 3)).double()
    x, y = torch.randn(4, 4).double(), torch.tensor([2, -1, 0, -1])
    recipe = reconstruction_first(100, alpha=0.9, beta=0.2, gamma=0.6, kept=0.5, begin=10)
    objective = birdinv.LayerWeightedObjective(**recipe, layers=["0"])
    terms = objective(model, x, y, step=10)
    assert terms.cross_entropy is None and terms.entropy is None
    assert terms.total.item() == pytest.approx(0.6 * sum(terms.levels.values()).item())
    for step, s in [(60, 0.5), (110, 1.0), (1000, 1.0)]:
        terms = objective(model, x, y, step=step)
        expected = (
            s * 0.9 * terms.cross_entropy
            + s * 0.2 * terms.entropy
            + (1 - 0.5 * s) * 0.6 * sum(terms.levels.values())
        )
        assert terms.total.item() == pytest.approx(expected.item())
    with pytest.raises(ValueError, match="alpha follows a schedule: call the objective with step="):
        objective(model, x, y)
