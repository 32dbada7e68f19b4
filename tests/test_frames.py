"""FrameConv1d is nn.Conv1d, and its reconstruction error the one of a matrix written out."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from topologies import build, chain
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import birdinv
from birdinv.inversion import reconstruct
from birdinv.networks.frames import FrameConv1d


def layer_of(channels, filters, kernel, stride, *, bias=True, dtype=torch.float64):
    layer = FrameConv1d(channels, filters, kernel, stride).double()
    if not bias:
        layer.bias = None
    return layer.to(dtype)


def matrix(weight, stride, length):
    """`W [filters · frames, channels · length]`, a row for every filter and frame."""
    filters, channels, kernel = weight.shape
    frames = (length - kernel) // stride + 1
    rows = []
    for o in range(filters):
        for t in range(frames):
            left, right = t * stride, length - t * stride - kernel
            row = [
                torch.cat([torch.zeros(left), weight[o, c], torch.zeros(right)])
                for c in range(channels)
            ]
            rows.append(torch.cat(row))
    return torch.stack(rows)


@settings(max_examples=80, deadline=None)
@given(
    stride=st.integers(1, 6),
    pieces=st.integers(0, 4),
    odd=st.integers(0, 5),
    channels=st.integers(1, 3),
    filters=st.integers(1, 4),
    frames=st.integers(1, 6),
    tail=st.integers(0, 5),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_frame_convolution_is_conv1d(
    stride, pieces, odd, channels, filters, frames, tail, bias, seed
):
    """Value, gradient and double backward; kernels the stride divides, short ones and others."""
    kernel = stride * pieces + odd
    assume(kernel > 0)
    torch.manual_seed(seed)
    ours = layer_of(channels, filters, kernel, stride, bias=bias)
    theirs = nn.Conv1d(channels, filters, kernel, stride, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    length = kernel + stride * (frames - 1) + tail
    x = torch.randn(2, channels, length).double().requires_grad_()
    results = []
    for layer in (ours, theirs):
        y = layer(x)
        (back,) = torch.autograd.grad(0.5 * y.square().sum(), x, create_graph=True)
        parameters = [x, *layer.parameters()]
        first = torch.autograd.grad(y.sin().sum(), parameters, retain_graph=True)
        second = torch.autograd.grad((back - x).square().sum(), parameters)
        results.append([y, back, *first, *second])
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kernel", "stride"), [(1024, 512), (1024, 300), (8, 3), (9, 4), (1, 1)])
def test_frame_convolution_is_conv1d_in_float32(kernel, stride):
    torch.manual_seed(0)
    ours = layer_of(2, 5, kernel, stride, dtype=torch.float32)
    theirs = nn.Conv1d(2, 5, kernel, stride)
    theirs.load_state_dict(ours.state_dict())
    for x in (torch.randn(3, 2, 5000), torch.randn(3, 5000, 2).transpose(1, 2)):
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_frame_convolution_refuses_and_takes_the_same_inputs_as_conv1d():
    layer = FrameConv1d(2, 3, 4, 2)
    with pytest.raises(RuntimeError, match="greater than actual input size"):
        layer(torch.zeros(1, 2, 3))
    with pytest.raises(RuntimeError):
        layer(torch.zeros(1, 1, 9))
    x = torch.randn(2, 9)
    torch.testing.assert_close(layer(x), layer(x[None])[0])
    assert layer(torch.zeros(0, 2, 9)).shape == (0, 3, 3)


GRAM = {
    "stride": st.integers(1, 12),
    "pieces": st.integers(1, 4),
    "channels": st.integers(1, 3),
    "filters": st.integers(1, 5),
    "frames": st.integers(1, 7),
    "tail": st.integers(0, 11),
    "bias": st.booleans(),
    "batch": st.integers(1, 3),
    "upstream": st.sampled_from(["uneven", "even", "one", "sum", "mean"]),
    "seed": st.integers(0, 1000),
}


def both_errors(
    dtype, stride, pieces, channels, filters, frames, tail, bias, batch, upstream, seed
):
    """Error by the Gram matrix and by `W` written out (float64), with gradients in everything.

    `δ = tanh(Wx + b) · s` for a learned `s`, so that the error depends on the weights by itself,
    by `δ` and by `Wx`, as it does in a network.
    """
    assume(pieces * filters <= channels * stride)  # else it is not taken
    assume(tail < stride)
    torch.manual_seed(seed)
    kernel = stride * pieces
    layer = layer_of(channels, filters, kernel, stride, bias=bias)
    length = kernel + stride * (frames - 1) + tail
    x, s = torch.randn(batch, channels, length).double(), torch.randn(batch, filters, frames)
    s = s.double()
    weights = {
        "uneven": torch.randn(batch),
        "even": torch.full((batch,), 0.3),
        "one": nn.functional.one_hot(torch.tensor(0), batch),
    }

    def total(error):
        if upstream in weights:
            return (error * weights[upstream].to(error.dtype)).sum()
        return error.sum() if upstream == "sum" else error.mean()

    layer, ours_x, ours_s = layer.to(dtype), x.to(dtype), s.to(dtype).requires_grad_()
    out = layer(ours_x)
    error = layer.squared_error(ours_x, out, out.tanh() * ours_s, layer.weight, layer.bias)
    ours = [error, *torch.autograd.grad(total(error), [*layer.parameters(), ours_s])]

    layer, s = layer.double(), s.requires_grad_()
    dense = matrix(layer.weight, stride, length)
    heard = x.flatten(1) @ dense.T
    if bias:
        heard = heard + layer.bias.repeat_interleave(frames)
    delta = heard.tanh() * s.flatten(1)
    expected = (delta @ dense - x.flatten(1)).square().sum(dim=1)
    theirs = [expected, *torch.autograd.grad(total(expected), [*layer.parameters(), s])]
    return ours, theirs


@settings(max_examples=120, deadline=None)
@given(**GRAM)
def test_the_error_by_the_gram_matrix_is_that_of_the_matrix_written_out(**case):
    for a, b in zip(*both_errors(torch.float64, **case), strict=True):
        assert (a - b).norm() <= 1e-10 * b.norm()


@settings(max_examples=80, deadline=None)
@given(**GRAM)
def test_the_error_by_the_gram_matrix_is_right_to_1e_5_in_float32(**case):
    ours, theirs = both_errors(torch.float32, **case)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.float32
        # Of all gradients together: one alone may all but cancel.
        scale = b.norm() if b is theirs[0] else max(other.norm() for other in theirs[1:])
        assert (a - b).norm() <= 1e-5 * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "stride", "length"),
    [
        (1, 42, 1024, 512, 11025),
        (1, 42, 1024, 512, 1024),
        (2, 42, 1024, 512, 5000),
        (1, 20, 1024, 256, 5000),
        (1, 42, 1024, 1024, 5000),
        (1, 8, 300, 100, 1111),
    ],
)
def test_a_network_learns_the_same_by_the_gram_matrix_as_by_autograd(
    channels, filters, kernel, stride, length, dtype
):
    """Value and all gradients, at the sizes of waveforms."""
    torch.manual_seed(0)
    frames = (length - kernel) // stride + 1
    model = chain(
        FrameConv1d(channels, filters, kernel, stride), nn.LeakyReLU(0.1), width=filters * frames
    ).to(dtype)
    x = torch.randn(4, channels, length).to(dtype)
    x /= x.abs().amax()
    results = []
    for exact in (False, True):
        error = reconstruct(model, x, exact=exact).squared_error()
        weighed = (error * torch.tensor([1.0, 0.5, 2.0, 0.0])).sum()
        results.append([error, *torch.autograd.grad(weighed, list(model.parameters()))])
    tolerance = 1e-5 if dtype is torch.float32 else 1e-10
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= tolerance * b.norm()


def counted(monkeypatch):
    """How often any `FrameConv1d` goes back to its input, as a list that grows."""
    calls, adjoint = [], FrameConv1d.adjoint

    def spied(self, *args):
        calls.append(self)
        return adjoint(self, *args)

    monkeypatch.setattr(FrameConv1d, "adjoint", spied)
    return calls


@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "stride", "taken"),
    [
        (1, 42, 1024, 512, True),
        (2, 42, 1024, 512, True),
        (1, 1, 4, 2, True),
        (1, 3, 8, 8, True),
        (3, 2, 8, 4, True),
        (1, 30, 4, 2, False),  # too many filters
        (1, 9, 8, 1, False),  # too many pieces
        (1, 2, 9, 4, False),  # the stride does not divide the kernel
        (1, 1, 4, 6, False),  # nor here, where it is longer
    ],
)
def test_the_gram_matrix_is_taken_where_it_is_cheaper_and_exact_forces_the_plain_path(
    channels, filters, kernel, stride, taken, monkeypatch
):
    calls = counted(monkeypatch)
    torch.manual_seed(0)
    length = kernel + 3 * stride
    layer = layer_of(channels, filters, kernel, stride)
    model = chain(layer, nn.Tanh(), width=4 * filters).double()
    x = torch.randn(3, channels, length).double()
    quick = reconstruct(model, x).squared_error()
    assert calls == ([] if taken else [layer])
    forced = reconstruct(model, x, exact=True).squared_error()
    assert calls == ([] if taken else [layer])  # autograd went back, without asking the layer
    torch.testing.assert_close(quick, forced, rtol=1e-10, atol=1e-10)
    out = layer(x)
    error = layer.squared_error(x, out, out, layer.weight, layer.bias)
    assert (error is not None) == taken


def test_the_gram_matrix_is_not_taken_where_more_than_the_first_layer_hears_the_input(monkeypatch):
    calls = counted(monkeypatch)
    model, x = build("skip round frames")
    reconstruct(model, x).squared_error()
    assert len(calls) == 1


def test_the_gram_matrix_is_not_taken_of_an_output_that_was_changed_in_place(monkeypatch):
    """What is left of it is not `Wx + b`."""
    calls = counted(monkeypatch)
    model, x = build("frames changed in place")
    ours = reconstruct(model, x).squared_error()
    assert len(calls) == 1
    torch.testing.assert_close(ours, reconstruct(model, x, exact=True).squared_error())


@pytest.mark.parametrize("exact", [False, True])
def test_the_objective_of_bird10_goes_back_to_the_input_only_when_told_to(exact, monkeypatch):
    calls = counted(monkeypatch)
    model, x = build("bird10")
    made = []

    class Made(TorchDispatchMode):
        """Keeps the sizes of what is made: new memory, no view."""

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor) and tensor.shape == x.shape:
                    made.append(tensor.data_ptr() != x.data_ptr())
            return result

    objective = birdinv.WeightedObjective(0.7, 0.3, exact=exact)
    with Made():
        objective(model, x, torch.tensor([1, birdinv.UNLABELED])).total.backward()
    assert any(made) == exact and not calls


def test_the_gram_error_is_not_differentiated_twice_but_refused():
    """Its gradients are no function of the weights for autograd: a second one would be wrong."""
    model, x = build("frames")
    weight = model[0].weight

    def curvature(exact):
        error = reconstruct(model, x, exact=exact).squared_error().sum()
        (gradient,) = torch.autograd.grad(error, weight, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weight)[0]

    with pytest.raises(RuntimeError, match=r"once_differentiable|exact=True"):
        curvature(exact=False)
    assert curvature(exact=True).norm() > 0


def test_samples_after_the_last_frame_count_as_not_reconstructed():
    torch.manual_seed(0)
    layer, x = layer_of(1, 2, 8, 4), torch.randn(3, 1, 19).double()
    out = layer(x)
    short = layer.squared_error(x[..., :16], out, out, layer.weight, layer.bias)
    whole = layer.squared_error(x, out, out, layer.weight, layer.bias)
    torch.testing.assert_close(whole, short + x[..., 16:].square().sum((1, 2)))


@pytest.mark.parametrize("kernel", [8, 5])
def test_under_autocast_frames_come_in_half_precision_as_from_conv1d(kernel):
    ours, theirs = FrameConv1d(1, 2, kernel, 4), torch.nn.Conv1d(1, 2, kernel, 4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 1, 40)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == theirs(x).dtype == torch.bfloat16
        torch.testing.assert_close(ours(x), theirs(x), rtol=2e-2, atol=2e-2)


def test_under_autocast_the_error_does_not_come_from_what_was_rounded_away():
    """`Wx` in bfloat16 is off by `2⁻⁹ ‖x‖²`; the error of a good reconstruction is far below."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(FrameConv1d(1, 3, 64, 64, bias=False), torch.nn.Flatten())
    with torch.no_grad():
        model[0].weight.copy_(torch.linalg.qr(torch.randn(64, 3))[0].T[:, None])
    x = torch.randn(5, 1, 1, 3) @ model[0].weight[:, 0].detach()
    with torch.autocast("cpu", torch.bfloat16):
        energy = birdinv.energy(model, x[:, 0])
    assert (energy >= 0).all() and (energy < 1e-4 * x.square().mean()).all()
