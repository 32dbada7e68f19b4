"""`birdinv predict`: recordings → tables of detections."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from birdinv.errors import SettingError

from .options import ANY_PATH, batch_exit_code, command_line, common, say_unread, summary, warn


def _merge(_ctx: click.Context, _param: click.Parameter, text: str) -> int:
    if text == "all":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r}; give a number of windows from 1, or all")
    return int(text)


@click.command("predict")
@click.argument("run", type=ANY_PATH)
@click.argument("inputs", nargs=-1, required=True, type=ANY_PATH, metavar="INPUT...")
@click.option("-o", "--output", required=True, type=ANY_PATH, help="New folder for the tables.")
@click.option("--min-conf", default=0.5, show_default=True, help="Least probability of a row.")
@click.option(
    "--overlap", type=float, help="Fraction of a window shared with the next. [as in training]"
)
@click.option(
    "--top-n",
    type=int,
    metavar="N",
    help="The N best birds of each window, whatever their score unless --min-conf is given too.",
)
@click.option(
    "--merge-consecutive",
    "merge",
    default="1",
    show_default=True,
    callback=_merge,
    metavar="N|all",
    help="Most consecutive windows of a bird in one row; its score is the mean of the best three.",
)
@click.option(
    "--exact-hop",
    is_flag=True,
    help="Keep the hop of that overlap: several times slower than one rounded to whole strides.",
)
@click.option(
    "--rtype",
    "rtypes",
    multiple=True,
    metavar="FORMAT",
    help="Tables for other programs too: raven, audacity, kaleidoscope, birdnet, parquet. "
    "Give it again, or with commas, for several.",
)
@click.option(
    "--absolute-time",
    is_flag=True,
    help="A column with the time of day, from file names such as 20260501_053000.WAV.",
)
@click.option("--report", is_flag=True, help="Write OUTPUT/report.html, with pictures and sound.")
@click.option(
    "--workers",
    default=1,
    show_default=True,
    help="Processes; the largest files go first.",
)
@click.option(
    "--cluster",
    metavar="ADDRESS|local:N",
    help="Work on the Dask cluster with its scheduler at ADDRESS, or on N processes as one.",
)
@click.option(
    "--stall",
    "stall_s",
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up a file that makes no progress for so long.",
)
@click.option(
    "--moved", is_flag=True, help="Go on although the recordings are at another place now."
)
@common
@click.pass_context
def command(
    ctx: click.Context,
    run: Path,
    inputs: tuple[Path, ...],
    output: Path,
    min_conf: float,
    overlap: float | None,
    top_n: int | None,
    merge: int,
    exact_hop: bool,
    rtypes: tuple[str, ...],
    absolute_time: bool,
    report: bool,
    workers: int,
    cluster: str | None,
    stall_s: float,
    moved: bool,
) -> int:
    """Write tables of the birds in recordings.

    RUN is a run of `birdinv train`, or the model folder of one. Every input gets a row in
    files.csv, whatever became of it. The same command again goes on where an interrupted one ended.
    """
    from birdinv.prediction.job import Settings
    from birdinv.prediction.run import predict
    from birdinv.prediction.tables import Choice
    from birdinv.progress import Progress

    if top_n is not None and ctx.get_parameter_source("min_conf") is ParameterSource.DEFAULT:
        min_conf = 0.0  # what BirdNET's option of this name does
    if workers < 1:
        raise SettingError(f"--workers is {workers}; give at least 1")
    if cluster is not None and ctx.get_parameter_source("workers") is not ParameterSource.DEFAULT:
        raise click.UsageError("--workers is for this machine alone: leave it out with --cluster")
    with Progress("predict", "h of audio") as progress:
        result = predict(
            run,
            inputs,
            output,
            settings=Settings(Choice(min_conf, top_n, merge), overlap, exact_hop, absolute_time),
            workers=workers,
            cluster=cluster,
            rtypes=[name for text in rtypes for name in text.split(",")],
            stall_s=stall_s,
            report=report,
            moved=moved,
            command=command_line(),
            progress=progress,
        )
    for text in result.warnings:
        warn(text)
    say_unread(((f.status, f.file, f.reason) for f in result.files), output / "files.csv")
    hours = sum(float(file.read_s) for file in result.files) / 3600
    found = sum(file.detections for file in result.files)
    click.echo(f"{found} detections in {hours:.2f} h of audio; {summary(result.statuses)}")
    if result.resumed:
        click.echo(f"done by an earlier call: {result.resumed} of them")
    windows, asked = result.windows, result.asked
    rounded = (
        f"; {asked.overlap:.1%} were asked for, --exact-hop keeps them" if windows != asked else ""
    )
    click.echo(
        f"windows overlap by {windows.overlap:.1%}: one every "
        f"{1000 * windows.hop / result.sample_rate:.1f} ms{rounded}"
    )
    click.echo(f"tables: {output / 'combined.csv'}, {output / 'files.csv'}")
    if (output / "report.html").exists():
        click.echo(f"report: {output / 'report.html'}")
    return batch_exit_code(result.statuses)
