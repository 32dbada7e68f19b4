"""The balance is its formula, remembers as it says, and keeps classes from emptying."""

import math
import warnings

import pytest
import torch
from torch import nn

import birdinv
from birdinv.balance import Balance, ClassWatch

SEEN, UNSEEN = torch.tensor(True), torch.tensor(False)


def distribution(*shares):
    return torch.tensor(shares, dtype=torch.float64)


def minus_entropy(shares):
    return sum(q * math.log(q) for q in shares)


@pytest.mark.parametrize(
    "shares", [(0.25, 0.25, 0.25, 0.25), (0.7, 0.1, 0.1, 0.1), (1 - 3e-9, 1e-9, 1e-9, 1e-9)]
)
def test_the_penalty_is_minus_the_entropy_of_the_mean_prediction(shares):
    got = Balance().penalty(distribution(*shares), seen=SEEN)
    assert got.item() == pytest.approx(minus_entropy(shares), abs=1e-14)


@pytest.mark.parametrize("prior", [(0.5, 0.3, 0.2), (1 / 3, 1 / 3, 1 / 3), (0.9, 0.1, 0.0)])
def test_with_a_prior_it_is_the_divergence_from_it(prior):
    shares = (0.2, 0.5, 0.3)
    got = Balance(prior=prior).penalty(distribution(*shares), seen=SEEN)
    expected = sum(p * math.log(p / q) for p, q in zip(prior, shares, strict=True) if p)
    assert got.item() == pytest.approx(expected, abs=1e-14)
    at_the_prior = Balance(prior=prior).penalty(distribution(*prior), seen=SEEN)
    assert at_the_prior.item() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("prior", [None, (0.5, 0.3, 0.2)])
def test_its_gradient_is_that_of_the_formula(prior):
    mean = distribution(0.2, 0.5, 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: Balance(prior=prior).penalty(q, seen=SEEN), mean)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("prior", [None, (0.5, 0.3, 0.2)])
def test_shares_that_underflow_leave_value_and_gradient_finite(kind, prior):
    logits = torch.tensor([[2000.0, -2000.0, 0.0], [1900.0, -2000.0, 1.0]], dtype=kind)
    logits.requires_grad_()
    mean = logits.softmax(dim=1).mean(dim=0)
    assert mean[1] == 0
    penalty = Balance(prior=prior).penalty(mean, seen=SEEN)
    penalty.backward()
    assert penalty.isfinite() and logits.grad.isfinite().all()
    shares = mean.detach().requires_grad_()
    Balance(prior=prior).penalty(shares, seen=SEEN).backward()
    assert shares.grad.isfinite().all()


@pytest.mark.parametrize("prior", [None, (0.5, 0.3, 0.2)])
def test_the_memory_is_an_exponential_moving_average(prior):
    """Begun with the first batch; the gradient is that of the batch's own part."""
    batches = [(0.2, 0.5, 0.3), (0.6, 0.2, 0.2), (0.1, 0.1, 0.8)]
    balance = Balance(memory=0.9, prior=prior)
    average = None
    for shares in batches:
        mean = distribution(*shares).requires_grad_()
        kept = 0.0 if average is None else 0.9
        before = shares if average is None else average
        average = [kept * a + (1 - kept) * q for a, q in zip(before, shares, strict=True)]
        got = balance.penalty(mean, seen=SEEN)
        got.backward()
        if prior is None:
            expected = minus_entropy(average)
            slopes = [(1 - kept) * (1 + math.log(a)) for a in average]
        else:
            expected = sum(p * math.log(p / a) for p, a in zip(prior, average, strict=True))
            slopes = [-(1 - kept) * p / a for p, a in zip(prior, average, strict=True)]
        assert got.item() == pytest.approx(expected, abs=1e-14)
        assert mean.grad.tolist() == pytest.approx(slopes, abs=1e-14)
        assert balance.state_dict()["average"].tolist() == pytest.approx(average, abs=1e-15)


def test_without_memory_no_batch_knows_of_another():
    balance = Balance()
    balance.penalty(distribution(0.9, 0.1), seen=SEEN)
    assert balance.penalty(distribution(0.5, 0.5), seen=SEEN).item() == pytest.approx(-math.log(2))
    assert balance.state_dict() == {}


@pytest.mark.parametrize("memory", [0.0, 0.9])
@pytest.mark.parametrize("prior", [None, (0.5, 0.5)])
def test_before_the_first_unlabelled_sample_the_penalty_is_0(memory, prior):
    balance = Balance(memory=memory, prior=prior)
    mean = torch.zeros(2).requires_grad_()
    penalty = balance.penalty(mean, seen=UNSEEN)
    penalty.backward()
    assert penalty.item() == 0 and mean.grad.tolist() == [0, 0]
    balance.penalty(distribution(0.9, 0.1), seen=SEEN)
    if memory:
        assert balance.state_dict()["average"].tolist() == pytest.approx([0.9, 0.1])


def test_a_batch_without_unlabelled_samples_leaves_the_average():
    balance = Balance(memory=0.9)
    before = balance.penalty(distribution(0.7, 0.3), seen=SEEN)
    mean = torch.zeros(2, dtype=torch.float64).requires_grad_()
    after = balance.penalty(mean, seen=UNSEEN)
    after.backward()
    assert after.item() == pytest.approx(before.item()) and mean.grad.tolist() == [0, 0]
    assert balance.state_dict()["average"].tolist() == pytest.approx([0.7, 0.3])


def test_so_do_labelled_batches_and_parts_given_to_an_objective():
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), torch.randn(6, 4).double()
    y = torch.tensor([0, 1, -1, -1, -1, 2])
    balance = Balance(memory=0.5)
    ours = birdinv.WeightedObjective(0.5, 0.5, balance=balance)
    first = ours(model, x, y)
    mean = model(x[2:5]).softmax(dim=1).mean(dim=0)
    torch.testing.assert_close(balance.state_dict()["average"], mean.detach())
    for given in (
        ours(model, x[:2], y[:2]),
        ours(model, x[:2], y[:2], whole=y),
    ):
        assert given.balance.item() == pytest.approx(first.balance.item())
        torch.testing.assert_close(balance.state_dict()["average"], mean.detach())


@pytest.mark.parametrize("prior", [None, (0.5, 0.3, 0.2)])
def test_of_a_part_of_a_batch_it_is_the_parts_own_at_its_share_of_the_unlabelled(prior):
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), torch.randn(6, 4).double()
    y = torch.tensor([0, -1, 1, 2, -1, -1])
    plain = birdinv.WeightedObjective(0.5, 0.5)
    ours = birdinv.WeightedObjective(0.5, 0.5, balance=Balance(2.0, prior=prior))
    for part, share in ((slice(0, 2), 1 / 3), (slice(2, 4), 0), (slice(4, 6), 2 / 3)):
        got, without = (o(model, x[part], y[part], whole=y) for o in (ours, plain))
        penalty = 0.0
        if share:
            mean = model(x[part])[y[part] < 0].softmax(dim=1).mean(dim=0)
            penalty = Balance(prior=prior).penalty(mean, seen=SEEN).item()
        assert got.balance.item() == pytest.approx(penalty)
        assert (got.total - without.total).item() == pytest.approx(2 * share * penalty)


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_loaded_balance_goes_on_identically(cut, tmp_path):
    torch.manual_seed(0)
    batches = torch.rand(5, 4).softmax(dim=1)
    through, first = Balance(memory=0.8), Balance(memory=0.8)
    whole = [through.penalty(mean, seen=SEEN).item() for mean in batches]
    parts = [first.penalty(mean, seen=SEEN).item() for mean in batches[:cut]]
    torch.save(first.state_dict(), tmp_path / "balance.pt")
    second = Balance(memory=0.8)
    second.penalty(distribution(0.25, 0.25, 0.25, 0.25), seen=SEEN)
    second.load_state_dict(torch.load(tmp_path / "balance.pt"))
    parts += [second.penalty(mean, seen=SEEN).item() for mean in batches[cut:]]
    assert parts == whole


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Balance(-1), "kappa is -1; expected a number of at least 0"),
        (lambda: Balance(memory=1.0), "memory is 1.0; expected a fraction from 0 to below 1"),
        (lambda: Balance(memory=-0.1), "memory is -0.1; expected a fraction"),
        (lambda: Balance(memory=math.nan), "memory is nan; expected a fraction"),
        (lambda: Balance(prior=[0.5, 0.6]), r"the prior is \[0.5, 0.6\]; expected one share a cla"),
        (lambda: Balance(prior=[1.5, -0.5]), "none below 0, that add up to 1"),
        (lambda: Balance(prior=[math.nan, 1.0]), "expected one share a class"),
        (lambda: Balance(prior=[[0.5, 0.5]]), "expected one share a class"),
        (
            lambda: Balance(prior=[0.5, 0.5]).penalty(distribution(0.2, 0.5, 0.3), seen=SEEN),
            "the prior has 2 classes and the network 3; give a share for each class of the network",
        ),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def watched(watch, classes, batches, samples=10, of=4):
    """The warnings of `batches` batches whose unlabelled samples are predicted as `classes`."""
    predicted = torch.tensor(classes).repeat(samples)[:samples]
    logits = nn.functional.one_hot(predicted, of).double()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(batches):
            watch.count(logits, torch.ones(samples, dtype=torch.bool))
    return [str(warning.message) for warning in caught]


ALL = [0, 1, 2, 3]


def test_a_class_that_empties_is_named_once_until_it_has_returned():
    watch = ClassWatch(every=50)  # 500 samples; 100·K are 400
    assert watched(watch, ALL, 50) == []
    assert watched(watch, [0, 1, 3], 49) == []
    (warning,) = watched(watch, [0, 1, 3], 1)
    assert warning.startswith("class 2 has emptied: none of the last 500 unlabelled samples")
    assert "give the objective a balance (or more of it), or weigh its entropy less" in warning
    assert watched(watch, [0, 1, 3], 500) == []
    assert watched(watch, ALL, 50) == []
    (warning,) = watched(watch, [0, 1, 3], 50)
    assert warning.startswith("class 2 has emptied")
    (warning,) = watched(watch, [1], 50)
    assert warning.startswith("the classes [0, 3] have emptied")


def test_no_class_is_named_before_100_samples_a_class_were_seen():
    watch = ClassWatch(every=10)
    assert watched(watch, ALL, 40) == []
    assert watched(watch, [0, 1, 3], 39) == []
    (warning,) = watched(watch, [0, 1, 3], 1)
    assert "none of the last 400 unlabelled samples" in warning


def test_a_class_that_was_never_there_is_named_after_three_looks():
    """A network that has hardly begun to learn predicts few classes."""
    watch = ClassWatch(every=50)
    assert watched(watch, [0, 1, 3], 2 * 50) == []
    (warning,) = watched(watch, [0, 1, 3], 50)
    assert warning.startswith("class 2 has emptied")
    assert watched(watch, [0, 1, 3], 500) == []


def test_a_rare_class_is_not_an_empty_one():
    watch = ClassWatch(every=50)
    for _ in range(20):
        assert watched(watch, [0, 1, 3], 49) == []
        assert watched(watch, [2], 1) == []


def test_labelled_samples_are_not_watched():
    watch = ClassWatch(every=1)
    histogram = watch.count(torch.eye(4), torch.tensor([True, False, True, True]))
    assert histogram.tolist() == [1, 0, 1, 1]
    logits = torch.eye(4).repeat(200, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            watch.count(logits, torch.zeros(800, dtype=torch.bool))


def blobs(seed):
    """Four clouds in 8 dimensions, 50 samples each, of which one is labelled; and their classes."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(4).repeat(50)
    x = torch.eye(8)[classes] + 0.3 * torch.randn(200, 8, generator=generator)
    y = torch.where(torch.arange(200) < 4, classes, birdinv.UNLABELED)
    return x / x.abs().amax(dim=1, keepdim=True), y, classes


def trained(objective, seed):
    """Predicted classes of the 196 unlabelled samples after 150 steps, and the accuracy."""
    x, y, classes = blobs(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(8, 32), nn.LeakyReLU(), nn.Linear(32, 32), nn.LeakyReLU(), nn.Linear(32, 4)
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        objective(model, x, y).total.backward()
        optimiser.step()
    terms = objective(model, x, y)
    return terms.histogram, (terms.logits.argmax(dim=1) == classes).double().mean().item()


OBJECTIVES = {
    "weighted": lambda balance: birdinv.WeightedObjective(0.3, 0.1, balance=balance),
    "global": lambda balance: birdinv.ParameterFreeObjective("global", balance=balance),
    "multiscale": lambda balance: birdinv.ParameterFreeObjective(
        "multiscale", layers=["1", "3"], balance=balance
    ),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_entropy_alone_empties_classes_and_the_balance_keeps_them(name, seed):
    """Of 20 seeds at least 19 emptied a class without and none with it, with each objective."""
    with pytest.warns(UserWarning, match="emptied") as caught:
        plain, wrong = trained(OBJECTIVES[name](None), seed)
    assert plain.min() == 0 and wrong < 0.6
    assert {warning.filename for warning in caught} == {__file__}  # where the objective was called
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        balanced, right = trained(OBJECTIVES[name](1.0), seed)
    assert balanced.min() > 25 and balanced.max() < 75 and right > 0.8


def test_one_batch_that_is_not_finite_does_not_spoil_the_average():
    balance, seen = birdinv.Balance(memory=0.5), torch.tensor(True)
    balance.penalty(torch.tensor([0.25, 0.75]), seen=seen)
    assert balance.penalty(torch.tensor([float("nan"), 0.5]), seen=seen).isnan()
    assert balance.state_dict()["average"].tolist() == [0.25, 0.75]


def test_an_evaluation_leaves_the_average_and_the_watch_alone():
    balance, watch = birdinv.Balance(memory=0.5), ClassWatch(every=1)
    with torch.no_grad():
        balance.penalty(torch.tensor([0.25, 0.75]), seen=torch.tensor(True))
    assert balance.state_dict() == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            watch.count(torch.eye(2)[[0] * 500], torch.ones(500, dtype=torch.bool), training=False)


@pytest.mark.parametrize(
    ("memory", "state", "sentence"),
    [
        (0.5, {"avg": torch.ones(2)}, r"the state has \['avg'\]; expected what state_dict gave"),
        (0.0, {"average": torch.ones(2)}, "of a Balance with the same memory"),
    ],
)
def test_a_state_of_something_else_is_refused(memory, state, sentence):
    with pytest.raises(ValueError, match=sentence):
        birdinv.Balance(memory=memory).load_state_dict(state)


def test_a_balance_serves_one_network():
    balance, seen = birdinv.Balance(memory=0.5), torch.tensor(True)
    balance.penalty(torch.tensor([0.25, 0.75]), seen=seen)
    with pytest.raises(ValueError, match="remembers 2 classes and the network has 3"):
        balance.penalty(torch.ones(3) / 3, seen=seen)
    assert repr(balance) == "Balance(1.0, memory=0.5, prior=None)"


def test_a_network_of_other_classes_is_watched_anew():
    watch = ClassWatch(every=1)
    watch.count(torch.eye(10).repeat(200, 1), torch.ones(2000, dtype=torch.bool))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counted = watch.count(torch.eye(3).repeat(200, 1), torch.ones(600, dtype=torch.bool))
    assert counted.tolist() == [200, 200, 200]  # and none of the seven others is missed
