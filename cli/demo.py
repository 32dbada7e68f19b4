"""`birdinv demo`: the main job on synthetic birds."""

from __future__ import annotations

from pathlib import Path

import click

from .options import ANY_PATH, command_line, common, summary


@click.command("demo")
@click.option(
    "-o", "--output", default="birdinv-demo", show_default=True, type=ANY_PATH, help="New folder."
)
@click.option("--seed", default=0, show_default=True)
@common
def command(output: Path, seed: int) -> int:
    """Run the whole path on a small synthetic bird chorus.

    Six invented species, labelled, unlabelled and deliberately damaged files: segment, train, eval,
    predict, report, in less than two minutes.
    """
    from birdinv.demo import run_demo
    from birdinv.reporting.text import evaluation_text

    made = run_demo(
        output,
        seed=seed,
        command=command_line(),
        say=lambda text: click.echo(text, err=True),
    )
    click.echo(evaluation_text(made.evaluation))
    click.echo(f"segment: {summary(made.segmented.statuses)}")
    click.echo(f"predict: {summary(made.predicted.statuses)}; the damaged ones:")
    for file in made.predicted.files:
        if file.status != "ok":
            click.echo(f"  {file.status:<10} {file.file}: {file.reason}")
    click.echo(
        f"""
What was made, below {output}:
  recordings/                    the synthetic chorus: labelled, unlabelled, field
  store/                         its segments: recordings.csv, spans.csv, audio.npy
  run/model/                     the trained network, to copy and share
  run/metrics.csv                every loss term of every epoch
  predictions/combined.csv       detections in the field recordings
  predictions/files.csv          what became of each of them
  predictions/report.html        the best windows of each species, to see and hear
  run/report.html                the page to look at and listen to

Try next:
  birdinv eval {output / "run"}
  birdinv predict {output / "run"} YOUR_RECORDINGS -o tables"""
    )
    click.echo(f"\nreport: {made.report}")
    return 0
