"""The loss of stacked what-where auto-encoders is its equation, in all three of its modes."""

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import found_by_two

import birdinv
from birdinv import WeightedObjective, WhatWhereObjective
from birdinv.balance import Balance
from birdinv.consistency import MeanTeacher, PiModel
from birdinv.loss_weights import linear, piecewise

LABELS = {
    "mixed": [2, -1, 0, -1],
    "labelled": [2, 1, 0, 0],
    "unlabelled": [-1, -1, -1, -1],
    "one": [-1, -1, 1, -1],
}
NETWORKS = {  # notation, shape of an input, options, the levels between
    "images": ("(3)3c-2p-(4)3c-(3)3c-2p-(5)3c-2p-4fc-3fc", (2, 9, 8), {}, ["stage1", "stage2"]),
    "waveforms": ("(3)6c/2-2p-(4)3c-2p-Kfc", (1, 37), {}, ["stage1"]),
    "soft": ("(3)3c-2p-(4)3c-2p-Kfc", (1, 8, 9), {"pooling": "soft", "beta": 2.0}, ["stage1"]),
    "upsampling": ("(3)3c-3p-(4)3c-2p-Kfc", (1, 19), {"pooling": "upsampling"}, ["stage1"]),
    "not pooled at last": ("(3)3c-2p-(4)3c-Kfc", (1, 6, 6), {}, ["stage1"]),
    "one level": ("(3)3c-2p-Kfc", (1, 6, 6), {}, []),
    "without pooling": ("(3)3c-(2)3c-Kfc", (1, 12), {}, []),
}


def made(name, count=4):
    """A network of three classes in double precision, and a batch."""
    notation, shape, options, _ = NETWORKS[name]
    torch.manual_seed(0)
    model = birdinv.networks.build(f"swwae:{notation}", classes=3, shape=shape, **options).double()
    with torch.no_grad():
        for weight in model.parameters():  # without a bias what is unpooled is on a ReLU's kink
            weight.add_(0.1 * torch.randn_like(weight))
    return model, torch.randn(count, *shape).double()


def mean(numbers):
    return sum(numbers) / len(numbers)


def error(z, z_tilde):
    """Over the elements of one sample, one after the other."""
    pairs = zip(z.flatten(), z_tilde.flatten(), strict=True)
    return mean([(a - b) ** 2 for a, b in pairs])


def by_hand(model, x, y, between):
    """(NLL of the labelled samples, error of the input, of each level between, sum of mean |x_m|).

    One sample at a time.
    """
    nll, of_input, of_levels, active = [], [], {name: [] for name in between}, []
    for one, label in zip(x, y.tolist(), strict=True):
        decoded = model(one[None], decode=True)
        if label >= 0:
            shares = decoded.logits[0].exp()
            nll.append(-(shares[label] / shares.sum()).log())
        of_input.append(error(one, decoded.x_tilde[0]))
        for name in between:
            of_levels[name].append(error(*(z[0] for z in decoded.levels[name])))
        active.append(sum(mean([a.abs() for a in z.flatten()]) for z, _ in decoded.levels.values()))
    levels = {name: mean(errors) for name, errors in of_levels.items()}
    return mean(nll) if nll else torch.tensor(0.0), mean(of_input), levels, mean(active)


def gradients(total, model):
    """By name; zero where the total does not depend on a weight."""
    names, weights = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(total, weights, retain_graph=True, allow_unused=True)
    pairs = zip(weights, found, strict=True)
    each = [torch.zeros_like(weight) if grad is None else grad for weight, grad in pairs]
    return dict(zip(names, each, strict=True))


def assert_same(total, expected, model, tolerance=1e-10):
    torch.testing.assert_close(total, expected, rtol=tolerance, atol=tolerance)
    ours, theirs = gradients(total, model), gradients(expected, model)
    assert ours.keys() == theirs.keys()
    for name, grad in theirs.items():
        torch.testing.assert_close(ours[name], grad, rtol=tolerance, atol=tolerance)


def moved(total, model):
    """Which parts of the network have a gradient that is not zero."""
    parts = {"stage": "encoder", "back": "decoder", "head": "head"}
    found = {name for name, grad in gradients(total, model).items() if grad.any()}
    return {part for start, part in parts.items() if any(name.startswith(start) for name in found)}


# The equation --------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_is_its_equation(name, labels):
    model, x = made(name)
    y, between = torch.tensor(LABELS[labels]), NETWORKS[name][3]
    nll, of_input, levels, active = by_hand(model, x, y, between)
    ours = WhatWhereObjective(0.8, 0.3, nll=1.7, sparsity=0.05)
    expected = 1.7 * nll + 0.8 * of_input + 0.3 * sum(levels.values()) + 0.05 * active
    assert_same(ours(model, x, y).total, expected, model)
    assert len(model.layers) == len(between) + 1  # that the decoder begins with has no error


def test_the_terms_are_what_the_total_is_made_of():
    model, x = made("images")
    y = torch.tensor(LABELS["mixed"])
    nll, of_input, levels, active = by_hand(model, x, y, ["stage1", "stage2"])
    terms = WhatWhereObjective(0.8, 0.3, nll=1.7, sparsity=0.05)(model, x, y)
    assert list(terms.levels) == ["input", "stage1", "stage2"]
    for name, value in {"input": of_input, **levels}.items():
        torch.testing.assert_close(terms.levels[name], value.detach())
    for found, value in (
        (terms.cross_entropy, nll),
        (terms.reconstruction, 0.8 * of_input + 0.3 * (levels["stage1"] + levels["stage2"])),
        (terms.sparsity, active),
    ):
        torch.testing.assert_close(found, value.detach())
        assert not found.requires_grad
    assert terms.entropy is terms.balance is terms.consistency is None
    assert terms.logits.shape == (4, 3) and terms.histogram.sum() == 2


def test_the_reconstruction_of_a_labelled_sample_counts_like_any_other():
    model, x = made("images")
    ours = WhatWhereObjective(0.8, 0.3, nll=0.0)
    totals = [ours(model, x, torch.tensor(y)).total for y in LABELS.values()]
    assert all(torch.equal(total, totals[0]) for total in totals)


@pytest.mark.parametrize(
    ("rec", "mid", "levels"),
    [
        (1.0, 0.0, ["input"]),
        (0.0, 1.0, ["stage1", "stage2"]),
        (0.5, 0.5, ["input", "stage1", "stage2"]),
    ],
)
def test_levels_are_those_that_have_a_weight(rec, mid, levels):
    model, x = made("images")
    terms = WhatWhereObjective(rec, mid)(model, x, torch.tensor(LABELS["mixed"]))
    assert list(terms.levels) == levels


def test_the_cosine_is_between_what_is_rebuilt_and_what_of():
    model, x = made("images")
    y = torch.tensor(LABELS["unlabelled"])
    decoded = model(x, decode=True)
    pairs = [(x, decoded.x_tilde), decoded.levels["stage1"], decoded.levels["stage2"]]
    expected = 0.0
    for weight, (z, z_tilde) in zip((0.8, 0.3, 0.3), pairs, strict=True):
        for a, b in zip(z.flatten(1), z_tilde.flatten(1), strict=True):
            expected = expected + weight / 4 * (1 - (a @ b) / (a @ a * (b @ b)).sqrt())
    ours = WhatWhereObjective(0.8, 0.3, distance="cosine")
    assert_same(ours(model, x, y).total, expected, model)


@pytest.mark.parametrize("name", ["images", "waveforms", "soft"])
def test_the_gradient_is_central_finite_differences_at_single_weights(name):
    model, x = made(name)
    y = torch.tensor(LABELS["mixed"])
    ours = WhatWhereObjective(0.8, 0.3, nll=1.7, sparsity=0.05)
    grads = gradients(ours(model, x, y).total, model)
    step = 1e-6
    for key, weight in model.named_parameters():
        for at in {0, weight.numel() // 2, weight.numel() - 1}:
            flat, sides = weight.data.view(-1), []
            before = flat[at].item()
            for way in (step, -step):
                flat[at] = before + way
                sides.append(ours(model, x, y).total.item())
            flat[at] = before
            slope = (sides[0] - sides[1]) / (2 * step)
            assert grads[key].flatten()[at].item() == pytest.approx(slope, abs=1e-7, rel=1e-5)
    assert all(grad.any() for grad in grads.values())


# The three modes -----------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["mixed", "labelled", "one"])
@pytest.mark.parametrize("name", ["images", "waveforms"])
def test_without_the_decoder_it_is_supervised_training(name, labels):
    model, x = made(name)
    y = torch.tensor(LABELS[labels])
    terms = WhatWhereObjective(0.0, 0.0)(model, x, y)
    assert_same(terms.total, WeightedObjective(1.0, 0.0)(model, x, y).total, model, tolerance=0)
    assert moved(terms.total, model) == {"encoder", "head"}
    assert terms.reconstruction is None and terms.levels == {}


def test_without_the_decoder_it_is_not_run():
    model, x = made("images")
    calls = []
    model.back1.register_forward_hook(lambda *_: calls.append("decoder"))
    WhatWhereObjective(0.0, 0.0)(model, x, torch.tensor(LABELS["mixed"]))
    assert calls == []
    WhatWhereObjective(0.1, 0.0)(model, x, torch.tensor(LABELS["mixed"]))
    assert calls == ["decoder"]


@pytest.mark.parametrize("name", ["images", "waveforms"])
def test_without_labels_the_head_has_no_gradient(name):
    model, x = made(name)
    terms = WhatWhereObjective(1.0, 0.2, nll=0.0)(model, x, torch.tensor(LABELS["mixed"]))
    assert moved(terms.total, model) == {"encoder", "decoder"}
    terms.total.backward()
    assert all(weight.grad is None for weight in model.head.parameters())
    assert terms.cross_entropy is None


@pytest.mark.parametrize("name", ["images", "waveforms"])
def test_with_all_weights_all_of_the_network_learns(name):
    model, x = made(name)
    total = WhatWhereObjective(1.0, 0.2)(model, x, torch.tensor(LABELS["mixed"])).total
    assert moved(total, model) == {"encoder", "decoder", "head"}


def test_without_any_weight_the_loss_is_zero_and_may_be_learned_from():
    model, x = made("images")
    total = WhatWhereObjective(0, 0, nll=0)(model, x, torch.tensor(LABELS["mixed"])).total
    assert total == 0 and moved(total, model) == set()
    total.backward()


def test_the_penalty_on_activity_alone_reaches_the_encoder_alone():
    model, x = made("images")
    y = torch.tensor(LABELS["mixed"])
    terms = WhatWhereObjective(0.0, 0.0, nll=0.0, sparsity=0.4)(model, x, y)
    active = by_hand(model, x, y, [])[3]
    assert active > 0.1
    assert_same(terms.total, 0.4 * active, model)
    assert moved(terms.total, model) == {"encoder"}
    assert terms.levels == {} and terms.reconstruction is None


# Weights -------------------------------------------------------------------------------------


def test_scheduled_weights_are_the_constant_ones_of_their_step():
    model, x = made("images")
    y = torch.tensor(LABELS["mixed"])
    ours = WhatWhereObjective(
        piecewise({0: 0.8, 5: 0.0}),
        piecewise({0: 0.3, 5: 0.0}),
        nll=piecewise({0: 0.0, 5: 1.7}),
        sparsity=linear(0.0, 1.0, 10),
    )
    for step, weights in {
        0: (0.8, 0.3, 0.0, 0.0),
        4: (0.8, 0.3, 0.0, 0.4),
        5: (0.0, 0.0, 1.7, 0.5),
        99: (0.0, 0.0, 1.7, 1.0),
    }.items():
        rec, mid, nll, sparsity = weights
        fixed = WhatWhereObjective(rec, mid, nll=nll, sparsity=sparsity)
        found, expected = ours(model, x, y, step=step), fixed(model, x, y)
        assert_same(found.total, expected.total, model, tolerance=1e-12)
        assert found.levels.keys() == expected.levels.keys()


def test_a_schedule_needs_a_step():
    model, x = made("images")
    ours = WhatWhereObjective(1.0, piecewise({0: 0.2}))
    with pytest.raises(ValueError, match="mid follows a schedule: call the objective with step="):
        ours(model, x, torch.tensor(LABELS["mixed"]))


def test_the_gradient_of_a_weight_that_is_a_tensor_is_its_term():
    model, x = made("images")
    weights = [torch.tensor(value, requires_grad=True) for value in (0.8, 0.0, 1.7, 0.05)]
    rec, mid, nll, sparsity = weights
    ours = WhatWhereObjective(rec, mid, nll=nll, sparsity=sparsity)
    terms = ours(model, x, torch.tensor(LABELS["mixed"]))
    terms.total.backward()
    levels = terms.levels
    expected = [levels["input"], levels["stage1"] + levels["stage2"]]
    expected += [terms.cross_entropy, terms.sparsity]
    for weight, term in zip(weights, expected, strict=True):
        assert weight.grad.item() == pytest.approx(term.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: WhatWhereObjective(-1.0, 0.2), ValueError, r"rec is -1\.0; expected a number of"),
        (lambda: WhatWhereObjective(1.0, float("nan")), ValueError, "mid is nan; expected a"),
        (lambda: WhatWhereObjective(float("inf"), 0.2), ValueError, "rec is inf; expected a"),
        (lambda: WhatWhereObjective(1, 1, nll=-0.1), ValueError, r"nll is -0\.1; expected a"),
        (lambda: WhatWhereObjective(1, 1, sparsity=-2), ValueError, "sparsity is -2; expected a"),
        (lambda: WhatWhereObjective("1", 0.2), TypeError, "rec is '1'; expected a number, a sche"),
        (lambda: WhatWhereObjective(1, [0.2, 0.1]), TypeError, r"mid is \[0\.2, 0\.1\]; expected"),
        (lambda: WhatWhereObjective(1, torch.ones(2)), ValueError, r"mid is a tensor \[2\]; expec"),
        (lambda: WhatWhereObjective(1, 1, distance="l1"), ValueError, "distance is 'l1'; expected"),
        (lambda: WhatWhereObjective(1, 1, balance=-1.0), ValueError, r"kappa is -1\.0; expected"),
        (lambda: WhatWhereObjective(1, 1, consistency=1.0), TypeError, "consistency is a float; e"),
        (lambda: WhatWhereObjective(1, 1, ramp=1.5), ValueError, r"ramp is 1\.5; expected a num"),
    ],
)
def test_bad_weights_are_refused_with_a_sentence(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


def test_a_schedule_that_falls_below_zero_is_refused():
    model, x = made("images")
    ours = WhatWhereObjective(lambda step: 1.0 - step, 0.2)
    y = torch.tensor(LABELS["mixed"])
    assert ours(model, x, y, step=1).levels.keys() == {"stage1", "stage2"}
    with pytest.raises(ValueError, match=r"rec at step 2 is -1\.0; expected a number of at least"):
        ours(model, x, y, step=2)


@pytest.mark.parametrize("network", ["bird10", "layers"])
def test_a_network_without_a_decoder_is_refused_with_a_sentence(network):
    if network == "bird10":
        model, x = (
            birdinv.networks.build("bird10", classes=3, shape=(1, 6000)),
            torch.zeros(2, 6000),
        )
        x = x[:, None]
    else:
        model, x = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)), torch.zeros(2, 6)
    sentence = (
        f"the network is a {type(model).__name__}, which has no decoder; expected one that "
        r'birdinv\.networks\.build\("swwae:\(64\)5c-2p-10fc", …\) makes'
    )
    for rec in (1.0, 0.0):  # without a weight too, before anything is learned
        with pytest.raises(TypeError, match=sentence):
            WhatWhereObjective(rec, 0.0)(model, x, torch.tensor([1, -1]))


def test_it_travels_to_other_processes_and_shows_its_weights():
    ours = WhatWhereObjective(piecewise({0: 0.8, 5: 0.0}), 0.3, sparsity=0.05)
    again = pickle.loads(pickle.dumps(ours))
    assert "rec=_Pieces(values={0: 0.8, 5: 0.0}), mid=0.3, nll=1.0, sparsity=0.05" in repr(again)
    model, x = made("images")
    y = torch.tensor(LABELS["mixed"])
    assert torch.equal(again(model, x, y, step=3).total, ours(model, x, y, step=3).total)


# With what the other objectives have ---------------------------------------------------------


def test_balance_and_consistency_are_added_to_it():
    model, x = made("images")
    y = torch.tensor(LABELS["mixed"])
    view, teacher = x.flip(3), copy.deepcopy(model)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.mul_(1.3)
    shares, taught = model(x).softmax(dim=1), teacher(view).softmax(dim=1).detach()
    answer = (shares[1] + shares[3]) / 2
    kept = (answer * answer.log()).sum()
    agreed = mean([(a - b) ** 2 for a, b in zip(shares.flatten(), taught.flatten(), strict=True)])
    alone = WhatWhereObjective(0.8, 0.3)(model, x, y).total
    ours = WhatWhereObjective(0.8, 0.3, balance=0.7, consistency=MeanTeacher(9.0), ramp=0.5)
    terms = ours(model, x, y, view=view, teacher=teacher)
    assert_same(terms.total, alone + 0.5 * (0.7 * kept + 9.0 * agreed), model)
    torch.testing.assert_close(terms.balance, kept.detach())
    torch.testing.assert_close(terms.consistency, agreed.detach())
    assert agreed > 1e-4


def test_groups_matter_to_a_balance_alone():
    model, x = made("images")
    y, groups = torch.tensor([2, -1, -1, -1]), torch.tensor([4, 4, 4, 5])
    plain = WhatWhereObjective(0.8, 0.3)
    assert torch.equal(plain(model, x, y, groups=groups).total, plain(model, x, y).total)
    shares = model(x).softmax(dim=1)
    answer = (shares[1] + shares[2]) / 4 + shares[3] / 2  # each group once
    ours = WhatWhereObjective(0.8, 0.3, balance=0.7)(model, x, y, groups=groups)
    expected = plain(model, x, y).total + 0.7 * (answer * answer.log()).sum()
    assert_same(ours.total, expected, model)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ["images", "waveforms"])
def test_parts_of_a_batch_add_up_to_it(name, labels):
    model, x = made(name)
    y = torch.tensor(LABELS[labels])
    ours = WhatWhereObjective(0.8, 0.3, nll=1.7, sparsity=0.05, consistency=PiModel(2.0))
    parts = [slice(0, 1), slice(1, 2), slice(2, 4)]
    view = x + 0.5
    totals = [ours(model, x[p], y[p], view=view[p], whole=y).total for p in parts]
    assert_same(sum(totals), ours(model, x, y, view=view).total, model, tolerance=1e-12)


@pytest.mark.parametrize("name", ["images", "waveforms", "soft", "upsampling"])
def test_under_autocast_the_loss_is_in_float32_and_near(name):
    model, x = made(name)
    model, x = model.float(), x.float()
    y = torch.tensor(LABELS["mixed"])
    ours = WhatWhereObjective(0.8, 0.3, nll=1.7, sparsity=0.05)
    expected = ours(model, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        terms = ours(model, x, y)
    terms.total.backward()
    assert terms.total.dtype == torch.float32
    assert terms.total != expected.total  # it was in bfloat16
    torch.testing.assert_close(terms.total, expected.total, rtol=0.03, atol=0)
    for weight in model.parameters():
        assert weight.grad.isfinite().all() and weight.grad.any()


def test_large_errors_are_finite_under_autocast():
    model, x = made("images")
    model, x = model.float(), 1e5 * x.float()  # its square is beyond float16
    ours = WhatWhereObjective(1.0, 0.2, nll=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        terms = ours(model, x, torch.tensor(LABELS["mixed"]))
    assert terms.total.isfinite() and terms.total > 1e9


def test_without_gradients_the_numbers_are_the_same():
    model, x = made("images")
    y = torch.tensor(LABELS["mixed"])
    ours = WhatWhereObjective(0.8, 0.3, sparsity=0.05)
    expected = ours(model, x, y)
    with torch.no_grad():
        found = ours(model, x, y)
    assert torch.equal(found.total, expected.total) and not found.total.requires_grad


# Processes -----------------------------------------------------------------------------------


RANKS = {"unevenly": ([0, -1, -1, 2, 1], [-1, -1, 1]), "one without": ([0, 1, 2], [-1, -1, -1, -1])}
MODES = {
    "semi-supervised": lambda: WhatWhereObjective(0.8, 0.3, nll=1.7, sparsity=0.05),
    "supervised": lambda: WhatWhereObjective(0.0, 0.0),
    "unsupervised": lambda: WhatWhereObjective(1.0, 0.2, nll=0.0),
    "balance": lambda: WhatWhereObjective(0.8, 0.3, balance=Balance(0.7)),
}
CASES = [
    *((mode, labels, 1) for mode in MODES for labels in RANKS),
    ("semi-supervised", "unevenly", 2),
]


def outcome(mode, labels, parts, rank=None):
    """Totals of each part, and gradients, of two steps, in one process or in one of two."""
    model, x = made("images", count=sum(map(len, RANKS[labels])))
    network = model
    if mode == "unsupervised":
        model.head.requires_grad_(False)
    if rank is not None:
        unused = mode == "supervised"
        model = DistributedDataParallel(model, find_unused_parameters=unused)
    first, second = RANKS[labels]
    y = torch.tensor(first + second)
    rows = torch.arange(len(y)).split([len(first), len(second)])
    if rank is not None:
        rows = rows[rank : rank + 1]
    pieces = [torch.cat(rows)]
    if parts == 2:
        pieces = [torch.cat([each[:2] for each in rows]), torch.cat([each[2:] for each in rows])]
    whole = y[torch.cat(rows)] if parts > 1 else None
    ours, found = MODES[mode](), []
    for turn in range(2):
        model.zero_grad()
        totals = []
        for i, piece in enumerate(pieces):
            wait = rank is not None and i + 1 < len(pieces)
            with model.no_sync() if wait else nullcontext():
                total = ours(model, x[piece] * (1 + turn), y[piece], whole=whole).total
                total.backward()
            totals.append(total.item())
        grads = {
            name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
            for name, weight in network.named_parameters()
        }
        found.append((totals, grads))
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return found_by_two(tmp_path_factory.mktemp("ranks"), outcome, CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_are_one(case, ranks):
    for one, other, whole in zip(*ranks[case], outcome(*case), strict=True):
        for a, b, expected in zip(one[0], other[0], whole[0], strict=True):
            assert (a + b) / 2 == pytest.approx(expected, abs=1e-10)
        for name, grad in whole[1].items():
            torch.testing.assert_close(one[1][name], grad, rtol=0, atol=1e-10)
            torch.testing.assert_close(other[1][name], grad, rtol=0, atol=1e-10)
