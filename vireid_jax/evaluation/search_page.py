"""Ranked lists as one HTML file that needs neither a server nor the network."""

import dataclasses
import html
from string import Template

import numpy as np

from vireid_jax.evaluation.page import data_url
from vireid_jax.types import UserError

BRANCHES = ("identity", "pose")
_MOST = 5_000  # results on a page; more than 100 MB are slow to open
_HOT = (255, 64, 0)


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image on the page.

    Attributes:
      path: of its file.
      pid: None where it is not known.
      camid: of its camera.
      image: a data URL.
      heat: a data URL of the keypoint heatmap, or None.
      joints: {joint: (x, y)}, as fractions of the image's size.
    """

    path: str
    pid: int | None
    camid: int
    image: str
    heat: str | None
    joints: dict[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Hit:
    """A gallery image in a query's list.

    Attributes:
      picture: of it.
      cosine: float [branches, P], the similarity of each part to the query's.
    """

    picture: Picture
    cosine: np.ndarray

    @property
    def distance(self) -> float:
        """1 - the mean cosine, 0 to 2. All parts have one length, so it orders as the product."""
        return 1 - float(self.cosine.mean())


@dataclasses.dataclass(frozen=True)
class Query:
    """A query with its list, nearest first."""

    picture: Picture
    hits: list[Hit]

    def right(self, hit: Hit) -> bool | None:
        """Whether both are of one identity; None where either's is not known."""
        pids = self.picture.pid, hit.picture.pid
        return None if None in pids else pids[0] == pids[1]


def check_count(queries: int, count: int) -> None:
    """Refuses what no page could show.

    Raises:
      UserError: too many results.
    """
    if queries * count > _MOST:
        raise UserError(
            f"{queries} queries with {count} results each are more than the {_MOST:,} that a page "
            "can show: use a lower --top, or a part of the queries"
        )


def heat(heatmap: np.ndarray) -> str:
    """Float [h, w] in 0..1 as the data URL of an image that is opaque where it is hot."""
    pixels = np.empty((*heatmap.shape, 4), np.uint8)
    pixels[..., :3] = _HOT
    pixels[..., 3] = np.round(230 * heatmap)
    return data_url(pixels)


def page(title: str, facts: dict[str, str], queries: list[Query]) -> str:
    """The whole file.

    Args:
      title: its heading.
      facts: what made it, by name.
      queries: at least one.
    """
    cameras = sorted({hit.picture.camid for query in queries for hit in query.hits})
    facts = facts | _first_results(queries)
    everything = [p for q in queries for p in (q.picture, *(hit.picture for hit in q.hits))]
    posed = any(p.heat for p in everything)
    return _PAGE.substitute(
        title=html.escape(title),
        facts="".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
            for name, value in facts.items()
        ),
        cameras="".join(
            f'<label><input type="checkbox" name="camera" value="{camid}" checked> {camid}</label>'
            for camid in cameras
        ),
        pose='<label><input type="checkbox" id="pose"> Keypoint heatmaps</label>' if posed else "",
        legend=_legend(queries),
        queries="\n".join(_query(number, query) for number, query in enumerate(queries, 1)),
    )


def _first_results(queries):
    """How often a right result comes first, among queries whose identity is known."""
    known = [[query.right(hit) for hit in query.hits] for query in queries]
    known = [own for own in known if any(right is not None for right in own)]
    if not known:
        return {}
    top = max(map(len, known))
    first, among = (sum(True in own[:count] for own in known) for count in (1, top))
    return {
        "Right identity": f"the first result for {first} of {len(known)} queries, one of the first "
        f"{top} for {among}"
    }


def _legend(queries):
    branches = len(next((hit.cosine for query in queries for hit in query.hits), ()))
    bars = [f'<span class="key {branch}"></span> {branch}' for branch in BRANCHES[:branches]]
    return f"Bars: similarity of each horizontal part of the image, {' and '.join(bars)} branch."


def _query(number, query):
    asked = query.picture
    return f"""<section aria-labelledby="query{number}">
<figure class="query">{_picture(f"Query {number}", asked)}
<figcaption><h2 id="query{number}">Query {number}</h2>{_origin(asked)}</figcaption></figure>
<ol class="results">
{"".join(_hit(rank, query, hit) for rank, hit in enumerate(query.hits, 1))}</ol>
</section>"""


def _hit(rank, query, hit):
    right = query.right(hit)
    verdict = {True: "right", False: "wrong", None: ""}[right]
    sign = {True: "✓ right", False: "✗ wrong", None: ""}[right]
    shown = hit.picture
    return f"""<li class="{verdict}" data-camera="{shown.camid}"><figure>
<div class="pair">{_picture(f"Result {rank}", shown)}{_bars(hit.cosine)}</div>
<figcaption><b>{rank}</b> <data value="{hit.distance:.6f}">{hit.distance:.3f}</data>
<span class="verdict">{sign}</span>{_origin(shown)}</figcaption></figure></li>
"""


def _origin(shown):
    path = html.escape(shown.path)
    identity = "" if shown.pid is None else f"identity {shown.pid}, "
    return (
        f'<span class="origin">{identity}camera&nbsp;{shown.camid}</span>'
        f'<span class="origin path" title="{path}">{path.rsplit("/", 1)[-1]}</span>'
    )


def _picture(role, shown):
    identity = "" if shown.pid is None else f", identity {shown.pid}"
    alt = html.escape(f"{role}: {shown.path}, camera {shown.camid}{identity}")
    layers = [f'<img src="{shown.image}" alt="{alt}" decoding="async">']
    if shown.heat:
        layers.append(f'<img class="pose" src="{shown.heat}" alt="its keypoint heatmap">')
    if shown.joints:
        dots = "".join(
            f'<circle cx="{100 * x:.1f}" cy="{200 * y:.1f}" r="3"><title>{joint}</title></circle>'
            for joint, (x, y) in shown.joints.items()
        )
        layers.append(
            '<svg class="pose" viewBox="0 0 100 200" preserveAspectRatio="none" role="img" '
            f'aria-label="its keypoints">{dots}</svg>'
        )
    return f'<div class="picture">{"".join(layers)}</div>'


def _bars(cosine):
    """Of each part, from the top, a bar for each branch, beside the part."""
    label = "; ".join(
        f"{branch} {', '.join(f'{x:.2f}' for x in own)}"
        for branch, own in zip(BRANCHES, cosine, strict=False)
    )
    height = 200 / cosine.shape[1]
    thick = 0.8 * height / len(cosine)
    bars = "".join(
        f'<rect class="{BRANCHES[branch]}" y="{part * height + 0.1 * height + branch * thick:.1f}" '
        f'width="{max(0.0, 100 * x):.1f}" height="{thick:.1f}"/>'
        for branch, own in enumerate(cosine.tolist())
        for part, x in enumerate(own)
    )
    label = f"Similarity of parts from the top: {label}"
    return (
        f'<svg class="bars" viewBox="0 0 100 200" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}"><title>{label}</title>{bars}</svg>'
    )


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
  style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title>
<style>
:root {
  color-scheme: light dark;
  --quiet: light-dark(#5c6166, #a2a8ae);
  --line: light-dark(#dcdfe3, #3b4046);
  --right: light-dark(#17724a, #4fc58f);
  --wrong: light-dark(#b3291c, #ff8f80);
  --identity: light-dark(#2f5fb3, #8fb4f5);
  --pose: light-dark(#a06a12, #e5b765);
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 100rem; padding: 1.5rem; font: 15px/1.4 system-ui, sans-serif }
h1 { font-size: 1.5rem; font-weight: 600; margin: 0 0 1rem }
h2 { font-size: 1rem; font-weight: 600; margin: 0 }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 0 0 1rem }
dt, .origin, .legend, output { color: var(--quiet); font-size: .85rem }
dd { margin: 0 }
form { display: flex; flex-wrap: wrap; gap: .5rem 2rem; align-items: center; padding: .75rem 0;
  border-block: 1px solid var(--line); position: sticky; top: 0; background: Canvas; z-index: 1 }
fieldset { border: 0; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem }
legend { float: left; padding: 0 }
section { display: flex; gap: 1.5rem; padding: 1.5rem 0; border-bottom: 1px solid var(--line) }
figure { margin: 0; width: 10rem }
.query { width: 7rem; flex: none }
.results { display: flex; flex-wrap: wrap; gap: 1rem; list-style: none; margin: 0; padding: 0 }
.results > li { border: 1px solid var(--line); border-radius: .4rem; padding: .4rem }
.results > .right { border: 2px solid var(--right) }
.results > .wrong { border-color: var(--wrong); border-style: dashed }
.right .verdict { color: var(--right) }
.wrong .verdict { color: var(--wrong) }
.pair { display: flex; gap: .3rem }
.picture { position: relative; width: 7rem; flex: none }
.picture > * { display: block; width: 100%; border-radius: .2rem }
.picture .pose { position: absolute; inset: 0; height: 100% }
.bars { flex: 1; width: 0; height: auto; background: var(--line) }
.identity { fill: var(--identity); background: var(--identity) }
rect.pose { fill: var(--pose) }
.key { display: inline-block; width: .7em; height: .7em }
.key.pose { background: var(--pose) }
circle { fill: #ff4000; stroke: #fff }
.origin { display: block }
.path { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
body:not(:has(#pose:checked)) .picture .pose { display: none }
[hidden] { display: none }
@media (max-width: 40rem) { section { display: block } .query { margin-bottom: 1rem } }
</style>
</head>
<body>
<header>
<h1>$title</h1>
<dl>$facts</dl>
<p class="legend">$legend</p>
</header>
<form>
<fieldset><legend>Cameras</legend>$cameras</fieldset>
$pose
<output></output>
</form>
<main>
$queries
</main>
<script>
const boxes = [...document.getElementsByName("camera")];
const results = [...document.querySelectorAll(".results > li")];
function filter() {
  const chosen = boxes.filter(box => box.checked).map(box => box.value);
  for (const result of results) result.hidden = !chosen.includes(result.dataset.camera);
  const shown = results.filter(result => !result.hidden).length;
  document.querySelector("output").textContent = shown + " of " + results.length + " results shown";
}
for (const box of boxes) box.addEventListener("change", filter);
filter();
</script>
</body>
</html>
""")
