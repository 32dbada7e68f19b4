"""`birdinv train`: store → run."""

from __future__ import annotations

from pathlib import Path

import click

from .options import ANY_PATH, command_line, common, warn


@click.command("train")
@click.argument("store", type=ANY_PATH)
@click.option("-o", "--output", required=True, type=ANY_PATH, help="New folder for the run.")
@click.option(
    "--objective",
    type=click.Choice(["supervised", "weighted", "global", "multiscale"]),
    default="weighted",
    show_default=True,
    help="Labels alone, or with the inversion losses.",
)
@click.option("--alpha", default=0.7, show_default=True, help="weighted: weight of the labels.")
@click.option(
    "--beta", default=0.3, show_default=True, help="weighted: reconstruction against entropy."
)
@click.option(
    "--labels-per-class",
    type=int,
    metavar="N",
    help="Hide the labels of all but N recordings of each class.",
)
@click.option("--epochs", default=30, show_default=True, help="Passes over the larger set.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--learning-rate", default=0.001, show_default=True, help="Of Adam.")
@click.option(
    "--schedule", type=click.Choice(["cosine", "constant"]), default="cosine", show_default=True
)
@click.option(
    "--patience", default=10, show_default=True, help="Epochs without a better validation accuracy."
)
@click.option("--dropout", default=0.5, show_default=True, help="In the dense layer.")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@click.option(
    "--threads", default=1, show_default=True, help="CPU threads; more seldom make it faster."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run, same settings.")
@common
def command(store: Path, output: Path, device: str, resume: bool, **settings: object) -> int:
    """Train a raw-waveform network on a store.

    Unlabelled segments fill half of each batch where there are any. Ctrl-C saves; --resume goes
    on, and ends as if nothing had happened.
    """
    from birdinv.audio.store import Store
    from birdinv.progress import Progress
    from birdinv.reporting.page import write_report
    from birdinv.training.config import TrainConfig
    from birdinv.training.loop import train

    config = TrainConfig(**settings)  # type: ignore[arg-type]  # click has converted them
    with Progress("train", "steps", digits=0) as progress:
        result = train(
            Store(store),
            output,
            config,
            device=device,
            resume=resume,
            command=command_line(),
            progress=progress,
        )
    for text in result.warnings:
        warn(text)
    best = result.rows[result.best_row - 1]
    click.echo(f"epoch {best['epoch']} of {result.rows[-1]['epoch']} is kept")
    if by_segment := best["valid_accuracy"]:
        by_recording = best["valid_recording_accuracy"] or by_segment  # each a segment long
        click.echo(
            f"validation accuracy: {float(by_segment):.3f} per segment, "
            f"{float(by_recording):.3f} per recording"
        )
    click.echo(f"run: {output}\nreport: {write_report(output)}")
    return 0
