"""The synthetic renderer: geometry, independence of the streams, tiers, restarts, the builder."""

import collections
import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vireid_jax.data import heatmaps
from vireid_jax.data.datasets.synthetic_vi import SyntheticConfig, SyntheticVi
from vireid_jax.data.synthetic import arrays, body, farm, figure, paint, raycast, render, tiers
from vireid_jax.data.synthetic.camera import CAMERAS, Band, Crop, Facing, Pose
from vireid_jax.data.synthetic.streams import Purpose, choose, stream
from vireid_jax.data.synthetic.wardrobe import Slot

SIZE = (96, 48)
MINI = tiers.Tier(
    name="mini",
    splits=(("train", 3), ("test", 2)),
    cameras=(CAMERAS[1], CAMERAS[3]),
    images=2,
    first_person=90_001,
    occlusion=0.5,
)


def draw(pid=1, camid=1, number=1, seed=0, camera=None, **options):
    return render.render(seed, pid, camera or CAMERAS[camid], number, *SIZE, **options)


@pytest.fixture(scope="module")
def crowd():
    """Images of many people by all cameras, without occluders."""
    return [
        (camid, draw(pid, camid, number=2)) for pid in range(1, 21) for camid in sorted(CAMERAS)
    ]


# Determinism and independence


def test_the_same_key_gives_the_same_image():
    first = draw(3, 6, occlusion=0.5)
    render.draw_identity.cache_clear()
    draw(4, 1)  # what was rendered before does not matter
    second = draw(3, 6, occlusion=0.5)
    for field in ("image", "keypoints", "garments"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


@pytest.mark.parametrize("change", [{"pid": 2}, {"camid": 2}, {"number": 2}, {"seed": 1}])
def test_every_part_of_the_key_changes_the_posture(change):
    assert np.abs(draw(**change).keypoints - draw().keypoints).max() > 1


def test_streams_of_different_keys_are_unrelated():
    keys = [(p, 1, c, n) for p in (Purpose.POSE, Purpose.VIEW) for c in (1, 3) for n in (1, 2)]
    draws = np.array([stream(0, *key).normal(size=2000) for key in keys])
    correlation = np.corrcoef(draws) - np.eye(len(keys))
    assert np.abs(correlation).max() < 0.1


def test_the_band_changes_neither_geometry_nor_keypoints():
    images = [
        draw(7, camera=dataclasses.replace(CAMERAS[1], band=band), occlusion=1.0) for band in Band
    ]
    for other in images[1:]:
        np.testing.assert_array_equal(other.garments, images[0].garments)
        np.testing.assert_array_equal(other.keypoints, images[0].keypoints)
        assert np.abs(other.image.astype(int) - images[0].image).mean() > 5


def test_colour_says_nothing_about_infrared():
    people = [render.draw_identity(0, pid) for pid in range(1, 401)]
    cloth = [slot for slot in Slot if slot not in (Slot.SKIN, Slot.HAIR)]
    visible = np.array([p.materials[Band.VISIBLE][cloth].mean(-1) for p in people])
    for band in (Band.NEAR_INFRARED, Band.LONG_WAVE):
        infrared = np.array([p.materials[band][cloth, 0] for p in people])
        # Within slots: shoes and bags are colder than the rest, whatever their colour.
        centred = [values - values.mean(0) for values in (visible, infrared)]
        assert abs(np.corrcoef(*(values.ravel() for values in centred))[0, 1]) < 0.05


def test_some_prints_vanish_in_near_infrared_and_none_in_colour():
    people = [render.draw_identity(0, pid).materials for pid in range(1, 401)]
    ground, second = Slot.UPPER, Slot.UPPER_PRINT
    near = np.array([np.abs(np.diff(p[Band.NEAR_INFRARED][[ground, second], 0])) for p in people])
    assert 0.22 < (near < 0.12).mean() < 0.40
    colour = [np.abs(p[Band.VISIBLE][ground] - p[Band.VISIBLE][second]).sum() for p in people]
    assert min(colour) > 0.34


def test_choose_follows_the_weights():
    rng = stream(0, Purpose.STRUCTURE)
    counts = collections.Counter(choose(rng, {"a": 3, "b": 1, "never": 0}) for _ in range(4000))
    assert set(counts) == {"a", "b"}
    assert counts["a"] / 4000 == pytest.approx(0.75, abs=0.03)


# Geometry


def _sphere(radius, squash=(1.0, 1.0)):
    start, end = np.array([0.0, 0.999, 0.0]), np.array([0.0, 1.001, 0.0])
    cone = figure.Cone(start, end, (radius, radius), np.array([0.0, 0.0, 1.0]), squash=squash)
    return figure.stack_cones([cone], chart=[0])


def test_a_sphere_has_its_depth_outline_and_normals():
    radius, distance, focal, size = 0.2, 4.0, 400.0, 101
    ball = _sphere(radius)
    pose = Pose(np.array([0.0, 1.0, distance]), np.eye(3), np.eye(3))
    crop = Crop((focal, focal), (size / 2, size / 2))
    rays = raycast.aim_rays(ball, pose, crop, size, size)
    depth, owner = raycast.cast(ball, pose, crop, rays)
    assert depth[50, 50] == pytest.approx(distance - radius, abs=2e-3)
    # The outline of a sphere is the cone of tangents: sin(angle) = radius / distance.
    outline = focal * np.tan(np.arcsin(radius / distance))
    assert (owner == 0).sum() == pytest.approx(np.pi * outline**2, rel=0.03)
    surface = raycast.surface_of(ball, rays, depth, owner)
    slope_x, slope_y = rays.right[surface.column], rays.up[surface.row]
    t = depth[surface.row, surface.column]
    points = np.stack([slope_x * t, slope_y * t, distance - t], axis=1)  # about the centre
    np.testing.assert_allclose(surface.normal, points / radius, atol=0.02)


def test_a_squashed_sphere_is_nearer_to_flat():
    pose, crop = Pose(np.array([0.0, 1.0, 4.0]), np.eye(3), np.eye(3)), Crop((400, 400), (50, 50))
    flat = _sphere(0.2, squash=(1.0, 0.5))
    depth, _ = raycast.cast(flat, pose, crop, raycast.aim_rays(flat, pose, crop, 100, 100))
    assert depth.min() == pytest.approx(4.0 - 0.1, abs=2e-3)


def test_seen_joints_lie_on_the_figure(crowd):
    seen = on_figure = 0
    for _, rendered in crowd:
        x, y, visibility = rendered.keypoints.T
        joints = np.flatnonzero(visibility == render.SEEN)
        column, row = np.floor(x[joints] + 0.5).astype(int), np.floor(y[joints] + 0.5).astype(int)
        seen += len(joints)
        on_figure += (rendered.garments[row, column] >= 0).sum()
    assert seen > 1600
    assert on_figure >= 0.998 * seen


def test_visibility_is_outside_exactly_beyond_the_edges(crowd):
    height, width = SIZE
    codes = set()
    for _, rendered in crowd:
        x, y, visibility = rendered.keypoints.T
        inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        np.testing.assert_array_equal(visibility > render.OUTSIDE, inside)
        codes |= set(visibility)
    assert codes == {render.OUTSIDE, render.HIDDEN, render.SEEN}


def test_occluders_hide_joints_but_do_not_move_them():
    hidden = 0
    for pid in range(1, 13):
        free, occluded = draw(pid), draw(pid, occlusion=1.0)
        np.testing.assert_array_equal(free.keypoints[:, :2], occluded.keypoints[:, :2])
        changed = free.keypoints[:, 2] != occluded.keypoints[:, 2]
        assert (occluded.keypoints[changed, 2] == render.HIDDEN).all()
        assert (occluded.garments >= 0).sum() <= (free.garments >= 0).sum()
        hidden += changed.sum()
    assert hidden > 12


@pytest.mark.parametrize(("away", "sign"), [(False, 1), (True, -1)])
def test_the_right_shoulder_is_on_the_left_of_a_front_view(away, sign):
    camera = dataclasses.replace(CAMERAS[1], facing=Facing.BY_IDENTITY, yaw_sd=0.0)
    right, left = (heatmaps.JOINTS.index(f"{side}_shoulder") for side in "rl")
    tried = 0
    for pid in range(1, 25):
        if (stream(0, Purpose.FACING, pid).random() < 0.5) is away:
            x = draw(pid, camera=camera).keypoints[:, 0]
            assert sign * (x[left] - x[right]) > 3
            tried += 1
    assert tried > 5


def test_the_face_is_seen_from_the_front_only():
    faces = {}
    for away in (False, True):
        camera = dataclasses.replace(CAMERAS[1], facing=Facing.BY_IDENTITY, yaw_sd=0.0)
        pids = [p for p in range(1, 60) if (stream(0, Purpose.FACING, p).random() < 0.5) is away]
        hairy = [p for p in pids if render.draw_identity(0, p).outfit.hair in ("bob", "long")]
        heads = [draw(p, camera=camera).garments[:20] for p in hairy]
        faces[away] = np.mean([(head == Slot.SKIN).sum() for head in heads])
    assert faces[False] > 3 * faces[True]


def test_joints_are_drawn_in_the_order_of_heatmaps():
    assert body.LIP_JOINTS == heatmaps.JOINTS


def test_mirrored_joints_swap_right_and_left():
    for name, partner in zip(heatmaps.JOINTS, heatmaps.MIRRORED, strict=True):
        swapped = {"r": "l", "l": "r"}.get(name[0], name[0]) if name[1] == "_" else name[0]
        assert heatmaps.JOINTS[partner] == swapped + name[1:]


def test_keypoint_noise_and_dropout_leave_the_image_alone():
    exact, noisy = draw(5), draw(5, keypoint_noise=0.02, keypoint_dropout=1.0)
    np.testing.assert_array_equal(exact.image, noisy.image)
    shift = np.abs(noisy.keypoints[:, :2] - exact.keypoints[:, :2])
    assert 0.3 < shift.mean() < 6
    assert not noisy.keypoints[:, 2].any()


def test_a_person_stands_on_the_ground_and_is_as_tall_as_drawn():
    for pid in range(1, 20):
        person = render.draw_identity(0, pid).body
        skeleton = body.pose_skeleton(person, stream(0, Purpose.POSE, pid))
        feet = [skeleton.points[name][1] for name in ("r_toe", "l_toe", "r_heel", "l_heel")]
        assert min(feet) == pytest.approx(body.SOLE * person.height)
        assert skeleton.points["head_top"][1] == pytest.approx(person.height, rel=0.09)


# Paint


def test_sleeves_logos_and_hems_are_where_the_outfit_says():
    outfit = render.draw_identity(0, 1).outfit
    plain = dataclasses.replace(
        outfit,
        upper="tee",
        sleeve=0.4,
        sleeve_print="cuff",
        opening=0.0,
        hem=0.0,
        belt=False,
        lower_print="solid",
        upper_print=dataclasses.replace(outfit.upper_print, design="solid"),
        bag=dataclasses.replace(outfit.bag, kind="none"),
        logo=dataclasses.replace(
            outfit.logo, front=True, back=False, height=0.6, bits=np.ones((5, 3), bool)
        ),
    )

    def at(part, u, v):
        u, v = np.float32([u]), np.float32([v])
        return Slot(paint.paint(plain, part, np.zeros(1, np.int8), u, v)[0])

    assert at(figure.Part.ARM, 0, 0.2) is Slot.UPPER
    assert at(figure.Part.ARM, 0, 0.35) is Slot.UPPER_PRINT
    assert at(figure.Part.ARM, 0, 0.5) is Slot.SKIN
    assert at(figure.Part.TRUNK, 0.6, 0.1) is Slot.LOWER
    assert at(figure.Part.TRUNK, 0.6, 0.6) is Slot.UPPER
    assert at(figure.Part.TRUNK, 0.0, 0.6) is Slot.UPPER_PRINT  # the logo in front
    assert at(figure.Part.TRUNK, 1.0, 0.6) is Slot.UPPER  # and not on the back


def test_a_strap_runs_from_the_bags_hip_to_the_other_shoulder_on_both_faces():
    outfit = render.draw_identity(0, 1).outfit
    bag = dataclasses.replace(outfit.bag, kind="cross", side=1)
    outfit = dataclasses.replace(outfit, bag=bag)
    for spine_or_navel, hip, shoulder in ((0.0, 0.4, -0.4), (1.0, 0.6, -0.6)):
        u = np.float32([hip, spine_or_navel, shoulder, hip, shoulder])
        v = np.float32([0.3, 0.62, 0.94, 0.94, 0.3])
        slots = paint.paint(outfit, figure.Part.TRUNK, np.zeros(5, np.int8), u, v)
        assert list(slots == Slot.STRAP) == [True, True, True, False, False]


def test_stripes_repeat_and_cover_their_share():
    stripes = dataclasses.replace(
        render.draw_identity(0, 1).outfit.upper_print, frequency=10.0, duty=0.4, phase=0.0
    )
    v = np.linspace(0, 1, 10_000, endpoint=False).astype(np.float32)
    rings = paint.covers(stripes, "hstripe", np.zeros_like(v), v)
    assert rings.mean() == pytest.approx(0.4, abs=0.01)
    assert (np.diff(rings.astype(int)) == 1).sum() == 9  # the first begins at v = 0


# Arrays


def test_resampling_and_blur_keep_a_ramp_and_a_constant():
    ramp = np.linspace(0, 1, 40, dtype=np.float32)[:, None, None] * np.ones((1, 30, 2), np.float32)
    halved = arrays.resample(ramp, 0, 20, 0, 40)
    np.testing.assert_allclose(halved, ramp.reshape(20, 2, 30, 2).mean(1), atol=1e-6)
    np.testing.assert_allclose(arrays.resample(ramp, 1, 30, 0, 30), ramp, atol=1e-6)
    blurred = arrays.blur(ramp, 1.5)
    np.testing.assert_allclose(blurred[8:-8], ramp[8:-8], atol=1e-6)
    assert blurred.sum() == pytest.approx(ramp.sum(), rel=1e-5)


# Grey levels


def test_grey_levels_stay_where_they_were(crowd):
    """Bands around what the renderer draws: a change of light or sensor must be deliberate."""
    expected = {  # figure mean, background mean, standard deviation within an image
        Band.VISIBLE: (96, 127, 50),
        Band.NEAR_INFRARED: (113, 85, 28),
        Band.LONG_WAVE: (133, 39, 53),
    }
    for band, levels in expected.items():
        images = [r for camid, r in crowd if CAMERAS[camid].band is band]
        figures = np.mean([r.image[r.garments >= 0].mean() for r in images])
        backgrounds = np.mean([r.image[r.garments < 0].mean() for r in images])
        contrast = np.mean([r.image.std() for r in images])
        np.testing.assert_allclose((figures, backgrounds, contrast), levels, atol=8)


def test_infrared_images_are_grey_and_visible_ones_are_not(crowd):
    for camid, rendered in crowd:
        colour = np.ptp(rendered.image.astype(int), axis=2).max()
        assert (colour > 0) == (CAMERAS[camid].modality == 0)


# Tiers


def test_tiers_count_what_they_say():
    counted = {
        name: collections.Counter(example.split for example in tier.examples(0))
        for name, tier in tiers.TIERS.items()
    }
    assert counted["easy"] == {"train": 128 * 20, "test": 64 * 20}
    assert counted["regdb"] == {"everyone": 412 * 20}
    people = {"train": 296, "val": 99, "test": 96}
    for split, count in people.items():
        # 0.9 of six cameras for those who were indoors, and of three for the rest, plus those
        # that may not be missing.
        assert counted["sysu"][split] == pytest.approx(8 * 4.37 * count, rel=0.08)


@pytest.mark.parametrize("tier", tiers.TIERS.values(), ids=lambda tier: tier.name)
def test_splits_share_no_identity_and_paths_are_unique(tier):
    examples = list(tier.examples(0))
    splits = collections.defaultdict(set)
    for example in examples:
        splits[example.pid].add(example.split)
    assert all(len(names) == 1 for names in splits.values())
    assert sorted(splits) == list(range(1, sum(count for _, count in tier.splits) + 1))
    assert len({example.path for example in examples}) == len(examples)
    assert examples[0].path == f"cam{tier.cameras[0].camid}/0001/0001.png"


def test_tiers_show_different_people():
    people = [
        tier.person(pid)
        for tier in tiers.TIERS.values()
        for s, _ in tier.splits
        for pid in tier.pids(s)
    ]
    assert len(set(people)) == len(people)


@pytest.mark.parametrize("dropout", [0.1, 1.0])
def test_every_identity_keeps_an_infrared_and_a_searchable_visible_camera(dropout):
    tier = dataclasses.replace(tiers.SYSU, camera_dropout=dropout)
    for pid in tier.pids("test"):
        camids = [camera.camid for camera in tier.cameras_of(0, pid)]
        assert {3, 6} & set(camids)
        assert {1, 4, 5} & set(camids)
        assert camids == sorted(camids)
        assert dropout < 1 or len(camids) == 2


def test_some_identities_were_never_indoors():
    everyone = [tiers.SYSU.cameras_of(0, pid) for pid in range(1, 492)]
    indoors = [any(not camera.outdoor for camera in cameras) for cameras in everyone]
    assert np.mean(indoors) == pytest.approx(0.6, abs=0.06)


def test_unseen_test_locations_move_the_test_split_only():
    tier = dataclasses.replace(tiers.EASY, unseen_test_locations=True)
    camera = tier.cameras[1]
    assert tier.placed(camera, "train") is camera
    assert tier.placed(camera, "test").location not in [c.location for c in CAMERAS.values()]
    assert tiers.EASY.placed(camera, "test") is camera


def test_regdb_trials_are_different_halves():
    trials = [tiers.regdb_trial_ids(trial) for trial in range(1, 11)]
    for train, test in trials:
        assert len(train) == len(test) == 206
        assert sorted(train + test) == list(range(1, 413))
    assert len({tuple(train) for train, _ in trials}) == 10
    assert tiers.regdb_trial_ids(1, seed=1) != trials[0]
    for trial in (0, 11):
        with pytest.raises(ValueError, match="1 to 10"):
            tiers.regdb_trial_ids(trial)


def test_an_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match="train"):
        tiers.EASY.pids("validation")


# Farm and builder


def read_all(files):
    return {
        picture.example.path: (picture.png, picture.keypoints.tobytes())
        for paths in files.values()
        for path in paths
        for picture in farm.read_pictures(path)
    }


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    return read_all(farm.render_tier(MINI, *SIZE, 0, tmp_path_factory.mktemp("mini"), 1))


def test_stored_pictures_are_the_rendered_ones(mini):
    assert len(mini) == 5 * 2 * 2
    rendered = draw(MINI.person(4), 3, 2, occlusion=0.5)
    png, keypoints = mini["cam3/0004/0002.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), rendered.image)
    assert keypoints == rendered.keypoints.tobytes()


def test_an_interrupted_rendering_continues_to_the_same_result(mini, tmp_path, monkeypatch):
    calls = 0

    def interrupted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 11:
            raise KeyboardInterrupt
        return render.render(*args, **kwargs)

    monkeypatch.setattr(farm, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        farm.render_tier(MINI, *SIZE, 0, tmp_path, 1)
    assert len(list(tmp_path.glob("*/*.npz"))) == 2
    files = farm.render_tier(MINI, *SIZE, 0, tmp_path, 1)
    assert calls == 11 + 3 * 4  # finished identities were not drawn again
    assert read_all(files) == mini


def test_several_processes_give_the_same_files(mini, tmp_path):
    assert read_all(farm.render_tier(MINI, *SIZE, 0, tmp_path, 2)) == mini


def test_the_farm_needs_neither_jax_nor_tfds():
    check = (
        "import sys, vireid_jax.data.synthetic.farm;"
        "assert not {'jax', 'flax', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_builder_returns_what_was_rendered(mini, tmp_path):
    config = SyntheticConfig(tier=MINI, height=SIZE[0], width=SIZE[1], processes=1)
    builder = SyntheticVi(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    assert not list(tmp_path.rglob("*.npz"))
    stored = {}
    for split, count in (("train", 12), ("test", 8)):
        source = builder.as_data_source(split)
        assert len(source) == count
        stored |= {example["path"].decode(): example for example in source}
        assert {int(example["pid"]) for example in source} == set(MINI.pids(split))
    assert set(stored) == set(mini)
    for path, example in stored.items():
        png, keypoints = mini[path]
        np.testing.assert_array_equal(example["image"], np.asarray(Image.open(io.BytesIO(png))))
        assert example["keypoints"].tobytes() == keypoints
        assert example["keypoints"].shape == (16, 3)
        camid, pid, _ = path.split("/")
        assert (f"cam{example['camid']}", f"{example['pid']:04d}") == (camid, pid)
        assert example["modality"] == CAMERAS[int(example["camid"])].modality


def test_builder_configs_name_their_tier_size_and_seed():
    names = {
        f"{tier}_{size}" for tier in ("easy", "sysu", "regdb") for size in ("96x48", "288x144")
    }
    assert set(SyntheticVi.builder_configs) == names
    assert SyntheticConfig(tier=MINI, height=64, width=32, seed=5).name == "mini_64x32_seed5"
