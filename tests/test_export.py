"""An exported network says what torch says, from raw samples, in a file that needs nothing else."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from birdinv_cli.export import command
from click.testing import CliRunner

import birdinv
from birdinv.errors import BirdinvError
from birdinv.networks import exported
from birdinv.networks.exported import export_onnx
from birdinv.networks.layers import normalise
from birdinv.networks.saved import Description, Hearing, load_model, save_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

OUTPUTS = ["probabilities", "logits"]
CLASSES = ["Amsel, männlich", "noise", "robin"]
CASES = {
    "bird10": ("bird10", (1, 6000), {"width": 4, "dense": 5}),
    "mean": ("smallcnn", (1, 28, 28), {}),
    "inhibitor": ("smallcnn", (3, 21, 23), {"pooling": "inhibitor", "batch_norm": True}),
    "resnet": ("resnet2-32", (1, 16, 16), {"pooling": "max", "dropout": 0.2}),
}


def make(folder: Path, case: str) -> Path:
    name, shape, options = CASES[case]
    torch.manual_seed(0)
    model = birdinv.networks.build(name, classes=3, shape=shape, **options)
    with torch.no_grad():
        for key, each in model.state_dict().items():  # else a batch norm does nothing
            if "running_" in key:
                each.uniform_(0.5, 2.0)
        for each in model.parameters():  # logits that are not all near to zero
            each.mul_(1.5)
    hearing = Hearing(11025, shape[1], 470, ["noise"]) if len(shape) == 2 else None
    save_model(folder, model.state_dict(), Description(name, model.sizes, CLASSES, hearing))
    return folder


@pytest.fixture(scope="module", params=CASES)
def made(request, tmp_path_factory):
    """(what was returned, the run, the file) of each case."""
    folder = tmp_path_factory.mktemp(request.param)
    run = make(folder / "run", request.param)
    return export_onnx(run, folder / "new" / "model.onnx"), run, folder / "new" / "model.onnx"


@pytest.fixture(scope="module")
def bird10(tmp_path_factory):
    """(the run, its file) of the network of recordings, by the command line and what it printed."""
    folder = tmp_path_factory.mktemp("cli")
    run = make(folder / "run", "bird10")
    done = CliRunner().invoke(command, [str(run), "-o", str(folder / "model.onnx")], obj={})
    return run, folder / "model.onnx", done


def session(path: Path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def test_the_graph_gives_torchs_probabilities_and_logits_of_raw_samples(made):
    result, run, path = made
    network, description = load_model(run)
    shape = description.sizes["shape"]
    name = "waveform" if len(shape) == 2 else "image"
    rng = np.random.default_rng(1)
    for count, scale, offset in ((1, 1.0, 0.0), (3, 3e4, -1000.0), (7, 1e-6, 1e-5)):
        raw = (scale * rng.standard_normal((count, *shape)) + offset).astype(np.float32)
        probabilities, logits = session(path).run(["probabilities", "logits"], {name: raw})
        with torch.no_grad():
            expected = network(normalise(torch.from_numpy(raw)))
        assert np.abs(logits - expected.numpy()).max() <= 1e-4
        assert np.abs(probabilities - expected.softmax(dim=1).numpy()).max() <= 1e-4
        assert np.ptp(logits) > 1e-2  # there was something to compare
    shapes = {name: ["N", *shape], "probabilities": ["N", 3], "logits": ["N", 3]}
    assert result.shapes == shapes and result.path == path
    for tensor in (*session(path).get_inputs(), *session(path).get_outputs()):
        assert (tensor.shape, tensor.type) == (shapes[tensor.name], "tensor(float)")
    assert set(result.differences) == {"probabilities", "logits"}
    assert max(result.differences.values()) <= 1e-4


def test_a_constant_is_no_bird_and_an_image_like_any_other(made):
    _, run, path = made
    network, description = load_model(run)
    shape = description.sizes["shape"]
    values = np.array([0.0, 0.1, -12345.678, 7e-39, 3e38], np.float32)
    raw = np.broadcast_to(values.reshape(-1, *[1] * len(shape)), (5, *shape)).copy()
    graph = session(path)
    probabilities, logits = graph.run(OUTPUTS, {graph.get_inputs()[0].name: raw})
    with torch.no_grad():
        expected = network(torch.zeros(5, *shape))
    assert np.abs(logits - expected.numpy()).max() <= 1e-4
    if description.hearing:
        assert not probabilities.any()
    else:
        assert np.abs(probabilities - expected.softmax(dim=1).numpy()).max() <= 1e-4


def test_the_file_alone_is_enough_and_tells_nothing_of_the_machine(made):
    _, run, path = made
    assert [each.name for each in path.parent.iterdir()] == ["model.onnx"]
    content = path.read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    facts = {each.key: each.value for each in model.metadata_props}
    _, description = load_model(run)
    assert json.loads(facts["classes"]) == CLASSES and "männlich" in facts["classes"]
    assert json.loads(facts["sizes"]) == description.sizes
    assert facts["network"] == description.network
    assert facts["birdinv_version"] == birdinv.__version__
    heard = {"non_events": '["noise"]', "sample_rate": "11025", "hop_samples": "470"}
    heard |= {"segment_samples": "6000"}
    assert all(facts.get(key) == (description.hearing and heard[key]) for key in heard)
    shape = ", ".join(["N", *map(str, description.sizes["shape"])])
    assert f"[{shape}]" in model.doc_string and model.doc_string.count(".") == 1
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    places = [".py", "site-packages", str(Path.home()), str(Path.cwd()), str(path.parent)]
    assert not [place for place in places if place.encode() in content]


def test_the_command_says_what_it_wrote(bird10):
    _, path, done = bird10
    assert done.exit_code == 0, done.output
    said = done.stdout.splitlines()
    assert said[0] == "input: waveform [N, 1, 6000], float32, of any scale"
    assert said[1] == "outputs: probabilities [N, 3], logits [N, 3]"
    assert said[2].startswith("differs from torch by at most ") and said[2].endswith(" of a logit")
    assert said[3:] == [f"model: {path}"] and not done.stderr


def test_a_second_export_gives_the_same_bytes_says_nothing_and_changes_no_global_state(
    bird10, tmp_path, capfd, recwarn
):
    run, path, _ = bird10
    level, state = logging.root.manager.disable, torch.get_rng_state()
    export_onnx(run, tmp_path / "again.onnx")
    assert path.read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert capfd.readouterr() == ("", "") and not recwarn.list
    assert logging.root.manager.disable == level
    assert torch.equal(torch.get_rng_state(), state)


def test_help_says_what_is_needed():
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0
    for text in ("-o, --output", "[required]", "pip install 'birdinv[onnx]'", "RUN"):
        assert text in done.output
    assert CliRunner().invoke(command, ["run"]).exit_code == 2


@pytest.mark.parametrize("what", ["file", "folder", "no run"])
def test_what_cannot_be_done_gets_a_sentence_before_anything_is_done(what, tmp_path):
    output = tmp_path / "model.onnx"
    if what == "file":
        output.write_text("old")
    elif what == "folder":
        output.mkdir()
    sentences = {"file": "already exists", "folder": "is a folder", "no run": "does not exist"}
    with pytest.raises(BirdinvError, match=sentences[what]) as caught:
        export_onnx(tmp_path / "run", output)
    assert "\n" not in str(caught.value)
    assert what != "file" or output.read_text() == "old"
    assert what != "folder" or not list(output.iterdir())
    assert what != "no run" or not output.exists()


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_extra_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BirdinvError, match=r"pip install 'birdinv\[onnx\]'") as caught:
        export_onnx(tmp_path / "run", tmp_path / "model.onnx")
    assert name in str(caught.value) and not list(tmp_path.iterdir())


def test_the_extra_is_imported_late():
    code = (
        "import sys, birdinv.networks.exported, birdinv_cli.export; "
        "sys.exit(any(name in sys.modules for name in ('onnx', 'onnxruntime', 'onnxscript')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_a_graph_that_differs_from_torch_is_not_kept(error, bird10, tmp_path, monkeypatch):
    run, path, _ = bird10
    model = onnx.load(path)
    (bias,) = (each for each in model.graph.initializer if each.name == "network.head.bias")
    values = onnx.numpy_helper.to_array(bias) + np.float32(error)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    monkeypatch.setattr(exported, "_translated", lambda *_: model)
    with pytest.raises(BirdinvError, match="in ONNX Runtime differ by") as caught:
        export_onnx(run, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_what_the_exporter_refuses_and_what_is_too_large_get_a_sentence(tmp_path, monkeypatch):
    run = make(tmp_path / "run", "bird10")

    def refuse(*_args, **_kwargs):
        cause = ValueError("No function for x\nsupported are …")
        raise torch.onnx.OnnxExporterError("Next steps:\n…") from cause

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(BirdinvError, match=r"cannot export .*run: No function for x$"):
        export_onnx(run, tmp_path / "model.onnx")
    monkeypatch.setattr(exported, "LARGEST", 1000)
    with pytest.raises(BirdinvError, match="more than 1 GiB"):
        export_onnx(run, tmp_path / "model.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
