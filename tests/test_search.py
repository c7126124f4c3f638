"""Search in one's own images: what is found where, kept, ranked, and shown by a browser."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
import trees
import untrained
from PIL import Image

from vireid_jax.data import images, own_images
from vireid_jax.data.heatmaps import JOINTS
from vireid_jax.evaluation import search_page
from vireid_jax.evaluation.feature_store import KEY, FeatureStore
from vireid_jax.training import search, trained
from vireid_jax.types import Modality, UserError

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)


def found(source, modality=Modality.VISIBLE):
    _, entries = own_images.find(source, modality)
    return [(entry.path, entry.pid, entry.camid) for entry in entries]


def test_names_say_who_and_where(tmp_path):
    names = (
        "7/a.jpg",
        "7/b_c3_1.PNG",
        "cam4/9/c.bmp",
        "x/12_c5_001.jpg",
        "x/13_c6.jpg",
        "x/plain.tif",
    )
    for number, name in enumerate(names):
        trees.picture(tmp_path / name, number)
    for name in ("x/notes.txt", "x/.hidden.jpg"):
        (tmp_path / name).write_text("no image")
    assert found(tmp_path, Modality.INFRARED) == [
        ("7/a.jpg", 7, 2),
        ("7/b_c3_1.PNG", 7, 3),
        ("cam4/9/c.bmp", 9, 4),
        ("x/12_c5_001.jpg", 12, 5),
        ("x/13_c6.jpg", 13, 6),
        ("x/plain.tif", own_images.UNKNOWN, 2),
    ]
    assert found(tmp_path / "7" / "b_c3_1.PNG") == [("b_c3_1.PNG", 7, 3)]
    (tmp_path / "camid.csv").write_text("7/a.jpg,8\n")
    assert found(tmp_path)[0] == ("7/a.jpg", 7, 8)


def test_of_the_layout_of_folder_only_the_modality_is_taken(tmp_path):
    root = trees.folder(tmp_path, ids=2, images=1)
    assert found(root) == [("visible/1/1_c3_0.png", 1, 3), ("visible/2/2_c3_0.bmp", 2, 3)]
    assert found(root, Modality.INFRARED) == [
        ("infrared/1/0.png", 1, 2),
        ("infrared/2/0.bmp", 2, 2),
    ]


def test_where_there_are_no_images_it_says_so(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        own_images.find(tmp_path / "nowhere", Modality.VISIBLE)
    with pytest.raises(UserError, match=r"has no image"):
        own_images.find(tmp_path, Modality.VISIBLE)


def keys(*numbers):
    return [bytes([number]) * KEY for number in numbers]


def test_a_feature_is_computed_once_whatever_interrupts(tmp_path):
    asked = []

    def compute(positions):
        asked.append(positions)
        return np.array([[wanted[i][0], -1.0] for i in positions])

    wanted = keys(1, 2, 1, 3)
    rows = FeatureStore(tmp_path, 2).rows(wanted, compute, batch=2)
    assert [len(own) for own in asked] == [2, 1]
    expected = [[1, -1], [2, -1], [1, -1], [3, -1]]
    assert FeatureStore(tmp_path, 2).read(rows).tolist() == expected
    with (tmp_path / "features").open("ab") as file:
        file.write(b"torn off.")  # by a kill before the keys were written
    wanted, asked[:] = keys(3, 4, 1), []
    store = FeatureStore(tmp_path, 2)
    rows = store.rows(wanted, compute, batch=2)
    assert asked == [[1]]
    assert store.read(rows).tolist() == [[3, -1], [4, -1], [1, -1]]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A run, a folder of images, and the page of a search of it by the script."""
    folder = tmp_path_factory.mktemp("search")
    run = untrained.run(folder / "run")
    root = trees.folder(folder / "images", ids=4, images=2)
    trees.picture(root / "visible" / "unnamed" / "<odd> & _c7.jpg", 0)
    page = folder / "page.html"
    command = [sys.executable, "scripts/search.py", f"--query={root}", f"--gallery={root}"]
    command += [f"--checkpoint={run}", "--top=9", f"--output={page}"]
    subprocess.run(command, cwd=ROOT, check=True)
    return run, root, page


def test_the_page_lists_the_nearest_by_the_runs_features(searched):
    run, root, page = searched
    network = trained.load(run)
    features = {}
    for modality in Modality:
        _, entries = own_images.find(root, modality)
        decoded = [images.resized((root / e.path).read_bytes(), *network.size) for e in entries]
        embed = jax.jit(network.embed(modality))
        values = embed(network.variables, np.stack(decoded))["f_ALL"]
        features[modality] = [e.path for e in entries], np.asarray(values, float)
    queries, asked = features[Modality.INFRARED]
    gallery, own = features[Modality.VISIBLE]
    similarity = asked @ own.T
    order = np.argsort(-similarity, 1)
    text = page.read_text()
    sections = text.split("<section")[1:]
    assert len(sections) == len(queries) == 8
    for number, section in enumerate(sections):
        near = order[number]
        assert f'alt="Query {number + 1}: {queries[number]}, camera 2' in section
        shown = re.findall(r'alt="Result \d: (.*?), camera', section)
        assert [name.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
                for name in shown] == [gallery[row] for row in near]  # fmt: skip
        distances = [float(x) for x in re.findall(r'<data value="(.*?)"', section)]
        lengths = 25 * 12  # of 12 parts, each of length 5
        np.testing.assert_allclose(distances, 1 - similarity[number, near] / lengths, atol=1e-5)
        pid = queries[number].split("/")[1]
        classes = re.findall(r'<li class="(.*?)"', section)
        assert classes == [
            "" if "unnamed" in name else "right" if name.split("/")[1] == pid else "wrong"
            for name in (gallery[row] for row in near)
        ]
        means = [
            np.mean([float(x) for x in re.findall(r"-?\d\.\d\d", label)])
            for label in re.findall(
                r'aria-label="Similarity of parts from the top: (.*?)"', section
            )
        ]
        np.testing.assert_allclose(1 - np.array(means), distances, atol=0.005)
    assert text.count('class="pose" src="data:image/png') == 8 * (1 + 9)
    assert "http:" not in text
    assert "https:" not in text


def test_a_second_search_embeds_only_what_is_new(searched, monkeypatch):
    run, root, _ = searched
    trees.picture(root / "visible" / "1" / "new.png", 99)
    embedded = []
    embed = search.Images._embed

    def counted(self, numbers):
        embedded.extend(self.entries[number].path for number in numbers)
        return embed(self, numbers)

    monkeypatch.setattr(search.Images, "_embed", counted)
    network = trained.load(run)
    search.Images(network, str(root), Modality.VISIBLE, run / "features")
    assert embedded == ["visible/1/new.png"]
    (root / "visible" / "1" / "new.png").unlink()


def opened(file, script=""):
    """What Chromium makes of a page, and what it reports on the console."""
    if script:
        file = shutil.copy(file, file.with_name("with_script.html"))
        file.write_text(file.read_text().replace("</body>", f"<script>{script}</script></body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    options += [f"--user-data-dir={file.parent / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *options, file.as_uri()], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_a_browser_shows_the_page_without_errors_and_filters_by_camera(searched):
    *_, page = searched
    dom, errors = opened(page)
    assert not errors
    assert "72 of 72 results shown" in dom
    dom, errors = opened(page, "document.querySelector(\"input[value='3']\").click()")
    assert not errors
    assert "40 of 72 results shown" in dom
    assert re.findall(r'<li class="\w*" data-camera="(\d)" hidden="">', dom) == ["3"] * 32
    measured = (
        "document.title = [...document.images].filter(x => !x.naturalWidth).length + ' broken, ' +"
        "document.querySelector('.picture .pose').checkVisibility();"
        "document.getElementById('pose').click();"
        "document.title += document.querySelector('.picture .pose').checkVisibility()"
    )
    dom, errors = opened(page, f"onload = () => {{ {measured} }}")
    assert not errors
    assert "<title>0 broken, falsetrue</title>" in dom
    for mistake in ("nowhere()", 'new Image().src = "http://localhost/x.png"'):
        assert opened(page, mistake)[1]


def test_joints_are_marked_where_their_maps_are_highest():
    maps = np.zeros((2, 12, 6, len(JOINTS)), np.float32)
    maps[0, 3, 4, JOINTS.index("head_top")] = 0.9
    maps[1, 11, 0, JOINTS.index("l_ankle")] = 0.05  # too faint
    (joints, none) = search._joints(maps)
    assert joints.keys() == {"head_top"}
    assert joints["head_top"] == pytest.approx((4.5 / 6, 3.5 / 12), abs=0.03)
    assert none == {}
    assert search._joints(maps[..., :1]) == [{}, {}]
    shown = search_page.Picture("a.png", None, 1, "data:,", "data:,", joints)
    hit = search_page.Hit(shown, np.ones((2, 6)))
    text = search_page.page("title", {}, [search_page.Query(shown, [hit])])
    assert text.count("<title>head_top</title>") == 2
    assert 'class=""' in text  # neither right nor wrong


def test_a_network_without_pose_branch_shows_none(tmp_path):
    run = untrained.run(tmp_path / "run", "baseline")
    root = trees.folder(tmp_path / "images", ids=1, images=2)
    network = trained.load(run)
    both = [search.Images(network, str(root), m, tmp_path / "cache") for m in Modality]
    lists = search.search(*both, 5)
    assert [len(own.hits) for own in lists] == [2, 2]
    assert lists[0].hits[0].cosine.shape == (1, 6)
    text = search_page.page("title", {}, lists)
    assert 'id="pose"' not in text
    assert "pose branch" not in text


def test_mistakes_end_with_a_message(searched, tmp_path):
    run, root, _ = searched

    def refusal(**flags):
        flags = {"query": root, "gallery": root, "checkpoint": run} | flags
        command = [sys.executable, "scripts/search.py"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        return done.stderr

    assert "none does not exist" in refusal(query=tmp_path / "none")
    with pytest.raises(UserError, match=r"use a lower --top, or a part of the queries"):
        search_page.check_count(501, 10)
    Image.new("RGB", (8, 16)).save(tmp_path / "torn.png")
    whole = (tmp_path / "torn.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"torn\.png is no readable image"):
        search.Images(trained.load(run), str(tmp_path), Modality.VISIBLE, tmp_path / "cache")


def test_another_checkpoint_has_features_of_its_own(searched, tmp_path):
    run, root, _ = searched
    config = tiny.get_config()
    untrained.save(tmp_path / "run", config, seed=1)
    before = sorted(x.name for x in (run / "features").iterdir())
    search.Images(trained.load(tmp_path / "run"), str(root), Modality.VISIBLE, run / "features")
    after = sorted(x.name for x in (run / "features").iterdir())
    assert len(after) == len(before) + 1 == 3
