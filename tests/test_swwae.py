"""SWWAE is the paper's encoder and decoder, whatever the notation and the options."""

import inspect
import json

import pytest
import torch
from torch import nn
from torch.nn import functional

import birdinv
from birdinv.audio.windows import Windows
from birdinv.errors import BirdinvError
from birdinv.networks import SWWAE
from birdinv.networks.same import Deconv
from birdinv.networks.saved import Description, Hearing, load_model, save_model
from birdinv.networks.swwae import POOLINGS
from birdinv.prediction.shared import shared_frames

AUDIO = ("(42)1024c/512-2p-(42)3c-2p-32fc-6fc", (1, 11025))
SMALL = ("(4)5c-2p-(5)3c-(6)2c/2-2p-7fc-3fc", (2, 13, 14))
# Convolutions after the last pooling, and no classes.
ENDLESS = ("(3)3c-(4)3c-2p-(5)3c-(6)3c", (1, 8, 9))
SHORT = ("(3)8c/3-3p-(4)4c-5fc-Kfc", (2, 60))
NETWORKS = {"audio": AUDIO, "small": SMALL, "endless": ENDLESS, "short": SHORT}


def make(notation, shape, **options):
    """In eval mode, with four classes where the notation leaves that open."""
    torch.manual_seed(0)
    if notation.endswith(("3c", "p", "Kfc")):
        options = {"classes": 4, **options}
    model = birdinv.networks.build(f"swwae:{notation}", shape=shape, **options)
    for parameter in model.parameters():  # biases too
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


def kinds(layers):
    return [type(layer).__name__ for layer in layers]


PAPER = {
    "MNIST": ("(64)5c-2p-(64)3c-2p-(64)3c-2p-10fc", (1, 32, 32), [(64, 16), (64, 8), (64, 4)]),
    "MNIST, 28": ("(64)5c-2p-(64)3c-2p-(64)3c-2p-10fc", (1, 28, 28), [(64, 14), (64, 7), (64, 3)]),
    "SVHN": (
        "(128)5c-2p-(128)3c-(256)3c-2p-(256)3c-2p-10fc",
        (3, 32, 32),
        [(128, 16), (256, 8), (256, 4)],
    ),
    "STL-10": (
        "(64)3c-4p-(64)3c-3p-(128)3c-(128)3c-2p-(256)3c-(256)3c-(256)3c-(512)3c-(512)3c-(512)3c-"
        "2p-10fc",
        (3, 96, 96),
        [(64, 24), (64, 8), (128, 4), (512, 2)],
    ),
    "CIFAR": (
        "(128)3c-(256)3c-2p-(256)3c-(512)3c-2p-(512)3c-(512)3c-2p-(512)3c-(512)3c-2p-128fc-10fc",
        (3, 32, 32),
        [(256, 16), (512, 8), (512, 4), (512, 2)],
    ),
    "where": ("(16)5c-(32)3c-16p-Kfc", (1, 32, 32), [(32, 2)]),
    "capsules": ("(32)5c-(32)3c-2p-(32)3c-16p", (1, 32, 32), [(32, 16), (32, 1)]),
}
BATCH_NORM = ("STL-10", "CIFAR")


@pytest.mark.parametrize("name", PAPER)
def test_the_networks_of_the_paper_have_its_levels_and_give_their_input_back(name):
    notation, shape, expected = PAPER[name]
    options = {"pooling": "soft"} if name == "capsules" else {"batch_norm": name in BATCH_NORM}
    model = birdinv.networks.build(f"swwae:{notation}", shape=shape, classes=10, **options)
    with torch.no_grad():
        decoded = model.eval()(torch.randn(1, *shape), decode=True)
    assert decoded.logits.shape == (1, 10)
    assert decoded.x_tilde.shape == (1, *shape)
    assert tuple(decoded.levels) == model.layers
    assert model.layers == tuple(f"stage{i + 1}" for i in range(len(expected)))
    for level, (channels, side) in zip(decoded.levels.values(), expected, strict=True):
        assert [each.shape for each in level] == [(1, channels, side, side)] * 2


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_it_is_laid_out_without_numbers(name, pooling):
    """As a folder of weights is loaded."""
    notation, shape = NETWORKS[name]
    with torch.device("meta"):
        empty = make(notation, shape, pooling=pooling, batch_norm=True).state_dict()
    full = make(notation, shape, pooling=pooling, batch_norm=True).state_dict()
    assert all(tensor.is_meta for tensor in empty.values())
    assert {k: v.shape for k, v in empty.items()} == {k: v.shape for k, v in full.items()}


def test_the_network_for_mnist_has_the_weights_of_both_ways():
    model = birdinv.networks.build("swwae:(64)5c-2p-(64)3c-2p-(64)3c-2p-10fc", shape=(1, 32, 32))
    there = 64 * 5 * 5 + 2 * 64 * 64 * 3 * 3
    biases = 3 * 64
    head = 64 * 4 * 4 * 10 + 10
    back = there + 2 * 64 + 1
    assert sum(p.numel() for p in model.parameters()) == there + biases + head + back
    assert sum(p.numel() for p in model.head.parameters()) == head
    model.freeze_encoder()
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == head + back


def test_a_waveform_is_decoded_from_its_frames():
    model = make(*AUDIO)
    x = torch.randn(2, 1, 11025)
    decoded = model(x, decode=True)
    assert decoded.logits.shape == (2, 6)
    assert decoded.x_tilde.shape == x.shape
    shapes = {name: [each.shape for each in level] for name, level in decoded.levels.items()}
    assert shapes == {"stage1": [(2, 42, 11)] * 2, "stage2": [(2, 42, 5)] * 2}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_logits_and_levels_do_not_depend_on_the_decoder(name, pooling):
    notation, shape = NETWORKS[name]
    model = make(notation, shape, pooling=pooling)
    x = torch.randn(3, *shape)
    decoded = model(x, decode=True)
    assert torch.equal(decoded.logits, model(x))
    z = x
    for layer in model.layers:
        z = getattr(model, layer)(z)
        assert torch.equal(decoded.levels[layer][0], z)
        assert decoded.levels[layer][1].shape == z.shape
    assert torch.equal(model.head(z), decoded.logits)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_decoder_begins_with_the_last_level(name):
    model = make(*NETWORKS[name])
    x = torch.randn(2, *NETWORKS[name][1])
    first, last = (model(x, decode=True).levels[layer] for layer in (model.layers[0], "stage2"))
    assert last[0] is last[1]
    assert not torch.equal(*first)
    assert min(first[0].min(), first[1].min()) >= 0  # both after a ReLU


def around(z, kernel, stride):
    """For `functional.pad`: as many zeros as let a place every `stride` reach all of the map."""
    pads = []
    for side in reversed(z.shape[2:]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return pads


def test_both_ways_are_torch_s_layers_one_after_the_other():
    """Max-pooling and max-unpooling with its indices, and transposed convolutions."""
    model = make(*SMALL).double()
    x = torch.randn(3, *SMALL[1]).double()
    w = model.state_dict()

    def conv(z, name, stride=1):
        weight = w[f"{name}.weight"]
        z = functional.pad(z, around(z, weight.shape[-1], stride))
        return functional.conv2d(z, weight, w[f"{name}.bias"], stride).relu()

    def deconv(z, name, size, stride=1):
        weight = w[f"{name}.weight"]
        out = functional.conv_transpose2d(z, weight.transpose(0, 1), stride=stride)
        left, right, top, bottom = around(z.new_zeros(1, 1, *size), weight.shape[-1], stride)
        out = out[..., top : out.shape[-2] - bottom, left : out.shape[-1] - right]
        return out + w[f"{name}.bias"].view(-1, 1, 1)

    a = conv(x, "stage1.convs.0")
    what1, where1 = functional.max_pool2d(a, 2, return_indices=True)
    b = conv(what1, "stage2.convs.0")
    c = conv(b, "stage2.convs.2.1", 2)
    what2, where2 = functional.max_pool2d(c, 2, return_indices=True)
    hidden = functional.linear(what2.flatten(1), w["head.2.weight"], w["head.2.bias"]).relu()
    logits = functional.linear(hidden, w["head.5.weight"], w["head.5.bias"])
    back = functional.max_unpool2d(what2, where2, 2, output_size=c.shape[2:])
    back = deconv(back, "back2.0", b.shape[2:], 2).relu()
    back = deconv(back, "back2.2", what1.shape[2:]).relu()
    level = back
    back = functional.max_unpool2d(back, where1, 2, output_size=a.shape[2:])
    back = deconv(back, "back1.0", x.shape[2:])
    decoded = model(x, decode=True)
    for got, expected in (
        (decoded.logits, logits),
        (decoded.levels["stage1"][0], what1),
        (decoded.levels["stage1"][1], level),
        (decoded.levels["stage2"][0], what2),
        (decoded.x_tilde, back),
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert back.min() < 0 < back.max()  # the input has either sign


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_weight_learns_from_logits_and_reconstructions(name, pooling, batch_norm):
    notation, shape = NETWORKS[name]
    model = make(notation, shape, pooling=pooling, beta=5.0, batch_norm=batch_norm).train()
    x = torch.randn(4, *shape)
    decoded = model(x, decode=True)
    loss = (decoded.x_tilde - x).square().mean()
    for here, there in decoded.levels.values():
        loss = loss + (here - there).square().mean()
    loss.backward(retain_graph=True)
    for key, parameter in model.named_parameters():
        if key.startswith("head"):
            assert parameter.grad is None, key
        else:
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().max() > 0, key
    model.zero_grad()
    functional.cross_entropy(decoded.logits, torch.tensor([0, 1, 2, 0])).backward()
    for key, parameter in model.named_parameters():
        learns = parameter.grad is not None and parameter.grad.abs().max() > 0
        assert learns == key.startswith(("stage", "head")), key


def test_a_frozen_encoder_neither_learns_nor_changes_until_it_is_let_go():
    """Nor does it drop anything; decoder and fully connected layers go on."""
    model = make(*SMALL, batch_norm=True, conv_dropout=0.5).train()
    x = torch.randn(4, *SMALL[1])

    def learn():
        model.zero_grad()
        decoded = model(x, decode=True)
        (decoded.logits.sum() + decoded.x_tilde.square().sum()).backward()
        return {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None}

    model.freeze_encoder()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert learn() == {"back1", "back2", "head"}
    changed = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    assert changed and all(key.startswith("back") for key in changed)  # running means
    one, two = (model(x, decode=True).levels["stage2"][0] for _ in range(2))
    assert torch.equal(one, two)
    model.freeze_encoder(False)
    assert learn() == {"stage1", "stage2", "back1", "back2", "head"}
    one, two = (model(x, decode=True).levels["stage2"][0] for _ in range(2))
    assert not torch.equal(one, two)
    model.eval().freeze_encoder(False)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradients_of_the_whole_network_are_finite_differences(pooling, batch_norm):
    model = make(*SMALL, pooling=pooling, beta=3.0, batch_norm=batch_norm).double().train()
    x = torch.randn(3, *SMALL[1]).double()

    def value():
        decoded = model(x, decode=True)
        pairs = [(x, decoded.x_tilde), *decoded.levels.values()]
        errors = sum((here - there).square().mean() for here, there in pairs)
        return errors + decoded.logits.sin().sum()

    value().backward()
    step = 1e-6
    for key, parameter in model.named_parameters():
        direction = torch.randn_like(parameter) / parameter.numel() ** 0.5
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
                ends.append(value().item())
                parameter -= sign * step * direction
        slope = (ends[0] - ends[1]) / (2 * step)
        expected = (parameter.grad * direction).sum().item()
        assert slope == pytest.approx(expected, rel=1e-5, abs=1e-7), key


def test_the_where_is_what_the_reconstruction_of_places_hangs_on():
    """The decoder of one network, with and without the encoder's where."""
    notation, shape = "(4)3c-4p-2fc", (1, 16, 16)
    model, other = make(notation, shape), make(notation, shape, pooling="upsampling")
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, *shape)
    ours, theirs = model(x, decode=True), other(x, decode=True)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.levels["stage1"][1], theirs.levels["stage1"][1])
    assert not torch.allclose(ours.x_tilde, theirs.x_tilde, atol=1e-3)


def test_without_a_fully_connected_layer_one_goes_to_the_classes():
    model = make(*ENDLESS)
    assert kinds(model.head) == ["Flatten", "Dropout", "Linear"]
    assert model.head[2].weight.shape == (4, 6 * 4 * 4)
    assert model.stage2.pool is None


def test_k_stands_for_the_classes_wherever_it_is():
    model = birdinv.networks.build("swwae:(2)3c-Kfc-5fc-Kfc", shape=(1, 4, 4), classes=7)
    assert [m.out_features for m in model.head if isinstance(m, nn.Linear)] == [7, 5, 7]


@pytest.mark.parametrize(("shape", "norm"), [((1, 60), "BatchNorm1d"), ((1, 9, 9), "BatchNorm2d")])
def test_batch_norm_is_in_both_ways_but_not_at_the_output(shape, norm):
    notation = "(3)3c-(4)3c-2p-(5)3c-(6)3c-2p-3fc"
    model = make(notation, shape, batch_norm=True)
    for stage in (model.stage1, model.stage2):
        parts = [type(m).__name__ for m in stage.convs]
        assert [part for part in parts if part in (norm, "ReLU")] == [norm, "ReLU"] * 2
    assert kinds(model.back2) == ["Deconv", norm, "ReLU"] * 2
    assert kinds(model.back1) == ["Deconv", norm, "ReLU", "Deconv"]
    assert [m.num_features for m in model.back2 if type(m).__name__ == norm] == [5, 4]
    assert kinds(model.head) == ["Flatten", "Dropout", "Linear"]
    plain = make(notation, shape)
    assert kinds(plain.back2) == ["Deconv", "ReLU"] * 2
    assert kinds(plain.back1) == ["Deconv", "ReLU", "Deconv"]
    assert norm not in kinds(plain.modules())


def test_beta_is_that_of_every_soft_pooling():
    model = make(*SMALL, pooling="soft", beta=3.0)
    assert [getattr(model, name).pool.beta for name in model.layers] == [3.0, 3.0]


def dropouts(module):
    return [m.p for m in module.modules() if isinstance(m, nn.Dropout)]


@pytest.mark.parametrize("name", ["small", "short"])
def test_dropout_is_before_the_fully_connected_layers_alone(name):
    model = make(*NETWORKS[name], dropout=0.3)
    assert kinds(model.head) == ["Flatten", *["Dropout", "Linear", "ReLU"] * 2][:-1]
    assert dropouts(model) == dropouts(model.head) == [0.3, 0.3]
    model.train()
    x = torch.randn(4, *NETWORKS[name][1])
    one, two = (model(x, decode=True) for _ in range(2))
    assert torch.equal(one.x_tilde, two.x_tilde)
    assert not torch.equal(one.logits, two.logits)


def test_dropout_of_convolutions_is_in_the_encoder_when_asked_for():
    model = make(*SMALL, conv_dropout=0.4)
    assert dropouts(model.stage1) == [0.4] and dropouts(model.stage2) == [0.4, 0.4]
    assert set(dropouts(model.head)) == {0.0}
    assert dropouts(model.back1) == dropouts(model.back2) == []
    assert kinds(model.stage1.convs)[-2:] == ["ReLU", "Dropout"]
    x = torch.randn(4, *SMALL[1])
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("options", [{}, {"batch_norm": True, "dropout": 0.2, "conv_dropout": 0.1}])
def test_its_sizes_make_the_network_again(name, pooling, options):
    notation, shape = NETWORKS[name]
    model = make(notation, shape, pooling=pooling, beta=7.0, **options)
    sizes = json.loads(json.dumps(model.sizes))
    again = birdinv.networks.build(f"swwae:{notation}", **sizes)
    assert again.sizes == model.sizes
    shapes, same = ({k: v.shape for k, v in m.state_dict().items()} for m in (model, again))
    assert shapes == same
    again.load_state_dict(model.state_dict())
    x = torch.randn(2, *shape)
    ours, theirs = (m.eval()(x, decode=True).x_tilde for m in (model, again))
    assert torch.equal(ours, theirs)
    assert dropouts(model) == dropouts(again)


def test_weights_are_drawn_from_the_global_generator_and_biases_are_zero():
    name = "swwae:(8)5c-2p-(8)3c-2p-10fc"
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(birdinv.networks.build(name, shape=(1, 16, 16)))
    one, same, other = (m.state_dict() for m in models)
    for key, weight in one.items():
        assert torch.equal(weight, same[key])
        if key.endswith("bias"):
            assert weight.count_nonzero() == 0
        else:
            assert not torch.equal(weight, other[key])
    decoders = [m for m in models[0].modules() if isinstance(m, Deconv)]
    # He et al.: a variance of two over what a unit hears.
    assert decoders[-1].weight.var().item() == pytest.approx(2 / (8 * 3 * 3), rel=0.2)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_saved_network_comes_back_with_its_decoder(tmp_path, pooling):
    model = make(*SMALL, pooling=pooling, beta=5.0, batch_norm=True)
    x = torch.randn(2, *SMALL[1])
    model.train()(x, decode=True)  # the running means are not those of the start
    model.eval()
    description = Description(f"swwae:{SMALL[0]}", model.sizes, ["a", "b", "c"])
    save_model(tmp_path, model.state_dict(), description)
    again, same = load_model(tmp_path)
    assert same == description and not again.training
    ours, theirs = model(x, decode=True), again(x, decode=True)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.x_tilde, theirs.x_tilde)
    for layer in model.layers:
        assert torch.equal(ours.levels[layer][1], theirs.levels[layer][1])


def test_a_saved_network_of_recordings_comes_back_with_its_hearing(tmp_path):
    model = make(*AUDIO)
    hearing = Hearing(22050, 11025, 2205, ["noise"])
    names = [*"abcde", "noise"]
    description = Description(f"swwae:{AUDIO[0]}", model.sizes, names, hearing)
    save_model(tmp_path, model.state_dict(), description)
    again, same = load_model(tmp_path)
    assert same == description
    x = torch.randn(2, 1, 11025)
    assert torch.equal(model(x), again(x))


@pytest.mark.parametrize(
    ("notation", "shape", "sentence"),
    [
        ("(4)3c-2p-2fx", [1, 8, 8], "at character 11, expected p or fc"),
        ("(4)3c-2p-2fc", [1, 8], "its weights hold"),
        ("(4096)65536c-2fc", [1 << 22, 1, 1], "weights; at most"),
        ("(4096)65536c-(4096)65536c-2fc", [1, 1, 1], "weights; at most"),
        ("(4096)3c-65536fc-2fc", [1, 32, 32], "weights; at most"),
    ],
)
def test_a_damaged_or_evil_folder_is_refused_and_costs_no_memory(
    tmp_path, notation, shape, sentence
):
    """Terabytes, if the network were made as the description says."""
    model = make("(4)3c-2p-3fc", (1, 8, 8))
    sizes = {**model.sizes, "shape": shape, "classes": 2}
    description = Description(f"swwae:{notation}", sizes, ["a", "b"])
    save_model(tmp_path, model.state_dict(), description)
    with pytest.raises(BirdinvError, match=f"is damaged: .*{sentence}") as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_half_precision_trains_both_ways(name, pooling):
    notation, shape = NETWORKS[name]
    model = make(notation, shape, pooling=pooling, batch_norm=True).train()
    x = torch.randn(4, *shape)
    with torch.autocast("cpu", torch.bfloat16):
        decoded = model(x, decode=True)
        loss = functional.cross_entropy(decoded.logits.float(), torch.tensor([0, 1, 2, 0]))
        loss = loss + (decoded.x_tilde.float() - x).square().mean()
    loss.backward()
    assert loss.isfinite()
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_its_encoder_can_be_inverted_as_any_network(name, pooling):
    """`A[x]ᵀf(x)` at the input and at every level; the decoder has no part in it."""
    notation, shape = NETWORKS[name]
    model = make(notation, shape, pooling=pooling, beta=2.0).double()
    x = torch.randn(2, *shape).double()
    found = birdinv.reconstruct(model, x, list(model.layers))
    z, levels = x.clone().requires_grad_(), []
    heard = z
    for layer in model.layers:
        heard = getattr(model, layer)(heard)
        levels.append(heard)
    logits = model.head(heard)
    expected = torch.autograd.grad(logits.square().sum() / 2, [z, *levels])
    torch.testing.assert_close(found.x_hat, expected[0], rtol=1e-9, atol=1e-12)
    for layer, level, back in zip(model.layers, levels, expected[1:], strict=True):
        torch.testing.assert_close(found.layers[layer][0], level, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.layers[layer][1], back, rtol=1e-9, atol=1e-12)
    found.squared_error().sum().backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is None) == key.startswith("back"), key


@pytest.mark.parametrize("notation", ["(6)64c/32-2p-3fc", "(6)60c/32-2p-3fc", "(2)32c/32-3fc"])
def test_the_inversion_of_a_waveform_is_exact_behind_the_zeros_around_it(notation):
    model = make(notation, (1, 1000)).double()
    x = torch.randn(2, 1, 1000).double()
    results = []
    for exact in (False, True):
        error = birdinv.reconstruct(model, x, exact=exact).squared_error()
        results.append([error, *torch.autograd.grad(error.sum(), list(model.stage1.parameters()))])
    for quick, plain in zip(*results, strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-9, atol=1e-9)


def test_frames_are_not_shared_between_windows_that_have_zeros_around_them():
    model = make("(6)64c/32-2p-3fc", (1, 1024))
    assert shared_frames(model, Windows(1024, 512)) is None


@pytest.mark.parametrize(
    ("notation", "options", "sentence"),
    [
        ("(4)3c-2p-10fc", {"classes": 9}, "its last layer is 10fc, and there are 9 classes; end"),
        ("(4)3c-2p", {}, "does not say how many classes there are"),
        ("(4)3c-2p-Kfc", {}, "does not say how many classes there are"),
        ("(4)3c-2p-Kfc", {"classes": 0}, "classes=0: give a number from 1 to"),
        ("(4)3c-2p-Kfc", {"classes": -3}, "classes=-3: give a number from 1 to"),
        ("(4)3c-9p-2fc", {}, "9p pools over 9 places and a map of 8 × 9 is left .* of 8 × 9"),
        ("(4)3c/2-2p-(4)3c-3p-2fc", {}, "3p pools over 3 places and a map of 2 × 2 is left"),
        ("(4)3c-2p-2fc", {"shape": (1, 5000, 5000)}, r"a map of 4 × 25000000 numbers|is beyond"),
        ("(4096)3c-2p-2fc", {"shape": (1, 64, 64)}, "numbers is beyond"),
        ("(4)3c-2p-2fc", {"shape": (8,)}, r"shape is \(8,\); expected \(channels, samples\) or"),
        ("(4)3c-2p-2fc", {"shape": (1, 8, 8, 8)}, r"shape is \(1, 8, 8, 8\); expected"),
        ("(4)3c-2p-2fc", {"shape": (0, 8, 8)}, r"shape is \(0, 8, 8\); expected"),
        ("(4)3c-2p-2fc", {"shape": (1, -8)}, r"shape is \(1, -8\); expected"),
        ("(4)3c-2p-2fc", {"shape": (1, 8.5, 8)}, "cannot be built"),
        ("(4)3c-2p-2fc", {"pooling": "max"}, "'max'; expected one of switches, soft, upsampling"),
        ("(4)3c-2p-2fc", {"pooling": ["soft"]}, "cannot be built"),
        ("(4)3c-2p-2fc", {"pooling": "soft", "beta": -1.0}, "beta is -1.0; expected a number"),
        ("(4)3c-2p-2fc", {"beta": float("nan")}, "beta is nan; expected a number from 0"),
        ("(4)3c-2p-2fc", {"beta": float("inf")}, "beta is inf; expected a number from 0"),
        ("(4)3c-2p-2fc", {"batch_norm": 1}, "batch_norm is 1; expected True or False"),
        ("(4)3c-2p-2fc", {"dropout": 1.0}, "dropout is 1.0; expected a fraction"),
        ("(4)3c-2p-2fc", {"dropout": "0"}, "cannot be built"),
        ("(4)3c-2p-2fc", {"conv_dropout": -0.1}, "conv_dropout is -0.1; expected a fraction"),
        ("(4)3c-2p-2fc", {"conv_dropout": float("nan")}, "conv_dropout is nan"),
        ("(4)3c-2p-2fc", {"notation": "(4)3c"}, "no option 'notation', only pooling, beta, batch"),
        (
            "(4)3c-2p-2fc",
            {"width": 3},
            "no option 'width', only pooling, beta, batch_norm, dropout",
        ),
        ("", {}, "at character 1, expected a layer"),
        ("(4)3c-2p/1-2fc", {}, "at character 9, pooling windows lie side by side"),
        ("10fc", {}, "has to begin with a convolution"),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_sentence(notation, options, sentence):
    name = f"swwae:{notation}"
    with pytest.raises(BirdinvError, match=sentence) as caught:
        birdinv.networks.build(name, **{"shape": (1, 8, 9), **options})
    assert str(caught.value).startswith(f"the network {name} cannot be built: ")


def test_the_window_may_be_as_large_as_the_map():
    model = make("(4)3c-8p-3fc", (1, 8, 9))
    decoded = model(torch.randn(2, 1, 8, 9), decode=True)
    assert decoded.levels["stage1"][0].shape == (2, 4, 1, 1)
    assert decoded.x_tilde.shape == (2, 1, 8, 9)


def test_other_networks_do_not_say_how_many_classes_there_are():
    with pytest.raises(BirdinvError, match="resnet1-4 cannot be built: say how many classes"):
        birdinv.networks.build("resnet1-4", shape=(1, 24, 24))


@pytest.mark.parametrize("name", ["swwae", "SWWAE:(64)5c-2p-10fc", "(64)5c-2p-10fc"])
def test_a_notation_without_its_prefix_is_told_about_it(name):
    with pytest.raises(BirdinvError, match=r"there is no network .*and swwae: and a notation, as"):
        birdinv.networks.build(name, shape=(1, 8, 8))


def test_every_option_is_in_its_sizes():
    options = set(inspect.signature(SWWAE).parameters) - {"notation"}
    assert set(make(*SMALL).sizes) == options


@pytest.mark.parametrize("shape", [(1, 33, 33), (1, 33, 32), (3, 32, 32), (32, 32)])
def test_inputs_of_another_shape_are_refused_in_a_sentence(shape):
    model = birdinv.networks.build("swwae:(4)5c-2p-10fc", shape=(1, 32, 32))
    for decode in (False, True):
        with pytest.raises(ValueError, match=r"expected \[N, \*\(1, 32, 32\)\]"):
            model(torch.zeros(2, *shape), decode=decode)


def test_weights_are_counted_over_all_layers_before_they_are_made():
    with pytest.raises(BirdinvError, match=r"weights; at most 1,073,741,824 are made"):
        birdinv.networks.build("swwae:(64)64c/64-65536fc-65536fc-Kfc", shape=(1, 11025), classes=3)
