"""Trained networks as ONNX files that other programs run, checked against torch."""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import birdinv
from birdinv.errors import BirdinvError
from birdinv.files import whole_file
from birdinv.networks.frames import FrameConv1d
from birdinv.networks.layers import normalise
from birdinv.networks.lean import Conv2d, LeakyReLU
from birdinv.networks.pooling import FrameMaxPool1d
from birdinv.networks.saved import NORMALISATION, Description, load_model

TOLERANCE = 1e-4  # of a probability or a logit, between ONNX Runtime and torch
LARGEST = 1 << 30  # bytes of weights; one file of protobuf ends at twice that
OPSET = 18  # what torch's exporter writes without converting it; runtimes read it since 2023
OUTPUTS = ("probabilities", "logits")
OURS = (FrameConv1d, FrameMaxPool1d, Conv2d, LeakyReLU)  # torch's own but for how they compute


@dataclass(frozen=True)
class Exported:
    """An ONNX file, and how far it is from the network it was made of."""

    path: Path
    shapes: dict[str, list[int | str]]  # of its input, then its outputs; "N" is any number
    differences: dict[str, float]  # the largest |ONNX Runtime − torch| of each output


def export_onnx(run: Path, output: Path) -> Exported:
    """Writes the network of a run as one ONNX file that needs nothing beside it.

    The graph normalises its input, so any scale will do, and a window of one constant value has
    probability 0 for every class, as in `birdinv predict`. The metadata say what `model.json` says;
    lists and `sizes` are JSON. The same run gives the same bytes.

    Shape:
        input `waveform [N, C, T]`, or `image [N, C, H, W]` for a network of images; outputs
        `probabilities [N, K]` and `logits [N, K]`; all float32, for any N.

    Args:
        run: a run of `birdinv train`, or its model folder.
        output: the new file.

    Raises:
        BirdinvError: `output` exists, the extra `[onnx]` is not installed, as `load_model`, or a
            network beyond 1 GiB, beyond the exporter, or whose graph differs from torch by more
            than `TOLERANCE`. Then no file is left.
    """
    if output.exists():
        what = "is a folder" if output.is_dir() else "already exists"
        raise BirdinvError(f"{output} {what}; give -o a new file, such as model.onnx")
    try:
        onnx, runtime, _ = map(import_module, ("onnx", "onnxruntime", "onnxscript"))
    except ImportError as error:
        raise BirdinvError(
            f"ONNX export needs {error.name or error}: pip install 'birdinv[onnx]'"
        ) from error
    network, description = load_model(run)
    if sum(weights.nbytes for weights in network.state_dict().values()) > LARGEST:
        raise BirdinvError(f"{run} has more than 1 GiB of weights; one ONNX file cannot hold them")
    whole = _FromRaw(network, hears=description.hearing is not None).eval()
    shape = [int(n) for n in description.sizes["shape"]]
    try:
        model = _translated(whole, shape)
    except torch.onnx.OnnxExporterError as error:
        first: BaseException = error  # the ones above it are advice to who develops the exporter
        while first.__cause__ is not None:
            first = first.__cause__
        reason = str(first).partition("\n")[0]
        raise BirdinvError(f"torch {torch.__version__} cannot export {run}: {reason}") from error
    _strip(model)
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    _describe(model, description)
    content: bytes = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(content, full_check=True)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    differences = dict.fromkeys(OUTPUTS, 0.0)
    for x in _trials(shape):
        got = session.run(OUTPUTS, {model.graph.input[0].name: x.numpy()})
        with torch.no_grad():
            expected = whole(x)
        for name, ours, theirs in zip(OUTPUTS, expected, got, strict=True):
            difference = float((ours - torch.from_numpy(theirs)).abs().max())
            if not difference <= TOLERANCE:  # NaN is not
                raise BirdinvError(
                    f"{run} cannot be exported: its {name} in ONNX Runtime differ by "
                    f"{difference:.1e} from torch's; at most {TOLERANCE:.0e} is allowed"
                )
            differences[name] = max(differences[name], difference)
    with whole_file(output, "wb") as file:
        file.write(content)
    shapes = {
        each.name: [d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim]
        for each in (*model.graph.input, *model.graph.output)
    }
    return Exported(output, shapes, differences)


class _FromRaw(nn.Module):
    """(probabilities, logits), both `[N, K]`, of samples `[N, *shape]` that are not normalised."""

    def __init__(self, network: nn.Module, *, hears: bool) -> None:
        super().__init__()
        self.network, self.hears = network, hears

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = normalise(x)
        logits: Tensor = self.network(x)
        probabilities = torch.softmax(logits, dim=1)
        if self.hears:  # as prediction.scoring does: silence is none of the classes
            probabilities = probabilities * (x != 0).flatten(1).any(dim=1, keepdim=True)
        return probabilities, logits


def _translated(whole: _FromRaw, shape: list[int]) -> Any:
    """The ModelProto as torch's exporter leaves it."""
    plain = copy.deepcopy(whole)
    # Of torch's layers each becomes one node, while ours would fix the size of the batch.
    for module in plain.modules():
        if isinstance(module, OURS):
            module.__class__ = type(module).__base__  # type: ignore[assignment]
    with _silence(), torch.no_grad():
        program = torch.onnx.export(
            plain,
            (torch.zeros(2, *shape),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["waveform" if whole.hears else "image"],
            output_names=OUTPUTS,
            dynamic_shapes=({0: torch.export.Dim("N")},),
        )
    return program.model_proto  # type: ignore[union-attr]  # None only without dynamo


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps what the exporter tells its developers off the terminal."""
    level, said = logging.root.manager.disable, io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)


def _strip(message: Any) -> None:
    """Removes the exporter's notes on every node: paths and code of the machine it ran on."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _strip(part)


def _describe(model: Any, description: Description) -> None:
    """Writes into the file what one must know to use it."""
    facts: dict[str, Any] = asdict(description)
    what, hearing = "images", facts.pop("hearing")
    if hearing is not None:
        what = f"windows of audio at {hearing['sample_rate']} Hz"
        facts |= hearing
    facts |= {"normalisation": NORMALISATION, "birdinv_version": birdinv.__version__}
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        model.metadata_props.add(key=key, value=text)
    model.doc_string = (
        f"Give {what} of any scale as float32 `{model.graph.input[0].name}` "
        f"{['N', *description.sizes['shape']]}; each of the `probabilities` and `logits` belongs "
        "to the name at its place in the `classes` of the metadata."
    ).replace("'", "")


def _trials(shape: list[int]) -> Iterator[Tensor]:
    """Batches of one and of several: noise of many scales, quiet on an offset, and constants."""
    noise = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    yield noise[:1]
    scales = torch.tensor([1e-30, 1e-3, 1.0, 3e4, 1e30]).view(-1, *[1] * len(shape))
    constants = torch.tensor([0.0, 0.1, -12345.678]).view(-1, *[1] * len(shape))
    yield torch.cat([noise * scales, 20 * noise[:1] + 2000, constants.expand(-1, *shape)])
