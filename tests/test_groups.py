"""Agreement within groups (equation sheet §4.7) is its definition: a sample alone, a slow sum."""

import copy
import math
from contextlib import nullcontext

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_losses import LAYERS, assert_same
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import found_by_two

import birdinv
from birdinv import Balance, LayerWeightedObjective, ParameterFreeObjective, WeightedObjective
from birdinv.consistency import FixMatch, MeanTeacher, PiModel, PseudoLabels
from birdinv.learned_weights import LearnedWeights
from birdinv.samples import Samples

BATCHES = {  # labels and groups
    "mixed": ([2, -1, 0, -1, -1, -1, 1, -1], [4, 4, 9, 9, 4, 4, -1, -1]),
    "labels in the groups": ([2, -1, 0, -1, 1, -1, -1, -1], [5, 5, 5, 5, 5, 8, 8, 3]),
    "no labels": ([-1] * 8, [3, 0, 3, 0, 0, -1, -1, 7]),
    "one group": ([-1] * 8, [0] * 8),
    "labels only": ([0, 1, 2, 0, 1, 2, 0, 1], [0] * 8),
}
PRIOR = [0.5, 0.2, 0.3]
OBJECTIVES = {
    "inv10": (WeightedObjective, {"alpha": 0.4, "beta": 0.3}),
    "spl82": (WeightedObjective, {"alpha": 0.4, "beta": 0.3, "variant": "spl82"}),
    "ms5": (WeightedObjective, {"alpha": 0.4, "beta": 0.3, "variant": "ms5"}),
    "entropy": (WeightedObjective, {"alpha": 0.0, "beta": 0.0}),
    "global": (ParameterFreeObjective, {"scale": "global"}),
    "multiscale": (ParameterFreeObjective, {"scale": "multiscale", "layers": LAYERS}),
    "layers": (
        LayerWeightedObjective,
        {"alpha": 1.5, "beta": 0.2, "gamma": [0.1, 0.4, 2.0], "layers": LAYERS},
    ),
}


def smooth(n=8):
    """A small network of three stages without kinks, sure enough for groups to disagree."""
    torch.manual_seed(0)
    stages = [
        nn.Sequential(nn.Conv1d(1, 3, 4, 2), nn.Softplus()),
        nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh()),
        nn.Linear(5, 3),
    ]
    model, x = nn.Sequential(*stages).double(), 3 * torch.randn(n, 1, 10).double()
    with torch.no_grad():
        model[2].weight.mul_(6)
    return model, x


def batch(name):
    model, x = smooth()
    labels, groups = BATCHES[name]
    return model, x, torch.tensor(labels), torch.tensor(groups)


def units(y, groups):
    """Lists of the unlabelled samples that belong together; one alone is a list of one."""
    found = []
    for i, (label, group) in enumerate(zip(y.tolist(), groups.tolist(), strict=True)):
        if label != -1:
            continue
        for unit in found:
            if group >= 0 and groups[unit[0]].item() == group:
                unit.append(i)
                break
        else:
            found.append([i])
    return found


def shared(stages, x, unit):
    """The mean prediction of a unit, a list of K numbers."""
    each = [reference.probabilities(stages, x[i]) for i in unit]
    return [sum(p[c] for p in each) / len(each) for c in range(len(each[0]))]


def entropy(p):
    return -sum(q * torch.log(q) for q in p)


def agreement(stages, x, y, groups, of_all):
    """The mean over the unlabelled samples, or all, of the entropy of their units' predictions."""
    each = []
    for unit in units(y, groups):
        each += [entropy(shared(stages, x, unit))] * len(unit)
    if of_all:
        each += [
            entropy(reference.probabilities(stages, a))
            for a, label in zip(x, y.tolist(), strict=True)
            if label != -1
        ]
    return sum(each) / len(each) if each else torch.zeros(()).double()


def imbalance(stages, x, y, groups, prior=None):
    """`−H(ȳ)` or `KL(prior ‖ ȳ)`, ȳ the mean over units, of how many samples they are."""
    each = [shared(stages, x, unit) for unit in units(y, groups)]
    if not each:
        return torch.zeros(()).double()
    mean = [sum(p[c] for p in each) / len(each) for c in range(3)]
    if prior is None:
        return sum(q * torch.log(q) for q in mean)
    return sum(p * torch.log(p / q) for p, q in zip(prior, mean, strict=True))


def equation(name, stages, x, y, groups):
    """Total and entropy of an objective, with agreement in place of the entropy."""
    kind, chosen = OBJECTIVES[name]
    of_all = kind is LayerWeightedObjective or chosen.get("variant") == "spl82"
    e = agreement(stages, x, y, groups, of_all)
    ce = reference.mean_cross_entropy(stages, x, y)
    if kind is ParameterFreeObjective:
        levels = range(3) if chosen["scale"] == "multiscale" else [0]
        rebuilt = sum(reference.mean_error(stages, x, level) for level in levels) / len(levels)
        return (ce + e) / math.log(3) + rebuilt, e
    alpha, beta = chosen["alpha"], chosen["beta"]
    if kind is LayerWeightedObjective:
        rebuilt = [g * reference.mean_error(stages, x, i) for i, g in enumerate(chosen["gamma"])]
        return alpha * ce + beta * e + sum(rebuilt), e
    if chosen.get("variant") == "ms5":
        beta = 1 - beta
    rebuilt = reference.mean_error(stages, x, 0)
    return alpha * ce + (1 - alpha) * (beta * rebuilt + (1 - beta) * e), e


def objective(name, **more):
    kind, chosen = OBJECTIVES[name]
    return kind(**chosen, **more)


# The definition ------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", BATCHES)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_with_groups_is_its_equation(name, labels):
    model, x, y, groups = batch(labels)
    terms = objective(name)(model, x, y, groups=groups)
    total, e = equation(name, list(model), x, y, groups)
    assert_same(terms.total, total, model)
    torch.testing.assert_close(terms.entropy, e.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("prior", [None, PRIOR], ids=["uniform", "prior"])
@pytest.mark.parametrize("labels", BATCHES)
def test_a_balance_counts_every_group_once(labels, prior):
    model, x, y, groups = batch(labels)
    balance = Balance(0.7, prior=prior)
    terms = objective("inv10", balance=balance)(model, x, y, groups=groups)
    expected = imbalance(list(model), x, y, groups, prior)
    total, _ = equation("inv10", list(model), x, y, groups)
    assert_same(terms.total, total + 0.7 * expected, model)
    torch.testing.assert_close(terms.balance, expected.detach(), rtol=0, atol=1e-10)


def test_a_long_recording_weighs_as_much_in_a_balance_as_a_short_one():
    """Three windows sure of class 0 and one of class 1 are an even mean, and not three to one."""
    logits = torch.tensor([[50.0, 0], [50, 0], [50, 0], [0, 50]]).double()
    y, groups = torch.full((4,), -1), torch.tensor([0, 0, 0, 1])
    found = {
        name: objective("entropy", balance=1.0)(nn.Identity(), logits, y, groups=g).balance.item()
        for name, g in (("groups", groups), ("alone", None))
    }
    assert found["groups"] == pytest.approx(-math.log(2), abs=1e-12)
    assert found["alone"] > -math.log(2) + 0.1


def test_a_group_that_disagrees_is_not_sure():
    logits = torch.tensor([[50.0, 0], [0, 50]]).double()
    y = torch.full((2,), -1)
    together, apart = (
        objective("entropy")(nn.Identity(), logits, y, groups=torch.tensor(groups)).entropy.item()
        for groups in ([0, 0], [0, 1])
    )
    assert together == pytest.approx(math.log(2)) and apart == pytest.approx(0, abs=1e-12)


@st.composite
def batches(draw):
    n = draw(st.integers(1, 9))
    labels = draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n))
    groups = draw(st.lists(st.integers(-1, 3), min_size=n, max_size=n))
    logits = draw(st.lists(st.floats(-20, 20), min_size=3 * n, max_size=3 * n))
    logits = torch.tensor(logits, dtype=torch.float64).view(n, 3)
    return logits, torch.tensor(labels), torch.tensor(groups)


@settings(max_examples=100, deadline=None)
@given(batches())
def test_any_batch_agrees_with_the_slow_sum_and_agreement_is_never_below_the_plain_entropy(drawn):
    """Entropy is concave: `E(mean ŷ) ≥ mean E(ŷ)`."""
    logits, y, groups = drawn
    logits.requires_grad_()
    ours = objective("entropy", balance=0.5)
    terms = ours(nn.Identity(), logits, y, groups=groups)
    e = agreement([], logits, y, groups, of_all=False)
    expected = e + 0.5 * imbalance([], logits, y, groups)
    got = torch.autograd.grad(terms.total, logits)[0]
    torch.testing.assert_close(terms.total, expected, rtol=0, atol=1e-9)
    slope = torch.autograd.grad(expected, logits)[0] if (y == -1).any() else torch.zeros(())
    torch.testing.assert_close(got, slope.expand_as(got), rtol=0, atol=1e-9, check_dtype=False)
    assert terms.entropy >= ours(nn.Identity(), logits, y).entropy - 1e-12


@settings(max_examples=50, deadline=None)
@given(batches(), st.integers(0, 2**32 - 1))
def test_neither_the_numbers_of_groups_nor_the_order_of_samples_matter(drawn, seed):
    logits, y, groups = drawn
    ours = objective("spl82", balance=0.5)
    rng = np.random.default_rng(seed)
    names = np.append(rng.choice(2**63 - 1 - np.arange(2000) ** 5, 4, replace=False), -1)
    renamed = torch.from_numpy(names[groups.numpy()])
    found = []
    for order, of in ((torch.arange(len(y)), groups), (rng.permutation(len(y)), renamed)):
        at = logits.clone().requires_grad_()
        terms = ours(nn.Identity(), at[order], y[order], groups=of[order])
        found.append((terms.total.detach(), torch.autograd.grad(terms.total, at)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_without_groups_every_sample_is_one_of_its_own(name):
    model, x, y, groups = batch("mixed")
    for none in (torch.full_like(groups, -1), torch.arange(8), torch.arange(8) * 10**17):
        ours, plain = objective(name, balance=0.3), objective(name, balance=0.3)
        grouped, bare = ours(model, x, y, groups=none), plain(model, x, y)
        assert_same(grouped.total, bare.total, model, tolerance=1e-12)
    none = torch.full_like(groups, -1)
    assert objective(name)(model, x, y, groups=none).total == objective(name)(model, x, y).total


def test_the_groups_of_labelled_samples_do_not_matter():
    model, x, y, groups = batch("labels in the groups")
    ours = objective("layers", balance=0.3)
    for others in (-1, 5, 77):
        changed = torch.where(y == -1, groups, others)
        expected = ours(model, x, y, groups=groups).total
        assert_same(ours(model, x, y, groups=changed).total, expected, model, tolerance=1e-14)


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (torch.zeros(7, dtype=torch.int64), r"groups of shape \(7,\) and type torch.int64 for 8"),
        (torch.zeros(8, 1, dtype=torch.int64), r"groups of shape \(8, 1\).*expected int64 \[8\]"),
        (torch.zeros(8), r"groups of shape \(8,\) and type torch.float32.*−1 for none"),
        (torch.zeros(8, dtype=torch.int32), r"type torch.int32 for 8 inputs; expected int64"),
        ([0] * 8, r"groups of type list for 8 inputs; expected int64 \[8\]"),
    ],
)
def test_groups_that_are_none_get_a_sentence(groups, sentence):
    model, x, y, _ = batch("mixed")
    with pytest.raises(ValueError, match=sentence):
        objective("inv10")(model, x, y, groups=groups)


# Numbers -------------------------------------------------------------------------------------


def test_under_autocast_the_mean_of_a_group_is_in_float32():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3))
    x, y = 3 * torch.randn(64, 6), torch.full((64,), -1)
    groups = torch.arange(64) % 3
    with torch.autocast("cpu", torch.bfloat16):
        terms = objective("entropy", balance=1.0)(model, x, y, groups=groups)
    assert terms.logits.dtype == torch.bfloat16
    assert terms.entropy.dtype == terms.balance.dtype == terms.total.dtype == torch.float32
    e = agreement([], terms.logits.double(), y, groups, of_all=False)
    kept = imbalance([], terms.logits.double(), y, groups)
    assert terms.entropy.item() == pytest.approx(e.item(), rel=1e-6)
    assert terms.balance.item() == pytest.approx(kept.item(), rel=1e-6)
    terms.total.backward()
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters()
    )


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e2, 1e4])
@pytest.mark.parametrize(
    ("groups", "shares", "of"),
    [
        ([0, 0, 0, 0], [2 / 3, 1 / 3], 1),  # a group of three, two for one class and one against
        ([0, 0, 1, 1], [1 / 2, 1 / 2], 2 / 3),  # a pair that disagrees and one alone
        ([0, -1, 0, -1], [1], 1),
    ],
)
def test_predictions_that_are_sure_beyond_all_measure_are_finite(groups, shares, of, size, kind):
    logits = size * torch.tensor([[1.0, -1, 0], [-1, 1, 0], [1, -1, 0], [1, -1, -1]])
    logits = logits.to(kind).requires_grad_()
    y = torch.tensor([-1, -1, -1, 0])
    ours = objective("entropy", balance=1.0)
    terms = ours(nn.Identity(), logits, y, groups=torch.tensor(groups))
    terms.total.backward()
    assert terms.total.isfinite() and logits.grad.isfinite().all()
    expected = of * -sum(share * math.log(share) for share in shares)
    assert terms.entropy.item() == pytest.approx(expected, abs=1e-6)


def test_a_class_masked_by_minus_infinity_may_be_in_a_group():
    torch.manual_seed(0)
    logits = torch.randn(4, 3).double().requires_grad_()
    masked = logits.masked_fill(torch.tensor([False, True, False]), -torch.inf)
    ours = objective("entropy", balance=1.0)
    y, groups = torch.tensor([-1, -1, -1, 0]), torch.tensor([0, 0, -1, 0])
    total = ours(nn.Identity(), masked, y, groups=groups).total
    total.backward()
    without = ours(nn.Identity(), logits[:, [0, 2]], y, groups=groups).total
    assert logits.grad.isfinite().all() and total.item() == pytest.approx(without.item())


def test_second_derivatives_go_through_a_group():
    torch.manual_seed(0)
    logits = torch.randn(6, 3).double().requires_grad_()
    y, groups = torch.tensor([-1, -1, -1, 0, -1, -1]), torch.tensor([3, 3, 3, 3, -1, 5])
    ours = objective("spl82", balance=0.7)
    ours.beta = 0.0

    def total(z):
        return ours(nn.Identity(), z, y, groups=groups).total

    assert torch.autograd.gradcheck(total, logits)
    assert torch.autograd.gradgradcheck(total, logits)


def test_weights_are_learned_through_groups():
    """The derivative through the optimiser's step is a finite difference of the whole update."""
    held_out = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])

    def after(alpha, beta, learn=False):
        model, x, y, groups = batch("mixed")
        weights = [torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in (alpha, beta)]
        ours = LayerWeightedObjective(*weights, 0.2, layers=["0"], balance=0.5)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

        def loss():
            return ours(model, x, y, groups=groups).total

        def later():
            return nn.functional.cross_entropy(model(-x), held_out)

        if learn:
            learned = LearnedWeights(weights, optimiser, rate=0.1)
            learned.step(loss, later)
            return learned.gradient
        loss().backward()
        optimiser.step()
        return later().item()

    h = 1e-5
    slopes = [
        (after(0.8 + h, 0.3) - after(0.8 - h, 0.3)) / (2 * h),
        (after(0.8, 0.3 + h) - after(0.8, 0.3 - h)) / (2 * h),
    ]
    torch.testing.assert_close(
        after(0.8, 0.3, learn=True), torch.tensor(slopes).double(), rtol=1e-6, atol=1e-9
    )
    assert min(map(abs, slopes)) > 1e-6


# Parts and processes -------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_parts_that_cut_no_group_add_up_to_the_whole(name):
    model, x = smooth()
    y = torch.tensor([2, -1, -1, 0, 1, -1, -1, -1])
    groups = torch.tensor([6, 6, 6, -1, 3, 3, 2, 2])
    ours = objective(name)
    parts = [slice(0, 3), slice(3, 5), slice(5, 6), slice(6, 8)]
    totals = [ours(model, x[p], y[p], groups=groups[p], whole=y).total for p in parts]
    assert_same(sum(totals), ours(model, x, y, groups=groups).total, model, tolerance=1e-12)


def test_a_balance_of_a_part_is_over_the_groups_of_the_part():
    model, x, y, groups = batch("no labels")
    ours, plain = objective("inv10", balance=0.8), objective("inv10")
    for part in (slice(0, 5), slice(5, 8)):
        got = ours(model, x[part], y[part], groups=groups[part], whole=y)
        alone = imbalance(list(model), x[part], y[part], groups[part])
        torch.testing.assert_close(got.balance, alone.detach(), rtol=0, atol=1e-10)
        share = len(y[part]) / len(y)
        expected = plain(model, x[part], y[part], groups=groups[part], whole=y).total
        # A share is a float32.
        assert_same(got.total, expected + 0.8 * share * alone, model, tolerance=1e-7)


RANKS = {  # labels and groups of each of two processes; no group is on both
    "unevenly": (([0, -1, -1, 2, -1], [5, 5, 5, 7, -1]), ([-1, -1, 1, -1], [9, 9, 9, 3])),
    "large and small": (([-1] * 6, [1] * 6), ([-1, -1, 0], [2, 4, 4])),
    "one without": (([0, 1, 2], [5, 5, 5]), ([-1, -1, -1, -1], [1, 1, 2, 2])),
    "none anywhere": (([0, 1], [1, 1]), ([2, 2], [3, 3])),
    "alone and together": (([-1, -1, 1], [-1, -1, -1]), ([-1, -1, -1, 2], [6, 6, 6, 6])),
}
PROCESSES = {
    "inv10": lambda: objective("inv10"),
    "spl82": lambda: objective("spl82"),
    "balance": lambda: objective("inv10", balance=0.8),
    "memory": lambda: objective("entropy", balance=Balance(memory=0.6, prior=PRIOR)),
    "pseudo-labels": lambda: objective("inv10", consistency=PseudoLabels(threshold=0.4)),
    "fixmatch": lambda: objective("entropy", consistency=FixMatch(threshold=0.4)),
    "pi-model": lambda: objective("spl82", consistency=PiModel(2.0)),
    "mean-teacher": lambda: objective("inv10", balance=0.8, consistency=MeanTeacher()),
}
CASES = [
    (name, labels, parts)
    for name in PROCESSES
    for labels, both in RANKS.items()
    for parts in (1, 2)
    if parts == 1 or all(len(y) > 2 for y, _ in both)  # each process has to have as many
]


def outcome(name, labels, parts, rank=None):
    """Totals, balances and gradients of two steps, in one process or in one of two."""
    model, x = smooth(9)
    teacher = copy.deepcopy(model)
    parameters = list(model.parameters())
    if rank is not None:
        model = DistributedDataParallel(model)
    ours = PROCESSES[name]()
    first, second = RANKS[labels]
    y, groups = (torch.tensor(a + b) for a, b in zip(first, second, strict=True))
    rows = torch.arange(len(y)).split([len(first[0]), len(second[0])])
    if rank is not None:
        rows = rows[rank : rank + 1]
    if parts == 1:
        pieces = [torch.cat(rows)]
    else:  # behind the first two of each process: a group may be cut, by one as by two
        pieces = [torch.cat([each[:2] for each in rows]), torch.cat([each[2:] for each in rows])]
        pieces = [piece for piece in pieces if len(piece)]
    whole = y[torch.cat(rows)] if parts > 1 else None
    found = []
    for turn in range(2):
        for parameter in parameters:
            parameter.grad = None
        numbers = []
        for i, piece in enumerate(pieces):
            wait = rank is not None and i + 1 < len(pieces)
            with model.no_sync() if wait else nullcontext():
                terms = ours(
                    model,
                    x[piece] * (1 + turn),
                    y[piece],
                    groups=groups[piece],
                    view=x[piece].flip(2),
                    teacher=teacher,
                    whole=whole,
                )
                terms.total.backward()
            kept = 0.0 if terms.balance is None else terms.balance.item()
            agreed = 0.0 if terms.consistency is None else terms.consistency.item()
            numbers.append((terms.total.item(), terms.entropy.item(), agreed, kept))
        found.append((numbers, [p.grad.clone() for p in parameters]))
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return found_by_two(tmp_path_factory.mktemp("ranks"), outcome, CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_are_one_where_no_group_is_on_both(case, ranks):
    for *both, one in zip(*ranks[case], outcome(*case), strict=True):
        for (a, b), whole in zip(zip(both[0][0], both[1][0], strict=True), one[0], strict=True):
            for i in range(4):
                assert (a[i] + b[i]) / 2 == pytest.approx(whole[i], abs=1e-10)
            assert a[3] == pytest.approx(b[3], abs=1e-12)
        for a, b, c in zip(both[0][1], both[1][1], one[1], strict=True):
            torch.testing.assert_close(a, c, rtol=0, atol=1e-10)
            torch.testing.assert_close(b, c, rtol=0, atol=1e-10)


# Means over groups ---------------------------------------------------------------------------


def test_the_mean_of_a_group_is_over_its_unlabelled_samples_and_others_keep_their_own():
    y, groups = torch.tensor([0, -1, -1, -1, -1]), torch.tensor([1, 1, 1, -1, -1])
    rows = torch.tensor([[5.0, 0], [2, 4], [4, 0], [7, 7], [9, 1]]).double()
    samples = Samples(nn.Identity(), y, groups=groups)
    assert samples.mean_of_group(rows).tolist() == [[5, 0], [3, 2], [3, 2], [7, 7], [9, 1]]
    mean = samples.mean_row_of_unlabelled(rows).tolist()
    assert mean == pytest.approx([(3 + 7 + 9) / 3, (2 + 7 + 1) / 3])
    plain = Samples(nn.Identity(), y)
    assert plain.mean_of_group(rows) is rows


def test_what_a_labelled_sample_holds_does_not_reach_its_group():
    y, groups = torch.tensor([0, -1, -1]), torch.tensor([1, 1, 1])
    rows = torch.tensor([[torch.nan, torch.inf], [2, 4], [4, 0]]).double()
    samples = Samples(nn.Identity(), y, groups=groups)
    assert samples.mean_of_group(rows)[1:].tolist() == [[3, 2], [3, 2]]
    assert samples.mean_row_of_unlabelled(rows).tolist() == [3, 2]


# Ramps ---------------------------------------------------------------------------------------


def full(ramp):
    consistency = PseudoLabels(1.5, threshold=0.4)
    return objective("inv10", balance=0.8, consistency=consistency, ramp=ramp)


def test_a_ramp_of_0_leaves_labels_and_reconstruction():
    model, x, y, groups = batch("mixed")
    terms = full(0.0)(model, x, y, groups=groups)
    ce = reference.mean_cross_entropy(list(model), x, y)
    rebuilt = reference.mean_error(list(model), x, 0)
    assert_same(terms.total, 0.4 * ce + 0.6 * 0.3 * rebuilt, model)
    assert min(terms.entropy, terms.balance.abs(), terms.consistency) > 0  # still to be looked at


@pytest.mark.parametrize("ramp", [0.3, lambda t: t / 10, torch.tensor(0.3, dtype=torch.float64)])
def test_a_ramp_weighs_entropy_balance_and_consistency_alike(ramp):
    model, x, y, groups = batch("mixed")
    terms = full(ramp)(model, x, y, groups=groups, step=3)
    none, all_of_it = (full(r)(model, x, y, groups=groups).total for r in (0.0, 1.0))
    assert_same(terms.total, 0.7 * none + 0.3 * all_of_it, model)
    entropy, kept, agreed = terms.entropy, terms.balance, terms.consistency
    rest = 0.3 * (0.6 * 0.7 * entropy + 0.8 * kept + 1.5 * agreed)
    torch.testing.assert_close(terms.total - none, rest, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["global", "layers"])
def test_every_objective_takes_a_ramp(name):
    model, x, y, groups = batch("mixed")
    ramp = birdinv.loss_weights.linear(0, 1, steps=4)
    found = [objective(name, ramp=ramp)(model, x, y, groups=groups, step=t) for t in (0, 1, 4, 9)]
    plain = objective(name)(model, x, y, groups=groups)
    weight = 1 / math.log(3) if name == "global" else 0.2
    for terms, share in zip(found, (0, 0.25, 1, 1), strict=True):
        expected = plain.total - (1 - share) * weight * plain.entropy
        torch.testing.assert_close(terms.total, expected, rtol=0, atol=1e-12)


def test_a_ramp_that_cannot_be_is_refused():
    model, x, y, _ = batch("mixed")
    with pytest.raises(ValueError, match=r"ramp is 1\.5; expected a number from 0 to 1"):
        full(1.5)
    with pytest.raises(ValueError, match="ramp follows a schedule: call the objective with step"):
        full(lambda t: t / 10)(model, x, y)
    with pytest.raises(ValueError, match=r"ramp at step 20 is 2\.0; expected a number from 0 to 1"):
        full(lambda t: t / 10)(model, x, y, step=20)
