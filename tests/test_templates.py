"""Templates are explicit Jacobians, biases what the network's own biases become, and add up."""

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from topologies import FAMILIES, PIECEWISE_AFFINE, Recurrent, build
from torch import nn
from torch.nn import functional

import birdinv
from birdinv.spline import (
    Templates,
    boundary_distance,
    iter_templates,
    optimal_templates,
    templates,
)
from birdinv.spline.templates import jacobian_rows

CURVED = [name for name in FAMILIES if name not in PIECEWISE_AFFINE]
NETWORKS = {
    "bird10": (1, 4700),
    "smallcnn": (1, 20, 20),
    "largecnn": (1, 24, 24),
    "mscnn": (1, 24, 24),
    "resnet2-4": (2, 16, 16),
    "swwae:(4)3c-2p-(4)3c-2p-5fc": (1, 8, 9),
}
IMAGES = ["smallcnn", "largecnn", "mscnn", "resnet2-4"]
OWN = [
    ("bird10", {}),
    *(
        (name, {"pooling": pooling, "batch_norm": batch_norm})
        for name in IMAGES
        for pooling in ("mean", "max", "inhibitor")
        for batch_norm in (False, True)
    ),
    *(("swwae:(4)3c-2p-(4)3c-2p-5fc", {"batch_norm": normed}) for normed in (False, True)),
]


def network(name, **options):
    """One of the project's, with biases and statistics that are not zero, in eval mode."""
    torch.manual_seed(0)
    shape = NETWORKS[name]
    classes = 5 if name.startswith("swwae") else 3
    model = birdinv.networks.build(name, classes=classes, shape=shape, **options).double()
    randomise(model)
    return model.eval(), torch.randn(1, *shape).double()


def randomise(model):
    """Biases and what batch norms have seen."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    for name, value in model.named_parameters():
        if "bias" in name:
            nn.init.normal_(value, std=0.3)


def explicit(model, x):
    """`[N, K, C, *S]`: the Jacobian of each sample alone."""
    return torch.stack(
        [
            torch.autograd.functional.jacobian(lambda z: model(z[None])[0], sample)
            for sample in x.detach()
        ]
    )


def two_layers(inputs=4, width=6, classes=3, activation=nn.ReLU):
    layers = nn.Linear(inputs, width), activation(), nn.Linear(width, classes)
    return nn.Sequential(*layers).double()


class Unrolled(nn.Module):
    """A recurrent network, step by step."""

    def __init__(self, inputs=2, width=5, classes=3):
        super().__init__()
        self.into, self.over = nn.Linear(inputs, width), nn.Linear(width, width)
        self.head, self.width = nn.Linear(width, classes), width

    def forward(self, x):
        state = x.new_zeros(len(x), self.width)
        for step in x.unbind(1):
            state = functional.relu(self.into(step) + self.over(state))
        return self.head(state)


class Scaled(torch.autograd.Function):
    """`3z`, by numpy, which knows nothing of batches of gradients."""

    @staticmethod
    def forward(ctx, z):
        return torch.from_numpy(3 * z.detach().numpy())

    @staticmethod
    def backward(ctx, gradient):
        return Scaled.apply(gradient)


class WithoutRule(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(Scaled.apply(functional.relu(self.first(x))))


class Fails(nn.Module):
    """Raises in its second pass; the first one counts the classes."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 3), nn.Dropout())
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        if self.passes > 1:
            raise RuntimeError("out of order")
        return self.inner(x)


# Closed forms.


@settings(max_examples=15, deadline=None)
@given(*(st.integers(1, 6) for _ in range(3)))
def test_the_templates_of_a_linear_network_are_its_weights(count, inputs, classes):
    torch.manual_seed(0)
    model = nn.Linear(inputs, classes).double()
    found = templates(model, torch.randn(count, inputs).double())
    expected = model.weight.expand(count, -1, -1)
    torch.testing.assert_close(found.A, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(found.b, model.bias.expand(count, -1), rtol=0, atol=1e-15)


def test_without_biases_the_bias_is_zero():
    torch.manual_seed(0)
    layers = nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)
    found = templates(nn.Sequential(*layers).double(), torch.randn(5, 4).double())
    assert found.b.abs().max() == 0


@settings(max_examples=15, deadline=None)
@given(*(st.integers(1, 6) for _ in range(4)))
def test_the_templates_of_one_hidden_layer_are_its_weights_where_it_is_active(
    count, inputs, width, classes
):
    torch.manual_seed(0)
    model, x = two_layers(inputs, width, classes), torch.randn(count, inputs).double()
    first, _, head = model
    active = (first(x) > 0).double()
    expected = torch.einsum("kd,nd,di->nki", head.weight, active, first.weight)
    torch.testing.assert_close(templates(model, x).A, expected, rtol=0, atol=1e-14)


@settings(max_examples=15, deadline=None)
@given(*(st.integers(1, 6) for _ in range(4)))
def test_the_bias_is_what_the_networks_own_biases_become(count, inputs, width, classes):
    torch.manual_seed(0)
    model, x = two_layers(inputs, width, classes), torch.randn(count, inputs).double()
    first, _, head = model
    active = (first(x) > 0).double()
    expected = torch.einsum("kd,nd,d->nk", head.weight, active, first.bias) + head.bias
    torch.testing.assert_close(templates(model, x).b, expected, rtol=0, atol=1e-14)


def test_what_a_batch_norm_subtracts_is_part_of_the_bias():
    """`f(x) = γ (x − μ) / √(σ² + ε) + β`."""
    torch.manual_seed(0)
    model, x = nn.BatchNorm1d(4).double().eval(), torch.randn(5, 4).double()
    randomise(model)
    scale = model.weight / (model.running_var + model.eps).sqrt()
    found = templates(model, x)
    expected = (model.bias - scale * model.running_mean).expand(5, -1)
    torch.testing.assert_close(found.b, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(found.A, scale.diag().expand(5, -1, -1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": True}])
def test_a_batch_norm_with_or_without_weights_leaves_no_gap(options):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3, **options).double()
    nn.init.normal_(norm.running_mean)
    model = nn.Sequential(nn.Conv1d(2, 3, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
    found = templates(model.double().eval(), torch.randn(4, 2, 6).double())
    assert found.gap.abs().max() <= 1e-12
    assert found.b.abs().min() > 1e-3


def test_the_gap_of_a_layer_of_sigmoids_is_that_of_their_tangents():
    """`W₂ (σ(z) − σ′(z) z)`: a tangent at z meets zero at `σ(z) − σ′(z) z`."""
    torch.manual_seed(0)
    model, x = two_layers(activation=nn.Sigmoid), torch.randn(5, 4).double()
    z = model[0](x)
    share = z.sigmoid()
    slope = share * (1 - share)
    found = templates(model, x)
    expected = (share - slope * z) @ model[2].weight.T
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found.gap, expected, rtol=0, atol=1e-14)
    expected = (slope * model[0].bias) @ model[2].weight.T + model[2].bias
    torch.testing.assert_close(found.b, expected, rtol=0, atol=1e-14)


# Any network.


@pytest.mark.parametrize("name", FAMILIES)
def test_the_templates_are_the_jacobian_of_each_sample_alone(name):
    model, x = build(name)
    found = templates(model, x)
    expected = explicit(model.eval(), x)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found.A, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.logits, model(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PIECEWISE_AFFINE)
def test_a_piecewise_affine_network_is_its_templates_and_biases(name):
    found = templates(*build(name))
    assert found.gap.abs().max() <= 1e-10
    assert found.b.abs().max() > 0.1  # and not because nothing is added


@pytest.mark.parametrize("name", CURVED)
def test_the_gap_of_a_network_that_is_no_spline_is_not_zero(name):
    assert templates(*build(name)).gap.abs().max() > 0.05


@pytest.mark.parametrize(("name", "options"), OWN)
def test_every_network_of_the_project_is_its_templates_and_biases(name, options):
    model, x = network(name, **options)
    found = templates(model, x)
    torch.testing.assert_close(found.A, explicit(model, x), rtol=0, atol=1e-10)
    assert found.gap.abs().max() <= 1e-10
    assert found.b.abs().max() > 1e-2
    torch.testing.assert_close(found.logits, model(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", IMAGES)
def test_with_sigmoids_a_network_of_the_project_is_no_spline(name):
    model, x = network(name, activation="sigmoid")
    assert templates(model, x).gap.abs().max() > 0.05


@pytest.mark.parametrize(
    "make", [Unrolled, lambda: Recurrent(lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k))]
)
def test_a_recurrent_network_of_relus_is_its_templates_and_biases(make):
    torch.manual_seed(0)
    model, x = make().double().eval(), torch.randn(3, 6, 2).double()
    found = templates(model, x)
    torch.testing.assert_close(found.A, explicit(model, x), rtol=0, atol=1e-12)
    assert found.gap.abs().max() <= 1e-12
    assert found.b.abs().max() > 0.05


@pytest.mark.parametrize("name", PIECEWISE_AFFINE)
def test_within_its_region_the_affine_map_is_the_network(name):
    model, x = build(name)
    found = templates(model, x)
    way = torch.randn_like(x).flatten(1)
    size = 0.9 * boundary_distance(model, x).clamp(max=10)
    step = (way / way.norm(dim=1, keepdim=True) * size[:, None]).view_as(x)
    expected = torch.einsum("nkd,nd->nk", found.A.flatten(2), (x + step).flatten(1)) + found.b
    assert step.abs().max() > 0
    torch.testing.assert_close(model.eval()(x + step), expected, rtol=0, atol=1e-12)


class Shared(nn.Module):
    """One layer under two names, called twice."""

    def __init__(self, layer):
        super().__init__()
        self.one, self.two, self.head = layer, layer, nn.Linear(4, 3)

    def forward(self, x):
        return self.head(functional.relu(self.two(functional.relu(self.one(x)))))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(4, 4),
        lambda: nn.BatchNorm1d(4),
        lambda: nn.LeakyReLU(0.1),
    ],
)
def test_a_layer_of_two_names_leaves_no_gap(make):
    torch.manual_seed(0)
    model, x = Shared(make()).double().eval(), torch.randn(5, 4).double()
    randomise(model)
    assert templates(model, x).gap.abs().max() <= 1e-12


class Norms(nn.Module):
    """One batch norm, called twice under one name."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(functional.relu(self.norm(x)))


def test_a_batch_norm_that_is_called_twice_leaves_no_gap():
    torch.manual_seed(0)
    model, x = Norms().double().eval(), torch.randn(5, 4).double()
    randomise(model)
    assert templates(model, x).gap.abs().max() <= 1e-12


# What is computed from them.


def some(count=3, classes=4, shape=(2, 3)):
    torch.manual_seed(0)
    parts = torch.randn(count, classes, *shape), torch.randn(count, classes)
    parts = *parts, torch.randn(count, classes), torch.randn(count, *shape)
    return Templates(*(part.double() for part in parts))


def test_the_match_is_the_inner_product_of_template_and_input():
    found = some()
    for n in range(3):
        for c in range(4):
            expected = (found.A[n, c] * found.x[n]).sum()
            torch.testing.assert_close(found.match[n, c], expected, rtol=0, atol=1e-14)


def test_the_gap_is_what_templates_and_bias_leave_of_the_logits():
    found = some()
    expected = found.logits - found.match - found.b
    torch.testing.assert_close(found.gap, expected, rtol=0, atol=1e-14)


def test_the_gram_matrix_holds_the_inner_products_of_templates():
    found = some()
    for n in range(3):
        for c in range(4):
            for k in range(4):
                expected = (found.A[n, c] * found.A[n, k]).sum()
                torch.testing.assert_close(found.gram[n, c, k], expected, rtol=0, atol=1e-14)


def test_correlations_are_the_cosines_between_templates():
    found = some()
    flat = found.A.flatten(2)
    expected = torch.cosine_similarity(flat[:, :, None], flat[:, None], dim=3)
    torch.testing.assert_close(found.correlation, expected, rtol=0, atol=1e-14)


def test_the_cosine_is_that_between_template_and_input():
    found = some()
    expected = torch.cosine_similarity(found.A.flatten(2), found.x.flatten(1)[:, None], dim=2)
    torch.testing.assert_close(found.cosine, expected, rtol=0, atol=1e-14)


def test_a_template_of_zeros_correlates_with_none():
    found = some()
    found.A[0, 1] = 0
    expected = torch.zeros(4).double()
    torch.testing.assert_close(found.correlation[0, 1], expected, rtol=0, atol=0)
    torch.testing.assert_close(found.correlation[0, :, 1], expected, rtol=0, atol=0)
    assert found.correlation[0, 0, 0] == pytest.approx(1)


def test_a_template_of_zeros_has_no_angle_to_the_input():
    found = some()
    found.A[0, 1] = 0
    assert found.cosine[0, 1] == 0
    assert torch.isfinite(found.cosine).all()


def test_an_input_of_zeros_has_no_angle_to_a_template():
    found = some()
    found.x[1] = 0
    assert found.cosine[1].abs().max() == 0
    assert found.cosine[0].abs().min() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_the_reconstruction_from_templates_is_the_inverse(name):
    model, x = build(name)
    found = templates(model, x).reconstruction
    expected = birdinv.invert(model.eval(), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


# A few at a time.


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
@pytest.mark.parametrize("name", ["1-d cnn", "resnet", "rnn", "flatten first", "bird10"])
def test_a_few_templates_at_a_time_are_all_of_them(name, chunk):
    model, x = build(name)
    found, expected = templates(model, x, chunk=chunk), templates(model, x)
    for part in ("A", "b", "logits", "x"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 30))
def test_samples_come_in_order_and_as_many_as_the_chunk_has_room_for(count, classes, chunk):
    model, x = nn.Linear(2, classes).double(), torch.randn(count, 2).double()
    parts = list(iter_templates(model, x, chunk=chunk))
    room = max(1, chunk // classes)
    assert [len(part.x) for part in parts[:-1]] == [room] * (len(parts) - 1)
    assert 1 <= len(parts[-1].x) <= room
    torch.testing.assert_close(torch.cat([part.x for part in parts]), x, rtol=0, atol=0)


@pytest.mark.parametrize("chunk", [1, 3, 4, 10, 24])
def test_the_network_sees_no_more_samples_than_the_chunk_has_room_for(chunk):
    model, x = two_layers(classes=4), torch.randn(8, 4).double()
    sizes = []
    model.register_forward_pre_hook(lambda _m, args: sizes.append(len(args[0])))
    templates(model, x, chunk=chunk)
    assert max(sizes) == max(1, chunk // 4)


@pytest.mark.parametrize("chunk", [1, 3, 4, 10, 24, 1000])
def test_no_more_gradients_than_the_chunk_are_computed_at_a_time(chunk, monkeypatch):
    module = importlib.import_module("birdinv.spline.templates")
    sizes = []

    def rows(outputs, x, weights):
        sizes.append((weights.shape[0] * weights.shape[1], weights.shape[1]))
        return jacobian_rows(outputs, x, weights)

    monkeypatch.setattr(module, "jacobian_rows", rows)
    templates(two_layers(classes=4), torch.randn(8, 4).double(), chunk=chunk)
    assert all(size <= max(chunk, samples) for size, samples in sizes)
    assert sum(size for size, _ in sizes) == 8 * 4


def test_a_network_without_a_rule_for_batches_of_gradients_is_differentiated_row_by_row():
    torch.manual_seed(0)
    model, x = WithoutRule().double(), torch.randn(5, 4).double()
    logits = model(point := x.clone().requires_grad_())
    weights = torch.ones(2, *logits.shape).double()
    with pytest.raises(RuntimeError):
        torch.autograd.grad(logits, point, weights, is_grads_batched=True)
    active = (model.first(x) > 0).double()
    expected = 3 * torch.einsum("kd,nd,di->nki", model.head.weight, active, model.first.weight)
    found = templates(model, x)
    torch.testing.assert_close(found.A, expected, rtol=0, atol=1e-14)
    assert found.gap.abs().max() <= 1e-14


# What is left alone.


@pytest.mark.parametrize("chunk", [1, 256])
def test_every_module_has_its_own_mode_back(chunk):
    model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(), nn.Linear(5, 3)).double()
    model[1].eval()
    templates(model, torch.randn(3, 4).double(), chunk=chunk)
    assert [module.training for module in model.modules()] == [True, True, False, True]


def test_every_module_has_its_own_mode_back_where_the_network_raises():
    model = Fails().double()
    model.inner[0].eval()
    with pytest.raises(RuntimeError, match="out of order"):
        templates(model, torch.randn(3, 4).double())
    assert [module.training for module in model.modules()] == [True, True, False, True]


def test_hooks_are_gone_where_the_network_raises():
    model = Fails().double()
    model.norm = nn.BatchNorm1d(3).double()
    with pytest.raises(RuntimeError, match="out of order"):
        templates(model, torch.randn(3, 4).double())
    assert not model.norm._forward_hooks


@pytest.mark.parametrize("name", ["1-d cnn", "resnet"])
def test_gradients_of_the_input_and_the_parameters_are_left_alone(name):
    model, x = build(name)
    x.requires_grad_()
    x.grad = torch.ones_like(x)
    found = templates(model, x)
    assert x.requires_grad and torch.equal(x.grad, torch.ones_like(x))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(getattr(found, part).requires_grad for part in ("A", "b", "logits", "x"))


@pytest.mark.parametrize("name", ["1-d cnn", "resnet", "lstm"])
def test_parameters_and_statistics_are_left_as_they_are(name):
    model, x = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    templates(model.train(), x)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_without_gradients_all_round_they_are_the_same():
    model, x = build("resnet")
    with torch.no_grad():
        found = templates(model, x)
    torch.testing.assert_close(found.A, templates(model, x).A, rtol=0, atol=0)
    assert found.gap.abs().max() <= 1e-10


@pytest.mark.parametrize("name", ["1-d cnn", "resnet", "bird10", "lstm"])
def test_frozen_parameters_change_nothing(name):
    model, x = build(name)
    expected = templates(model, x)
    found = templates(model.requires_grad_(False), x)
    torch.testing.assert_close(found.A, expected.A, rtol=0, atol=1e-14)
    torch.testing.assert_close(found.b, expected.b, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["resnet", "bird10", "mlp"])
def test_single_precision_is_kept_and_right_to_its_rounding(name):
    model, x = build(name)
    expected = templates(model, x)
    found = templates(model.float(), x.float())
    for part in ("A", "b", "logits", "x"):
        ours = getattr(found, part)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), getattr(expected, part), rtol=0, atol=1e-4)


def test_of_a_network_in_training_mode_they_are_those_of_eval_mode():
    torch.manual_seed(0)
    layers = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)
    model, x = nn.Sequential(*layers).double(), torch.randn(5, 4).double()
    randomise(model)
    expected = templates(model.eval(), x)
    found = templates(model.train(), x)
    torch.testing.assert_close(found.A, expected.A, rtol=0, atol=0)
    torch.testing.assert_close(found.b, expected.b, rtol=0, atol=0)
    assert (explicit(model.eval(), x) - found.A).abs().max() <= 1e-14


# Refusals.


def test_a_chunk_below_one_is_refused():
    with pytest.raises(ValueError, match="chunk=0; expected how many templates"):
        templates(nn.Linear(2, 3), torch.randn(4, 2), chunk=0)


def test_inputs_that_are_integers_are_refused():
    with pytest.raises(TypeError, match=r"the inputs are torch.int64; expected a tensor of float"):
        templates(nn.Linear(2, 3), torch.ones(4, 2, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(), (3,), (0, 3)])
def test_what_is_no_batch_is_refused(shape):
    with pytest.raises(ValueError, match="expected a batch"):
        templates(nn.Linear(3, 3), torch.ones(shape))


def test_what_is_no_network_is_refused():
    with pytest.raises(TypeError, match="the model is a function"):
        templates(lambda x: x, torch.ones(2, 3))


def test_outputs_that_are_no_logits_are_refused():
    with pytest.raises(ValueError, match=r"the model gave \(1, 2, 3\); expected logits \[N, K\]"):
        templates(nn.Linear(3, 3), torch.ones(4, 2, 3))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_network_that_does_not_depend_on_its_input_is_refused(frozen):
    class Constant(nn.Linear):
        def forward(self, x):
            return super().forward(torch.ones_like(x))

    with pytest.raises(RuntimeError, match="the logits do not depend on the input"):
        templates(Constant(2, 3, bias=not frozen).requires_grad_(not frozen), torch.randn(4, 2))


def test_a_network_that_detaches_its_input_is_refused():
    class Detached(nn.Linear):
        def forward(self, x):
            return super().forward(x.detach())

    with pytest.raises(RuntimeError, match="the logits do not depend on the input"):
        templates(Detached(2, 3), torch.randn(4, 2))


def test_in_inference_mode_they_are_refused():
    x = torch.randn(4, 2)
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match="inference mode forbids gradients"),
    ):
        templates(nn.Linear(2, 3), x)


# Optimal templates (SPL theorem 5).


def unit(count=3, shape=(2, 3)):
    torch.manual_seed(0)
    x = torch.randn(count, *shape).double()
    return x / x.flatten(1).norm(dim=1).view(-1, *[1] * len(shape))


def losses(flat, x, y):
    """Cross-entropy of each sample's templates `[..., K, D]`, without biases."""
    return -(flat @ x.flatten()).log_softmax(dim=-1)[..., y]


ENERGIES = [0.3, 1.0, 7.0]


@pytest.mark.parametrize("energy", ENERGIES)
@settings(max_examples=10, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4))
def test_optimal_templates_have_the_energy_that_is_asked_for(energy, classes, count):
    x, y = 3 * unit(count), torch.arange(count) % classes
    best = optimal_templates(x, y, classes, energy)
    expected = torch.full((count,), energy, dtype=torch.float64)
    torch.testing.assert_close(best.square().flatten(1).sum(1), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("energy", ENERGIES)
def test_optimal_templates_are_those_written_in_the_documentation(energy):
    x, y = unit(1), torch.tensor([2])
    best = optimal_templates(5 * x, y, 4, energy)
    for c in range(4):
        scale = (3 / 4 * energy) ** 0.5 if c == 2 else -((energy / 12) ** 0.5)
        torch.testing.assert_close(best[0, c], scale * x[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("energy", [0.3, 7.0])
def test_the_papers_printed_templates_break_its_own_constraint(energy):
    """SPL 63: `√((C−1)/C) K x` for the true class, `−√(K/(C(C−1))) x` otherwise."""
    classes, x = 4, unit(1)
    printed = [((classes - 1) / classes) ** 0.5 * energy * x]
    printed += [-((energy / (classes * (classes - 1))) ** 0.5) * x] * (classes - 1)
    total = sum(float(each.square().sum()) for each in printed)
    assert total == pytest.approx(0.75 * energy**2 + 0.25 * energy)
    assert abs(total - energy) > 0.1
    ours = optimal_templates(x, torch.tensor([0]), classes, energy).square().sum()
    assert float(ours) == pytest.approx(energy)


def test_at_an_energy_of_one_the_papers_printed_templates_are_the_optimal_ones():
    classes, x = 4, unit(1)
    best = optimal_templates(x, torch.tensor([0]), classes)[0]
    torch.testing.assert_close(best[:1], 0.75**0.5 * x, rtol=0, atol=1e-15)
    torch.testing.assert_close(
        best[1:], -((1 / 12) ** 0.5) * x.expand(3, -1, -1), atol=0, rtol=1e-14
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4))
def test_at_an_energy_of_one_they_reconstruct_perfectly(classes, count):
    x, y = 3 * unit(count), torch.arange(count) % classes
    best = optimal_templates(x, y, classes).flatten(2)
    match = torch.einsum("nkd,nd->nk", best, x.flatten(1))
    back = torch.einsum("nkd,nk->nd", best, match).view_as(x)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-13)


def test_at_another_energy_they_reconstruct_that_many_times_the_input():
    x = unit(1)
    best = optimal_templates(x, torch.tensor([1]), 3, 7.0).flatten(2)
    back = best[0].T @ (best[0] @ x.flatten())
    torch.testing.assert_close(back, 7 * x.flatten(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("size", [1e-3, 0.1, 1, 30])
def test_no_other_templates_of_the_same_energy_have_a_smaller_cross_entropy(energy, size):
    x, classes, y = unit(1), 4, 2
    best = optimal_templates(x, torch.tensor([y]), classes, energy)[0].flatten(1)
    others = best + size * torch.randn(2000, *best.shape).double()
    norm = others.flatten(1).norm(dim=1)
    others = others / norm[:, None, None] * energy**0.5
    worse = losses(others, x, y) - losses(best, x, y)
    assert worse.min() > 0


@pytest.mark.parametrize("energy", ENERGIES)
def test_projected_gradient_descent_from_anywhere_ends_at_them(energy):
    x, classes, y = unit(1), 4, 2
    best = optimal_templates(x, torch.tensor([y]), classes, energy)[0].flatten(1)
    at = torch.randn_like(best)
    at = at / at.norm() * energy**0.5
    for _ in range(3000):
        at = at.requires_grad_()
        (slope,) = torch.autograd.grad(losses(at, x, y), at)
        at = (at - energy**0.5 * slope / slope.norm()).detach()
        at = at / at.norm() * energy**0.5
    torch.testing.assert_close(at, best, rtol=0, atol=1e-8)


def test_each_input_may_have_an_energy_of_its_own():
    x, y = unit(3), torch.tensor([0, 1, 1])
    energies = torch.tensor(ENERGIES).double()
    best = optimal_templates(x, y, 2, energies)
    torch.testing.assert_close(best.square().flatten(1).sum(1), energies, rtol=1e-14, atol=0)


def test_a_network_whose_templates_are_optimal_is_at_distance_zero():
    x, y = 2 * unit(1, (5,)), torch.tensor([2])
    model = nn.Linear(5, 4).double()
    model.weight.data = optimal_templates(x, y, 4, 7.0)[0]
    assert templates(model, x).distance_to_optimal(y).item() <= 1e-14


def test_a_network_whose_templates_are_the_opposite_is_at_distance_two():
    x, y = 2 * unit(1, (5,)), torch.tensor([2])
    model = nn.Linear(5, 4).double()
    model.weight.data = -optimal_templates(x, y, 4, 7.0)[0]
    assert templates(model, x).distance_to_optimal(y).item() == pytest.approx(2, abs=1e-14)


def test_templates_across_the_input_are_at_the_distance_of_a_right_angle():
    x, y = torch.tensor([[3.0, 0.0]]).double(), torch.tensor([0])
    model = nn.Linear(2, 2).double()
    model.weight.data = torch.tensor([[0.0, 1.0], [0.0, -2.0]]).double()
    found = templates(model, x).distance_to_optimal(y)
    assert found.item() == pytest.approx(2**0.5, abs=1e-14)


@pytest.mark.parametrize("y", [[0, 3], [-1, 0], [0], [0, 0, 0]])
def test_classes_out_of_range_or_of_other_inputs_are_refused(y):
    with pytest.raises(ValueError, match="expected a class from 0 to 2 per input"):
        optimal_templates(unit(2), torch.tensor(y), 3)


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match="1 classes; templates compete where there are two"):
        optimal_templates(unit(1), torch.tensor([0]), 1)


def test_an_input_of_zeros_has_no_optimal_templates():
    x = unit(2)
    x[1] = 0
    with pytest.raises(ValueError, match="an input is zero"):
        optimal_templates(x, torch.tensor([0, 1]), 3)


def test_the_distance_to_optimal_templates_of_an_input_of_zeros_is_refused():
    found = templates(nn.Linear(3, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="an input is zero"):
        found.distance_to_optimal(torch.tensor([0]))
