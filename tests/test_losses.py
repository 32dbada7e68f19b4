"""Objectives equal the equations written out, and their gradients central finite differences."""

import math
import pickle

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import birdinv
from birdinv import LayerWeightedObjective, ParameterFreeObjective, WeightedObjective
from birdinv.loss_weights import linear
from birdinv.terms import UNLABELED

LABELS = {
    "mixed": [2, -1, 0, -1],
    "labelled": [2, 1, 0, 0],
    "unlabelled": [-1, -1, -1, -1],
    "one": [-1, -1, 1, -1],
}
LAYERS = ["0", "1"]
PRIOR = [0.5, 0.0, 0.5]


def huber(z_hat, z):
    """Of one sample; neither symmetric nor free of the size of `z`."""
    return ((((z_hat - 0.9 * z) ** 2) + 1) ** 0.5 - 1).sum()


def of(kind, **chosen):
    """An objective with its settings in the words of `reference`."""
    return kind, chosen


CASES = {
    "inv10": of(WeightedObjective, alpha=0.7, beta=0.3),
    "spl82": of(WeightedObjective, alpha=0.7, beta=0.3, variant="spl82"),
    "ms5": of(WeightedObjective, alpha=0.7, beta=0.3, variant="ms5"),
    "inv10 sum": of(WeightedObjective, alpha=0.6, beta=0.5, reduction="sum"),
    "ms5 sum": of(WeightedObjective, alpha=0.6, beta=0.8, variant="ms5", reduction="sum"),
    "supervised": of(WeightedObjective, alpha=1.0, beta=0.4),
    "clustering": of(WeightedObjective, alpha=0.0, beta=0.2),
    "entropy alone": of(WeightedObjective, alpha=0.5, beta=0.0),
    "reconstruction alone": of(WeightedObjective, alpha=0.0, beta=1.0),
    "ms5 without entropy": of(WeightedObjective, alpha=0.5, beta=0.0, variant="ms5"),
    "cosine": of(WeightedObjective, alpha=0.7, beta=0.3, distance="cosine"),
    "function": of(WeightedObjective, alpha=0.7, beta=0.3, distance=huber),
    "function sum": of(WeightedObjective, alpha=0, beta=1, distance=huber, reduction="sum"),
    "balance": of(WeightedObjective, alpha=0.3, beta=0.1, kappa=0.7),
    "prior": of(WeightedObjective, alpha=0.3, beta=0.1, kappa=0.7, prior=PRIOR),
    "global": of(ParameterFreeObjective, scale="global"),
    "multiscale": of(ParameterFreeObjective, scale="multiscale"),
    "multiscale cosine": of(ParameterFreeObjective, scale="multiscale", distance="cosine"),
    "multiscale function": of(ParameterFreeObjective, scale="multiscale", distance=huber),
    "global balance": of(ParameterFreeObjective, scale="global", kappa=1.0),
    "multiscale prior": of(ParameterFreeObjective, scale="multiscale", kappa=2.0, prior=PRIOR),
    "layers": of(LayerWeightedObjective, alpha=1.5, beta=0.2, gamma=[0.1, 0.4, 2.0]),
    "layers sum": of(
        LayerWeightedObjective, alpha=0.5, beta=0.2, gamma=[0.1, 0.4, 0.3], reduction="sum"
    ),
    "layer without weight": of(LayerWeightedObjective, alpha=1, beta=0.2, gamma=[0.3, 0, 0.7]),
    "input without weight": of(LayerWeightedObjective, alpha=1, beta=0.2, gamma=[0, 0.5]),
    "input alone": of(LayerWeightedObjective, alpha=1, beta=0.2, gamma=[0.5]),
    "no layer": of(LayerWeightedObjective, alpha=1, beta=0.2, gamma=[0, 0, 0]),
    "layers alone": of(LayerWeightedObjective, alpha=0, beta=0, gamma=[0.1, 0.4, 2.0]),
    "layers cosine": of(
        LayerWeightedObjective, alpha=1, beta=0.2, gamma=[0.3, 0, 0.7], distance="cosine"
    ),
    "layers balance": of(
        LayerWeightedObjective, alpha=1, beta=0.2, gamma=[0.3, 0.2], kappa=0.5, prior=PRIOR
    ),
}
EQUATIONS = {
    WeightedObjective: reference.weighted,
    ParameterFreeObjective: reference.parameter_free,
    LayerWeightedObjective: reference.layer_weighted,
}
UNBALANCED = [name for name, (_, chosen) in CASES.items() if "kappa" not in chosen]


def objective(kind, chosen, layers=LAYERS, **more):
    """The objective of a case: the settings in the words of birdinv."""
    chosen = {**chosen, **more}
    distance, kappa, prior = (chosen.pop(name, None) for name in ("distance", "kappa", "prior"))
    if callable(distance):
        one = distance
        chosen["distance"] = lambda z_hat, z: torch.stack(list(map(one, z_hat, z)))
    elif distance:
        chosen["distance"] = distance
    if kappa is not None:
        chosen["balance"] = kappa if prior is None else birdinv.Balance(kappa, prior=prior)
    if chosen.get("scale") == "multiscale":
        chosen["layers"] = layers
    if "gamma" in chosen:
        chosen["layers"] = layers[: len(chosen["gamma"]) - 1]
    return kind(**chosen)


def case(name):
    return objective(*CASES[name])


def smooth():
    """A small network of three stages without kinks, for finite differences."""
    torch.manual_seed(0)
    stages = [
        nn.Sequential(nn.Conv1d(1, 3, 4, 2), nn.Softplus()),
        nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh()),
        nn.Linear(5, 3),
    ]
    return nn.Sequential(*stages).double(), torch.randn(4, 1, 10).double()


def assert_same(total, expected, model, tolerance=1e-10):
    torch.testing.assert_close(total, expected, rtol=tolerance, atol=tolerance)
    parameters = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad(total, parameters, allow_unused=True),
        torch.autograd.grad(expected, parameters, allow_unused=True),
        strict=True,
    ):
        a, b = (torch.zeros(()).double() if g is None else g for g in (a, b))
        assert ((a - b).abs() <= tolerance * (1 + b.abs())).all()


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", CASES)
def test_an_objective_is_its_equation(name, labels):
    model, x = smooth()
    y = torch.tensor(LABELS[labels])
    kind, chosen = CASES[name]
    expected = EQUATIONS[kind](list(model), x, y, **chosen)
    assert_same(case(name)(model, x, y).total, expected, model)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["inv10 sum", "cosine", "multiscale", "layers"])
def test_on_bird10_it_is_so_too_by_the_networks_own_layers(name, exact):
    torch.manual_seed(0)
    model = birdinv.networks.build("bird10", classes=3, shape=(1, 4700), width=4, dense=5)
    model, x = model.double().eval(), torch.randn(3, 1, 4700).double()
    kind, chosen = CASES[name]
    if "gamma" in chosen:
        chosen = {**chosen, "gamma": [0.1, 0.4, 2.0, 0.3]}
    ours = objective(kind, chosen, layers=model.layers, exact=exact)
    if "layers" in vars(ours):
        ours.layers = None
    y = torch.tensor([2, -1, 0])
    expected = EQUATIONS[kind](
        [model.block1, model.block2, model.hidden, model.head], x, y, **chosen
    )
    assert_same(ours(model, x, y).total, expected, model)


class Line(nn.Linear):
    """A dense stage for inputs of any shape."""

    def __init__(self, shape, after):
        super().__init__(math.prod(shape), after)

    def forward(self, x):
        return super().forward(x.flatten(1))


@st.composite
def problems(draw):
    """Stages, inputs and labels: dense, 1-D and 2-D networks of two to four stages."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    dimensions = draw(st.integers(0, 2))
    shape = (draw(st.integers(1, 3)), *draw(st.tuples(*[st.integers(5, 8)] * dimensions)))
    curve = draw(st.sampled_from([nn.Tanh, nn.LeakyReLU, nn.Softplus, nn.Sigmoid]))
    x = torch.randn(draw(st.integers(1, 4)), *shape).double()
    stages, z = [], x
    for _ in range(draw(st.integers(1, 3))):
        width = draw(st.integers(1, 4))
        if z.ndim > 2 and draw(st.booleans()):
            kernel = draw(st.integers(1, min(3, *z.shape[2:])))
            stride = draw(st.integers(1, 2))
            convolution = nn.Conv1d if dimensions == 1 else nn.Conv2d
            layer = convolution(z.shape[1], width, kernel, stride, draw(st.integers(0, 1)))
        else:
            layer = Line(z.shape[1:], width)
        stages.append(nn.Sequential(layer, curve()).double())
        z = stages[-1](z)
    classes = draw(st.integers(2, 5))
    stages.append(Line(z.shape[1:], classes).double())
    labels = draw(st.lists(st.integers(-1, classes - 1), min_size=len(x), max_size=len(x)))
    return stages, x, torch.tensor(labels), classes


@st.composite
def chosen_objectives(draw, stages, classes):
    weight = st.sampled_from([0.0, 0.25, 0.7, 1.0])
    chosen = {"distance": draw(st.sampled_from(["squared", "squared", "cosine", huber]))}
    if draw(st.booleans()):
        chosen["kappa"] = draw(st.sampled_from([0.0, 0.5, 3.0]))
        chosen["prior"] = draw(st.sampled_from([None, [1 / classes] * classes]))
    kind = draw(st.sampled_from(list(EQUATIONS)))
    if kind is ParameterFreeObjective:
        return kind, {**chosen, "scale": draw(st.sampled_from(["global", "multiscale"]))}
    chosen |= {
        "alpha": draw(weight),
        "beta": draw(weight),
        "reduction": draw(st.sampled_from(["mean", "sum"])),
    }
    if kind is WeightedObjective:
        return kind, {**chosen, "variant": draw(st.sampled_from(["inv10", "spl82", "ms5"]))}
    return kind, {
        **chosen,
        "gamma": draw(st.lists(weight, min_size=1, max_size=len(stages))),
    }


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_objective_on_any_network_is_its_equation(data):
    stages, x, y, classes = data.draw(problems())
    kind, chosen = data.draw(chosen_objectives(stages, classes))
    model = nn.Sequential(*stages)
    layers = [str(i) for i in range(len(stages) - 1)]
    total = objective(kind, chosen, layers)(model, x, y).total
    assert_same(total, EQUATIONS[kind](stages, x, y, **chosen), model)


def test_one_gamma_weighs_every_level_and_no_layers_leave_the_input():
    model, x = smooth()
    y = torch.tensor(LABELS["mixed"])

    def total(gamma, layers):
        return LayerWeightedObjective(1.0, 0.2, gamma, layers=layers)(model, x, y).total.item()

    assert total(0.3, LAYERS) == total([0.3, 0.3, 0.3], LAYERS) != total(0.3, [])
    assert total(0.3, []) == total((0.3,), []) == total([0.3, 0.0, 0.0], LAYERS)
    one_level = ParameterFreeObjective("multiscale", layers=[])(model, x, y)
    assert one_level.total.item() == case("global")(model, x, y).total.item()


@pytest.mark.parametrize(
    "name",
    [
        "inv10",
        "spl82",
        "ms5 sum",
        "clustering",
        "cosine",
        "function",
        "balance",
        "prior",
        "global",
        "multiscale",
        "multiscale cosine",
        "multiscale prior",
        "layers sum",
        "layers cosine",
        "layers balance",
    ],
)
def test_gradients_along_any_direction_are_central_finite_differences(name):
    model, x = smooth()
    y = torch.tensor(LABELS["mixed"])
    ours = case(name)
    ours(model, x, y).total.backward()
    step = 1e-5
    for parameter in model.parameters():
        at = parameter.data.clone()
        for direction in torch.randn(2, *at.shape).double():
            sides = []
            for way in (step, -step):
                parameter.data = at + way * direction
                with torch.no_grad():
                    sides.append(ours(model, x, y).total.item())
            slope = (sides[0] - sides[1]) / (2 * step)
            along = (parameter.grad * direction).sum().item()
            assert along == pytest.approx(slope, abs=1e-8, rel=1e-6)
        parameter.data = at


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", UNBALANCED)
def test_parts_of_a_batch_add_up_to_it(name, labels):
    model, x = smooth()
    y = torch.tensor(LABELS[labels])
    ours = case(name)
    parts = [slice(0, 1), slice(1, 2), slice(2, 4)]
    totals = [ours(model, x[part], y[part], whole=y).total for part in parts]
    assert_same(sum(totals), ours(model, x, y).total, model, tolerance=1e-12)


@pytest.mark.parametrize("name", ["inv10", "multiscale", "layers"])
def test_in_eval_mode_no_sample_depends_on_the_rest_of_the_batch(name):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5)),
        nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5), nn.LeakyReLU()),
        nn.Linear(5, 3),
    ).double()
    model(2 * torch.randn(50, 6).double() + 1)
    x, y = torch.randn(4, 6).double(), torch.tensor(LABELS["mixed"])
    ours = case(name)

    def alone():
        return sum(ours(model, x[i : i + 1], y[i : i + 1], whole=y).total for i in range(4))

    model.eval()
    assert_same(alone(), ours(model, x, y).total, model, tolerance=1e-12)
    model.train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        alone()


@pytest.mark.parametrize(
    ("scheduled", "constant"),
    [
        (
            WeightedObjective(lambda t: t / 10, lambda t: 1 - t / 10, balance=lambda t: t / 5),
            WeightedObjective(0.3, 0.7, balance=0.6),
        ),
        (
            WeightedObjective(0.3, lambda t: t / 10, balance=birdinv.Balance(lambda t: t)),
            WeightedObjective(0.3, 0.3, balance=3.0),
        ),
        (
            LayerWeightedObjective(
                lambda t: t, lambda t: t - 3.0, [0.1, lambda t: 2 * t, lambda t: 0], layers=LAYERS
            ),
            LayerWeightedObjective(3, 0, [0.1, 6, 0], layers=LAYERS),
        ),
        (
            LayerWeightedObjective(1.0, 0.5, lambda t: t / 4, layers=LAYERS),
            LayerWeightedObjective(1.0, 0.5, 0.75, layers=LAYERS),
        ),
        (
            ParameterFreeObjective("global", balance=lambda t: t - 2),
            ParameterFreeObjective("global", balance=1.0),
        ),
    ],
)
def test_a_scheduled_weight_is_the_constant_one_of_its_step(scheduled, constant):
    model, x = smooth()
    y = torch.tensor(LABELS["mixed"])
    at_step, ever = scheduled(model, x, y, step=3), constant(model, x, y)
    assert_same(at_step.total, ever.total, model, tolerance=1e-14)
    assert (at_step.entropy is None) == (ever.entropy is None)
    with pytest.raises(ValueError, match="follows a schedule: call the objective with step=…"):
        scheduled(model, x, y)


def test_a_schedule_that_leaves_the_range_is_refused():
    model, x = smooth()
    y = torch.tensor(LABELS["mixed"])
    with pytest.raises(ValueError, match=r"alpha at step 7 is 1\.4; expected a number from 0 to 1"):
        WeightedObjective(lambda t: t / 5, 0.5)(model, x, y, step=7)
    with pytest.raises(ValueError, match=r"gamma\[1\] at step 7 is -7; expected a number of at"):
        gamma = [1.0, lambda t: -t]
        LayerWeightedObjective(1, 1, gamma, layers=["0"])(model, x, y, step=7)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_the_gradient_of_a_weight_that_is_a_tensor_is_its_term(value):
    """Also of a weight of 0, which may be learned to be more."""
    model, x = smooth()
    y = torch.tensor(LABELS["mixed"])
    weights = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for _ in range(6)]
    alpha, beta, kappa, *gamma = weights
    ours = LayerWeightedObjective(alpha, beta, gamma, layers=LAYERS, balance=kappa)
    terms = ours(model, x, y)
    expected = [terms.cross_entropy, terms.entropy, terms.balance, *terms.levels.values()]
    got = torch.autograd.grad(terms.total, weights)
    torch.testing.assert_close(got, tuple(expected), rtol=0, atol=1e-12)

    terms = WeightedObjective(alpha, beta)(model, x, y)
    ce, e, r = terms.cross_entropy, terms.entropy, terms.reconstruction
    got = torch.autograd.grad(terms.total, [alpha, beta])
    expected = ce - value * r - (1 - value) * e, (1 - value) * (r - e)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_terms_are_those_of_the_total_and_detached(name):
    model, x = smooth()
    y = torch.tensor(LABELS["mixed"])
    kind, chosen = CASES[name]
    terms = case(name)(model, x, y)
    parts = terms.cross_entropy, terms.entropy, terms.reconstruction, terms.balance
    assert terms.total.requires_grad and terms.total.shape == ()
    for part in (*parts, *terms.levels.values(), terms.histogram, terms.logits):
        assert part is None or not part.requires_grad
    torch.testing.assert_close(terms.logits, model(x).detach())

    ce, e, r, balance = (0.0 if part is None else part.item() for part in parts)
    alpha, beta, kappa = (chosen.get(name, 0.0) for name in ("alpha", "beta", "kappa"))
    if kind is ParameterFreeObjective:
        total = (ce + e) / math.log(3) + r
    elif kind is LayerWeightedObjective:
        total = alpha * ce + beta * e + r
    elif chosen.get("variant") == "ms5":
        total = alpha * ce + (1 - alpha) * (beta * e + (1 - beta) * r)
    else:
        total = alpha * ce + (1 - alpha) * (beta * r + (1 - beta) * e)
    assert terms.total.item() == pytest.approx(total + kappa * balance, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "present"),
    [
        ("inv10", {"cross_entropy", "entropy", "reconstruction"}),
        ("supervised", {"cross_entropy"}),
        ("clustering", {"entropy", "reconstruction"}),
        ("entropy alone", {"cross_entropy", "entropy"}),
        ("reconstruction alone", {"reconstruction"}),
        ("ms5 without entropy", {"cross_entropy", "reconstruction"}),
        ("balance", {"cross_entropy", "entropy", "reconstruction", "balance"}),
        ("no layer", {"cross_entropy", "entropy"}),
        ("layers alone", {"reconstruction"}),
    ],
)
@pytest.mark.parametrize("labels", LABELS)
def test_a_term_is_none_where_it_has_no_weight_and_only_there(name, present, labels):
    model, x = smooth()
    terms = case(name)(model, x, torch.tensor(LABELS[labels]))
    names = {"cross_entropy", "entropy", "reconstruction", "balance"}
    assert {name for name in names if getattr(terms, name) is not None} == present
    assert bool(terms.levels) == ("reconstruction" in present)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("inv10", ["input"]),
        ("inv10 sum", ["input"]),
        ("global", ["input"]),
        ("multiscale", ["input", "0", "1"]),
        ("layers sum", ["input", "0", "1"]),
        ("layers cosine", ["input", "1"]),
        ("input without weight", ["0"]),
        ("no layer", []),
    ],
)
def test_levels_are_the_reconstruction_errors_that_have_a_weight(name, levels):
    model, x = smooth()
    _, chosen = CASES[name]
    terms = case(name)(model, x, torch.tensor(LABELS["mixed"]))
    assert list(terms.levels) == levels
    how = {key: chosen[key] for key in ("distance", "reduction") if key in chosen}
    for name, got in terms.levels.items():
        level = ["input", *LAYERS].index(name)
        expected = reference.mean_error(list(model), x, level, **how)
        torch.testing.assert_close(got, expected.detach(), rtol=0, atol=1e-10)


def test_the_histogram_counts_the_predicted_classes_of_unlabelled_samples():
    x = torch.eye(4)[[3, 3, 0, 1, 3, 1]]
    y = torch.tensor([-1, 2, -1, -1, -1, 0])
    for ours in (WeightedObjective(1.0, 0.0), WeightedObjective(0.5, 0.5, balance=1.0)):
        model = nn.Linear(4, 4)
        nn.init.eye_(model.weight)
        nn.init.zeros_(model.bias)
        terms = ours(model, x, y)
        assert terms.histogram.tolist() == [1, 1, 0, 2]
        assert terms.histogram.dtype == torch.int64


def test_a_print_of_the_terms_shows_no_logits():
    model, x = smooth()
    terms = case("layers")(model, x, torch.tensor(LABELS["mixed"]))
    assert "logits" not in repr(terms) and "cross_entropy" in repr(terms)


def test_plain_supervised_training_needs_no_reconstruction():
    """α = 1 works where a reconstruction could not: on logits that do not depend on the input."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return self.bias.expand(len(x), 3)

    x, y = torch.randn(2, 4), torch.tensor([0, 1])
    WeightedObjective(1.0, 0.5)(Constant(), x, y).total.backward()
    with pytest.raises(RuntimeError, match="the logits do not depend on the input"):
        WeightedObjective(0.9, 0.5)(Constant(), x, y)


def test_an_objective_without_a_weight_is_zero_with_gradients_of_zero():
    model, x = smooth()
    terms = LayerWeightedObjective(0, 0, 0, layers=[])(model, x, torch.tensor(LABELS["mixed"]))
    terms.total.backward()
    assert terms.total.item() == 0
    assert all(p.grad.abs().max() == 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: WeightedObjective(1.1, 0), "alpha is 1.1; expected a number from 0 to 1"),
        (lambda: WeightedObjective(0, -0.1), "beta is -0.1; expected a number from 0 to 1"),
        (lambda: WeightedObjective(math.nan, 0), "alpha is nan"),
        (
            lambda: WeightedObjective(torch.ones(2), 0),
            r"alpha is a tensor \[2\]; expected a single",
        ),
        (
            lambda: WeightedObjective(0, 0, variant="inv11"),
            "variant is 'inv11'; expected 'inv10', 'spl82' or 'ms5'",
        ),
        (
            lambda: WeightedObjective(0, 0, reduction="max"),
            "reduction is 'max'; expected 'mean' or 'sum'",
        ),
        (
            lambda: WeightedObjective(0, 0, distance="euclidean"),
            "distance is 'euclidean'; expected 'squared', 'cosine' or a function",
        ),
        (lambda: WeightedObjective(0, 0, balance=-1.0), "kappa is -1.0; expected a number of at"),
        (
            lambda: ParameterFreeObjective("local"),
            "scale is 'local'; expected 'global', 'multiscale' or None",
        ),
        (
            lambda: ParameterFreeObjective("global", layers=["0"]),
            "with scale='global' no layer is reconstructed: leave layers out",
        ),
        (
            lambda: ParameterFreeObjective("multiscale", layers="block1"),
            r"layers is the string 'block1'; expected a list: \['block1'\]",
        ),
        (
            lambda: LayerWeightedObjective(1, 1, 1, layers="block1"),
            r"layers is the string 'block1'; expected a list: \['block1'\]",
        ),
        (lambda: LayerWeightedObjective(-1, 0, 0), "alpha is -1; expected a number of at least 0"),
        (lambda: LayerWeightedObjective(0, -1, 0), "beta is -1; expected a number of at least 0"),
        (lambda: LayerWeightedObjective(0, 0, -1), r"gamma\[0\] is -1; expected a number"),
        (lambda: LayerWeightedObjective(0, 0, [1, -2]), r"gamma\[1\] is -2; expected a number"),
        (
            lambda: LayerWeightedObjective(1, 1, 1, reduction="none"),
            "reduction is 'none'; expected 'mean' or 'sum'",
        ),
        (
            lambda: ParameterFreeObjective("global", distance="l1"),
            "distance is 'l1'; expected 'squared', 'cosine' or a function",
        ),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("scale", [None, "global", "multiscale"])
@pytest.mark.parametrize("entropy", [True, False])
def test_an_ablation_is_the_sum_of_the_terms_it_has(scale, entropy):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.LeakyReLU(0.1), nn.Linear(6, 3)).double()
    x, y = torch.randn(4, 5, dtype=torch.float64), torch.tensor([2, -1, 0, -1])
    layers = ["1"] if scale == "multiscale" else None
    whole = ParameterFreeObjective("multiscale", layers=["1"])(model, x, y)
    terms = ParameterFreeObjective(scale, entropy=entropy, layers=layers)(model, x, y)
    expected = whole.cross_entropy / math.log(3)
    if entropy:
        expected = expected + whole.entropy / math.log(3)
    if scale == "global":
        expected = expected + whole.levels["input"]
    if scale == "multiscale":
        expected = expected + (whole.levels["input"] + whole.levels["1"]) / 2
    torch.testing.assert_close(terms.total.detach(), expected)
    assert (terms.entropy is None) == (not entropy)
    assert (terms.reconstruction is None) == (scale is None)


class Stack(nn.Module):
    """A network whose `layers` are not names, as is common."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x)


@pytest.mark.parametrize(
    ("ours", "model", "sentence"),
    [
        (
            ParameterFreeObjective("multiscale"),
            nn.Linear(4, 3),
            r"this network does not name its layers: pass layers=\[…\]",
        ),
        (LayerWeightedObjective(1, 1, 1), nn.Linear(4, 3), "does not name its layers: pass layers"),
        (
            LayerWeightedObjective(1, 1, 1),
            Stack(nn.ModuleList([nn.Linear(4, 4)])),
            "does not name its layers: pass layers",
        ),
        (LayerWeightedObjective(1, 1, 1), Stack(2), "does not name its layers: pass layers"),
        (
            LayerWeightedObjective(1, 1, [1, 1], layers=["0", "1"]),
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)),
            "gamma has 2 weights for the input and 2 layers; expected 3, the input's first",
        ),
        (
            LayerWeightedObjective(1, 1, [1, 1], layers=["conv"]),
            nn.Linear(4, 3),
            r"the model has no layers \['conv'\]",
        ),
        (
            ParameterFreeObjective("global"),
            nn.Linear(4, 1),
            "the model gave one logit; expected at least two, for 1 / log K",
        ),
        (
            WeightedObjective(0.5, 0.5, distance=lambda z_hat, z: (z_hat - z).square()),
            nn.Linear(4, 3),
            r"the distance gave \[2, 4\]; expected one number a sample, \[2\]",
        ),
        (
            WeightedObjective(0.5, 0.5, distance=lambda z_hat, z: (z_hat - z).square().mean()),
            nn.Linear(4, 3),
            r"the distance gave \[\]; expected one number a sample, \[2\]",
        ),
        (
            WeightedObjective(0.5, 0.5, balance=birdinv.Balance(prior=[0.5, 0.5])),
            nn.Linear(4, 3),
            "the prior has 2 classes and the network 3; give a share for each class",
        ),
    ],
)
def test_what_does_not_fit_the_network_is_refused_with_a_sentence(ours, model, sentence):
    with pytest.raises(ValueError, match=sentence):
        ours(model, torch.randn(2, 4), torch.tensor([0, -1]))


INPUTS = torch.randn(2, 4)


@pytest.mark.parametrize(
    ("x", "y", "whole", "error", "sentence"),
    [
        (
            INPUTS,
            torch.tensor([0]),
            None,
            ValueError,
            r"labels of shape \(1,\) and type torch.int64 for 2 inputs; expected int64 \[2\], -1",
        ),
        (INPUTS, torch.tensor([[0], [1]]), None, ValueError, r"labels of shape \(2, 1\)"),
        (INPUTS, torch.tensor([0.0, 1.0]), None, ValueError, "type torch.float32"),
        (INPUTS, torch.tensor([0, 1], dtype=torch.int32), None, ValueError, "type torch.int32"),
        (
            INPUTS,
            torch.tensor([0, 3]),
            None,
            ValueError,
            "labels from 0 to 3 for 3 logits; expected 0 to 2, -1 where there is no label",
        ),
        (INPUTS, torch.tensor([-2, 1]), None, ValueError, "labels from -2 to 1 for 3 logits"),
        (
            INPUTS,
            [0, -1],
            None,
            TypeError,
            "inputs and labels are Tensor and list; expected tensors: torch.as_tensor makes one",
        ),
        (
            INPUTS.numpy(),
            torch.tensor([0, -1]),
            None,
            TypeError,
            "are ndarray and Tensor; expected",
        ),
        (INPUTS.numpy(), np.array([0, -1]), None, TypeError, "are ndarray and ndarray; expected"),
        (
            torch.randn(0, 4),
            torch.zeros(0).long(),
            None,
            ValueError,
            "an empty batch; expected at least one sample",
        ),
        (
            INPUTS,
            torch.tensor([0, -1]),
            torch.tensor([0]),
            ValueError,
            r"whole has shape \(1,\); expected the labels of the whole batch of which these 2 samp",
        ),
        (
            INPUTS,
            torch.tensor([0, -1]),
            torch.zeros(2, 3).long(),
            ValueError,
            r"whole has shape \(2, 3\); expected the labels",
        ),
        (INPUTS, torch.tensor([0, -1]), [0, -1], TypeError, "whole is a list; expected a tensor"),
        (
            INPUTS,
            torch.tensor([0, -1]),
            torch.tensor([0, -1, 9]),
            ValueError,
            "labels from -1 to 9 for 3 logits",
        ),
        (
            INPUTS,
            torch.tensor([0, 1]),
            torch.tensor([0, -1, -1]),
            ValueError,
            "whole has 1 labels and 2 samples without, and its part 2 and 0; expected the labels",
        ),
    ],
)
@pytest.mark.parametrize("name", ["supervised", "inv10", "global", "input alone"])
def test_bad_batches_are_refused_with_a_sentence(name, x, y, whole, error, sentence):
    with pytest.raises(error, match=sentence):
        case(name)(nn.Linear(4, 3), x, y, whole=whole)


def test_nothing_is_asked_of_labels_but_that_they_be_classes_or_unlabeled():
    y = torch.tensor([2, UNLABELED])
    for name in ("supervised", "inv10", "global", "input alone"):
        assert case(name)(nn.Linear(4, 3), INPUTS, y).total.isfinite()


@pytest.mark.parametrize("name", ["supervised", "inv10", "global"])
def test_whatever_is_no_network_of_logits_is_refused_with_a_sentence(name):
    y = torch.tensor([0, -1])
    for wrong, sentence in (
        (nn.Unflatten(1, (2, 2)), r"gave \(2, 2, 2\); expected logits"),
        (nn.LSTM(4, 3), "gave tuple; expected logits"),
    ):
        with pytest.raises(ValueError, match=sentence):
            case(name)(wrong, INPUTS, y)
    with pytest.raises(TypeError, match=r"the model is a function; expected a torch.nn.Module"):
        birdinv.WeightedObjective(0.5, 0.5)(lambda x: x, INPUTS, y)


def test_a_class_masked_by_minus_infinity_has_no_entropy():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(4, 3)

        def forward(self, x):
            return self.line(x).masked_fill(torch.tensor([False, True, False]), -torch.inf)

    model = Masked()
    terms = birdinv.WeightedObjective(0.5, 0.0)(model, INPUTS, torch.tensor([0, -1]))
    terms.total.backward()
    assert terms.total.isfinite() and model.line.weight.grad.isfinite().all()


def test_a_level_without_weight_is_not_computed():
    model, x = smooth()
    y = torch.tensor(LABELS["mixed"])
    terms = LayerWeightedObjective(1, 0, [0, 0.5, 0], layers=LAYERS)(model, x, y)
    assert list(terms.levels) == LAYERS[:1]


@pytest.mark.parametrize(
    "objective",
    [
        WeightedObjective(linear(0.5, 1, steps=3), 0.5, balance=birdinv.Balance(memory=0.5)),
        ParameterFreeObjective("multiscale", layers=["0", "1"]),
        LayerWeightedObjective(1, 0.1, [0.1, 0.2], layers=["0"], distance="cosine"),
    ],
)
def test_objectives_travel_to_other_processes_and_show_their_settings(objective):
    model, x = smooth()
    y = torch.tensor(LABELS["mixed"])
    twin = pickle.loads(pickle.dumps(objective))
    assert twin(model, x, y, step=1).total == objective(model, x, y, step=1).total
    assert repr(twin) == repr(objective) and " at 0x" not in repr(objective)


def test_weights_that_are_tensors_are_held_to_their_range_too():
    alpha = torch.tensor(0.9, requires_grad=True)
    objective = WeightedObjective(alpha, 0.5)
    with torch.no_grad():
        alpha.fill_(1.5)
    with pytest.raises(ValueError, match=r"alpha is 1.5; expected a number from 0 to 1"):
        objective(nn.Linear(4, 3), INPUTS, torch.tensor([0, -1]))
    with pytest.raises(ValueError, match=r"beta is 2.0; expected a number from 0 to 1"):
        WeightedObjective(0.5, torch.tensor(2.0))
    with pytest.raises(TypeError, match=r"alpha is '0.7'; expected a number, a schedule"):
        WeightedObjective("0.7", 0.5)


def test_gamma_may_be_a_list_of_parameters():
    gamma = nn.ParameterList([torch.tensor(0.5), torch.tensor(0.2)])
    objective = LayerWeightedObjective(1, 0, gamma, layers=["0"])
    model, x = smooth()
    objective(model, x, torch.tensor(LABELS["mixed"])).total.backward()
    assert all(weight.grad > 0 for weight in gamma)


def test_a_layer_that_is_called_input_is_refused_with_a_sentence():
    model = nn.ModuleDict({"input": nn.Linear(4, 3)})
    with pytest.raises(ValueError, match=r"a layer is named 'input'.*rename it"):
        ParameterFreeObjective("multiscale", layers=["input"])(model, INPUTS, torch.tensor([0, -1]))
