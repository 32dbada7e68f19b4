"""invert = explicit Jacobian, for any network; what it refuses, and what it leaves alone."""

import pytest
import torch
from torch import nn

import birdinv
from birdinv.inversion import reconstruct


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.line, self.curve = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.line(x) + self.curve(x))


def networks():
    torch.manual_seed(0)
    cases = {
        "linear": (nn.Linear(5, 3), (4, 5)),
        "dense": (nn.Sequential(nn.Linear(5, 7), nn.LeakyReLU(0.01), nn.Linear(7, 3)), (4, 5)),
        "residual": (Residual(), (3, 6)),
        "images": (
            nn.Sequential(
                nn.Conv2d(2, 4, 3, padding=1),
                nn.BatchNorm2d(4),
                nn.Sigmoid(),
                nn.AvgPool2d(2),
                nn.Conv2d(4, 3, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(3, 4),
            ),
            (3, 2, 8, 8),
        ),
        "bird10": (birdinv.networks.build("bird10", classes=4, shape=(1, 4700)), (2, 1, 4700)),
    }
    return [
        pytest.param(model.double().eval(), torch.randn(shape).double(), id=name)
        for name, (model, shape) in cases.items()
    ]


def explicit(function, point):
    """`Aᵀ f` of each sample alone, the Jacobian written out."""
    rows = []
    for sample in point:
        jacobian = torch.autograd.functional.jacobian(lambda z: function(z[None])[0], sample)
        rows.append(torch.einsum("k,k...->...", function(sample[None])[0], jacobian))
    return torch.stack(rows).detach()


@pytest.mark.parametrize(("model", "x"), networks())
def test_the_inverse_is_the_transposed_jacobian_times_the_output(model, x):
    torch.testing.assert_close(birdinv.invert(model, x), explicit(model, x), rtol=0, atol=1e-10)


def test_a_piecewise_affine_network_is_its_jacobian_and_its_bias():
    """`f(x) = A[x]x + b[x]`, and `A[x]ᵀf(x)` is linear in the logits of a fixed region."""
    torch.manual_seed(1)
    model = birdinv.networks.build("bird10", classes=4, shape=(1, 4700)).double().eval()
    x = torch.randn(1, 1, 4700).double()
    jacobian = torch.autograd.functional.jacobian(model, x)[0, :, 0, 0]
    bias = model(x)[0] - jacobian @ x[0, 0]
    near = x + 1e-9 * torch.randn_like(x)
    torch.testing.assert_close(model(near)[0], jacobian @ near[0, 0] + bias, rtol=0, atol=1e-12)


def test_layers_are_reconstructed_as_by_one_pass_for_each():
    torch.manual_seed(0)
    model = birdinv.networks.build("bird10", classes=4, shape=(1, 4700)).double().eval()
    x = torch.randn(3, 1, 4700).double()
    rests = {
        "block1": lambda z: model.head(model.hidden(model.block2(z))),
        "block2": lambda z: model.head(model.hidden(z)),
        "hidden": model.head,
    }
    back = reconstruct(model, x, ["hidden", "block1", "block2"])
    assert list(back.layers) == ["hidden", "block1", "block2"]
    torch.testing.assert_close(back.x_hat, birdinv.invert(model, x))
    z1 = model.block1(x)
    for name, z in (("block1", z1), ("block2", model.block2(z1)), ("hidden", None)):
        z = model.hidden(model.block2(z1)) if z is None else z
        got_z, got_z_hat = back.layers[name]
        torch.testing.assert_close(got_z, z, rtol=0, atol=1e-12)
        torch.testing.assert_close(got_z_hat, explicit(rests[name], z.detach()), atol=1e-10, rtol=0)


def test_gradients_of_the_inverse_reach_parameters_and_input_as_by_finite_differences():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Softplus(), nn.Linear(5, 3)).double()
    x = torch.randn(2, 4).double().requires_grad_()
    weight = model[0].weight

    def inverse(point, w):
        y = torch.func.functional_call(model, {"0.weight": w}, (point,))
        return torch.autograd.grad(0.5 * y.square().sum(), point, create_graph=True)[0]

    assert torch.autograd.gradcheck(lambda point: birdinv.invert(model, point), (x,))
    assert torch.autograd.gradcheck(lambda w: inverse(x, w), (weight.detach().requires_grad_(),))
    ours = torch.autograd.grad(birdinv.invert(model, x).square().sum(), [weight, x])
    theirs = torch.autograd.grad(inverse(x, weight).square().sum(), [weight, x])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_batch_norm_couples_samples_in_training_and_not_in_eval_mode():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    model(torch.randn(50, 4) + 2)
    x = torch.randn(6, 4)
    alone = torch.cat([birdinv.invert(model.eval(), x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(birdinv.invert(model, x), alone)
    assert not torch.allclose(birdinv.invert(model.train(), x), alone, atol=1e-3)


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_of_the_callers_changes(asks, enabled):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).train()
    x = torch.randn(2, 4).requires_grad_(asks)
    before = x.detach().clone()
    with torch.set_grad_enabled(enabled):
        back = reconstruct(model, x, ["0"])
        assert torch.is_grad_enabled() == enabled
    assert x.requires_grad == asks and x.grad is None and torch.equal(x, before)
    assert model.training and not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    tensors = [back.logits, back.x_hat, *back.layers["0"]]
    assert all(tensor.requires_grad == enabled for tensor in tensors)


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        self.layer(x)
        raise KeyError("mine")


def test_hooks_and_grad_mode_are_as_before_after_an_exception_of_the_model():
    model = Failing()
    with torch.no_grad(), pytest.raises(KeyError, match="mine"):
        reconstruct(model, torch.randn(2, 4), ["layer"])
    assert torch.is_grad_enabled() and not model.layer._forward_hooks
    with pytest.raises(ValueError):
        reconstruct(model, torch.randn(2, 4), ["layer", "nowhere"])
    assert not model.layer._forward_hooks


class Odd(nn.Module):
    """`how` says what is wrong with it."""

    def __init__(self, how):
        super().__init__()
        self.how, self.a, self.b, self.head = how, nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.lstm, self.wipe = nn.LSTM(4, 4), nn.ReLU(inplace=True)

    def forward(self, x):
        if self.how == "detached input":
            return self.head(x.detach())
        if self.how == "no parameters":
            return x.detach()[:, :3]
        if self.how == "detached layer":
            return self.head(x + self.a(x.detach()).detach())
        if self.how == "twice":
            return self.head(self.a(self.a(x)))
        if self.how == "tuple":
            return self.head(self.lstm(x)[0])
        if self.how == "in place":
            return self.head(self.wipe(self.a(x)))
        if self.how == "three axes":
            return self.head(x)[None]
        if self.how == "fewer":
            return self.head(x)[:1]
        if self.how == "a dict":
            return {"logits": self.head(x)}
        return self.head(x)


@pytest.mark.parametrize(
    ("how", "layers", "kind", "sentence"),
    [
        ("detached input", [], RuntimeError, "do not depend on the input"),
        ("no parameters", [], RuntimeError, "do not depend on the input"),
        ("detached layer", ["a"], RuntimeError, r"depend on layer 'a'.*detached on the way"),
        ("twice", ["a"], ValueError, "'a' was called 2 times in one pass; expected once"),
        ("never", ["a"], ValueError, "'a' was called 0 times in one pass; expected once"),
        ("tuple", ["lstm"], ValueError, "'lstm' gave a tuple; expected a tensor"),
        ("in place", ["a"], ValueError, "'a' was changed in place.*inplace=False"),
        ("three axes", [], ValueError, r"gave \(1, 2, 3\); expected logits \[N, K\] with N = 2"),
        ("fewer", [], ValueError, r"gave \(1, 3\); expected logits \[N, K\] with N = 2"),
        ("a dict", [], ValueError, r"gave dict; expected logits \[N, K\]"),
        ("fine", ["c"], ValueError, r"no layers \['c'\]; see model.named_modules"),
        ("fine", [""], ValueError, r"no layers \[''\]"),
    ],
)
def test_what_cannot_be_reconstructed_is_refused_with_a_sentence(how, layers, kind, sentence):
    with pytest.raises(kind, match=sentence):
        reconstruct(Odd(how), torch.randn(2, 4), layers)


def test_inference_mode_is_refused_and_no_grad_is_not():
    model, x = nn.Linear(4, 3), torch.randn(2, 4)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch.no_grad\(\)"):
        birdinv.invert(model, x)
    with torch.no_grad():
        quiet = birdinv.invert(model, x)
    torch.testing.assert_close(quiet, birdinv.invert(model, x).detach())
