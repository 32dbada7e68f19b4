"""Which layer is taken out of the backward pass, and that nothing but work is lost by it."""

from contextlib import contextmanager

import pytest
import torch
from topologies import FAMILIES, build, chain
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.nn.modules import module as every_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from birdinv.first_layer import FirstLayer, first_layer
from birdinv.inversion import reconstruct
from birdinv.networks.frames import FrameConv1d


def cut(model, x):
    """Name and record of the layer taken out; (None, None) where none was."""
    start = x.detach().requires_grad_()
    with first_layer(list(model.modules()), start) as kept:
        model(start)
    assert len(kept) <= 1
    for name, module in model.named_modules():
        if kept and module is kept[0].module:
            return name, kept[0]
    return None, None


def plain(model, x):
    """`‖x̂ − x‖²` of the batch and its gradients in the parameters, by autograd alone."""
    x = x.detach().clone().requires_grad_()
    (x_hat,) = torch.autograd.grad(0.5 * model(x).square().sum(), x, create_graph=True)
    error = (x_hat - x.detach()).square().sum()
    return [error, *torch.autograd.grad(error, list(model.parameters()), allow_unused=True)]


def assert_as_plain(model, x):
    expected = plain(model, x)
    model.zero_grad()
    error = reconstruct(model, x).squared_error().sum()
    error.backward()
    ours = [error, *(parameter.grad for parameter in model.parameters())]
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_first_layer_is_cut_where_it_is_linear_in_the_input_and_learned(name):
    model, x = build(name)
    assert cut(model, x)[0] == FAMILIES[name].cut


def without_bias(layer):
    layer.bias = None
    return layer


LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (3, 6), True),
    "linear without bias": (lambda: nn.Linear(6, 5, bias=False), (3, 6), True),
    "linear of tokens": (lambda: nn.Linear(6, 5), (3, 4, 6), True),
    "linear of patches": (lambda: nn.Linear(6, 5), (3, 2, 2, 6), True),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, 2, 1, 2, 2), (3, 4, 9), True),
    "conv1d without bias": (lambda: nn.Conv1d(1, 2, 3, bias=False), (3, 1, 9), True),
    "conv1d beyond which samples are left": (lambda: nn.Conv1d(1, 2, 3, 3), (3, 1, 11), True),
    "conv2d": (lambda: nn.Conv2d(2, 4, (3, 2), (1, 2), (2, 1), (2, 1), 2), (3, 2, 6, 7), True),
    "valid": (lambda: nn.Conv1d(1, 2, 3, padding="valid"), (3, 1, 9), False),
    "same": (lambda: nn.Conv1d(1, 2, 3, padding="same"), (3, 1, 9), False),
    "circular": (lambda: nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular"), (3, 1, 9), False),
    "transposed": (lambda: nn.ConvTranspose1d(2, 3, 3, 2), (3, 2, 5), False),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2), (3, 1, 3, 3, 3), False),
    "norm": (lambda: nn.LayerNorm(6), (3, 6), False),
    "nothing": (lambda: nn.Identity(), (3, 6), False),
    "frames": (lambda: FrameConv1d(2, 3, 6, 2), (3, 2, 11), True),
    "frames that are copied": (lambda: FrameConv1d(2, 3, 5, 2), (3, 2, 11), True),
    "frames by conv1d": (lambda: FrameConv1d(2, 3, 9, 2), (3, 2, 14), True),
    "frames without bias": (lambda: without_bias(FrameConv1d(2, 3, 6, 2)), (3, 2, 11), True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_its_adjoint_is_that_of_autograd_for_every_shape(name):
    make, shape, expected = LAYERS[name]
    torch.manual_seed(0)
    layer, x = make().double(), torch.randn(shape, dtype=torch.float64)
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3).double())
    model(x)
    found, kept = cut(model, x)
    assert (found == "0") == expected
    assert_as_plain(model, x)
    if expected:
        x.requires_grad_()
        out = layer(x)
        torch.testing.assert_close(kept.out, out, rtol=0, atol=0)
        delta = torch.randn_like(out)
        (back,) = torch.autograd.grad(out, x, delta)
        torch.testing.assert_close(kept.adjoint(x, delta), back, rtol=0, atol=1e-12)


class Calling(nn.Module):
    """Calls its first layer as `call(layer, x)` says."""

    def __init__(self, call):
        super().__init__()
        self.call, self.first, self.head = call, nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.call(self.first, x)))


def checkpointed(function, x):
    return checkpoint(function, x, use_reentrant=False)


def half_doubled(layer, x):
    z = layer(x)
    z[:, :2].mul_(2)
    return z


CALLS = {
    "alone": (lambda layer, x: layer(x), "first"),
    "by keyword": (lambda layer, x: layer(input=x), None),
    "past its hooks": (lambda layer, x: layer.forward(x), None),
    "past the layer": (lambda layer, x: nn.functional.linear(x, layer.weight), None),
    "on something else": (lambda layer, x: layer(2 * x), None),
    "on a view": (lambda layer, x: layer(x.view_as(x)), None),
    "twice": (lambda layer, x: layer(x) + layer(x), "first"),
    "on something else first": (lambda layer, x: layer(x.exp()) + layer(x), "first"),
    "on its own output": (lambda layer, x: layer(layer(x)[:, :4]), "first"),
    "beside the input": (lambda layer, x: layer(x) + x.sum(dim=1, keepdim=True), "first"),
    "changed in place": (lambda layer, x: layer(x).mul_(2).add_(layer.bias), "first"),
    "changed in place in part": (half_doubled, "first"),
    "used twice": (lambda layer, x: layer(x)[:, [0, 0, 1, 1, 2]], "first"),
    "in a checkpoint": (lambda layer, x: checkpointed(layer, x), None),
    "deep in a checkpoint": (lambda layer, x: checkpointed(lambda z: layer(z).sin(), x), None),
    "before a checkpoint": (lambda layer, x: checkpointed(torch.sin, layer(x)), "first"),
    "and beside in a checkpoint": (lambda layer, x: layer(x) + checkpointed(layer, x), "first"),
    "in a checkpoint and beside": (lambda layer, x: checkpointed(layer, x) + layer(x), "first"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_cut_where_it_has_the_input_alone(name):
    call, expected = CALLS[name]
    torch.manual_seed(0)
    model, x = Calling(call).double(), torch.randn(3, 4).double()
    assert cut(model, x)[0] == expected
    assert_as_plain(model, x)


@pytest.mark.parametrize(
    "hooks", [save_on_cpu, lambda: saved_tensors_hooks(lambda t: t + 0, lambda t: t)]
)
def test_nothing_is_cut_while_saved_tensors_are_packed(hooks):
    model, x = build("frames")
    expected = plain(model, x)
    with hooks():
        assert cut(model, x) == (None, None)
        error = reconstruct(model, x).squared_error().sum()
        error.backward()
    for a, b in zip([error, *(p.grad for p in model.parameters())], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert cut(model, x)[0] == "0"


@pytest.mark.parametrize("name", ["linear", "mlp"])
@pytest.mark.parametrize(
    ("register", "hook"),
    [
        ("forward_hook", lambda m, _, out: 2 * out if isinstance(m, nn.Linear) else None),
        ("full_backward_hook", lambda m, g, _: (2 * g[0],) if isinstance(m, nn.Linear) else None),
    ],
)
def test_nothing_is_cut_while_hooks_for_every_module_are_registered(register, hook, name):
    model, x = build(name)
    found, _ = cut(model, x)
    assert found is not None
    handle = getattr(every_module, f"register_module_{register}")(hook)
    try:
        assert cut(model, x) == (None, None)
        x.requires_grad_()
        (expected,) = torch.autograd.grad(0.5 * model(x).square().sum(), x)
        torch.testing.assert_close(reconstruct(model, x.detach()).x_hat, expected)
    finally:
        handle.remove()
    assert cut(model, x)[0] == found


def test_hooks_of_the_layer_see_and_change_what_they_would():
    model, x = build("mlp")
    seen = []
    model[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    model[0].register_forward_hook(lambda _m, args, out: seen.append(out.clone()) or 3 * out)
    model[0].register_full_backward_pre_hook(lambda _m, g: (2 * g[0],))
    found, kept = cut(model, x)
    assert found == "0"
    torch.testing.assert_close(seen, [x, nn.functional.linear(x, *model[0].parameters())])
    torch.testing.assert_close(kept.out, seen[1], rtol=0, atol=0)
    assert_as_plain(model, x)


class Spy:
    """Counts the calls of a method, which does what it did."""

    def __init__(self, monkeypatch, owner, name):
        self.calls = 0
        method = getattr(owner, name)

        def counted(*args):
            self.calls += 1
            return method(*args)

        monkeypatch.setattr(owner, name, counted)


def test_an_input_that_asks_for_gradients_is_gone_back_to_by_autograd(monkeypatch):
    model, x = build("frames")
    spies = [Spy(monkeypatch, FirstLayer, name) for name in ("adjoint", "squared_error")]
    x.requires_grad_()
    back = reconstruct(model, x)
    (back.x_hat.sum() + back.squared_error().sum()).backward()
    assert [spy.calls for spy in spies] == [0, 0]
    assert x.grad.abs().min() > 0
    with torch.no_grad():  # nothing of it can be asked for: cut
        assert reconstruct(model, x).squared_error().isfinite().all()
    assert spies[1].calls == 1


class OfAnEnergy(nn.Module):
    """Its logits are made of the gradient of an energy in the input."""

    def __init__(self, around):
        super().__init__()
        self.around, self.first, self.head = around, nn.Linear(4, 5), nn.Linear(4, 3)

    def forward(self, x):
        energy = torch.tanh(self.first(x)).sum()
        if self.around:
            energy = energy + x.square().sum()
        return self.head(torch.autograd.grad(energy, x, create_graph=True)[0])


def test_a_network_that_takes_gradients_in_its_input_is_refused_where_a_cut_would_change_them():
    torch.manual_seed(0)
    x = torch.randn(3, 4)
    with pytest.raises(RuntimeError, match=r"gradients in its input .*: use exact=True"):
        reconstruct(OfAnEnergy(around=True), x)
    with pytest.raises(RuntimeError, match="appears to not have been used"):  # torch itself
        reconstruct(OfAnEnergy(around=False), x)
    for around in (True, False):
        model = OfAnEnergy(around)
        back = reconstruct(model, x, exact=True)
        asking = x.clone().requires_grad_()
        torch.testing.assert_close(back.logits, model(asking))
        (expected,) = torch.autograd.grad(0.5 * model(asking).square().sum(), asking)
        torch.testing.assert_close(back.x_hat, expected)


@contextmanager
def input_gradients_counted(shape):
    """Counts, while open, the convolutions that go back to something of `shape`."""

    class Count(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.convolution_backward.default:
                self.count += args[1].shape == shape and args[-1][0]
            return function(*args, **(kwargs or {}))

    with Count() as counter:
        yield counter


@pytest.mark.parametrize("exact", [False, True])
def test_a_loss_goes_back_to_the_input_once_for_the_reconstruction_and_not_for_itself(exact):
    torch.manual_seed(0)
    model = chain(nn.Conv1d(1, 2, 3), nn.Tanh(), width=14)
    x = torch.randn(4, 1, 9)
    with input_gradients_counted(x.shape) as counter:
        error = reconstruct(model, x, exact=exact).squared_error().sum()
        assert counter.count == 1
        error.backward()
        assert counter.count == 1 + exact  # autograd alone does it again, for nobody
    assert x.grad is None and not x.requires_grad
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_loss_leaves_no_gradient_in_an_input_that_does_not_ask(name):
    model, x = build(name)
    for exact in (False, True):
        reconstruct(model, x, exact=exact).squared_error().sum().backward()
        assert x.grad is None and not x.requires_grad


@pytest.mark.parametrize(
    "first", [nn.Conv1d(1, 2, 8, 4), FrameConv1d(1, 2, 8, 4), nn.Linear(22, 4)]
)
def test_under_autocast_the_reconstruction_keeps_the_type_of_the_input(first):
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(first, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)),
        torch.randn(3, 1, 22),
    )
    model(x)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = reconstruct(model, x), reconstruct(model, x, exact=True)
        assert ours.logits.dtype == torch.bfloat16
        tensors = [ours.x_hat, ours.squared_error()]
        expected = [theirs.x_hat, theirs.squared_error()]
    for a, b in zip(tensors, expected, strict=True):
        assert a.dtype == b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)
    ours.squared_error().sum().backward()
    assert first.weight.grad.dtype == torch.float32
