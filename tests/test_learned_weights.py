"""Learned weights follow finite differences of the whole update."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW, RMSprop

import birdinv
from birdinv.learned_weights import LearnedWeights

WEIGHTS = {"alpha": 0.8, "beta": 0.3, "gamma0": 0.5, "gamma1": 0.2}

STEPS = {
    "sgd": lambda p: SGD(p, lr=0.05),
    "momentum": lambda p: SGD(p, lr=0.05, momentum=0.9),
    "dampening": lambda p: SGD(p, lr=0.05, momentum=0.9, dampening=0.4),
    "nesterov": lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "weight decay": lambda p: SGD(p, lr=0.05, momentum=0.5, weight_decay=0.3),
    "sgd maximize": lambda p: SGD(p, lr=0.05, momentum=0.5, maximize=True, weight_decay=0.3),
    "sgd fused": lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True, fused=True),
    "groups": lambda p: SGD(
        [{"params": [next(p)], "lr": 0.02, "momentum": 0.5}, {"params": list(p)}], lr=0.05
    ),
    # The usual ε leaves nearly the sign of the gradient in the first step, and so no derivative.
    "adam usual": lambda p: Adam(p, lr=0.05),
    "adam": lambda p: Adam(p, lr=0.05, eps=0.02),
    "adam l2": lambda p: Adam(p, lr=0.05, eps=0.02, weight_decay=0.3),
    "adam maximize": lambda p: Adam(p, lr=0.05, eps=0.02, weight_decay=0.3, maximize=True),
    "adam tensor": lambda p: Adam(p, lr=torch.tensor(0.05), eps=0.02, foreach=False),
    "adam fused": lambda p: Adam(p, lr=0.05, eps=0.02, fused=True),
    "adamw": lambda p: AdamW(p, lr=0.05, eps=0.02, weight_decay=0.3),
    "amsgrad": lambda p: Adam(p, lr=0.05, eps=0.02, betas=(0.8, 0.6), amsgrad=True),
}


def dense():
    stages = [nn.Sequential(nn.Linear(4, 5), nn.Softplus()), nn.Linear(5, 3)]
    return nn.Sequential(*stages), torch.randn(4, 4)


def convolved():
    stages = [
        nn.Sequential(nn.Conv1d(1, 2, 4, 2), nn.Softplus()),
        nn.Sequential(nn.Flatten(), nn.Linear(8, 3)),
    ]
    return nn.Sequential(*stages), torch.randn(4, 1, 10)


NETWORKS = {"dense": dense, "convolved": convolved}
Y = torch.tensor([2, -1, 0, -1])


def network(build=dense):
    torch.manual_seed(0)
    model, x = build()
    return model.double(), x.double()


def objective_of(weights):
    alpha, beta, *gamma = weights
    return birdinv.LayerWeightedObjective(alpha, beta, gamma, layers=["0"])


def tensors(values):
    return [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]


def plain_step(model, optimiser, x, weights):
    optimiser.zero_grad()
    objective_of(weights)(model, x, Y).total.backward()
    optimiser.step()


def held_out(model, x):
    return cross_entropy(model(1 - x), Y.clamp(min=0))


def loss_after(model, optimiser, x, weights, after):
    """`L(Θ(t+1))` of a copy that took a plain step with these numbers as weights."""
    model, optimiser = copy.deepcopy((model, optimiser))
    plain_step(model, optimiser, x, weights)
    if after:
        return held_out(model, x).item()
    return objective_of(weights)(model, x, Y).total.item()


@pytest.mark.parametrize("taken", [0, 3])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("build", NETWORKS)
def test_the_derivative_is_a_finite_difference_of_the_whole_update(build, step, after, taken):
    model, x = network(NETWORKS[build])
    optimiser = STEPS[step](model.parameters())
    values = list(WEIGHTS.values())
    for i in range(taken):
        # Large first, so that amsgrad's maximum is an old one for some parameters.
        plain_step(model, optimiser, x * (1 - 0.3 * i), values)
    slopes = []
    h = 1e-4
    for j in range(len(values)):
        sides = [
            loss_after(
                model, optimiser, x, [v + way * (i == j) for i, v in enumerate(values)], after
            )
            for way in (h, -h)
        ]
        slopes.append((sides[0] - sides[1]) / (2 * h))
    weights = tensors(values)
    learned = LearnedWeights(weights, optimiser, rate=0.1)
    objective = objective_of(weights)
    learned.step(
        lambda: objective(model, x, Y).total, (lambda: held_out(model, x)) if after else None
    )
    expected = torch.tensor(slopes, dtype=torch.float64)
    torch.testing.assert_close(learned.gradient, expected, rtol=1e-6, atol=1e-8)
    direct = torch.zeros(len(values), dtype=torch.float64)
    if not after:
        total = objective(model, x, Y).total
        # At the weights that the loss was taken at: it is linear in them.
        direct = torch.stack(torch.autograd.grad(total, weights))
    through = (learned.gradient - direct).abs()
    if step != "adam usual" or taken:
        assert (through > 1e-6).all(), "the part through the step is too small to be tested"
    torch.testing.assert_close(
        torch.stack(weights).detach(),
        (torch.tensor(values, dtype=torch.float64) - 0.1 * expected).clamp(min=0),
        rtol=1e-6,
        atol=1e-8,
    )


def test_amsgrad_is_tested_with_old_and_with_new_maxima():
    model, x = network()
    optimiser = STEPS["amsgrad"](model.parameters())
    for i in range(3):
        plain_step(model, optimiser, x * (1 - 0.3 * i), list(WEIGHTS.values()))
    before = [state["max_exp_avg_sq"].clone() for state in optimiser.state.values()]
    plain_step(model, optimiser, x, list(WEIGHTS.values()))
    new = [
        state["max_exp_avg_sq"] > old
        for state, old in zip(optimiser.state.values(), before, strict=True)
    ]
    share = torch.cat([each.flatten() for each in new]).double().mean()
    assert 0.1 < share < 0.9


def test_weights_that_enter_as_products_are_learned_too():
    """INV 10: `(1 − α) β R` has a derivative in α that depends on β, and both are limited to 1."""
    model, x = network()
    weights = tensors([0.7, 0.3])
    optimiser = SGD(model.parameters(), lr=0.05)
    h, slopes = 1e-4, []
    for j in range(2):
        sides = []
        for way in (h, -h):
            alpha, beta = (v + way * (i == j) for i, v in enumerate([0.7, 0.3]))
            copied = copy.deepcopy(model)
            step = SGD(copied.parameters(), lr=0.05)
            objective = birdinv.WeightedObjective(alpha, beta)
            objective(copied, x, Y).total.backward()
            step.step()
            sides.append(objective(copied, x, Y).total.item())
        slopes.append((sides[0] - sides[1]) / (2 * h))
    objective = birdinv.WeightedObjective(*weights)
    learned = LearnedWeights(weights, optimiser, rate=100, at_most=1)
    learned.step(lambda: objective(model, x, Y).total)
    assert learned.gradient.tolist() == pytest.approx(slopes, rel=1e-6, abs=1e-8)
    assert [w.item() for w in weights] == [float(slope < 0) for slope in slopes]


@pytest.mark.parametrize("step", STEPS)
def test_the_parameters_are_those_of_the_plain_step_bit_for_bit(step):
    torch.manual_seed(0)
    model, x = convolved()
    other = copy.deepcopy(model)
    ours, theirs = (STEPS[step](m.parameters()) for m in (model, other))
    values = list(WEIGHTS.values())
    for _ in range(3):
        weights = [torch.tensor(v, requires_grad=True) for v in values]
        fixed = [w.detach().clone() for w in weights]
        objective = objective_of(weights)
        learned = LearnedWeights(weights, ours, rate=1e-3)
        loss = learned.step(lambda objective=objective: objective(model, x, Y).total)
        theirs.zero_grad()
        expected = objective_of(fixed)(other, x, Y).total
        expected.backward()
        theirs.step()
        assert torch.equal(loss, expected.detach()) and not loss.requires_grad
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b) and torch.equal(a.grad, b.grad)
            assert a.requires_grad and a.is_leaf and not a.grad.requires_grad
        assert all(w.grad is None and w.requires_grad and w.is_leaf for w in weights)
    states = ours.state_dict()["state"], theirs.state_dict()["state"]
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_parameters_that_share_a_gradient_keep_their_own():
    """The gradient of `a + b` is one tensor for both; Nesterov's `foreach` adds to it in place."""
    pairs = []
    for learning in (True, False):
        a, b = (nn.Parameter(torch.tensor([v, 1.0])) for v in (0.5, 2.0))
        w = torch.tensor(1.0, requires_grad=True)
        optimiser = SGD([a, b], lr=0.1, momentum=0.9, nesterov=True, foreach=True)

        def loss(a=a, b=b, w=w):
            return w * (a + b).square().sum()

        if learning:
            LearnedWeights([w], optimiser, rate=0.1).step(loss)
        else:
            loss().backward()
            optimiser.step()
        pairs.append((a.detach(), b.detach()))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*pairs, strict=True))


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_parameters_that_are_frozen_unused_or_dead_do_no_harm(kind):
    model, x = network()
    frozen = model[0][0].weight.requires_grad_(False)
    unused, dead = (nn.Parameter(torch.ones(2).double()) for _ in range(2))
    tiny = nn.Parameter(torch.ones(2))  # of whose gradient the square is 0, or hardly more
    scale = torch.tensor([1e-30, 4e-23])
    optimiser = kind([*model.parameters(), unused, dead, tiny], lr=0.01)
    before = frozen.clone()
    weights = tensors(WEIGHTS.values())
    objective = objective_of(weights)
    learned = LearnedWeights(weights, optimiser, rate=0.1)

    def loss():
        zero = 0 * (dead * dead).sum() * weights[0]
        return objective(model, x, Y).total + zero + weights[0] * (scale * tiny).sum()

    for _ in range(3):
        learned.step(loss)
        assert learned.gradient.isfinite().all() and learned.gradient.all()
        assert all(w.isfinite() for w in weights)
    assert torch.equal(frozen, before) and frozen.grad is None and not frozen.requires_grad
    assert unused.grad is None and dead.grad.eq(0).all()


def test_a_weight_that_the_loss_does_not_depend_on_stays():
    model, x = network()
    weights = tensors([0.5, 0.4, 0.3])
    objective = birdinv.LayerWeightedObjective(weights[0], 0.1, 0.2, layers=[])
    learned = LearnedWeights(weights, SGD(model.parameters(), lr=0.01), rate=0.1)
    # The third enters, but not by way of the parameters: its derivative is the plain one.
    learned.step(lambda: objective(model, x, Y).total + 2 * weights[2])
    assert learned.gradient[1] == 0 and weights[1].item() == 0.4
    assert learned.gradient[2] == 2 and weights[2].item() == pytest.approx(0.1)


def test_the_training_loss_drives_weights_to_zero_and_no_further():
    model, x = network()
    weights = tensors(WEIGHTS.values())
    objective = objective_of(weights)
    learned = LearnedWeights(weights, SGD(model.parameters(), lr=0.01), rate=0.5)
    for _ in range(30):
        learned.step(lambda: objective(model, x, Y).total)
    assert [w.item() for w in weights] == [0.0] * 4


def test_held_out_labels_raise_the_weight_of_what_helps():
    """A term that leads where the held out loss falls gains weight, its opposite loses it all."""
    theta = nn.Parameter(torch.tensor(2.0))
    helps, harms = (torch.tensor(0.5, requires_grad=True) for _ in range(2))
    learned = LearnedWeights([helps, harms], SGD([theta], lr=0.1), rate=0.2, at_most=0.8)
    for _ in range(20):
        learned.step(lambda: helps * theta**2 + harms * (theta - 5) ** 2, after=lambda: theta.abs())
    assert helps.item() == pytest.approx(0.8) and harms.item() == 0
    assert theta.abs() < 0.5


def test_the_example_of_one_parameter_by_hand():
    """`L = wθ²`, `θ = w = 1`, `λ = 0.1`: `θ' = 0.8`, `dL/dw = θ'² + 2wθ' · (−λ 2θ) = 0.32`."""
    theta, w = nn.Parameter(torch.ones(()).double()), torch.ones((), dtype=torch.float64)
    w.requires_grad_()
    learned = LearnedWeights([w], SGD([theta], lr=0.1), rate=1)
    with torch.no_grad():
        loss = learned.step(lambda: w * theta**2)
        assert not torch.is_grad_enabled()
    assert (loss.item(), theta.item()) == pytest.approx((1, 0.8))
    assert learned.gradient.item() == pytest.approx(0.32) and w.item() == pytest.approx(0.68)


def test_gradients_of_earlier_steps_are_kept_by_who_logs_them():
    theta, w = nn.Parameter(torch.tensor(1.0)), torch.tensor(1.0, requires_grad=True)
    learned = LearnedWeights([w], SGD([theta], lr=0.1), rate=0.1)
    logged = []
    for _ in range(2):
        learned.step(lambda: w * theta**2)
        logged.append(learned.gradient)
    assert logged[0] != logged[1]


class Custom(SGD):
    pass


def leaf(value=0.5):
    return torch.tensor(value, requires_grad=True)


PARAMETERS = [nn.Parameter(torch.ones(2))]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda o: LearnedWeights([], o, rate=1), "weights is a tensor or empty; expected a list"),
        (lambda o: LearnedWeights(leaf(), o, rate=1), "weights is a tensor or empty"),
        (lambda o: LearnedWeights([0.5], o, rate=1), r"weights\[0\] is no leaf that requires"),
        (lambda o: LearnedWeights([leaf(), leaf() * 2], o, rate=1), r"weights\[1\] is no leaf"),
        (lambda o: LearnedWeights([torch.ones(())], o, rate=1), r"weights\[0\] is no leaf"),
        (
            lambda o: LearnedWeights([torch.ones(2, requires_grad=True)], o, rate=1),
            r"weights\[0\] is a tensor \[2\]; expected a single number",
        ),
        (lambda o: LearnedWeights([leaf(-0.5)], o, rate=1), r"weights\[0\] is -0.5; expected"),
        (lambda o: LearnedWeights([leaf(2.0)], o, rate=1, at_most=1), "is 2.0; .* from 0 to 1"),
        (lambda o: LearnedWeights([leaf()] * 2, o, rate=1), r"weights\[1\] is there twice"),
        (lambda o: LearnedWeights([leaf()], o, rate=0), "rate is 0; expected a number above 0"),
        (lambda o: LearnedWeights([leaf()], o, rate=math.nan), "rate is nan; expected"),
        (lambda o: LearnedWeights([leaf()], o, rate=1, at_most=0), "at_most is 0; expected"),
        (
            lambda o: LearnedWeights([leaf()], RMSprop(PARAMETERS), rate=1),
            "the optimiser is RMSprop; expected torch.optim.SGD, Adam or AdamW",
        ),
        (lambda o: LearnedWeights([leaf()], Custom(PARAMETERS), rate=1), "optimiser is Custom"),
        (
            lambda o: LearnedWeights([leaf()], o, rate=1).step(lambda: PARAMETERS[0].sum()),
            "the loss depends on none of the weights; give these very tensors",
        ),
        (
            lambda o: LearnedWeights([leaf()], o, rate=1).step(lambda: PARAMETERS[0] * 2),
            r"loss gave tensor\(\[2., 2.\].*; expected a scalar tensor with a gradient, such as",
        ),
        (
            lambda o: LearnedWeights([leaf()], o, rate=1).step(lambda: torch.ones(())),
            "loss gave tensor.* expected a scalar tensor with a gradient",
        ),
        (lambda o: LearnedWeights([leaf()], o, rate=1).step(lambda: None), "loss gave None; exp"),
    ],
)
def test_what_cannot_be_learned_is_refused_with_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(SGD(PARAMETERS, lr=0.1))
    assert PARAMETERS[0].eq(1).all()


def test_a_weight_among_the_parameters_is_refused():
    weight = leaf()
    with pytest.raises(ValueError, match=r"weights\[0\] is there twice, or is a parameter"):
        LearnedWeights([weight], SGD([weight], lr=0.1), rate=1)


def test_a_bad_loss_after_the_step_is_named():
    theta, w = nn.Parameter(torch.tensor(1.0)), leaf()
    learned = LearnedWeights([w], SGD([theta], lr=0.1), rate=1)
    with pytest.raises(ValueError, match=r"after gave 1\.0; expected a scalar tensor"):
        learned.step(lambda: w * theta, after=lambda: 1.0)


def test_several_processes_are_refused(monkeypatch):
    theta, w = nn.Parameter(torch.tensor(1.0)), leaf()
    learned = LearnedWeights([w], SGD([theta], lr=0.1), rate=1)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(RuntimeError, match="learned in one process, and 2 run together: use"):
        learned.step(lambda: w * theta)
    assert theta.item() == 1
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    learned.step(lambda: w * theta)
    assert theta.item() < 1
