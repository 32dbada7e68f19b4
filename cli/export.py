"""`birdinv export`: run → ONNX file."""

from __future__ import annotations

from pathlib import Path

import click

from .options import ANY_PATH, common


@click.command("export")
@click.argument("run", type=ANY_PATH)
@click.option("-o", "--output", required=True, type=ANY_PATH, help="New file, such as model.onnx.")
@common
def command(run: Path, output: Path) -> int:
    """Write the network of a run as one ONNX file.

    RUN is a run of `birdinv train`, or the model folder of one. The file takes windows of any scale
    and gives probabilities and logits; class names, sample rate and window are in its metadata. It
    is kept if ONNX Runtime computes the same from it as torch does. Needs: pip install
    'birdinv[onnx]'
    """
    from birdinv.networks.exported import export_onnx

    result = export_onnx(run, output)
    (given, *found) = (
        f"{name} [{', '.join(map(str, shape))}]" for name, shape in result.shapes.items()
    )
    click.echo(f"input: {given}, float32, of any scale")
    click.echo(f"outputs: {', '.join(found)}")
    click.echo(
        f"differs from torch by at most {result.differences['probabilities']:.0e} of a "
        f"probability and {result.differences['logits']:.0e} of a logit"
    )
    click.echo(f"model: {result.path}")
    return 0
