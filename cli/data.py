"""`birdinv data`: what data sets are known, whether a copy is whole, how to get one."""

from __future__ import annotations

from pathlib import Path

import click

from birdinv.errors import BirdinvError

from .options import ANY_PATH, common


@click.command("data")
@click.argument("action", type=click.Choice(["list", "check", "prepare"]))
@click.argument("name", required=False)
@click.option(
    "--root",
    type=ANY_PATH,
    envvar="BIRDINV_DATA",
    help="Folder of the data sets, or of this one.  [$BIRDINV_DATA]",
)
@common
def command(action: str, name: str | None, root: Path | None) -> int:
    """Know, check and get the data sets of the papers.

    \b
    birdinv data list             the data sets birdinv knows
    birdinv data list NAME        all it knows of one
    birdinv data check NAME       is the copy in --root whole?
    birdinv data prepare NAME     get what is missing of it into --root
    """
    if action == "list":
        return _list_all() if name is None else _describe(name)
    if name is None:
        raise click.UsageError(f"{action} needs the NAME of a data set; see `birdinv data list`")
    if root is None:
        raise click.UsageError(
            f"{action} needs --root, the folder of the data sets (or BIRDINV_DATA set to it)"
        )
    return _check(name, root) if action == "check" else _prepare(name, root)


def _list_all() -> int:
    from birdinv.data.manifests import load_manifest, manifests
    from birdinv.data.subsets import subset_sizes

    click.echo(
        f"{'name':<12} {'kind':<11} {'classes':>7} {'samples':>7} {'valid':>6}  labelled subsets"
    )
    for name in manifests():
        known = load_manifest(name)
        valid = f"{known.valid or '–':>6}"
        sizes = " ".join(str(size) for size in subset_sizes(name)) or "–"
        head = f"{name:<12} {known.kind:<11} {len(known.classes):>7} {known.samples:>7} {valid}"
        click.echo(f"{head}  {sizes}")
    click.echo("\nAll that is known of one: birdinv data list NAME")
    return 0


def _describe(name: str) -> int:
    from birdinv.data.manifests import load_manifest

    known = load_manifest(name)
    click.echo(f"{known.name}: {known.description}")
    for title, text in (
        ("note", known.notes),
        ("from", known.homepage),
        ("licence", known.licence),
    ):
        if text:
            click.echo(f"{title:<8} {text}")
    classes = f"classes  {' '.join(known.classes)}"
    click.echo(click.wrap_text(classes, 80, subsequent_indent=" " * 9))
    for split, of in known.splits.items():
        click.echo(f"{split:<8} {of.count}{' (optional)' if of.optional else ''}")
    for form in known.forms:
        click.echo(f"form     {form.name}: {form.description}")
    click.echo()
    for paragraph in known.instructions.splitlines():
        click.echo(click.wrap_text(paragraph, 80))
    return 0


def _check(name: str, root: Path) -> int:
    from birdinv.data.checks import check

    found = check(name, root)
    for finding in found.findings:
        click.echo(
            f"{finding.state:<22} {finding.path}" + (f"  ({finding.detail})" * bool(finding.detail))
        )
    if not found.whole:
        raise BirdinvError(found.sentence)
    click.echo(found.sentence)
    return 0


def _prepare(name: str, root: Path) -> int:
    from birdinv.data.prepare import by_hand, prepare
    from birdinv.progress import Progress

    try:
        with Progress("download", "MB", digits=1) as progress:
            found = prepare(name, root, progress=progress)
    except BirdinvError:
        for line in by_hand(name, root):
            click.echo(line, err=True)
        raise
    click.echo(found.sentence)
    return 0
