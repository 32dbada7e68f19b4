"""The parts a self-contained page is made of: style, pictures, tables, escaped text."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERCENT = "\N{NO-BREAK SPACE}%"

STYLE = """
:root{color-scheme:light dark;--ink:#1c2321;--paper:#fff;--soft:#59635f;--line:#d5dbd8;
--card:#f3f6f4;--warn:#fff3d6}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6ebe8;--paper:#141817;--soft:#a3aea9;
--line:#39423e;--card:#1f2523;--warn:#46380f}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem 1rem 3rem;max-width:54rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.7rem;line-height:1.2;margin:.6rem 0}
h2{font-size:1.25rem;margin:2.2rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.4rem 0 .4rem}
.note,figcaption,.card small{color:var(--soft);font-size:.9rem}
.warn{background:var(--warn);padding:.6rem .8rem;border-radius:.4rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.7rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.7rem .8rem}
.card b{display:block;font-size:1.7rem;line-height:1.3}.card span,.card small{display:block}
figure{margin:.8rem 0;max-width:40rem}
img{display:block;width:100%;height:auto;background:#fff;border-radius:.4rem;
border:1px solid var(--line)}
figcaption{margin-top:.4rem}audio{width:100%;max-width:40rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.92rem}
th,td{padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--line);text-align:left;
vertical-align:top}
.numbers th,.numbers td{text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:normal;
min-width:5rem}
.numbers th:first-child,.numbers td:first-child{text-align:left;min-width:7rem}
summary{cursor:pointer;padding:.4rem 0}
@media print{body{max-width:none;padding:0}figure,.card,tr{break-inside:avoid}
h2,h3{break-after:avoid}audio{display:none}.cards{grid-template-columns:repeat(4,1fr)}
details::details-content{content-visibility:visible;block-size:auto}}
"""


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


def table_of(rows: Iterable[Sequence[Any]], *, head: Sequence[str] = ()) -> str:
    """Rows of text; with a head, all columns but the first are numbers."""
    cells = "".join(f"<th>{escaped(cell)}</th>" for cell in head)
    lines = [f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return (
        f'<div class="scroll" tabindex="0"><table{" class=numbers" if head else ""}>'
        f"<thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


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
