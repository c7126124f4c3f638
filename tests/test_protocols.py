"""Who is searched for among whom, and the table that comes of it."""

import random
from collections import Counter

import numpy as np
import pytest
import trees

from vireid_jax.evaluation.protocols import (
    evaluate,
    llcm_protocols,
    official_galleries,
    protocols_for,
    regdb_protocols,
    sysu_protocols,
)
from vireid_jax.types import ImageSet, Modality, UserError

INFRARED_CAMERAS = (3, 6)


def image_set(shots, shuffle=True):
    """An image set from {(pid, camid): number of images}, its rows in random order."""
    rows = [
        (pid, camid, f"cam{camid}/{pid:04d}/{shot:04d}.jpg")
        for (pid, camid), count in shots.items()
        for shot in range(1, count + 1)
    ]
    if shuffle:
        random.Random(1).shuffle(rows)
    pid, camid, path = map(np.array, zip(*rows, strict=True))
    return ImageSet(
        images=np.zeros((len(rows), 4, 2, 3), np.uint8),
        pid=pid.astype(np.int32),
        camid=camid.astype(np.int32),
        modality=np.isin(camid, INFRARED_CAMERAS).astype(np.int32),
        path=path,
    )


@pytest.fixture
def sysu():
    cameras = {6: (1, 2, 3, 4, 5, 6), 10: (2, 4, 3), 17: (5, 6), 21: (1, 3, 6)}
    counts = {1: 32, 2: 26, 3: 4, 4: 16, 5: 16, 6: 5}
    return image_set({(pid, cam): counts[cam] for pid in cameras for cam in cameras[pid]})


def by_name(protocols):
    return {protocol.name: protocol for protocol in protocols}


def test_sysu_queries_and_galleries(sysu):
    protocols = by_name(sysu_protocols(sysu))
    assert list(protocols) == ["all-seeded", "indoor-seeded"]
    expected = {
        "all-seeded": [(6, 1), (6, 2), (6, 4), (6, 5), (10, 2), (10, 4), (17, 5), (21, 1)],
        "indoor-seeded": [(6, 1), (6, 2), (10, 2), (21, 1)],
    }
    for name, protocol in protocols.items():
        assert len(protocol.trials) == 10
        assert protocol.cmc_on == "identities"
        assert protocol.excluded == ((3, 2),)
        for trial in protocol.trials:
            infrared = np.flatnonzero(np.isin(sysu.camid, INFRARED_CAMERAS))
            np.testing.assert_array_equal(np.sort(trial.query), infrared)
            drawn = zip(sysu.pid[trial.gallery], sysu.camid[trial.gallery], strict=True)
            assert list(drawn) == expected[name]  # one image per (pid, camid)
        assert len({trial.gallery.tobytes() for trial in protocol.trials}) > 1


@pytest.mark.parametrize(("name", "cameras"), [("all", (1, 2, 4, 5)), ("indoor", (1, 2))])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_published_drawing_rule(sysu, name, cameras, seed):
    trial = by_name(sysu_protocols(sysu))[f"{name}-seeded"].trials[seed]
    random.seed(seed)
    expected = []
    for pid in (6, 10, 17, 21):
        for camera in cameras:
            files = sorted(p for p in sysu.path if p.startswith(f"cam{camera}/{pid:04d}/"))
            if files:
                expected.append(random.choice(files))
    assert list(sysu.path[trial.gallery]) == expected


def test_drawing_is_frozen(sysu):
    trial = by_name(sysu_protocols(sysu))["all-seeded"].trials[0]
    assert list(sysu.path[trial.gallery][:4]) == [
        "cam1/0006/0025.jpg",
        "cam2/0006/0025.jpg",
        "cam4/0006/0014.jpg",
        "cam5/0006/0002.jpg",
    ]


@pytest.mark.parametrize("cameras", [(1, 2), (4, 5)])
def test_indoor_search_only_where_it_differs(cameras):
    shots = {(pid, cam): 2 for pid in (1, 2) for cam in (*cameras, 3)}
    assert list(by_name(sysu_protocols(image_set(shots)))) == ["all-seeded"]


def test_multi_shot_galleries_hold_ten_images_or_all(sysu):
    single, multi = sysu_protocols(sysu, shots=(1, 10))[::2]
    assert (single.name, multi.name) == ("all-seeded", "all-seeded-multi10")
    available = Counter(zip(sysu.pid.tolist(), sysu.camid.tolist(), strict=True))
    for trial in multi.trials:
        own = zip(sysu.pid[trial.gallery].tolist(), sysu.camid[trial.gallery].tolist(), strict=True)
        drawn = Counter(own)
        assert len(set(trial.gallery)) == len(trial.gallery)
        assert drawn == {k: min(10, n) for k, n in available.items() if k[1] in (1, 2, 4, 5)}


@pytest.fixture
def rand_perm_cam(tmp_path):
    """A tree's images and its index file, with the permutations that are in it."""
    trees.sysu(tmp_path)
    shots = {(p, c): 3 for p in trees.SYSU_IDS["test"] for c in trees.SYSU_CAMERAS[p]}
    return image_set(shots), tmp_path / "exp" / "rand_perm_cam.mat", trees.orders(3)


@pytest.mark.parametrize("count", [1, 2])
def test_official_galleries_are_the_first_of_each_trials_order(rand_perm_cam, count):
    images, file, orders = rand_perm_cam
    found = sysu_protocols(images, (count,), ("official",), official_galleries(file))
    multi = f"-multi{count}" if count > 1 else ""
    assert [p.name for p in found] == [f"all-official{multi}", f"indoor-official{multi}"]
    for t, trial in enumerate(found[0].trials):
        wanted = [
            f"cam{camid}/{pid:04}/{number:04}.jpg"
            for pid in trees.SYSU_IDS["test"]
            for camid in (1, 2, 4, 5)
            if camid in trees.SYSU_CAMERAS[pid]
            for number in orders[camid - 1, 0][pid - 1, 0][t, :count]
        ]
        assert list(images.path[trial.gallery]) == wanted


def test_an_index_file_that_is_absent_truncated_or_of_other_images(rand_perm_cam, tmp_path):
    images, file, _ = rand_perm_cam
    with pytest.raises(UserError, match=r"nowhere\.mat, which config\.evaluation\.galleries=offic"):
        official_galleries(tmp_path / "nowhere.mat")
    (tmp_path / "half.mat").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"half\.mat, .*missing or damaged"):
        official_galleries(tmp_path / "half.mat")
    good = official_galleries(file)
    for change in (
        {4: [x + 1 if x.size else x for x in good[4]]},  # numbers up to 4, of 3 images
        {4: good[4][:5]},  # no entry for identity 6
        {4: [x[:7] for x in good[4]]},  # seven trials
        {5: good[5] * 0},  # none at all
    ):
        with pytest.raises(UserError, match=r"identity \d in camera [45].* use .*galleries=seeded"):
            sysu_protocols(images, galleries=("official",), official=good | change)


def test_llcm_samples_one_side_and_never_compares_a_place_with_itself():
    shots = {(pid, camid): 3 for pid in (1, 2, 5) for camid in (1, 2)}
    visible, infrared = image_set(shots, shuffle=False), image_set(shots, shuffle=False)
    images = type(visible)(
        images=np.concatenate([visible.images, infrared.images]),
        pid=np.concatenate([visible.pid] * 2),
        camid=np.concatenate([visible.camid] * 2),
        modality=np.repeat([0, 1], len(visible)).astype(np.int32),
        path=np.concatenate([np.char.add("test_vis/", visible.path),
                             np.char.add("test_nir/", visible.path)]),
    )  # fmt: skip
    protocols = by_name(llcm_protocols(images))
    rows = {m: np.flatnonzero(images.modality == m) for m in Modality}
    for name, whole, sampled in (
        ("infrared-visible", "query", "gallery"),
        ("visible-infrared-declared", "query", "gallery"),
        ("visible-infrared-transposed", "gallery", "query"),
    ):
        assert protocols[name].cmc_on == "identities"
        own = [name.startswith("infrared"), not name.startswith("infrared")]  # query, gallery
        for trial in protocols[name].trials:
            for side, modality in zip(("query", "gallery"), own, strict=True):
                assert (images.modality[getattr(trial, side)] == modality).all()
            np.testing.assert_array_equal(
                getattr(trial, whole), rows[images.modality[getattr(trial, whole)[0]]]
            )
            side = getattr(trial, sampled)
            keys = list(zip(images.pid[side].tolist(), images.camid[side].tolist(), strict=True))
            assert keys == sorted(shots)
            valid = protocols[name].valid(images, trial)
            for q, g in np.ndindex(valid.shape):
                a, b = trial.query[q], trial.gallery[g]
                same = images.pid[a] == images.pid[b] and images.camid[a] == images.camid[b]
                assert valid[q, g] == (not same)
        assert len({getattr(t, sampled).tobytes() for t in protocols[name].trials}) > 1


def test_regdb_both_directions_use_every_image():
    images = image_set({(pid, cam): 3 for pid in (1, 2) for cam in (1, 3)})
    visible = np.flatnonzero(images.modality == Modality.VISIBLE)
    thermal = np.flatnonzero(images.modality == Modality.INFRARED)
    protocols = by_name(regdb_protocols(images))
    assert set(protocols) == {"visible-thermal", "thermal-visible"}
    for name, query, gallery in (
        ("visible-thermal", visible, thermal),
        ("thermal-visible", thermal, visible),
    ):
        (trial,) = protocols[name].trials
        np.testing.assert_array_equal(trial.query, query)
        np.testing.assert_array_equal(trial.gallery, gallery)
        assert protocols[name].cmc_on == "images"
        assert protocols[name].excluded == ()


def test_family_by_name(sysu):
    assert set(by_name(protocols_for("sysu", sysu))) == {"all-seeded", "indoor-seeded"}
    assert set(by_name(protocols_for("regdb", sysu))) == {"visible-thermal", "thermal-visible"}
    with pytest.raises(UserError, match=r"'sysuu'.*known: llcm, regdb, sysu"):
        protocols_for("sysuu", sysu)


@pytest.mark.parametrize("family", ["sysu", "regdb"])
@pytest.mark.parametrize(("camera", "missing"), [(1, "infrared"), (3, "visible")])
def test_a_missing_modality_is_named(family, camera, missing):
    with pytest.raises(UserError, match=missing):
        protocols_for(family, image_set({(1, camera): 2, (2, camera): 2}))


def angle_features(degrees):
    radians = np.deg2rad(np.array(degrees, np.float32))
    return np.stack([np.cos(radians), np.sin(radians)], 1)


def test_evaluate_applies_the_camera_rule():
    # One query of camera 3, identity 1; five gallery images, nearest first: 2 and 1 of camera 2
    # (both dropped), then 2, 2 and 1 of other cameras.
    images = image_set({(1, 3): 1, (1, 2): 1, (2, 2): 1, (2, 1): 1, (2, 4): 1, (1, 5): 1}, False)
    features = angle_features([0, 2, 1, 3, 4, 5])
    results = evaluate({"f": features}, images, sysu_protocols(images)[:1])
    assert results["all-seeded"]["f"]["mAP"]["mean"] == pytest.approx(100 / 3)
    without = evaluate({"f": features}, images, regdb_protocols(images))["thermal-visible"]["f"]
    assert without["mAP"]["mean"] == pytest.approx(100 * (1 / 2 + 2 / 5) / 2)


def test_identities_not_images_decide_the_rank():
    # Six images of identity 2 come before the only one of identity 1: rank 2 by identity.
    shots = {(1, 6): 1} | {(2, camera): 1 for camera in (1, 2, 4, 5, 7, 8)} | {(1, 9): 1}
    images = image_set(shots, shuffle=False)
    features = {"f": angle_features(range(8))}
    by_identity = evaluate(features, images, sysu_protocols(images)[:1])["all-seeded"]["f"]
    by_image = evaluate(features, images, regdb_protocols(images))["thermal-visible"]["f"]
    assert by_identity["rank5"] == {"mean": 100, "std": 0}
    assert by_image["rank5"] == {"mean": 0, "std": 0}


def test_mean_and_std_over_trials():
    # Camera 1 holds a good and a bad image of the query's identity; a trial draws one of them.
    images = image_set({(1, 6): 1, (1, 1): 2, (2, 1): 1}, shuffle=False)
    features = {"f_ID": angle_features([0, 1, 30, 10]), "f_ALL": angle_features([0, 1, 2, 10])}
    (protocol,) = sysu_protocols(images)
    results = evaluate(features, images, [protocol])[protocol.name]
    good = sum("0001" in images.path[t.gallery[0]].split("/")[-1] for t in protocol.trials) / 10
    assert 0 < good < 1
    assert set(results) == {"f_ID", "f_ALL", "trials"}
    assert results["trials"] == 10
    assert set(results["f_ID"]) == {"rank1", "rank5", "rank10", "rank20", "mAP", "mINP"}
    assert results["f_ID"]["rank1"] == {
        "mean": pytest.approx(100 * good),
        "std": pytest.approx(100 * np.sqrt(good * (1 - good))),
    }
    assert results["f_ALL"]["rank1"] == {"mean": 100, "std": 0}


def test_trials_with_queries_of_their_own():
    images = image_set({(pid, cam): cam + 1 for pid in range(6) for cam in (1, 3)})
    features = np.random.default_rng(0).standard_normal((len(images), 4), np.float32)
    both = regdb_protocols(images)
    parts = [evaluate({"f": features}, images, [p])[p.name]["f"]["mAP"]["mean"] for p in both]
    merged = type(both[0])("merged", (both[0].trials[0], both[1].trials[0]))
    together = evaluate({"f": features}, images, [merged])["merged"]["f"]["mAP"]
    assert together["mean"] == pytest.approx(np.mean(parts))
    assert together["std"] == pytest.approx(np.std(parts))
    assert parts[0] != parts[1]


def test_disjoint_identities_are_refused():
    images = image_set({(1, 3): 1, (2, 1): 1})
    with pytest.raises(UserError, match="all-seeded"):
        evaluate({"f": angle_features([0, 1])}, images, sysu_protocols(images))
