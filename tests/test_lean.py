"""The lean layers are torch's in every derivative, and do no work that nobody asked for."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import birdinv
from birdinv.networks.lean import Conv2d, LeakyReLU


def pair(stride=1, padding=1, bias=True):
    """The same small network of lean layers and of torch's own."""
    torch.manual_seed(0)
    lean = nn.Sequential(
        Conv2d(2, 3, 3, stride, padding), LeakyReLU(0.1), Conv2d(3, 2, 2), nn.Flatten()
    )
    if not bias:
        lean[0].bias = None
    plain = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride, padding, bias=bias),
        nn.LeakyReLU(0.1),
        nn.Conv2d(3, 2, 2),
        nn.Flatten(),
    )
    plain.load_state_dict(lean.state_dict())
    return lean.double(), plain.double(), torch.randn(3, 2, 7, 6).double()


def first(model, x):
    return torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()])


def second(model, x):
    back = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)[0]
    return torch.autograd.grad((back - x).square().sum(), [x, *model.parameters()])


def second_of_weights(model, x):
    parameters = list(model.parameters())
    slopes = torch.autograd.grad(model(x).square().sum(), parameters, create_graph=True)
    total = sum(slope.square().sum() for slope in slopes)
    return torch.autograd.grad(total, [x, *parameters])


def third(model, x):
    back = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)[0]
    again = torch.autograd.grad(back.pow(3).sum(), x, create_graph=True)[0]
    return torch.autograd.grad(again.square().sum(), [x, *model.parameters()])


def backward(model, x):
    for parameter in model.parameters():
        parameter.grad = None
    birdinv.WeightedObjective(0.5, 0.5)(
        model, x.detach(), torch.tensor([1, -1, 0])
    ).total.backward()
    return [parameter.grad for parameter in model.parameters()]


def jacobian(model, x):
    return [torch.func.vmap(torch.func.jacrev(lambda a: model(a[None])[0]))(x)]


def forward_mode(model, x):
    return list(torch.func.jvp(model, (x.detach(),), (torch.ones_like(x),)))


def forward_over_reverse(model, x):
    gradient = torch.func.grad(lambda a: model(a).square().sum())
    return list(torch.func.jvp(gradient, (x.detach(),), (torch.ones_like(x),)))


def forward_in_weights(model, x):
    names = [name for name, _ in model.named_parameters()]
    values = tuple(p.detach() for p in model.parameters())

    def function(*parameters):
        call = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(model, call, (x.detach(),))

    return list(torch.func.jvp(function, values, tuple(torch.ones_like(v) for v in values)))


@pytest.mark.parametrize(
    "derivative",
    [
        first,
        second,
        second_of_weights,
        third,
        backward,
        jacobian,
        forward_mode,
        forward_over_reverse,
        forward_in_weights,
    ],
)
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 2}, {"bias": False}])
def test_every_derivative_is_that_of_torchs_layers(derivative, options):
    lean, plain, x = pair(**options)
    x.requires_grad_()
    for ours, theirs in zip(derivative(lean, x), derivative(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    channels=st.integers(1, 3),
    size=st.integers(4, 8),
    seed=st.integers(0, 1000),
)
def test_a_convolution_of_any_size_is_torchs(kernel, stride, padding, channels, size, seed):
    torch.manual_seed(seed)
    ours = Conv2d(channels, 2, kernel, stride, padding).double()
    theirs = nn.Conv2d(channels, 2, kernel, stride, padding).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, channels, size, size + 1).double().requires_grad_()
    for derivative in (second, second_of_weights):
        for a, b in zip(derivative(ours, x), derivative(theirs, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_one_image_without_a_batch_and_bfloat16_are_as_torchs():
    lean, plain, x = pair()
    torch.testing.assert_close(lean[0](x[0]), plain[0](x[0]))
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = lean.float()(x.float()), plain.float()(x.float())
    assert ours.dtype == torch.bfloat16 and torch.equal(ours, theirs)


@pytest.mark.parametrize("slope", [0.0, -0.5])
def test_a_slope_that_hides_the_sign_is_left_to_torch(slope):
    x = torch.randn(50).double().requires_grad_()
    for derivative in (first, second):
        ours, theirs = (
            derivative(layer, x)[0] for layer in (LeakyReLU(slope), nn.LeakyReLU(slope))
        )
        assert torch.equal(ours, theirs)


class Counted(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.masks = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution_backward.default:
            self.masks.append(tuple(args[10]))
        return function(*args, **(kwargs or {}))


def test_a_reconstruction_computes_no_gradients_of_weights():
    lean, _, x = pair()
    with Counted() as counted:
        birdinv.invert(lean, x)
    assert counted.masks == [(True, False, False)] * 2
    with Counted() as counted:
        lean(x).sum().backward()  # and a plain step none of the input
    assert counted.masks[-1] == (False, True, True)


def test_without_torchs_word_everything_is_computed_and_still_right(monkeypatch):
    lean, plain, x = pair()
    monkeypatch.delattr(torch._C, "_will_engine_execute_node")
    for ours, theirs in zip(backward(lean, x), backward(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_frozen_weights_get_no_gradient():
    lean, plain, x = pair()
    for model in (lean, plain):
        model[0].weight.requires_grad_(False)
        model[2].bias.requires_grad_(False)
    objective = birdinv.WeightedObjective(0.5, 0.5)
    for model in (lean, plain):
        objective(model, x, torch.tensor([1, -1, 0])).total.backward()
    assert lean[0].weight.grad is None and lean[2].bias.grad is None
    torch.testing.assert_close(lean[2].weight.grad, plain[2].weight.grad)


def test_lean_layers_are_copied_and_saved_as_torchs():
    lean, plain, x = pair()
    twin = copy.deepcopy(lean)
    twin.load_state_dict(plain.state_dict())
    assert torch.equal(twin(x), lean(x))
