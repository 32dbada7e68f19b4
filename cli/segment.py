"""`birdinv segment`: recordings → store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from .options import ANY_PATH, batch_exit_code, common, say_unread, summary, warn

if TYPE_CHECKING:
    from birdinv.data.segmenting import Segmented


def _fractions(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise click.BadParameter(f"{text!r}; give three numbers such as 0.7,0.15,0.15")
    return values


@click.command("segment")
@click.argument("inputs", nargs=-1, required=True, type=ANY_PATH, metavar="INPUT...")
@click.option("-o", "--output", required=True, type=ANY_PATH, help="New folder for the store.")
@click.option(
    "--unlabelled",
    multiple=True,
    type=ANY_PATH,
    metavar="DIR",
    help="Recordings without label, to train on; may be given again.",
)
@click.option(
    "--labels",
    multiple=True,
    type=ANY_PATH,
    metavar="FILE.csv",
    help="Table file,label[,start_s,end_s][,split][,group]; without it the class is the folder. "
    "May be given again: the tables are read together.",
)
@click.option("--file-column", default="file", show_default=True, help="Its column of files.")
@click.option("--label-column", default="label", show_default=True, help="Its column of classes.")
@click.option(
    "--group-column",
    help="Its column of recordists or sites, which a split keeps whole. [group if there]",
)
@click.option("--segment", "segment_s", default=0.5, show_default=True, help="Seconds.")
@click.option(
    "--overlap", default=0.9, show_default=True, help="Fraction of a segment shared with the next."
)
@click.option("--sample-rate", default=22050, show_default=True, help="Of the store, in Hz.")
@click.option(
    "--activity/--no-activity",
    default=True,
    show_default=True,
    help="Keep only segments in which something sounds.",
)
@click.option(
    "--fractions",
    default="0.7,0.15,0.15",
    show_default=True,
    callback=_fractions,
    help="Shares of train, valid and test, by recording and class.",
)
@click.option("--seed", default=0, show_default=True, help="Of the split.")
@click.option("--export", type=click.Choice(["wav"]), help="Also write every segment as a file.")
@common
@click.pass_context
def command(
    ctx: click.Context,
    inputs: tuple[Path, ...],
    output: Path,
    unlabelled: tuple[Path, ...],
    labels: tuple[Path, ...],
    file_column: str,
    label_column: str,
    group_column: str | None,
    segment_s: float,
    overlap: float,
    sample_rate: int,
    activity: bool,
    fractions: tuple[float, float, float],
    seed: int,
    export: str | None,
) -> int:
    """Turn recordings into a store to train from.

    A recording's class is the folder it lies in, or what --labels says. Classes called noise,
    background, other or silence are learned but never reported as a bird.
    """
    if not labels:
        for name in ("file_column", "label_column", "group_column"):
            if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
                option = "--" + name.replace("_", "-")
                raise click.UsageError(f"{option} names a column of --labels, which is not given")

    from birdinv.data.segmenting import Columns, SegmentSettings, segment
    from birdinv.progress import Progress

    settings = SegmentSettings(segment_s, overlap, sample_rate, activity, fractions, seed)
    with Progress("segment", "h of audio") as progress:
        result = segment(
            inputs,
            output,
            settings,
            unlabelled=unlabelled,
            labels=labels,
            columns=Columns(file_column, label_column, group_column),
            export=export is not None,
            progress=progress,
        )
    _print(result, output)
    return batch_exit_code(result.statuses)


def _print(result: Segmented, output: Path) -> None:
    for text in result.warnings:
        warn(text)
    unread = ((r.status, r.file, r.reason) for r in result.recordings)
    say_unread(unread, output / "recordings.csv")
    counts: Counter[tuple[str, str]] = Counter()
    segments: Counter[str] = Counter()
    for recording in result.recordings:
        if result.segments.get(recording.file):
            counts[recording.label, recording.split] += 1
            segments[recording.label] += result.segments[recording.file]
    width = max([10, *(min(40, len(name)) for name in segments)])
    click.echo(f"{'recordings':<{width}} {'train':>6} {'valid':>6} {'test':>6} {'segments':>10}")
    for label in [*result.classes, *([""] if segments[""] else [])]:
        cells = " ".join(f"{counts[label, s]:>6}" for s in ("train", "valid", "test"))
        click.echo(f"{(label or 'unlabelled')[:40]:<{width}} {cells} {segments[label]:>10}")
    seconds = sum(float(recording.read_s) for recording in result.recordings)
    click.echo(f"{seconds / 3600:.2f} h of audio; {summary(result.statuses)}")
    click.echo(f"store: {output}")
