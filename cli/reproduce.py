"""`birdinv reproduce`: a table or figure of the papers, a cell at a time."""

from __future__ import annotations

from pathlib import Path

import click

from .options import ANY_PATH, command_line, common


def _seeds(_ctx: click.Context, _param: click.Parameter, text: str) -> list[int]:
    """`0-4` or `0,2,5-7` as numbers."""
    try:
        ranges = [part.split("-") for part in text.split(",")]
        spans = [range(int(low), int((high or [low])[0]) + 1) for low, *high in ranges]
        if not all(spans) or any(len(each) > 2 for each in ranges):
            raise ValueError
    except ValueError:
        raise click.BadParameter(f"{text!r}; give numbers and ranges, such as 0-4 or 0,3") from None
    return sorted({seed for span in spans for seed in span})


def _labels(
    _ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]
) -> list[int | None]:
    """Numbers, or `all`."""
    try:
        return [None if text == "all" else int(text) for text in texts]
    except ValueError:
        raise click.BadParameter("give a number of labels, or all") from None


@click.command("reproduce")
@click.argument("name")
@click.option("--row", "rows", multiple=True, help="Only this row; may be given several times.")
@click.option(
    "--labels", multiple=True, callback=_labels, help="Only this number of labels, or all."
)
@click.option("--seeds", default="0", show_default=True, callback=_seeds, help="Such as 0-4.")
@click.option(
    "--budget",
    type=click.Choice(["smoke", "cpu", "paper"]),
    default="cpu",
    show_default=True,
    help="A fixed number of epochs.",
)
@click.option("--preset", help="Protocol, where the table has several.")
@click.option("--dataset", help="A stand-in for the paper's, where the table has one.")
@click.option("--root", type=ANY_PATH, help="Folder of the data sets; else $BIRDINV_DATA.")
@click.option("--results", type=ANY_PATH, default="results", show_default=True)
@click.option("--runs", type=ANY_PATH, help="Folder for the runs; else RESULTS/runs.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@click.option("--threads", default=1, show_default=True, help="CPU threads of a run.")
@click.option("--figure", is_flag=True, help="Draw from results and runs; train nothing.")
@click.option("--list", "only_list", is_flag=True, help="Print the cells and their epochs.")
@common
def command(
    name: str,
    rows: tuple[str, ...],
    labels: list[int | None],
    seeds: list[int],
    budget: str,
    preset: str | None,
    dataset: str | None,
    root: Path | None,
    results: Path,
    runs: Path | None,
    device: str,
    threads: int,
    figure: bool,
    only_list: bool,
) -> int:
    """Run a table of the papers, a cell at a time.

    NAME is inv-table2, inv-figure2, ms-table2, ms-table3, mnist-ablation, birds-few-labels,
    birds-suggest, sw-figure2 to sw-figure4, sw-table1 to sw-table5 or sw-birds. Every cell leaves
    one JSON file in RESULTS/NAME, and RESULTS/README.md sets them all beside the published numbers.
    What is there is not run again; Ctrl-C saves, and the same command goes on.
    """
    from birdinv.data.manifests import data_root
    from birdinv.progress import Progress
    from birdinv.reproduce.cells import cells
    from birdinv.reproduce.presets import PRESETS
    from birdinv.reproduce.rendering import cell_line, write_readme
    from birdinv.reproduce.running import run_cell

    found = cells(name, rows=rows, labels=labels, dataset=dataset, preset=preset, budget=budget)
    runs = results / "runs" if runs is None else runs
    if only_list:
        for cell in found:
            click.echo(f"{cell.name}: {cell.duration}")
        for used in dict.fromkeys(cell.preset for cell in found):
            click.echo(f"preset {used}: {PRESETS[used].about}")
        return 0

    def draw() -> None:
        from birdinv.reproduce.figures import write_figures

        for path in write_figures(found, results=results, runs=runs, root=root):
            click.echo(f"figure: {path}")
        click.echo(f"table: {write_readme(results)}")

    if figure:
        draw()
        return 0
    folder = data_root(root)
    for cell in found:
        click.echo(f"{cell.name}: {cell.duration}, budget {budget}")
        result = run_cell(
            cell,
            seeds,
            root=folder,
            results=results,
            runs=runs,
            device=device,
            threads=threads,
            command=command_line(),
            progress=lambda text: Progress(text, "steps", digits=0),
        )
        click.echo(cell_line(cell, result))
        write_readme(results)  # after each: the next one may take hours
    if found[0].table.unit == "reconstruction":  # of which pictures say more than numbers
        draw()
    else:
        click.echo(f"table: {results / 'README.md'}")
    return 0
