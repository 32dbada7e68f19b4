"""A model folder comes back exactly, holds no pickle, and damage or malice gets a sentence."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import birdinv
from birdinv.errors import BirdinvError
from birdinv.networks.saved import Description, Hearing, load_model, save_model


def make(folder: Path):
    torch.manual_seed(0)
    model = birdinv.networks.build("bird10", classes=3, shape=(1, 4700), width=4, dense=5)
    description = Description(
        network="bird10",
        sizes=model.sizes,
        classes=["Amsel, männlich", "noise", "robin"],
        hearing=Hearing(11025, 4700, 470, ["noise"]),
    )
    save_model(folder, model.state_dict(), description)
    return model.eval(), description


def test_a_saved_model_comes_back_exactly(tmp_path):
    model, description = make(tmp_path / "model")
    for folder in (tmp_path, tmp_path / "model"):  # a run, or its model
        again, same = load_model(folder)
        assert same == description and not again.training
        assert same.hearing.windows.segment == 4700 and same.hearing.windows.hop == 470
        assert list(again.state_dict()) == list(model.state_dict())
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name])
        assert all(p.requires_grad for p in again.parameters())
        x = torch.randn(2, 1, 4700)
        assert torch.equal(model(x), again(x))


def test_loading_leaves_the_global_random_state_alone(tmp_path):
    make(tmp_path)
    state = torch.get_rng_state()
    load_model(tmp_path)
    assert torch.equal(state, torch.get_rng_state())


def test_a_model_folder_holds_text_and_weights_and_no_pickle(tmp_path):
    make(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    info = json.loads((tmp_path / "model.json").read_text("utf-8"))
    assert info["normalisation"] == "mean-peak" and info["version"] == 1
    assert info["classes"][0] == "Amsel, männlich"
    raw = (tmp_path / "model.safetensors").read_bytes()
    assert raw[8:9] == b"{"
    json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])  # and numbers, to the end


def change(key, value):
    def edit(folder):
        info = json.loads((folder / "model.json").read_text("utf-8"))
        info[key] = value
        (folder / "model.json").write_text(json.dumps(info))

    return edit


def remove(key):
    def edit(folder):
        info = json.loads((folder / "model.json").read_text("utf-8"))
        del info[key]
        (folder / "model.json").write_text(json.dumps(info))

    return edit


def sizes(**changes):
    def edit(folder):
        info = json.loads((folder / "model.json").read_text("utf-8"))
        info["sizes"] = {**info["sizes"], **changes}
        (folder / "model.json").write_text(json.dumps(info))

    return edit


def weights(function):
    def edit(folder):
        path = folder / "model.safetensors"
        save_file(function(load_file(path)), path)

    return edit


def raw(function):
    def edit(folder):
        path = folder / "model.safetensors"
        path.write_bytes(function(path.read_bytes()))

    return edit


DAMAGES = {
    "other format": (change("format", "x"), "its model.json has another format"),
    "later version": (change("version", 2), "model of version 2; this birdinv reads version 1"),
    "no network": (remove("network"), "is damaged: its model.json has no 'network'"),
    "no classes": (remove("classes"), "has no 'classes'"),
    "no shape": (change("sizes", {"classes": 3}), "has no 'shape'"),
    "unknown network": (change("network", "os.system"), "there is no network 'os.system'"),
    "normalisation": (change("normalisation", "z"), "unknown normalisation 'z'"),
    "class names": (change("classes", ["a", "b"]), "2 class names for 3 logits"),
    "classes a number": (change("classes", 3), "is damaged"),
    "sizes a text": (change("sizes", "abc"), "is damaged"),
    "unknown size": (sizes(evil=1), "cannot be built: .*evil"),
    "size of a wrong type": (sizes(width=[4]), "cannot be built"),
    "negative size": (sizes(width=-1), "width=-1: give a number from 1"),
    "infinite size": (sizes(classes=float("inf")), "is damaged"),
    "infinite rate": (change("sample_rate", float("inf")), "is damaged"),
    "rate": (change("sample_rate", 10), "sample rate of 10 Hz"),
    "hop": (change("hop_samples", 0), "hop of 0 samples"),
    "segment": (change("segment_samples", 5000), r"input shape \(1, 4700\) is not one segment"),
    "too wide for its weights": (sizes(width=5), r"\[4\] for block1.0.bias; expected .* \[5\]"),
    "huge": (sizes(width=4096, dense=65536), r"expected torch.float32 \[4096\]"),
    "truncated weights": (raw(lambda b: b[:-10]), "is damaged"),
    "empty weights": (raw(lambda b: b""), "is damaged"),
    "pickled weights": (raw(lambda b: b"\x80\x04cos\nsystem\n."), "is damaged"),
    "huge header": (raw(lambda b: struct.pack("<Q", 2**60) + b[8:]), "is damaged"),
    "a weight missing": (
        weights(lambda w: {k: v for k, v in w.items() if k != "head.bias"}),
        r"hold nothing for head.bias; expected torch.float32 \[3\]",
    ),
    "a weight too many": (
        weights(lambda w: {**w, "zzz": torch.zeros(2)}),
        r"hold torch.float32 \[2\] for zzz; expected nothing",
    ),
    "other type": (
        weights(lambda w: {k: v.to(torch.int64) for k, v in w.items()}),
        "hold torch.int64",
    ),
    "not finite": (
        weights(lambda w: {**w, "head.bias": torch.tensor([0.0, float("nan"), 0.0])}),
        "head.bias that are not finite",
    ),
    "no weights file": (lambda f: (f / "model.safetensors").unlink(), "cannot be read: No such"),
    "no description": (lambda f: (f / "model.json").unlink(), "expected a model folder or a run"),
    "not JSON": (lambda f: (f / "model.json").write_text("{"), "is not JSON"),
    "a list": (lambda f: (f / "model.json").write_text("[]"), "holds no JSON object"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_gets_one_sentence_that_names_the_folder(tmp_path, name):
    make(tmp_path)
    damage, sentence = DAMAGES[name]
    damage(tmp_path)
    with pytest.raises(BirdinvError, match=sentence) as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_claims_a_network_of_terabytes_costs_no_memory(tmp_path):
    make(tmp_path)
    long = 60 * 384_000
    change("segment_samples", long)(tmp_path)
    sizes(width=4096, dense=65536, shape=[1, long])(tmp_path)  # 3e12 weights
    # It gets as far as the weights, so the network was laid out: it cannot have been allocated.
    with pytest.raises(BirdinvError, match=r"hold torch.float32 \[4\] for block1"):
        load_model(tmp_path)
