"""invert = explicit Jacobian, for any network; what it refuses, and what it leaves alone."""

from contextlib import nullcontext

import pytest
import torch
from topologies import FAMILIES, SMOOTH, build, chain
from torch import nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

import birdinv
from birdinv.inversion import reconstruct

NAMED = [name for name, family in FAMILIES.items() if family.layers]


def explicit(function, point):
    """`Aᵀ f` of each sample alone, the Jacobian written out."""
    rows = []
    for sample in point:
        jacobian = torch.autograd.functional.jacobian(lambda z: function(z[None])[0], sample)
        rows.append(torch.einsum("k,k...->...", function(sample[None])[0], jacobian))
    return torch.stack(rows).detach()


def one_pass_each(model, x, layers):
    """`x̂`, then `z` and `ẑ` of each layer, by autograd alone and from the start for each."""
    kept = []
    x = x.detach().clone().requires_grad_()

    def half():
        with sdpa_kernel(SDPBackend.MATH):  # the fused ones have no second backward pass
            return 0.5 * model(x).square().sum()

    tensors = [torch.autograd.grad(half(), x, create_graph=True)[0]]
    for name in layers:
        hook = model.get_submodule(name).register_forward_hook(lambda _m, _a, z: kept.append(z))
        value = half()
        hook.remove()
        tensors += [kept[-1], torch.autograd.grad(value, kept[-1], create_graph=True)[0]]
    return tensors


def errors(x, x_hat, *pairs):
    """`Σ ‖x̂ − x‖² + Σ_l ‖ẑ^(l) − z^(l)‖²`."""
    total = (x_hat - x).square().sum()
    for z, z_hat in zip(pairs[::2], pairs[1::2], strict=True):
        total = total + (z_hat - z).square().sum()
    return total


def gradients(loss, model):
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(
        loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def assert_close_relative(ours, theirs, tolerance):
    """Each of `ours` to `tolerance` of the largest number among `theirs`."""
    scale = max(float(b.abs().max()) for b in theirs)
    assert scale > 0
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_inverse_is_the_transposed_jacobian_times_the_output(name):
    model, x = build(name)
    expected = explicit(model, x)
    error = (expected - x).square().flatten(1).sum(dim=1)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(birdinv.invert(model, x), expected, rtol=0, atol=1e-10)
    for exact in (False, True):
        back = reconstruct(model, x, exact=exact)
        torch.testing.assert_close(back.logits, model(x), rtol=0, atol=1e-12)
        torch.testing.assert_close(back.squared_error(), error, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(back.x_hat, expected, rtol=0, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(birdinv.invert(model, x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", NAMED)
def test_one_pass_reconstructs_every_layer_as_a_pass_for_each_does(name, exact):
    model, x = build(name)
    layers = FAMILIES[name].layers
    back = reconstruct(model, x, layers, exact=exact)
    assert tuple(back.layers) == layers
    ours = [back.x_hat, *(tensor for pair in back.layers.values() for tensor in pair)]
    for a, b in zip(ours, one_pass_each(model, x, layers), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_layers_are_reconstructed_as_by_the_jacobian_of_what_follows():
    model, x = build("bird10")
    rests = {
        "block1": lambda z: model.head(model.hidden(model.block2(z))),
        "block2": lambda z: model.head(model.hidden(z)),
        "hidden": model.head,
    }
    for name, (z, z_hat) in reconstruct(model, x, list(rests)).layers.items():
        torch.testing.assert_close(z_hat, explicit(rests[name], z.detach()), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_sample_is_reconstructed_as_if_it_were_alone(name):
    model, x = build(name)
    layers = FAMILIES[name].layers
    whole = reconstruct(model, x, layers)
    for i in range(len(x)):
        alone = reconstruct(model, x[i : i + 1], layers)
        torch.testing.assert_close(alone.x_hat[0], whole.x_hat[i], rtol=0, atol=1e-12)
        error = whole.squared_error()[i]
        torch.testing.assert_close(alone.squared_error()[0], error, rtol=1e-12, atol=1e-12)
        for layer in layers:
            z_hat = whole.layers[layer][1][i]
            torch.testing.assert_close(alone.layers[layer][1][0], z_hat, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_in_all_parameters_are_those_of_autograd_alone(name):
    """Of the reconstruction, of the error (by the Gram identity, or not), and of the layers'."""
    model, x = build(name)
    layers = FAMILIES[name].layers
    theirs = one_pass_each(model, x, layers)
    expected = gradients(errors(x, *theirs), model)
    alone = gradients(errors(x, theirs[0]), model)
    for exact in (False, True):
        back = reconstruct(model, x, layers, exact=exact)
        ours = [back.x_hat, *(tensor for pair in back.layers.values() for tensor in pair)]
        assert_close_relative(gradients(errors(x, *ours), model), expected, 1e-10)
        error = reconstruct(model, x, exact=exact).squared_error().sum()
        assert_close_relative(gradients(error, model), alone, 1e-10)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_in_the_parameters_are_central_finite_differences(name):
    model, x = build(name)
    layers = FAMILIES[name].layers

    def loss():
        back = reconstruct(model, x, layers)
        pairs = [tensor for pair in back.layers.values() for tensor in pair]
        return back.squared_error().sum() + errors(x, x, *pairs)

    parameters = [p for p in model.parameters() if p.requires_grad]
    ours = gradients(loss(), model)
    scale = max(float(gradient.norm()) for gradient in ours)
    step = 1e-5
    with torch.no_grad():
        for parameter, gradient in zip(parameters, ours, strict=True):
            direction = torch.randn_like(parameter)
            parameter += step * direction
            above = loss()
            parameter -= 2 * step * direction
            below = loss()
            parameter += step * direction
            difference = (above - below) / (2 * step)
            slope = (gradient * direction).sum()
            torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-7 * scale)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_in_the_input_are_those_of_autograd_alone(name):
    model, x = build(name)
    x.requires_grad_()
    ours = torch.autograd.grad(reconstruct(model, x).squared_error().sum(), x)
    with sdpa_kernel(SDPBackend.MATH):
        half = 0.5 * model(x).square().sum()
    x_hat = torch.autograd.grad(half, x, create_graph=True)[0]
    assert_close_relative(ours, torch.autograd.grad((x_hat - x).square().sum(), x), 1e-10)


# torch has no forward mode for the gradient of SiLU nor for backward hooks; torch.no_grad() does
# not stop it.
BACKWARD_ONLY = {"squeeze and excite", "hook on the gradient", "layer without gradient"}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in BACKWARD_ONLY])
@pytest.mark.parametrize("enabled", [True, False])
def test_forward_over_reverse_is_reverse_over_reverse(name, enabled):
    """`d x̂/dx · v`, the Jacobian of `x̂` being symmetric: `x̂ = ∇ ½‖f‖²`."""
    model, x = build(name)
    v = torch.randn_like(x)
    with forward_ad.dual_level(), torch.set_grad_enabled(enabled):
        dual = forward_ad.make_dual(x, v)
        ours = forward_ad.unpack_dual(birdinv.invert(model, dual)).tangent
    assert not x.requires_grad
    x.requires_grad_()
    (theirs,) = torch.autograd.grad((birdinv.invert(model, x) * v).sum(), x)
    torch.testing.assert_close(ours.detach(), theirs, rtol=1e-10, atol=1e-10)


def test_forward_mode_in_the_parameters_is_their_gradient():
    model, x = build("frames")
    weight = model[0].weight
    direction = torch.randn_like(weight)
    (gradient,) = torch.autograd.grad(birdinv.invert(model, x).sum(), weight)
    with forward_ad.dual_level():
        del model[0].weight
        model[0].weight = forward_ad.make_dual(weight, direction)
        tangent = forward_ad.unpack_dual(birdinv.invert(model, x).sum()).tangent
    torch.testing.assert_close(tangent, (gradient * direction).sum(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["attention", "transformer", "transformer in training"])
def test_attention_is_trained_on_its_reconstruction_without_being_told(name, dtype):
    """Its fused kernels, which have no second backward pass, are avoided."""
    model, x = build(name, dtype)
    reconstruct(model, x).squared_error().sum().backward()
    double, x = build(name)
    expected = gradients(errors(x, *one_pass_each(double, x, ())), double)
    tolerance = 1e-3 if dtype is torch.float32 else 1e-10
    ours = [parameter.grad.double() for parameter in model.parameters()]
    assert_close_relative(ours, expected, tolerance)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_recurrent_networks_are_trained_on_their_reconstruction_in_float32(name):
    model, x = build(name, torch.float32)
    reconstruct(model, x).squared_error().sum().backward()
    double, x = build(name)
    expected = gradients(reconstruct(double, x, exact=True).squared_error().sum(), double)
    assert_close_relative([p.grad.double() for p in model.parameters()], expected, 1e-4)


# Closed forms


def dense(weight, bias=None):
    layer = nn.Linear(*weight.shape[::-1], bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def orthonormal(rows, columns):
    return torch.linalg.qr(torch.randn(columns, rows).double())[0].T


def test_a_linear_network_gives_its_transpose_times_its_output():
    torch.manual_seed(0)
    w, b, x = torch.randn(3, 5).double(), torch.randn(3).double(), torch.randn(4, 5).double()
    expected = (x @ w.T + b) @ w
    torch.testing.assert_close(birdinv.invert(dense(w, b), x), expected, rtol=0, atol=1e-12)


def test_a_network_of_one_relu_layer_is_the_one_written_out():
    """`f = V relu(Wx + b) + c`, `A[x] = V diag(Wx + b > 0) W`."""
    torch.manual_seed(0)
    w, b = torch.randn(6, 5).double(), torch.randn(6).double()
    v, c, x = torch.randn(3, 6).double(), torch.randn(3).double(), torch.randn(7, 5).double()
    heard = x @ w.T + b
    logits = heard.clamp(min=0) @ v.T + c
    expected = torch.stack(
        [w.T @ torch.diag((h > 0).double()) @ v.T @ z for h, z in zip(heard, logits, strict=True)]
    )
    model = nn.Sequential(dense(w, b), nn.ReLU(), dense(v, c))
    torch.testing.assert_close(birdinv.invert(model, x), expected, rtol=0, atol=1e-12)


def test_a_piecewise_affine_network_is_its_jacobian_and_its_bias():
    """`f(x') = A[x]x' + b[x]` for `x'` near `x`, hence `x̂(x') = A[x]ᵀ(A[x]x' + b[x])`."""
    model, x = build("bird10")
    x = x[:1]
    jacobian = torch.autograd.functional.jacobian(model, x)[0, :, 0, 0]
    bias = model(x)[0] - jacobian @ x[0, 0]
    near = x + 1e-9 * torch.randn_like(x)
    logits = jacobian @ near[0, 0] + bias
    torch.testing.assert_close(model(near)[0], logits, rtol=0, atol=1e-10)
    x_hat = birdinv.invert(model, near)[0, 0]
    torch.testing.assert_close(x_hat, jacobian.T @ logits, rtol=0, atol=1e-10)


def test_orthonormal_templates_reconstruct_what_lies_in_their_span():
    """INV Corollary 1; of anything else, the part that does."""
    torch.manual_seed(0)
    w = orthonormal(3, 8)
    inside, outside = torch.randn(5, 3).double() @ w, torch.randn(5, 8).double()
    back = reconstruct(dense(w), inside)
    torch.testing.assert_close(back.x_hat, inside, rtol=0, atol=1e-12)
    torch.testing.assert_close(back.squared_error(), torch.zeros(5).double(), rtol=0, atol=1e-12)
    projected = outside @ w.T @ w
    torch.testing.assert_close(birdinv.invert(dense(w), outside), projected, rtol=0, atol=1e-12)


def optimal_templates(x, classes, energy, true=0):
    """Of the theorem, with `Σ_c ‖A_c‖² = energy` and `‖x‖ = 1`."""
    others = -((energy / (classes * (classes - 1))) ** 0.5)
    scales = torch.full((classes,), others, dtype=x.dtype)
    scales[true] = ((classes - 1) / classes * energy) ** 0.5
    return scales[:, None] * x


@pytest.mark.parametrize("energy", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 5, 10])
def test_the_optimal_templates_reconstruct_k_times_the_input(classes, energy):
    """So `x̂ = x` for `K = 1` alone, `K = Σ_c ‖A_c‖²` (INV theorem and Corollary 1)."""
    torch.manual_seed(0)
    x = nn.functional.normalize(torch.randn(1, 6).double())
    templates = optimal_templates(x, classes, energy)
    torch.testing.assert_close(templates.square().sum(), torch.tensor(energy).double())
    back = reconstruct(dense(templates), x)
    torch.testing.assert_close(back.x_hat, energy * x, rtol=0, atol=1e-12)
    error = torch.tensor([(1 - energy) ** 2]).double()
    torch.testing.assert_close(back.squared_error(), error, rtol=0, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_no_templates_of_the_same_energy_have_a_lower_cross_entropy_than_the_optimal(classes):
    torch.manual_seed(0)
    x = nn.functional.normalize(torch.randn(1, 6).double())
    best, energy = optimal_templates(x, classes, 2.0), 2.0
    y = torch.tensor([0])
    lowest = nn.functional.cross_entropy(x @ best.T, y)
    for distance in (1e-3, 1e-1, 1.0, 100.0):
        for _ in range(20):
            other = best + distance * torch.randn_like(best)
            other *= (energy / other.square().sum()).sqrt()
            assert nn.functional.cross_entropy(x @ other.T, y) > lowest


@pytest.mark.parametrize("kept", [1, 3, 6])
def test_principal_directions_leave_the_variances_that_are_discarded(kept):
    """The row of PCA in INV table 1: `f(x)_i = ⟨x, W_i⟩`, rows orthonormal."""
    torch.manual_seed(0)
    x = torch.randn(50, 6).double() @ torch.randn(6, 6).double()
    x -= x.mean(dim=0)
    variances, directions = torch.linalg.eigh(x.T @ x / len(x))  # the smallest first
    error = reconstruct(dense(directions.T[6 - kept :]), x).squared_error().mean()
    torch.testing.assert_close(error, variances[: 6 - kept].sum(), rtol=0, atol=1e-12)


def test_batch_norm_couples_samples_in_training_and_not_in_eval_mode():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    model(torch.randn(50, 4).double() + 2)
    x = torch.randn(6, 4).double()
    alone = torch.cat([birdinv.invert(model.eval(), x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(birdinv.invert(model, x), alone)
    coupled = birdinv.invert(model.train(), x)
    assert not torch.allclose(coupled, alone, atol=1e-3)
    # Then it is the gradient through the statistics of the batch.
    jacobian = torch.autograd.functional.jacobian(model, x)
    expected = torch.einsum("nk,nkmi->mi", model(x), jacobian)
    torch.testing.assert_close(coupled, expected, rtol=0, atol=1e-10)


# What is asked for late


def test_a_reconstruction_keeps_its_graph_whoever_looks_at_it_first():
    model, x = build("frames")
    expected = gradients(errors(x, birdinv.invert(model, x)), model)
    for peeping in (torch.no_grad(), torch.inference_mode(), nullcontext()):
        back = reconstruct(model, x)
        with peeping:
            back.x_hat.norm()
        assert_close_relative(gradients(errors(x, back.x_hat), model), expected, 1e-10)


def test_an_error_of_a_pass_without_gradients_has_none_even_in_an_input_that_asks_for_them():
    model, x = build("mlp")
    x.requires_grad_()
    with torch.no_grad():
        back = reconstruct(model, x, ["0"])
    tensors = [back.logits, back.x_hat, back.squared_error(), *back.layers["0"]]
    assert not any(tensor.requires_grad for tensor in tensors)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("name", ["mlp", "2-d cnn with batch norm", "frames"])
def test_a_reconstruction_is_not_taken_with_the_weights_of_the_next_step(name, enabled):
    model, x = build(name)
    with torch.set_grad_enabled(enabled):
        back, taken = reconstruct(model, x), reconstruct(model, x)
        before = taken.x_hat.detach().clone()
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    for late in (lambda: back.x_hat, back.squared_error):
        with pytest.raises(RuntimeError, match="weights of the first layer have changed since"):
            late()
    assert torch.equal(taken.x_hat, before)


# What is the caller's


class Odd(nn.Module):
    """`how` says what is wrong with it."""

    def __init__(self, how):
        super().__init__()
        self.how, self.a, self.b, self.head = how, nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.lstm, self.wipe = nn.LSTM(4, 4), nn.ReLU(inplace=True)
        self.norm, self.frozen = nn.BatchNorm1d(4), nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x):
        z = self.a(x)
        match self.how:
            case "detached input":
                return self.head(x.detach())
            case "detached":
                return self.head(z.detach())
            case "without gradient":
                with torch.no_grad():
                    return self.head(z)
            case "no parameters":
                return x.detach()[:, :3]
            case "detached layer":
                return self.head(x + self.b(x.detach()).detach())
            case "layer without gradient":
                with torch.no_grad():
                    y = self.b(x)
                return self.head(y + z)
            case "twice":
                return self.head(self.b(self.b(z)))
            case "tuple":
                return self.head(self.lstm(z)[0])
            case "in place":
                return self.head(self.wipe(z))
            case "in place later":
                y = self.head(z)
                z.add_(1)
                return y
            case "three axes":
                return self.head(z)[None]
            case "fewer":
                return self.head(z)[:1]
            case "a dict":
                return {"logits": self.head(z)}
            case "no logits":
                return None
            case "raises":
                raise KeyError("mine")
            case "interrupted":
                raise KeyboardInterrupt
            case "once":
                return self.head(Once.apply(z))
        return self.head(z)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].exp()


def state(model, *tensors):
    """All that a call might change, as values that compare equal if it did not."""
    modules = [
        (
            module.training,
            *(
                tuple(hooks.items())
                for name, hooks in vars(module).items()
                if name.startswith(("_forward_", "_backward_")) and hasattr(hooks, "items")
            ),
        )
        for module in model.modules()
    ]
    values = [
        (id(t), t._version, t.requires_grad, t.is_leaf, id(t.grad), t.detach().tolist())
        for t in (*model.parameters(), *tensors)
    ]
    flags = [
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    ]
    return modules, values, flags


def _raise(*_):
    raise KeyError("of a hook")


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("how", "layers", "kind"),
    [
        ("fine", ["a"], None),
        ("raises", ["a"], KeyError),
        ("interrupted", ["a"], KeyboardInterrupt),
        ("hook raises", ["a"], KeyError),
        ("pre-hook raises", ["a"], KeyError),
        ("fewer", ["a"], ValueError),
        ("tuple", ["a", "lstm"], ValueError),
        ("twice", ["b"], ValueError),
        ("in place", ["a"], ValueError),
        ("fine", ["a", "nowhere"], ValueError),
        ("fine", ["b"], ValueError),
        ("detached", ["a"], RuntimeError),
        ("without gradient", ["a"], RuntimeError),
        ("inference", ["a"], RuntimeError),
        ("once", ["a"], RuntimeError),
    ],
)
def test_nothing_of_the_callers_changes(how, layers, kind, training, asks, enabled):
    torch.manual_seed(0)
    model = Odd(how).train(training)
    model.a.register_forward_hook(lambda *_: None)
    model.a.register_forward_pre_hook(lambda *_: None, with_kwargs=False)
    model.head.register_forward_hook(lambda *_: None, always_call=True)
    if how == "hook raises":
        model.a.register_forward_hook(_raise)
    if how == "pre-hook raises":
        model.a.register_forward_pre_hook(_raise)
    model.head.bias.grad = torch.ones(3)
    x = torch.randn(2, 4).requires_grad_(asks)
    inference = torch.inference_mode() if how == "inference" else nullcontext()
    refused = kind is not None and not (how == "once" and not enabled)
    before = state(model, x)
    with torch.set_grad_enabled(enabled), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        inside = state(model, x)
        with pytest.raises(kind) if refused else nullcontext(), inference:
            reconstruct(model, x, layers)
        assert state(model, x) == inside
    assert state(model, x) == before


def test_gradients_are_asked_for_where_they_are_enabled_and_not_elsewhere():
    model, x = build("mlp")
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            back = reconstruct(model, x, ["0"])
        tensors = [back.logits, back.x_hat, back.squared_error(), *back.layers["0"]]
        assert all(tensor.requires_grad == enabled for tensor in tensors)


def test_batch_statistics_are_updated_once_a_pass():
    model, x = build("2-d cnn with batch norm")
    counts = model.train()[1].num_batches_tracked.item()
    reconstruct(model, x, ["1"]).squared_error().sum().backward()
    assert model[1].num_batches_tracked == counts + 1


# What is refused


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("how", "layers", "kind", "sentence"),
    [
        ("detached input", [], RuntimeError, "logits do not depend on the input"),
        ("detached", [], RuntimeError, "depend on the input: is something detached on the way"),
        ("without gradient", [], RuntimeError, r"the input.*computed under torch.no_grad\(\)"),
        ("no parameters", [], RuntimeError, "do not depend on the input"),
        ("detached layer", ["b"], RuntimeError, r"depend on layer 'b'.*detached on the way"),
        ("layer without gradient", ["b"], RuntimeError, r"layer 'b'.*under torch.no_grad\(\)"),
        ("in place later", ["wipe"], ValueError, "'wipe' was called 0 times"),
        ("twice", ["b"], ValueError, "'b' was called 2 times in one pass; expected once: name"),
        ("never", ["b"], ValueError, "'b' was called 0 times in one pass; expected once"),
        ("tuple", ["lstm"], ValueError, "'lstm' gave a tuple; expected a tensor: name a layer"),
        ("in place", ["a"], ValueError, "'a' was changed in place.*inplace=False there, or name"),
        ("in place later", ["a"], ValueError, "'a' was changed in place"),
        ("three axes", [], ValueError, r"gave \(1, 2, 3\); expected logits \[N, K\] with N = 2"),
        ("fewer", [], ValueError, r"gave \(1, 3\); expected logits \[N, K\] with N = 2"),
        ("a dict", [], ValueError, r"gave dict; expected logits \[N, K\]"),
        ("no logits", [], ValueError, r"gave NoneType; expected logits \[N, K\]"),
        ("fine", "a", ValueError, r"layers is the string 'a'; expected a list: \['a'\]"),
        ("fine", ["a", "b", "a"], ValueError, r"named twice in \['a', 'b', 'a'\]; name each once"),
        ("fine", ["c", "a"], ValueError, r"no layers \['c'\]; see model.named_modules"),
        ("fine", [""], ValueError, r"no layers \[''\]"),
        ("fine", ["head"], ValueError, "'head' gives the logits, which are no target: leave it"),
    ],
)
def test_what_cannot_be_reconstructed_is_refused(how, layers, kind, sentence, exact):
    with pytest.raises(kind, match=sentence):
        reconstruct(Odd(how), torch.randn(2, 4), layers, exact=exact)


def test_a_layer_that_is_changed_in_place_by_what_is_named_itself_is_not_refused():
    model, x = build("resnet")
    assert set(reconstruct(model, x, ["1"]).layers) == {"1"}
    with pytest.raises(ValueError, match="layer '0' was changed in place"):
        reconstruct(model, x, ["0"])


@pytest.mark.parametrize(
    ("x", "kind", "sentence"),
    [
        ([[1.0, 2.0, 3.0, 4.0]], TypeError, r"inputs are list; expected a tensor of floating"),
        (torch.ones(2, 4, dtype=torch.int64), TypeError, r"inputs are torch.int64; expected"),
        (torch.ones(2, 4, dtype=torch.complex64), TypeError, r"inputs are torch.complex64"),
        (torch.ones(2, 4, dtype=torch.bool), TypeError, r"inputs are torch.bool"),
        (torch.ones(4), ValueError, r"inputs of shape \(4,\); expected a batch \[N, C, \*S\]"),
        (torch.ones(()), ValueError, r"inputs of shape \(\); expected a batch"),
        (torch.ones(0, 4), ValueError, r"shape \(0, 4\).*at least one sample"),
    ],
)
def test_inputs_that_are_no_batch_of_numbers_are_refused(x, kind, sentence):
    with pytest.raises(kind, match=sentence):
        reconstruct(Odd("fine"), x)


def test_inference_mode_is_refused_and_no_grad_is_not():
    model, x = nn.Linear(4, 3), torch.randn(2, 4)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch.no_grad\(\)"):
        birdinv.invert(model, x)
    with torch.no_grad():
        quiet = birdinv.invert(model, x)
    torch.testing.assert_close(quiet, birdinv.invert(model, x).detach())


def compiled_by_itself():
    model = Odd("fine")
    model.b.compile()
    return model


class FullyShardedDataParallel(nn.Module):
    """Only by its name."""


class FSDPModule:
    pass


class FSDPLinear(FSDPModule, nn.Linear):
    """What `fully_shard` makes of a layer."""


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: torch.compile(Odd("fine")), "as it was before torch.compile"),
        (lambda: chain(torch.compile(nn.Linear(4, 5))), "as it was before torch.compile"),
        (compiled_by_itself, "torch.compile has no second backward pass"),
        (FullyShardedDataParallel, "use DistributedDataParallel"),
        (lambda: chain(FSDPLinear(4, 5)), "FSDP gives each layer its weights for one forward"),
    ],
)
def test_wrappers_that_cannot_be_right_are_refused(make, sentence, enabled):
    with torch.set_grad_enabled(enabled), pytest.raises(RuntimeError, match=sentence):
        birdinv.invert(make(), torch.randn(2, 4))


def test_a_layer_without_second_backward_pass_is_refused_each_time_but_not_without_gradients():
    model, x = Odd("once").double(), torch.randn(2, 4).double()
    for exact in (False, True, False, True):
        with pytest.raises(RuntimeError, match=r"no second backward pass.*once_diff"):
            reconstruct(model, x, exact=exact)
    with torch.no_grad():
        ours = birdinv.invert(model, x)
    torch.testing.assert_close(ours, explicit(model, x), rtol=0, atol=1e-12)


def test_torch_itself_refuses_function_transforms():
    model, x = nn.Linear(4, 3), torch.randn(2, 4)
    with pytest.raises(RuntimeError, match="functorch transform"):
        torch.func.jvp(lambda z: birdinv.invert(model, z), (x,), (x,))


class Checkpointed(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return checkpoint(self.model, x, use_reentrant=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_activation_checkpoints_change_no_gradient(name):
    model, x = build(name)
    whole = Checkpointed(model)
    with sdpa_kernel(SDPBackend.MATH):  # attention is computed again in the backward pass
        error = reconstruct(whole, x).squared_error().sum()
        ours = gradients(error, model)
    expected = gradients(errors(x, *one_pass_each(model, x, ())), model)
    assert_close_relative(ours, expected, 1e-10)


def test_synchronised_batch_norm_is_refused_in_training_and_not_in_eval_mode():
    model = nn.Sequential(nn.Linear(4, 5), nn.SyncBatchNorm(5), nn.Linear(5, 3))
    x = torch.randn(6, 4)
    with pytest.raises(RuntimeError, match="SyncBatchNorm has no second backward pass"):
        birdinv.invert(model.train(), x)
    assert birdinv.invert(model.eval(), x).shape == x.shape


def test_inputs_made_in_inference_mode_are_refused_with_a_sentence():
    with torch.inference_mode():
        x = torch.randn(2, 4)
    with pytest.raises(RuntimeError, match=r"made in inference mode.*clone them outside"):
        birdinv.invert(nn.Linear(4, 3), x)


def test_a_dead_end_of_training_mode_is_found_after_a_pass_in_eval_mode():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * g

    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(4, 3)

        def forward(self, x):
            return self.line(Once.apply(x) if self.training else x)

    model = Moody().eval()
    birdinv.invert(model, torch.randn(2, 4))
    with pytest.raises(RuntimeError, match="no second backward pass"):
        reconstruct(model.train(), torch.randn(2, 4), exact=True)
