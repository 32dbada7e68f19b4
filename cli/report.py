"""`birdinv report`: the HTML page of a run."""

from __future__ import annotations

from pathlib import Path

import click

from birdinv.errors import NothingReadable

from .options import ANY_PATH, common, warn


@click.command("report")
@click.argument("run", type=ANY_PATH)
@click.argument("recordings", nargs=-1, type=ANY_PATH, metavar="[RECORDING...]")
@click.option("--min-conf", default=0.5, show_default=True, help="Of the detections shown.")
@common
def command(run: Path, recordings: tuple[Path, ...], min_conf: float) -> int:
    """Write the HTML page of a run.

    RUN/report.html shows learning curves, metrics and the RECORDINGs with what is heard in them.
    """
    from birdinv.reporting.page import write_report
    from birdinv.reporting.recordings import view_recording

    views, problems = [], []
    for path in recordings:
        try:
            views.append(view_recording(run, path, min_conf=min_conf))
        except NothingReadable as error:
            problems.append(str(error))
    if problems and not views:
        raise NothingReadable("; ".join(problems))
    for problem in problems:
        warn(problem)
    click.echo(f"report: {write_report(run, recordings=views)}")
    return 3 if problems else 0
