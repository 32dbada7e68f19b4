"""`birdinv inspect`: what is inside a trained network, as a page."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from .options import ANY_PATH, common, warn


@click.command("inspect")
@click.argument("paths", nargs=-1, type=ANY_PATH, metavar="[RUN [INPUT]...]")
@click.option("-o", "--output", required=True, type=ANY_PATH, metavar="DIR", help="A new folder.")
@click.option("--at", "at_s", type=float, help="Seconds into the recordings. [default: surest]")
@click.option(
    "--compare", nargs=2, type=ANY_PATH, metavar="RUN_A RUN_B", help="Two runs side by side."
)
@click.option(
    "--split",
    type=click.Choice(["valid", "test"]),
    default="valid",
    show_default=True,
    help="With --compare: what they are compared on.",
)
@click.option(
    "--samples", default=256, show_default=True, help="With --compare: how many are looked into."
)
@click.option("--store", type=ANY_PATH, help="With --compare: the runs' store, if it has moved.")
@click.option("--root", type=ANY_PATH, help="The folder of a run's images, if it has moved.")
@common
def command(
    paths: tuple[Path, ...],
    output: Path,
    at_s: float | None,
    compare: tuple[Path, Path] | None,
    split: str,
    samples: int,
    store: Path | None,
    root: Path | None,
) -> int:
    """Look inside a trained network.

    With RUN and recordings: half a second of each, its reconstruction by the network, what each
    class is matched against, as picture and sound, the smallest change that fools it, and the
    filters of the first layer. With a RUN on images: the same of image files, or of a test image of
    each class. With --compare: two runs on the same data, in numbers.
    """
    from birdinv.errors import SettingError
    from birdinv.progress import Progress

    done = 0

    with Progress("inspect", "steps", digits=0) as progress:

        def step(count: int, total: int) -> None:
            nonlocal done
            progress.update(count - done, total=total)
            done = count

        if compare is not None:
            from birdinv.inspection.comparison import compare_runs
            from birdinv.inspection.comparison_page import comparison_text, write_comparison

            if paths or at_s is not None:
                raise SettingError("--compare takes two runs and no input; leave RUN and --at out")
            found = compare_runs(
                compare, split=split, samples=samples, store=store, root=root, output=output,
                step=step,
            )  # fmt: skip
            page = write_comparison(found, output)
            progress.close()
            click.echo(comparison_text(found))
            click.echo(f"page: {page}")
            return 0
        if not paths:
            raise SettingError("give a RUN, and recordings to look at it with, or --compare")
        context = click.get_current_context()
        for name in ("split", "samples", "store"):
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise SettingError(f"--{name} is for --compare; leave it out")
        from birdinv.inspection.page import inspect

        page, inputs, problems = inspect(
            paths[0], paths[1:], output, at_s=at_s, root=root, tell=warn, step=step
        )
    for one in inputs:
        where = f" at {one.subject.start_s:.2f} s" if one.subject.start_s is not None else ""
        said = f"{one.classes[one.guess]} ({100 * float(one.probabilities[one.guess]):.1f} %)"
        fooled = "no change found that fools it"
        if one.fooled:
            other = one.classes[int(one.flips.after[0])]
            level = f"{float(one.flips.level_db[0]):.1f} dB".replace("-", "−")
            fooled = f"{other} after a change of {level}"
        click.echo(f"{one.subject.name}{where}: {said}, {fooled}")
    click.echo(f"page: {page}")
    return 3 if problems else 0
