"""The parts a self-contained page is made of: style, pictures, tables, escaped text."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birdinv.errors import BirdinvError
from birdinv.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERCENT = "\N{NO-BREAK SPACE}%"

STYLE = """
:root{color-scheme:light dark;--ink:#1c2321;--paper:#fff;--soft:#59635f;--line:#d5dbd8;
--card:#f3f6f4;--warn:#fff3d6;--edge:#0005}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6ebe8;--paper:#141817;--soft:#a3aea9;
--line:#39423e;--card:#1f2523;--warn:#46380f;--edge:#fff7}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem 1rem 3rem;max-width:54rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.7rem;line-height:1.2;margin:.6rem 0}
h2{font-size:1.25rem;margin:2.2rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.4rem 0 .4rem}
.note,figcaption,.card small{color:var(--soft);font-size:.9rem}
.warn{background:var(--warn);padding:.6rem .8rem;border-radius:.4rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.6rem,1fr));gap:.7rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.7rem .8rem}
.card b{display:block;font-size:1.7rem;line-height:1.3}.card span,.card small{display:block}
figure{margin:.8rem 0;max-width:40rem}
img{display:block;width:100%;height:auto;background:#fff;border-radius:.4rem;
border:1px solid var(--line)}
figcaption{margin-top:.4rem}audio{width:100%;max-width:40rem}
.scroll{overflow-x:auto;background:linear-gradient(90deg,var(--paper) 40%,#0000) 0/3rem 100% local,
linear-gradient(270deg,var(--paper) 40%,#0000) 100%/3rem 100% local,
linear-gradient(90deg,var(--edge),#0000) 0/.8rem 100%,
linear-gradient(270deg,var(--edge),#0000) 100%/.8rem 100%;background-repeat:no-repeat}
table{border-collapse:collapse;font-size:.92rem}
th,td{padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--line);text-align:left;
vertical-align:top}
.numbers th,.numbers td{text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:normal;
min-width:5rem}
.numbers th:first-child,.numbers td:first-child{text-align:left;min-width:7rem}
summary{cursor:pointer;padding:.4rem 0}
.words td{min-width:6.5rem}.words td:first-child{min-width:14rem}
.words td:nth-child(3){min-width:15rem}.words td:last-child{white-space:nowrap}
.heat{width:100%;table-layout:fixed}
.heat th,.heat td{padding:.2rem 0;border:1px solid var(--paper);font-size:.75rem;text-align:center;
vertical-align:middle;font-variant-numeric:tabular-nums;overflow-wrap:normal}
.heat th:first-child{width:7.5rem;padding-right:.3rem;text-align:left;overflow-wrap:anywhere}
.heat .none{background:var(--line)}.heat .h0{color:var(--soft)}.heat .h1{background:#0072b21f}
.heat .h2{background:#0072b240}.heat .h3{background:#0072b266}.heat .h4{background:#0072b299}
.heat .h5{background:#0072b2;color:#fff}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1.1rem}
.tiles figure{margin:0;min-width:0}.tiles audio{display:block;height:2.4rem;margin-top:.3rem}
.tiles figcaption{line-height:1.35}.tiles figcaption b{color:var(--ink)}
.tiles .gone{margin:0;padding:.8rem;background:var(--card);border-radius:.4rem}
.plot{display:flex;gap:.35rem}.plot img{flex:1;min-width:0;height:9rem}
.plot div{display:flex;flex-direction:column;justify-content:space-between;min-width:1.2rem;
font-size:.75rem;line-height:1;color:var(--soft);text-align:right}
.jump a{display:inline-block;margin-right:.9rem;padding:.2rem 0;color:inherit}
@media screen and (max-width:30rem){.numbers th,.numbers td{min-width:3.5rem;padding-right:.4rem;
font-size:.85rem}.numbers th:first-child,.numbers td:first-child{min-width:5.5rem}}
@media screen and (max-width:40rem){.words,.words tbody{display:block}.words thead{display:none}
.words tr{display:grid;grid-template-columns:auto 1fr;column-gap:.8rem;padding:.4rem 0;
border-bottom:1px solid var(--line)}.words td{min-width:0!important;padding:0;border:0}
.words td:first-child{grid-column:1/3;font-weight:600}.words td:nth-child(3){grid-area:3/1/4/3}
.words td:last-child::before{content:"Read: "}}
@media screen and (max-width:54rem){.scroll:has(.heat){overflow:visible;background:none}
.heat,.heat tbody{display:block}.heat thead{display:block;position:sticky;top:0}
.heat tr{display:grid;grid-template-columns:repeat(12,minmax(0,1fr));background:var(--paper);
padding:.15rem 0}.heat th:first-child{grid-column:1/-1;width:auto;font-size:.85rem}}
@media print{body{max-width:none;padding:0}figure,.card,tr{break-inside:avoid}
h2,h3{break-after:avoid}audio{display:none}.cards{grid-template-columns:repeat(4,1fr)}
details::details-content{content-visibility:visible;block-size:auto}}
"""


_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def write_page(path: Path, title: str, body: Iterable[str]) -> Path:
    """Write a page of its own at `path`, whole or not at all, and return the path.

    Args:
        title: plain text, the heading as well.
        body: pieces of markup; those that are empty are left out.

    Raises:
        BirdinvError: the page cannot be written.
    """
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)}</title><style>{STYLE}</style></head><body>
<h1>{escaped(title)}</h1>
{chr(10).join(part for part in body if part)}
</body></html>
"""
    try:
        with whole_file(path, "wb") as file:
            # A file name that is no valid Unicode must not keep the page from being written.
            file.write(page.encode("utf-8", "replace"))
    except OSError as error:
        raise BirdinvError(
            f"{path}: cannot write the report ({error.strerror or error}); make room or the folder "
            "writable and run again."
        ) from error
    return path


def card(name: str, value: str, detail: str, meaning: str) -> str:
    """A number in large type, with markup above and below it."""
    return (
        f'<div class="card"><span>{name}</span><b>{value}</b><span>{detail}</span>'
        f"<small>{meaning}</small></div>"
    )


def cards_of(cards: Iterable[str]) -> str:
    """Cards side by side, as many as the screen is wide."""
    return f'<div class="cards">{"".join(cards)}</div>'


def origin_of(facts: Mapping[str, Any], groups: Mapping[str, str], *, is_open: str = "") -> str:
    """What `run.json` says, in tables to unfold: a group for each key in `groups`, then the rest.

    Args:
        groups: key of `facts` → name of its table.
        is_open: the name of the table that is unfolded from the start.
    """
    parts = ["<h2>Settings and origin</h2>"]
    origin = {key: value for key, value in facts.items() if key not in groups}
    tables = {name: mapping(facts.get(key)) for key, name in groups.items()} | {"Origin": origin}
    for name, values in tables.items():
        rows = [(key.replace("_", " "), value) for key, value in values.items()]
        table = table_of(rows) if rows else "<p>Nothing of this is in run.json.</p>"
        unfolded = " open" if name == is_open else ""
        parts.append(f"<details{unfolded}><summary>{name}</summary>{table}</details>")
    return "\n".join(parts)


def picture_of(figure: Figure, alt: str, note: str) -> str:
    """The figure as an embedded PNG; `note` under it tells how to read it."""
    png = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the tables spell it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    image = f'<img src="{data_uri("image/png", png)}" alt="{escaped(alt)}">'
    return f"<figure>{image}<figcaption>{note}</figcaption></figure>"


def data_uri(kind: str, content: io.BytesIO) -> str:
    """The content as a URI, so that the page needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def table_of(
    rows: Iterable[Sequence[Any]], *, head: Sequence[str] = (), numbers: bool = True
) -> str:
    """Rows of text; with a head, all columns but the first are numbers, unless told otherwise."""
    kind = "" if not head else " class=numbers" if numbers else " class=words"
    cells = "".join(f"<th>{escaped(cell)}</th>" for cell in head)
    lines = [f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return (
        f'<div class="scroll" tabindex="0"><table{kind}>'
        f"<thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def heat_of(rows: Iterable[tuple[str, Sequence[int | None]]], *, head: Sequence[str]) -> str:
    """A row of counts per name, shaded by the share of the row's largest; None is a grey cell."""
    lines = []
    for name, counts in rows:
        most = max((count or 0 for count in counts), default=0)
        cells = []
        for count in counts:
            if count is None:
                cells.append('<td class="none"></td>')
                continue
            shade = -(-5 * count // most) if most else 0  # rounded up: only nothing is unshaded
            cells.append(f'<td class="h{shade}" title="{count}">{short(count)}</td>')
        lines.append(f'<tr><th scope="row">{escaped(name)}</th>{"".join(cells)}</tr>')
    heads = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in head)
    return (
        '<div class="scroll" tabindex="0"><table class="heat">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def short(count: int) -> str:
    """A count in at most four characters, for narrow cells: 998, 1.2k, 35k, 1.2M."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if count >= unit - unit // 2000:  # what would be rounded up to it
            scaled = count / unit
            return f"{scaled:.1f}{name}" if scaled < 9.95 else f"{scaled:.0f}{name}"
    return str(count)


def number(value: Any, *, percent: bool = False) -> str:
    """A number as people read it; a dash for null and for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if percent:
        return f"{100 * value:.1f}{PERCENT}"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is an object of JSON, an empty one otherwise."""
    return value if isinstance(value, dict) else {}


def escaped(value: Any) -> str:
    """Any value as escaped text for an element or a quoted attribute."""
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    return html.escape(str(value), quote=True)
