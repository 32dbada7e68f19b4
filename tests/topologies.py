"""Networks of every family that people bring, as data: torch and torchvision-like code.

None knows of birdinv, except those made of its own layers. `build(name)` gives one with its batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

import birdinv
from birdinv.networks import lean
from birdinv.networks.frames import FrameConv1d


@dataclass(frozen=True)
class Family:
    """`make()` is a network for inputs `shape`, tested in eval mode if not `training`.

    Attributes:
        layers: names of some of its layers.
        cut: name of the layer that may be taken out of the backward pass as the first one; None
            where that would be wrong or cannot be known to be right.
        smooth: has no kinks, so that finite differences converge.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layers: tuple[str, ...] = ()
    cut: str | None = None
    smooth: bool = False
    training: bool = False


def build(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    """A network with random weights and batch statistics, and a batch `x`."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    model, x = family.make().double(), torch.randn(family.shape, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        model.train()(2 * x + 1)
    return model.to(dtype).train(family.training), x.to(dtype)


class Skip(nn.Module):
    """The input reaches the head by the first layer and round it."""

    def __init__(self, first, activation, width):
        super().__init__()
        self.first, self.activation, self.head = first, activation, nn.Linear(width, 3)

    def forward(self, x):
        z = self.activation(self.first(x))
        return self.head(torch.cat([z.flatten(1), x.flatten(1)], dim=1))


class BasicBlock(nn.Module):
    """Of torchvision's ResNet."""

    def __init__(self, inplanes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class PreActivation(nn.Module):
    """A residual network on the input itself, which several layers use."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(2, 2, 3, padding=1), nn.Conv1d(2, 2, 3, padding=1)
        self.gate, self.head = nn.Conv1d(2, 2, 1), nn.Linear(14, 3)

    def forward(self, x):
        z = x + self.conv1(x) * torch.sigmoid(self.gate(x))
        z = z + self.conv2(functional.softplus(z))
        return self.head(z.flatten(1))


class DenseNet(nn.Module):
    """Every layer sees what all before it gave."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(1 + 2 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(1 + 2 * i, 2, 3, padding=1) for i in range(3))
        self.classifier = nn.Linear(7, 4)

    def forward(self, x):
        features = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(functional.relu(norm(torch.cat(features, dim=1)))))
        return self.classifier(torch.cat(features, dim=1).mean((2, 3)))


class Recurrent(nn.Module):
    """The last state of two recurrent layers."""

    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(2, 4, num_layers=2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        state = self.rnn(x)[1]
        return self.head((state[0] if isinstance(state, tuple) else state)[-1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        z = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.head(z.mean(1))


class Transformer(nn.Module):
    def __init__(self, dropout=0.1):
        super().__init__()
        self.patch = nn.Conv1d(1, 4, 3, 3)
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.encoder(self.patch(x).transpose(1, 2))[:, 0])


class SqueezeExcite(nn.Module):
    """Depthwise and pointwise convolution, then channels weighted by what they hold."""

    def __init__(self):
        super().__init__()
        self.depthwise, self.pointwise = nn.Conv2d(2, 4, 3, 2, 1, groups=2), nn.Conv2d(4, 4, 1)
        self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        z = functional.silu(self.pointwise(functional.hardswish(self.depthwise(x))))
        weights = self.excite(functional.relu(self.squeeze(z.mean((2, 3), keepdim=True))))
        return self.head((z * torch.sigmoid(weights)).mean((2, 3)))


class Siamese(nn.Module):
    """The first layer is called on `x` twice, and once on `x` turned round."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        both = torch.tanh(self.first(x)) * self.first(x.flip(-1))
        return self.head(both + functional.softplus(self.first(x)))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 3, 2, 2), nn.Conv2d(3, 3, 3, padding=1)
        self.up, self.join = nn.ConvTranspose2d(3, 2, 2, 2), nn.Conv2d(3, 3, 3)

    def forward(self, x):
        z = functional.leaky_relu(self.down(x), inplace=True)
        z = self.up(functional.leaky_relu(self.deep(z)))
        return self.join(torch.cat([x, z], dim=1)).mean((2, 3))


class WithoutGradient(nn.Module):
    """What is learned is weighed by a layer that no gradient goes through."""

    def __init__(self):
        super().__init__()
        self.fixed, self.learned, self.head = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        with torch.no_grad():
            weights = torch.sigmoid(self.fixed(x))
        return self.head(weights * torch.tanh(self.learned(x)))


class SineConv1d(nn.Conv1d):
    def forward(self, x):
        return torch.sin(super().forward(x))


class SineFrameConv1d(FrameConv1d):
    def forward(self, x):
        return torch.sin(super().forward(x))


class Projection(nn.Module):
    """Its method `adjoint` has nothing to do with birdinv's."""

    def __init__(self):
        super().__init__()
        self.rays = nn.Parameter(torch.randn(4, 5))

    def forward(self, x):
        return x @ self.rays

    def adjoint(self, y):
        return y @ self.rays.T


def chain(*layers: nn.Module, width: int = 5) -> nn.Sequential:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 3))


def changed(change: Callable[[nn.Linear], object]) -> nn.Sequential:
    """A dense network after `change(first layer)`."""
    model = chain(nn.Linear(4, 5), nn.Tanh())
    change(model[0])
    return model


def _patch(layer):
    forward = layer.forward
    layer.forward = lambda x: torch.sin(forward(x))


def _double_in_place(_layer, _args, out):
    out.mul_(2)


FAMILIES = {
    "linear": Family(lambda: nn.Linear(5, 3), (4, 5), cut="", smooth=True),
    "mlp": Family(
        lambda: chain(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5), nn.Softplus()),
        (4, 5),
        ("0", "1", "3"),
        cut="0",
        smooth=True,
    ),
    "1-d cnn": Family(
        lambda: chain(
            nn.Conv1d(4, 6, 5, 2, 1, 2, groups=2),
            nn.LeakyReLU(0.1),
            nn.MaxPool1d(3, 2, 1),
            nn.Conv1d(6, 4, 3, padding=2, dilation=2),
            nn.SELU(inplace=True),
            width=20,
        ),
        (3, 4, 23),
        ("0", "2"),
        cut="0",
    ),
    "2-d cnn with batch norm": Family(
        lambda: chain(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 3, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            width=3,
        ),
        (3, 2, 8, 8),
        ("1", "4", "6"),
        cut="0",
    ),
    "resnet": Family(
        lambda: chain(
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.ReLU(inplace=True),
            BasicBlock(4, 4),
            BasicBlock(4, 6, 2),
            nn.AdaptiveAvgPool2d(1),
            width=6,
        ),
        (2, 3, 9, 9),
        ("2.conv1", "2", "3.downsample"),
        cut="0",
    ),
    "residual block first": Family(
        lambda: chain(BasicBlock(2, 3), width=75),
        (2, 2, 5, 5),
        ("0.conv1", "1"),
        cut="0.conv1",
    ),
    "pre-activation residual": Family(
        PreActivation, (3, 2, 7), ("conv1", "gate", "conv2"), cut="conv1", smooth=True
    ),
    "skip round a convolution": Family(
        lambda: Skip(nn.Conv1d(2, 2, 3), nn.ReLU(inplace=True), 24),
        (3, 2, 7),
        ("activation",),
        cut="first",
    ),
    "skip round a layer of tokens": Family(
        lambda: Skip(nn.Linear(4, 5), nn.LeakyReLU(0.1, inplace=True), 27),
        (2, 3, 4),
        ("activation",),
        cut="first",
    ),
    "densenet": Family(DenseNet, (2, 1, 5, 5), ("convs.0", "norms.2")),
    "lstm": Family(lambda: Recurrent(nn.LSTM), (2, 5, 2), smooth=True),
    "gru": Family(lambda: Recurrent(nn.GRU), (2, 5, 2), smooth=True),
    "rnn": Family(lambda: Recurrent(nn.RNN), (2, 5, 2), smooth=True),
    "attention": Family(Attention, (2, 5, 4), ("norm",), smooth=True),
    "transformer": Family(
        Transformer, (2, 1, 14), ("patch", "encoder.layers.0"), cut="patch", smooth=True
    ),
    "transformer in training": Family(
        lambda: Transformer(dropout=0), (2, 1, 14), ("encoder",), cut="patch", training=True
    ),
    "squeeze and excite": Family(
        SqueezeExcite, (2, 2, 7, 7), ("depthwise", "excite"), cut="depthwise"
    ),
    "flatten first": Family(
        lambda: nn.Sequential(nn.Flatten(), chain(nn.Linear(24, 5), nn.ReLU())),
        (3, 2, 3, 4),
        ("0", "1.1"),
    ),
    "nothing first": Family(
        lambda: chain(nn.Dropout(), nn.Linear(4, 5), nn.Tanh()), (3, 4), ("0", "2"), cut="1"
    ),
    "same padding": Family(
        lambda: chain(nn.Conv2d(1, 2, 3, padding="same"), nn.ReLU(True), width=40), (2, 1, 4, 5)
    ),
    "reflect padding": Family(
        lambda: chain(nn.Conv1d(1, 2, 3, padding=1, padding_mode="reflect"), width=10), (2, 1, 5)
    ),
    "weight norm": Family(
        lambda: changed(weight_norm), (3, 4), ("0",), smooth=True
    ),  # a parametrisation: another class
    "pruned": Family(
        lambda: changed(lambda m: prune.random_unstructured(m, "weight", amount=4)),
        (3, 4),
        cut="0",
    ),  # by a hook: the weight is computed before each call
    "siamese": Family(Siamese, (3, 4), cut="first", smooth=True),
    "frozen first layer": Family(
        lambda: changed(lambda m: m.requires_grad_(False)), (3, 4), ("0", "1"), smooth=True
    ),
    "frozen weight": Family(
        lambda: changed(lambda m: m.weight.requires_grad_(False)), (3, 4), smooth=True
    ),
    "layer without gradient": Family(WithoutGradient, (3, 4), ("learned",), cut="learned"),
    "hook on the output": Family(
        lambda: changed(lambda m: m.register_forward_hook(lambda _m, _a, out: out.sin())),
        (3, 4),
        ("0",),
        cut="0",
        smooth=True,
    ),
    "hook in place": Family(
        lambda: changed(lambda m: m.register_forward_hook(_double_in_place)), (3, 4), cut="0"
    ),
    "hook on the input": Family(
        lambda: changed(lambda m: m.register_forward_pre_hook(lambda _m, args: (2 * args[0],))),
        (3, 4),
        smooth=True,
    ),
    "hook on the gradient": Family(
        lambda: changed(lambda m: m.register_full_backward_hook(lambda _m, g, _: (2 * g[0],))),
        (3, 4),
    ),
    "patched forward": Family(lambda: changed(_patch), (3, 4), smooth=True),
    "subclass of a convolution": Family(
        lambda: chain(SineConv1d(1, 2, 3), width=6), (2, 1, 5), smooth=True
    ),
    "subclass of frames": Family(
        lambda: chain(SineFrameConv1d(1, 2, 4, 2), width=8), (2, 1, 11), smooth=True
    ),
    "an adjoint of another kind": Family(
        lambda: chain(Projection(), nn.Tanh()), (3, 4), smooth=True
    ),
    "u-net": Family(UNet, (2, 1, 6, 6), ("up", "deep"), cut="down"),
    "bird10": Family(
        lambda: birdinv.networks.build("bird10", classes=4, shape=(1, 4700), width=3, dense=5),
        (2, 1, 4700),
        ("hidden", "block1", "block2"),
        cut="block1.0",
    ),
    "lean layers": Family(
        lambda: chain(
            lean.Conv2d(2, 3, 3, padding=2),
            lean.LeakyReLU(0.1),
            lean.Conv2d(3, 2, 3, 2),
            lean.LeakyReLU(0.1),
            width=18,
        ),
        (2, 2, 5, 5),
        ("0", "2", "3"),
        cut="0",
    ),
    "frames": Family(
        lambda: chain(FrameConv1d(1, 2, 8, 4), nn.Tanh(), FrameConv1d(2, 3, 3, 2), width=6),
        (3, 1, 27),
        ("0", "1", "2"),
        cut="0",
        smooth=True,
    ),
    "frames of two channels": Family(
        lambda: chain(FrameConv1d(2, 3, 6, 3), nn.ReLU(), width=15),
        (3, 2, 20),
        ("1",),
        cut="0",
    ),
    "frames changed in place": Family(
        lambda: chain(FrameConv1d(1, 2, 8, 4), nn.LeakyReLU(0.1, True), width=10),
        (3, 1, 26),
        cut="0",
    ),
    "skip round frames": Family(
        lambda: Skip(FrameConv1d(1, 2, 8, 4), nn.Tanh(), 35), (2, 1, 25), cut="first", smooth=True
    ),
}
SMOOTH = [name for name, family in FAMILIES.items() if family.smooth]

PIECEWISE_AFFINE = [
    "linear",
    "resnet",
    "residual block first",
    "skip round a convolution",
    "skip round a layer of tokens",
    "densenet",
    "flatten first",
    "same padding",
    "reflect padding",
    "u-net",
    "bird10",
    "lean layers",
    "frames of two channels",
    "frames changed in place",
]
