"""Pieces of an HTML page that stands alone: no script, nothing from the network."""

import base64
import html
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from vireid_jax.evaluation.ranked_lists import RankedList
from vireid_jax.types import ImageSet, Modality

_POINTS = 300  # of a curve, at most; more are averaged
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _MARGIN = 380, 200, 56, 24, 10  # of a chart, pixels
_TICKS = 4  # intervals of an axis, about

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #687076; --line: #dfe3e6; --back: #fff;
  --curve: #0a6bb5; --right: #18874a; --wrong: #c93a32; --found: #fdecea; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --soft: #9ba1a6; --line: #343a3f; --back: #16191c; --curve: #5cb3f5;
    --right: #42c77c; --wrong: #f2685f; --found: #3d1f1d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back);
  max-width: 1240px; margin: 0 auto; padding: 24px; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 8px; }
p { margin: 4px 0 12px; max-width: 90ch; } .soft, figcaption { color: var(--soft); }
table { border-collapse: collapse; margin: 8px 0 20px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 14px 3px 0; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, .text { text-align: left; } th { font-weight: 600; }
tr.found { background: var(--found); } td.text { max-width: 70ch; }
.wide { overflow-x: auto; } .charts { display: flex; flex-wrap: wrap; gap: 8px 24px; }
figure { margin: 0; } figcaption { font-size: 13px; }
svg text { fill: var(--soft); font-size: 11px; } svg .grid { stroke: var(--line); }
svg .curve { fill: none; stroke: var(--curve); stroke-width: 1.5; stroke-linejoin: round; }
.list { display: flex; gap: 6px; margin: 0 0 14px; overflow-x: auto; }
.list figure { flex: none; text-align: center; } .list figure:first-child { margin-right: 14px; }
.list img { display: block; margin: 0 auto; height: 144px; border: 4px solid var(--line); }
.list .right img { border-color: var(--right); } .list .wrong img { border-color: var(--wrong); }
pre { font-size: 12px; overflow-x: auto; }
"""


def document(title: str, body: Iterable[str]) -> str:
    """The whole page; `title` is text, `body` markup."""
    text = html.escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{text}</title>\n<style>{_STYLE}</style>\n'
        f"</head>\n<body>\n<h1>{text}</h1>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def data_url(pixels: np.ndarray) -> str:
    """uint8 [h, w, 3] as a JPEG, [h, w, 4], which may be transparent, as a PNG."""
    kind, content = "png" if pixels.shape[-1] == 4 else "jpeg", io.BytesIO()
    Image.fromarray(pixels).save(content, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def heading(text: str) -> str:
    """The heading of a section."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str, soft: bool = False) -> str:
    """A paragraph; `soft` for what is said by the way."""
    return f"<p{' class=soft' * soft}>{html.escape(text)}</p>"


def details(summary: str, text: str) -> str:
    """Text as it is, folded away."""
    summary, text = html.escape(summary), html.escape(text)
    return f"<details><summary>{summary}</summary><pre>{text}</pre></details>"


def table(header: Iterable[str], rows: dict[str, list[str]], marked=(), text: bool = False) -> str:
    """A table with names in its first column.

    Args:
      header: of all columns.
      rows: cells by name.
      marked: names of the rows that stand out.
      text: the cells are sentences.
    """
    kind = " class=text" * text
    head = "".join(f"<th{kind}>{html.escape(cell)}</th>" for cell in header)
    lines = [f"<tr>{head}</tr>"]
    for name, cells in rows.items():
        inner = "".join(f"<td{kind}>{html.escape(cell)}</td>" for cell in cells)
        found = " class=found" * (name in marked)
        lines.append(f"<tr{found}><td>{html.escape(name)}</td>{inner}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def charts(curves: dict[str, tuple[list[float], list[float]]]) -> str:
    """One chart beside the other, each with a name: (steps, values)."""
    return f'<div class="charts">{"".join(chart(name, *xy) for name, xy in curves.items())}</div>'


def chart(name: str, steps, values) -> str:
    """A curve over the steps of a run, as SVG."""
    x, y = (_thinned(np.asarray(values, float)) for values in (steps, values))
    ticks_y = _ticks(y.min(), y.max())
    ticks_x = [t for t in _ticks(0, x.max()) if t <= x.max()]
    low, high = ticks_y[0], ticks_y[-1]
    right, bottom = _WIDTH - _MARGIN, _HEIGHT - _BOTTOM

    def across(value):
        return _LEFT + (right - _LEFT) * value / x.max()

    def down(value):
        return bottom - (bottom - _MARGIN) * (value - low) / (high - low)

    parts = []
    for tick in ticks_y:
        at = down(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for tick in ticks_x:
        at = across(tick)
        parts.append(
            f'<text x="{at:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{tick:,.0f}</text>'
        )
    points = " ".join(f"{across(a):.1f},{down(b):.1f}" for a, b in zip(x, y, strict=True))
    parts.append(f'<polyline class="curve" points="{points}"/>')
    label = html.escape(f"{name}: {y[0]:.4g} at step {x[0]:,.0f}, {y[-1]:.4g} at step {x[-1]:,.0f}")
    return (
        f"<figure><figcaption>{html.escape(name)}</figcaption>"
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg></figure>"
    )


def ranked_list(images: ImageSet, ranked: RankedList) -> str:
    """A query and what was found: green frames around its identity, red ones around others."""
    query = ranked.query
    figures = [_picture(images, query, "query", f"query, AP {100 * ranked.ap:.1f} %")]
    for row, similarity in zip(ranked.found, ranked.similarity, strict=True):
        kind = "right" if images.pid[row] == images.pid[query] else "wrong"
        figures.append(_picture(images, row, kind, f"{similarity:.2f}"))
    return f'<div class="list">{"".join(figures)}</div>'


def _picture(images, row, kind, caption):
    modality = Modality(images.modality[row]).name.lower()
    what = f"{kind}: {modality} image of {images.pid[row]}, camera {images.camid[row]}"
    return (
        f'<figure class="{kind}"><img src="{data_url(images.images[row])}" '
        f'alt="{what}" title="{html.escape(f"{what}, {images.path[row]}")}">'
        f"<figcaption>{caption}<br>{images.pid[row]}</figcaption></figure>"
    )


def _thinned(values):
    """Means over equal runs of the values."""
    return np.array([part.mean() for part in np.array_split(values, min(_POINTS, len(values)))])


def _ticks(low, high):
    """Round numbers at equal distances, the first at most `low` and the last at least `high`."""
    span = max(high - low, 1e-9 * abs(high), 1e-12)
    rough = span / _TICKS
    unit = 10.0 ** np.floor(np.log10(rough))
    step = unit * next(m for m in (1, 2, 5, 10) if m * unit >= rough * (1 - 1e-9))
    first, last = np.floor(low / step), np.ceil(high / step)
    return [float(step * n) for n in np.arange(first, max(last, first + 1) + 1)]
