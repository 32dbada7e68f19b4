"""`birdinv eval`: run → metrics."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import ANY_PATH, common


@click.command("eval")
@click.argument("run", type=ANY_PATH)
@click.option("--split", type=click.Choice(["valid", "test"]), default="test", show_default=True)
@click.option("--store", type=ANY_PATH, help="The run's store, if it has moved.")
@click.option("--root", type=ANY_PATH, help="The folder of a run's images, if it has moved.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@common
def command(run: Path, split: str, store: Path | None, root: Path | None, as_json: bool) -> int:
    """Measure a run on recordings it was not trained on.

    Per segment and per recording, with 95 % intervals over recordings. Read the test set once, when
    all choices are made; until then use --split valid.
    """
    from birdinv.audio.store import Store
    from birdinv.reporting.text import evaluation_text
    from birdinv.training.scoring import evaluate_run

    given = Store(store) if store is not None else None
    result = evaluate_run(run, split=split, store=given, root=root)
    if as_json:
        click.echo(json.dumps({"split": split, **result.to_dict()}, ensure_ascii=False, indent=2))
    else:
        click.echo(f"{split} set of {run}")
        click.echo(evaluation_text(result))
        click.echo(f"the same as a page: birdinv report {run}")
    return 0
