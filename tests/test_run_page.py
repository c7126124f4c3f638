"""report.html stands alone, says what the run's files say, and opens in a browser."""

import contextlib
import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from vireid_jax.evaluation import page, ranked_lists
from vireid_jax.evaluation.protocols import Protocol, Trial
from vireid_jax.training import train
from vireid_jax.training.workdir import Log, read_lines
from vireid_jax.types import ImageSet

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(html.parser.HTMLParser):
    """The elements and the text of a page; tags that are not closed in order fail."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """The folder of a run of the tiny experiment, its results and its page."""
    folder = tmp_path_factory.mktemp("page") / "run"
    results = train.train(tiny(), str(folder))
    return folder, results, (folder / "report.html").read_text()


def assert_stands_alone(found):
    """Nothing is loaded, no code is run."""
    assert not found.all("script")
    for _, attrs in found.elements:
        for key in ("src", "href"):
            assert (attrs.get(key) or "data:").startswith("data:")


def test_the_page_has_the_figures_and_a_curve_for_each_term(run):
    folder, results, text = run
    found = Page(text)
    assert_stands_alone(found)
    for feature in ("f_ID", "f_ALL"):
        for value in results["protocols"]["all-seeded"][feature].values():
            assert f"{value['mean']:.2f} ± {value['std']:.2f}" in found.text
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    curves = [svg["aria-label"] for svg in found.all("svg")]
    for name, term in (("L, weighted", "loss"), ("L_id", "identity"), ("L_pose", "pose")):
        assert any(re.match(f"{name}: .* {last[term]:.4g} at step 4$", x) for x in curves)
    names = [label.split(":")[0] for label in curves]
    assert names[:5] == ["L, weighted", "L_id", "L_hctri", "L_pose", "L_KD"]
    assert names[5] == "learning rate"
    assert names[6].startswith("steps per second, median ")
    assert '"batch"' in found.text  # config.json


def test_the_page_shows_ranked_lists_of_both_kinds(run):
    _, _, text = run
    found = Page(text)
    kinds = [figure.get("class") for figure in found.all("figure") if "class" in figure]
    assert kinds.count("query") == 8  # one for each of 4 identities, best and worst
    assert kinds[1] == "right"
    assert "wrong" in kinds
    assert len(found.all("img")) == len(kinds)


def test_throughput_is_logged_apart_and_continues(tmp_path):
    def log(steps, after):
        with contextlib.closing(Log(tmp_path, after)) as opened:
            for step in steps:
                opened.write(step, {"loss": 1.0})
                opened.time(step)

    log((10, 20, 30), after=0)  # the first interval holds a compilation
    log((30, 40), after=20)
    rates = read_lines(tmp_path / "throughput.jsonl")
    assert [line["step"] for line in rates] == [20, 40]
    assert all(line["steps_per_second"] > 0 for line in rates)
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [10, 20, 30, 40]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_opens_it_without_a_complaint(run, tmp_path):
    *_, text = run
    probe = """<script>
      addEventListener('load', () => {
      const broken = [...document.images].filter(x => !x.complete || !x.naturalWidth).length;
      const curves = [...document.querySelectorAll('polyline')];
      const empty = curves.filter(x => !x.getBoundingClientRect().width).length;
      console.warn(`probed ${document.images.length} ${broken} ${curves.length} ${empty}`);
      });
    </script></body>"""
    (tmp_path / "report.html").write_text(text.replace("</body>", probe))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    done = subprocess.run(
        [*command, "--dump-dom", f"file://{tmp_path / 'report.html'}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(said) == 1, said  # the probe's own
    numbers = re.search(r"probed (\d+) (\d+) (\d+) (\d+)", said[0])
    images, broken, curves, empty = map(int, numbers.groups())
    assert (images, curves) == (len(Page(text).all("img")), 7)
    assert (broken, empty) == (0, 0)


# Pieces


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0, 0.5, 1]),
        (31.2, 69.9, [30, 40, 50, 60, 70]),
        (0.03, 0.2, [0, 0.05, 0.1, 0.15, 0.2]),
        (-3.0, 1.0, [-3, -2, -1, 0, 1]),
        (5.0, 5.0, None),
        (0.0, 0.0, None),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low, high, ticks):
    found = page._ticks(low, high)
    assert found[0] <= low <= high <= found[-1]
    assert len(found) >= 2
    if ticks:
        assert found == pytest.approx(ticks)


def test_a_long_curve_is_averaged():
    steps = np.arange(1, 10_001)
    drawn = page.chart("L", steps, np.full(len(steps), 2.0))
    points = re.search('points="(.*?)"', drawn)[1].split()
    assert len(points) == 300
    assert len({point.split(",")[1] for point in points}) == 1


def test_the_best_and_the_worst_queries_by_hand():
    pid = np.array([1, 1, 2, 3, 1, 2, 3])  # four queries, then the gallery
    images = ImageSet(np.zeros((7, 4, 2, 3), np.uint8), pid, np.ones(7), pid, np.arange(7))
    feature = np.zeros((7, 3), np.float32)
    feature[4:] = np.eye(3)
    feature[0] = 5, 4, 3  # AP 1
    feature[1] = 4, 5, 3  # AP 1/2
    feature[2] = 5, 3, 4  # AP 1/3
    feature[3] = 4, 3, 5  # AP 1
    trial = Trial(np.arange(4), np.arange(4, 7))
    best, worst = ranked_lists.best_and_worst(feature, images, Protocol("all", (trial,)), 2, 2)
    assert [(x.query, x.ap) for x in best] == [(3, 1), (0, 1)]
    assert [(x.query, x.ap) for x in worst] == [(2, pytest.approx(1 / 3)), (1, 0.5)]
    np.testing.assert_array_equal(worst[0].found, [4, 6])
    np.testing.assert_allclose(worst[0].similarity, np.array([5, 4]) / np.sqrt(50))
    excluded = Protocol("all", (trial,), same_camera=False)
    assert ranked_lists.best_and_worst(feature, images, excluded, 2, 2) == ([], [])
