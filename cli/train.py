"""`birdinv train`: store → run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .options import ANY_PATH, command_line, common, warn


@click.command("train")
@click.argument("store", type=ANY_PATH)
@click.option("-o", "--output", required=True, type=ANY_PATH, help="New folder for the run.")
@click.option(
    "--objective",
    type=click.Choice(
        ["few-labels", "supervised", "weighted", "global", "multiscale", "layer-weighted", "swwae"]
    ),
    metavar="NAME",
    help="few-labels (where there is unlabelled audio), supervised, weighted (where there is "
    "none), global, multiscale, layer-weighted, or swwae, which has a decoder.",
)
@click.option(
    "--network",
    help="bird10; swwae: and a notation for an encoder with a decoder, see docs/swwae.md.",
)
@click.option("--alpha", type=float, help="Weight of the labels; weighted: 0.7.")
@click.option(
    "--beta", type=float, help="weighted: reconstruction against entropy, 0.3; few-labels: entropy."
)
@click.option("--gamma", type=float, help="few-labels, layer-weighted: reconstruction.")
@click.option("--lambda-nll", type=float, help="swwae: labels, 1; 0 learns without them.")
@click.option("--lambda-rec", type=float, help="swwae: reconstruction of the input, 1.")
@click.option("--lambda-mid", type=float, help="swwae: that of the levels between, 0.2.")
@click.option("--balance", type=float, help="Weight that keeps classes from emptying.")
@click.option("--ramp", type=float, help="Epochs over which entropy, balance, consistency come in.")
@click.option(
    "--enough",
    type=float,
    metavar="N",
    help="With fewer than N unlabelled recordings a labelled one, what --ramp brings in counts "
    "less; 0 = never.",
)
@click.option(
    "--group-windows",
    type=int,
    help="Windows of one unlabelled recording in a batch, which are to agree.",
)
@click.option(
    "--group-seconds",
    type=float,
    help="They agree within stretches so long, for soundscapes; else whole recordings.",
)
@click.option("--augment", type=click.Choice(["none", "light", "strong"]), help="Of waveforms.")
@click.option("--average", type=float, help="Decay of the averaged weights, which are kept.")
@click.option(
    "--consistency",
    type=click.Choice(["none", "pseudo-labels", "pi-model", "mean-teacher", "vat", "fixmatch"]),
    help="What another method asks of unlabelled audio, on top of the objective.",
)
@click.option("--consistency-weight", type=float, help="How much it counts.")
@click.option(
    "--threshold", type=float, help="pseudo-labels, fixmatch: the least sure answer to learn from."
)
@click.option(
    "--class-balanced/--as-they-come",
    default=True,
    show_default=True,
    help="Labelled half: all classes equally often, recordings of a class too.",
)
@click.option(
    "--labels-per-class",
    type=int,
    metavar="N",
    help="Hide the labels of all but N recordings of each class.",
)
@click.option("--epochs", type=int, help="Passes over the larger set; 30, or in place of --steps.")
@click.option("--steps", type=int, help="Batches; 1000 by few-labels, supervised, swwae.")
@click.option(
    "--keep",
    type=click.Choice(["best", "last"]),
    help="Weights: best on validation, or last; few-labels, supervised, swwae: last.",
)
@click.option("--batch-size", type=int, help="64 by few-labels, supervised, swwae, else 128.")
@click.option("--learning-rate", default=0.001, show_default=True, help="Of Adam.")
@click.option(
    "--schedule", type=click.Choice(["cosine", "constant"]), default="cosine", show_default=True
)
@click.option(
    "--patience", default=10, show_default=True, help="Epochs without a better validation accuracy."
)
@click.option("--dropout", type=float, help="In the dense layer; bird10: 0.5, others: 0.")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@click.option(
    "--threads", default=1, show_default=True, help="CPU threads; more seldom make it faster."
)
@click.option(
    "--guard",
    is_flag=True,
    help="Train with labels alone too, and keep what is better on validation.",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run, same settings.")
@common
def command(
    store: Path, output: Path, device: str, resume: bool, guard: bool, **settings: object
) -> int:
    """Train a raw-waveform network on a store.

    Unlabelled segments fill half of each batch where there are any. Ctrl-C saves; --resume goes
    on, and ends as if nothing had happened.
    """
    from birdinv.audio.store import Store
    from birdinv.progress import Progress
    from birdinv.reporting.page import write_report
    from birdinv.training.guard import train_guarded
    from birdinv.training.loop import train
    from birdinv.training.recipes import settle
    from birdinv.words import counted

    opened = Store(store)
    config, recipe = settle(opened, settings)
    click.echo(f"objective: {recipe}")
    how: dict[str, Any] = {"device": device, "resume": resume, "command": command_line()}

    def bar(name: str) -> Progress:
        return Progress(name, "steps", digits=0)

    if guard:
        guarded = train_guarded(opened, output, config, progress=bar, **how)
        result = guarded.trained
        for side, row in guarded.rows.items():
            kept = ", kept" if side == guarded.kept else ""
            click.echo(f"{side}: {_accuracy(row)}{kept}")
        click.echo(f"judged on {counted(guarded.judges, 'validation recording')}")
    else:
        with bar("train") as progress:
            result = train(opened, output, config, progress=progress, **how)
    for text in result.warnings:
        warn(text)
    if config.objective == "swwae" and config.lambda_nll == 0:
        warn("nothing was learned from labels: the classes this network names are arbitrary")
    best = result.rows[result.best_row - 1]
    click.echo(f"step {best['step']} of {result.rows[-1]['step']} is kept")
    if best["valid_accuracy"]:
        click.echo(_accuracy(best))
    click.echo(f"run: {output}\nreport: {write_report(output)}")
    return 0


def _accuracy(row: Mapping[str, str]) -> str:
    by_segment = row["valid_accuracy"]
    by_recording = row["valid_recording_accuracy"] or by_segment  # each a segment long
    return (
        f"validation accuracy: {float(by_segment):.3f} per segment, "
        f"{float(by_recording):.3f} per recording"
    )
