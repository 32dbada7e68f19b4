"""`birdinv suggest`: run → what to label next."""

from __future__ import annotations

from pathlib import Path

import click

from .options import ANY_PATH, common, warn

LISTED = 10


@click.command("suggest")
@click.argument("run", type=ANY_PATH)
@click.argument("store", type=ANY_PATH, required=False)
@click.option("-n", "--number", default=20, show_default=True, help="How many recordings.")
@click.option("-o", "--output", type=ANY_PATH, metavar="DIR", help="[default: RUN/suggestions]")
@common
def command(run: Path, store: Path | None, number: int, output: Path | None) -> int:
    """Say which recordings to label next.

    Those without a label in STORE (the run's own, unless another is given) that the network is
    unsure of, and that are unlike the labelled ones and each other. Fill the column label of
    DIR/suggestions.csv and give it, with DIR/known.csv, to `birdinv segment` as --labels.
    """
    from birdinv.audio.store import Store
    from birdinv.progress import Progress
    from birdinv.reporting.suggestions import write_suggestions_page
    from birdinv.suggestion_tables import next_command, require_unfilled
    from birdinv.suggestions import run_store, suggest, write_suggestions

    output = output or run / "suggestions"
    require_unfilled(output)
    given = run_store(run) if store is None else Store(store)
    with Progress("suggest", "recordings", digits=0) as progress:
        found = suggest(run, given, number, tell=warn, progress=progress)
    table, known = write_suggestions(output, run, given, found)
    page = write_suggestions_page(output, run, given, found)
    click.echo(f"{'rank':>4} {'recording':<32} {'guess':<18} {'share':>5}  hear")
    for each in found[:LISTED]:
        hear = f"{each.start_s:.1f}-{each.end_s:.1f} s"
        click.echo(
            f"{each.rank:>4} {_end(each.file, 32):<32} {each.guess[:18]:<18} "
            f"{each.guess_share:>5.2f}  {hear}"
        )
    if len(found) > LISTED:
        click.echo(f"     and {len(found) - LISTED} more")
    click.echo(f"page to listen to: {page}")
    click.echo(f"table to fill in: {table} (what is known already: {known})")
    click.echo(f"then: {next_command(output, given)}")
    return 0


def _end(name: str, width: int) -> str:
    return name if len(name) <= width else f"…{name[1 - width :]}"
