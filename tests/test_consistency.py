"""Rivals as terms: each is its paper's formula, and leaves the network as it found it."""

import copy
import math

import pytest
import reference
import torch
from test_losses import assert_same
from torch import nn

from birdinv import WeightedObjective
from birdinv.consistency import (
    FixMatch,
    MeanTeacher,
    Pass,
    PiModel,
    PseudoLabels,
    VirtualAdversarial,
    without_dropout,
)
from birdinv.loss_weights import linear
from birdinv.terms import log_probabilities

Y = torch.tensor([2, -1, 0, -1, -1, -1])


def plain():
    """Stages without kinks, dropout or statistics, that are of several minds about their inputs."""
    torch.manual_seed(0)
    stages = [
        nn.Sequential(nn.Conv1d(1, 3, 4, 2), nn.Softplus()),
        nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh()),
        nn.Linear(5, 3),
    ]
    model = nn.Sequential(*stages).double()
    with torch.no_grad():
        model[2].weight.mul_(6)
    return model


def with_dropout():
    model = plain()
    model[1].append(nn.Dropout(0.5))
    return model


def with_batch_norm():
    model = plain()
    model[0].append(nn.BatchNorm1d(3).double())
    return model


NETWORKS = {"plain": plain, "dropout": with_dropout, "batch norm": with_batch_norm}
CONSISTENCIES = {
    "pseudo-labels": lambda weight: PseudoLabels(weight, threshold=0.5),
    "fixmatch": lambda weight: FixMatch(weight, threshold=0.5),
    "pi-model": PiModel,
    "mean teacher": MeanTeacher,
    "virtual adversarial": VirtualAdversarial,
}


def inputs():
    """Samples and another view of them."""
    torch.manual_seed(1)
    x = 2 * torch.randn(len(Y), 1, 10).double()
    return x, x + 0.3 * torch.randn_like(x)


def teacher_of(model):
    """A copy whose weights have gone another way."""
    teacher = copy.deepcopy(model)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return teacher


# The formulas, one sample at a time ----------------------------------------------------------


def softmax(logits):
    powers = torch.exp(logits - logits.max())
    return powers / powers.sum()


def stages(model):
    """Each sample alone, which a network in eval mode allows."""
    return lambda a: softmax(model(a[None])[0])


def slow_labels(sure_of, p, threshold):
    """`−log p_c` of the class c that `sure_of` has."""
    best = max(range(3), key=lambda c: sure_of[c].item())
    return -torch.log(p[best]) if sure_of[best] >= threshold else 0 * p.sum()


def slow_divergence(p, q):
    return sum(a * (torch.log(a) - torch.log(b)) for a, b in zip(p, q, strict=True))


def slow_adversarial(model, a, noise, radius, step):
    """With the gradient of the divergence by central differences."""
    p = stages(model)(a).detach()
    length = (a**2).sum() ** 0.5
    at = noise / (noise**2).sum() ** 0.5 * step * length
    slope = torch.zeros_like(at)
    h = 1e-5
    with torch.no_grad():
        for i in range(a.numel()):
            sides = []
            for way in (h, -h):
                moved = at.clone()
                moved.view(-1)[i] += way
                sides.append(slow_divergence(p, stages(model)(a + moved)))
            slope.view(-1)[i] = (sides[0] - sides[1]) / (2 * h)
    r = radius * length * slope / (slope**2).sum() ** 0.5
    return slow_divergence(p, stages(model)(a + r))


def slow(name, model, teacher, x, view, noise):
    """The term of every sample of a network in eval mode, a list."""
    found = []
    for i, a in enumerate(x):
        p, other = stages(model)(a), stages(model)(view[i])
        if name == "pseudo-labels":
            found.append(slow_labels(p.detach(), p, 0.5))
        elif name == "fixmatch":
            found.append(slow_labels(other.detach(), p, 0.5))
        elif name == "pi-model":
            found.append(sum((p[c] - other[c]) ** 2 for c in range(3)) / 3)
        elif name == "mean teacher":
            taught = stages(teacher)(view[i]).detach()
            found.append(sum((p[c] - taught[c]) ** 2 for c in range(3)) / 3)
        else:
            found.append(slow_adversarial(model, a, noise[i], 0.1, 1e-3))
    return found


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", CONSISTENCIES)
def test_a_consistency_is_its_formula(name, network):
    """Values, gradients, which samples it is the mean of, and its weight in the total."""
    model = NETWORKS[network]().eval()
    teacher, (x, view) = teacher_of(model), inputs()
    torch.manual_seed(3)
    noise = torch.randn_like(x)
    each = slow(name, model, teacher, x, view, noise)
    if name not in ("pseudo-labels", "fixmatch"):
        mean = sum(each) / 6
    else:
        mean = sum(term for term, label in zip(each, Y.tolist(), strict=True) if label == -1) / 4
    ours = WeightedObjective(1.0, 0.0, consistency=CONSISTENCIES[name](0.8))
    torch.manual_seed(3)
    terms = ours(model, x, Y, view=view, teacher=teacher)
    torch.testing.assert_close(terms.consistency, mean.detach(), rtol=1e-6, atol=1e-10)
    ce = reference.mean_cross_entropy(list(model), x, Y)
    assert_same(terms.total, ce + 0.8 * mean, model, tolerance=1e-6)
    assert mean > 1e-6 and not terms.consistency.requires_grad


@pytest.mark.parametrize("name", CONSISTENCIES)
def test_it_is_added_to_the_reconstruction_and_the_rest(name):
    model = with_dropout().eval()
    teacher, (x, view) = teacher_of(model), inputs()

    def terms(consistency, ramp=1.0):
        torch.manual_seed(3)
        ours = WeightedObjective(0.4, 0.3, balance=0.5, consistency=consistency, ramp=ramp)
        return ours(model, x, Y, view=view, teacher=teacher)

    alone, both = terms(None), terms(CONSISTENCIES[name](0.7))
    assert alone.consistency is None
    for part in ("cross_entropy", "entropy", "reconstruction", "balance"):
        assert getattr(alone, part) == getattr(both, part)
    torch.testing.assert_close(both.total - alone.total, 0.7 * both.consistency, rtol=0, atol=1e-12)
    slower = terms(CONSISTENCIES[name](0.7), ramp=0.25)
    less = 0.75 * (0.7 * both.consistency + 0.6 * 0.7 * both.entropy + 0.5 * both.balance)
    torch.testing.assert_close(slower.total, both.total - less, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in CONSISTENCIES if n != "virtual adversarial"])
def test_parts_of_a_batch_add_up_to_it(name):
    """The random directions of the other depend on how many are drawn at once."""
    model = plain()
    teacher, (x, view) = teacher_of(model), inputs()
    ours = WeightedObjective(0.4, 0.3, consistency=CONSISTENCIES[name](0.7))
    whole = ours(model, x, Y, view=view, teacher=teacher).total
    totals = [
        ours(model, x[p], Y[p], view=view[p], teacher=teacher, whole=Y).total
        for p in (slice(0, 1), slice(1, 2), slice(2, 6))
    ]
    assert_same(sum(totals), whole, model, tolerance=1e-12)


def test_a_weight_may_follow_a_schedule_or_be_learned():
    model, (x, _) = plain(), inputs()
    ours = WeightedObjective(1.0, 0.0, consistency=PseudoLabels(linear(0, 2, 4), threshold=0))
    bare, terms = WeightedObjective(1.0, 0.0)(model, x, Y), ours(model, x, Y, step=1)
    torch.testing.assert_close(terms.total, bare.total + 0.5 * terms.consistency)
    with pytest.raises(ValueError, match="weight of the consistency follows a schedule: call"):
        ours(model, x, Y)
    weight = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    terms = WeightedObjective(1.0, 0.0, consistency=PiModel(weight))(model, x, Y, view=x + 1)
    assert torch.autograd.grad(terms.total, weight)[0] == terms.consistency > 0


# What it needs -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fixmatch", "pi-model", "mean teacher"])
def test_a_missing_view_gets_a_sentence(name):
    model, (x, view) = plain(), inputs()
    ours = WeightedObjective(0.5, 0.5, consistency=CONSISTENCIES[name](1.0))
    with pytest.raises(ValueError, match=r"two views of the same samples, and got none; call the"):
        ours(model, x, Y, teacher=model)
    with pytest.raises(ValueError, match=r"got one of shape \(5, 1, 10\).*shape \(6, 1, 10\)"):
        ours(model, x, Y, teacher=model, view=view[:5])


def test_a_missing_teacher_gets_a_sentence():
    model, (x, view) = plain(), inputs()
    with pytest.raises(ValueError, match=r"needs a teacher; call the objective with teacher=…"):
        WeightedObjective(0.5, 0.5, consistency=MeanTeacher())(model, x, Y, view=view)


@pytest.mark.parametrize("name", ["pseudo-labels", "virtual adversarial"])
def test_others_need_neither(name):
    model, (x, _) = plain(), inputs()
    terms = WeightedObjective(0.5, 0.5, consistency=CONSISTENCIES[name](1.0))(model, x, Y)
    assert terms.consistency is not None and terms.total.isfinite()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: PseudoLabels(threshold=1.2), r"threshold is 1\.2; expected a fraction from 0"),
        (lambda: FixMatch(threshold=-0.1), r"threshold is -0\.1; expected a fraction"),
        (lambda: PiModel(-1.0), r"weight is -1\.0; expected a number of at least 0"),
        (lambda: VirtualAdversarial(radius=0.0), r"radius is 0\.0; expected a number above 0"),
        (lambda: VirtualAdversarial(step=math.nan), r"step is nan; expected a number above 0"),
        (lambda: VirtualAdversarial(radius=math.inf), "radius is inf"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# Pseudo-labels -------------------------------------------------------------------------------


class Answers(nn.Module):
    """Logits whatever the input is."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x):
        return self.logits + 0 * x.flatten(1).sum(dim=1, keepdim=True)


@pytest.mark.parametrize("kind", [PseudoLabels, FixMatch])
def test_only_answers_that_are_sure_enough_become_labels(kind):
    shares = torch.tensor([[0.94, 0.05, 0.01], [0.01, 0.96, 0.03], [0.2, 0.2, 0.6]]).double()
    model, x = Answers(shares.log()), torch.zeros(3, 4).double()
    log_probs = log_probabilities(model(x))

    def learnt(threshold):
        at = Pass(model, x, log_probs, x)
        each = kind(threshold=threshold).each(at)
        (slope,) = torch.autograd.grad(each.sum(), model.logits, retain_graph=True)
        return each.tolist(), slope.any(dim=1).tolist()

    e = [-math.log(0.94), -math.log(0.96), -math.log(0.6)]
    for threshold, which in ((0.95, [1]), (0.5, [0, 1, 2]), (0.0, [0, 1, 2]), (1.0, [])):
        expected = [e[i] if i in which else 0.0 for i in range(3)]
        each, moved = learnt(threshold)
        assert each == pytest.approx(expected) and moved == [i in which for i in range(3)]
    assert kind().threshold == 0.95


def test_the_label_of_fixmatch_is_that_of_the_view():
    model = nn.Identity()
    x = torch.tensor([[3.0, 0, 0], [3, 0, 0]]).double()
    view = torch.tensor([[0, 9.0, 0], [0, 1, 0]]).double()
    each = FixMatch().each(Pass(model, x, log_probabilities(x), view))
    assert each[0].item() == pytest.approx(-log_probabilities(x)[0, 1].item())
    assert each[1] == 0  # its view is not sure


# Gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_no_gradient_reaches_a_teacher(network):
    model = NETWORKS[network]()
    teacher, (x, view) = teacher_of(model), inputs()
    before = [p.clone() for p in teacher.parameters()]
    ours = WeightedObjective(0.4, 0.3, consistency=MeanTeacher())
    ours(model, x, Y, view=view, teacher=teacher).total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(map(torch.equal, before, teacher.parameters()))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_teacher_that_is_the_network_is_a_target_like_another():
    """The gradient is that of a copy as the teacher, on the student's side alone."""
    model, (x, view) = plain(), inputs()
    ours = WeightedObjective(1.0, 0.0, consistency=MeanTeacher())
    own = ours(model, x, Y, view=view, teacher=model).total
    other = ours(model, x, Y, view=view, teacher=copy.deepcopy(model)).total
    assert_same(own, other, model, tolerance=1e-14)


def test_targets_are_constant_and_the_pi_model_has_a_gradient_through_both():
    model, (x, view) = plain(), inputs()
    p, q = (log_probabilities(model(z)).exp() for z in (x, view))

    def slope(value):
        grads = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
        return torch.cat([g.flatten() for g in grads])

    def of(consistency):
        each = consistency.each(Pass(model, x, log_probabilities(model(x)), view, model))
        return slope(each.sum())

    both = ((p - q) ** 2).sum() / 3
    first, second = ((p - q.detach()) ** 2).sum() / 3, ((p.detach() - q) ** 2).sum() / 3
    torch.testing.assert_close(of(PiModel()), slope(both))
    torch.testing.assert_close(of(PiModel()), slope(first) + slope(second))
    assert not torch.allclose(of(PiModel()), slope(first), rtol=0.1)
    torch.testing.assert_close(of(MeanTeacher()), slope(first))
    label = q.argmax(dim=1)
    torch.testing.assert_close(of(FixMatch(threshold=0)), slope(-p.log()[range(6), label].sum()))
    label = p.argmax(dim=1)
    torch.testing.assert_close(
        of(PseudoLabels(threshold=0)), slope(-p.log()[range(6), label].sum())
    )


def test_of_the_virtual_adversarial_only_the_answer_at_the_step_has_a_gradient():
    model, (x, _) = plain(), inputs()
    seen = []
    handle = model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    each = VirtualAdversarial().each(Pass(model, x, log_probabilities(model(x))))
    handle.remove()
    p = log_probabilities(model(x)).detach().exp()
    expected = (p * (p.log() - log_probabilities(model(seen[-1])))).sum()
    assert_same(each.sum(), expected, model, tolerance=1e-10)


@pytest.mark.parametrize("name", CONSISTENCIES)
def test_without_gradients_it_has_its_value_all_the_same(name):
    model = plain()
    teacher, (x, view) = teacher_of(model), inputs()
    ours = WeightedObjective(1.0, 0.0, consistency=CONSISTENCIES[name](1.0))
    torch.manual_seed(3)
    expected = ours(model, x, Y, view=view, teacher=teacher).consistency
    torch.manual_seed(3)
    with torch.no_grad():
        terms = ours(model, x, Y, view=view, teacher=teacher)
    torch.testing.assert_close(terms.consistency, expected)
    assert not terms.total.requires_grad


# Virtual adversarial -------------------------------------------------------------------------


def steps_of(model, x, consistency):
    """The steps r that it takes, and its terms."""
    seen = []
    handle = model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    try:
        each = consistency.each(Pass(model, x, log_probabilities(model(x))))
    finally:
        handle.remove()
    return seen[-1] - x, each.detach()


def divergence(model, x, r):
    p, q = log_probabilities(model(x)), log_probabilities(model(x + r))
    return (p.exp() * (p - q)).sum(dim=1).detach()


@pytest.mark.parametrize("network", NETWORKS)
def test_the_answer_changes_more_along_the_step_than_along_others_of_its_length(network):
    model, x = NETWORKS[network]().eval(), inputs()[0].repeat(8, 1, 1)
    r, each = steps_of(model, x, VirtualAdversarial(radius=0.02))
    torch.testing.assert_close(
        r.flatten(1).norm(dim=1), 0.02 * x.flatten(1).norm(dim=1), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(each, divergence(model, x, r), rtol=1e-9, atol=1e-14)
    others = []
    for _ in range(50):
        other = torch.randn_like(x)
        other *= (r.flatten(1).norm(dim=1) / other.flatten(1).norm(dim=1))[:, None, None]
        others.append(divergence(model, x, other))
    assert (each > torch.stack(others).mean(dim=0)).all()
    # One step of the power method: not the very worst direction, but near it.
    assert (each > torch.stack(others).quantile(0.9, dim=0)).double().mean() > 0.8


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_silence_has_no_direction_and_stays_finite(kind):
    model = with_batch_norm().to(kind).eval()
    x = torch.zeros(4, 1, 10, dtype=kind)
    x[1] = 1.0
    r, each = steps_of(model, x, VirtualAdversarial())
    assert not r[[0, 2, 3]].any() and r[1].any() and each.isfinite().all()
    assert not each[[0, 2, 3]].any()
    ours = WeightedObjective(0.4, 0.3, consistency=VirtualAdversarial())
    ours(model, x, torch.tensor([0, -1, -1, -1])).total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("size", [1, 30, 100, 300, 1e4])
def test_no_step_is_longer_than_asked_for_however_sure_the_network_is(size):
    """The squares of the gradient of a very sure answer underflow."""
    torch.manual_seed(0)
    model, x = nn.Linear(20, 3), torch.randn(200, 20)
    with torch.no_grad():
        model.weight.mul_(size)
    r, each = steps_of(model, x, VirtualAdversarial())
    share = r.norm(dim=1) / x.norm(dim=1)
    assert share.max() <= 0.1 * (1 + 1e-4) and each.isfinite().all()
    assert ((share - 0.1).abs() < 1e-4)[r.any(dim=1)].all()  # or there is no gradient at all
    ours = WeightedObjective(1.0, 0.0, consistency=VirtualAdversarial())
    ours(model, x, torch.full((200,), -1)).total.backward()
    assert model.weight.grad.isfinite().all()


def test_under_autocast_the_step_is_that_of_float32():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 8, 64, 32), nn.LeakyReLU(), nn.Flatten(), nn.Linear(248, 3))
    x = torch.randn(16, 1, 1024)
    found = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(steps_of(model, x, VirtualAdversarial()))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-3, atol=0)
    assert (found[0][1] > 0).all()


@pytest.mark.parametrize("name", CONSISTENCIES)
def test_a_class_may_be_masked_by_minus_infinity(name):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(4, 3)

        def forward(self, x):
            return self.line(x).masked_fill(torch.tensor([False, True, False]), -torch.inf)

    torch.manual_seed(0)
    model, x = Masked(), torch.randn(6, 4)
    ours = WeightedObjective(1.0, 0.0, consistency=CONSISTENCIES[name](1.0))
    terms = ours(model, x, Y, view=x + 0.1, teacher=model)
    terms.total.backward()
    assert terms.total.isfinite() and model.line.weight.grad.isfinite().all()


# Modes ---------------------------------------------------------------------------------------


class Parts(nn.Module):
    """Every kind of dropout, and a batch norm; may be told to fail at a forward pass."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(10, 8), nn.BatchNorm1d(8)
        self.drops = nn.ModuleList([nn.Dropout(0.5), nn.AlphaDropout(0.5)])
        self.frozen = nn.Dropout(0.5)
        self.frozen.eval()
        self.head = nn.Linear(8, 3)
        self.passes, self.fails_at, self.modes = 0, None, []

    def forward(self, x):
        self.passes += 1
        self.modes.append([m.training for m in (self.norm, *self.drops, self.frozen)])
        if self.passes == self.fails_at:
            raise RuntimeError("out of memory")
        z = self.norm(self.first(x.flatten(1)))
        for drop in (*self.drops, self.frozen):
            z = drop(z)
        return self.head(z)


OWN = [True, True, True, False]  # norm, two dropouts, the one that is switched off
WITHOUT = [True, False, False, False]


def modes(model):
    return [m.training for m in (model.norm, *model.drops, model.frozen)]


def test_without_dropout_leaves_the_rest_in_its_mode_and_puts_back_what_it_found():
    model = Parts()
    with without_dropout(model):
        assert modes(model) == WITHOUT
        with without_dropout(model):
            assert modes(model) == WITHOUT
        assert modes(model) == WITHOUT
    assert modes(model) == OWN
    with pytest.raises(KeyError), without_dropout(model):
        raise KeyError
    assert modes(model) == OWN
    model.eval()
    with without_dropout(model):
        pass
    assert modes(model) == [False] * 4
    drop = nn.Dropout(0.5)
    with without_dropout(drop):
        assert torch.equal(drop(torch.ones(50)), torch.ones(50))
    for kind in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout):
        model = nn.Sequential(kind(0.5))
        with without_dropout(model):
            assert not model[0].training
        assert model[0].training


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pseudo-labels", [OWN]),
        ("fixmatch", [OWN, WITHOUT]),
        ("pi-model", [OWN, OWN]),
        ("mean teacher", [OWN]),
        ("virtual adversarial", [OWN, WITHOUT, WITHOUT, WITHOUT]),
    ],
)
def test_which_passes_have_dropout_and_how_many_there_are(name, expected):
    torch.manual_seed(0)
    model, teacher = Parts(), Parts()
    x = torch.randn(6, 10)
    ours = WeightedObjective(1.0, 0.0, consistency=CONSISTENCIES[name](1.0))
    ours(model, x, Y, view=x + 0.1, teacher=teacher)
    assert model.modes == expected and modes(model) == modes(teacher) == OWN
    assert teacher.modes == ([WITHOUT] if name == "mean teacher" else [])


@pytest.mark.parametrize(
    ("name", "fails_at"),
    [("fixmatch", 2), ("pi-model", 2), *(("virtual adversarial", i) for i in (2, 3, 4))],
)
def test_modes_are_put_back_also_when_the_network_fails(name, fails_at):
    torch.manual_seed(0)
    model, x = Parts(), torch.randn(6, 10)
    model.fails_at = fails_at
    ours = WeightedObjective(1.0, 0.0, consistency=CONSISTENCIES[name](1.0))
    with pytest.raises(RuntimeError, match="out of memory"):
        ours(model, x, Y, view=x + 0.1)
    assert modes(model) == OWN


def test_modes_of_a_teacher_are_put_back_also_when_it_fails():
    torch.manual_seed(0)
    model, teacher, x = Parts(), Parts(), torch.randn(6, 10)
    teacher.fails_at = 1
    with pytest.raises(RuntimeError, match="out of memory"):
        WeightedObjective(1.0, 0.0, consistency=MeanTeacher())(model, x, Y, view=x, teacher=teacher)
    assert modes(teacher) == OWN


def test_a_teachers_answer_has_no_dropout_and_the_pi_models_has():
    torch.manual_seed(0)
    model, x = with_dropout(), inputs()[0]
    teacher = teacher_of(model)

    def each(consistency, seed):
        torch.manual_seed(seed)
        return consistency.each(Pass(model, x, log_probs, x, teacher)).detach()

    log_probs = log_probabilities(model(x)).detach()
    assert torch.equal(each(MeanTeacher(), 0), each(MeanTeacher(), 1))
    assert not torch.equal(each(PiModel(), 0), each(PiModel(), 1))
    # The same sample twice: all of the difference is that of dropout.
    assert each(PiModel(), 0).max() > 1e-4


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", CONSISTENCIES)
def test_in_training_mode_everything_is_finite_and_learns(name, network):
    model = NETWORKS[network]()
    teacher, (x, view) = teacher_of(model), inputs()
    ours = WeightedObjective(0.4, 0.3, balance=0.5, consistency=CONSISTENCIES[name](1.0))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        terms = ours(model, x, Y, view=view, teacher=teacher)
        terms.total.backward()
        assert terms.total.isfinite() and terms.consistency >= 0
        assert all(p.grad.isfinite().all() for p in model.parameters())
        optimiser.step()
    assert model.training and teacher.training


@pytest.mark.parametrize("name", CONSISTENCIES)
def test_it_says_what_it_is(name):
    assert repr(CONSISTENCIES[name](0.5)).startswith(type(CONSISTENCIES[name](0.5)).__name__)
    assert "weight=0.5" in repr(CONSISTENCIES[name](0.5))
