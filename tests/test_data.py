from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vireid_jax.data import augment, heatmaps, images, loader, sampler
from vireid_jax.data.datasets import synthetic_vi
from vireid_jax.types import ImageSet, Modality, UserError


def image_set(pids=6, per_modality=5, seed=0):
    """Noise images whose first pixel is their row."""
    n = 2 * pids * per_modality
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(n)
    return ImageSet(
        images=pixels,
        pid=np.repeat(10 + 3 * np.arange(pids), 2 * per_modality).astype(np.int32),
        camid=np.ones(n, np.int32),
        modality=np.tile(np.repeat([0, 1], per_modality), pids).astype(np.int32),
        path=np.array([f"{i}.png" for i in range(n)]),
        heatmaps=np.arange(n, dtype=np.uint8)[:, None, None, None]
        * np.ones((1, 2, 2, 1), np.uint8),
    )


# Sampler


def test_a_batch_has_d_identities_in_runs_of_k_of_both_modalities():
    found = image_set()
    plan = sampler.PKSampler.of(found, identities=4, images=3, seed=0)
    for step in range(20):
        label, rgb, ir = plan[step]
        assert len(set(label)) == 4
        np.testing.assert_array_equal(label, np.repeat(label[::3], 3))
        for rows, modality in ((rgb, Modality.VISIBLE), (ir, Modality.INFRARED)):
            np.testing.assert_array_equal(found.pid[rows], 10 + 3 * label)
            assert (found.modality[rows] == modality).all()
            assert len(set(rows)) == 12


def test_a_batch_is_a_function_of_seed_and_step_alone():
    def plan(seed):
        return sampler.PKSampler.of(image_set(), 4, 3, seed)

    one = plan(1)
    one[3]
    for a, b in zip(one[7], plan(1)[7], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[7][1], one[8][1])
    assert not np.array_equal(one[7][1], plan(2)[7][1])


def test_every_identity_and_image_is_drawn_in_the_long_run():
    found = image_set()
    plan = sampler.PKSampler.of(found, 4, 3, seed=0)
    seen = {row for step in range(60) for rows in plan[step][1:] for row in rows}
    assert seen == set(range(len(found)))


def test_an_identity_with_fewer_than_k_images_repeats_some():
    _, rgb, _ = sampler.PKSampler.of(image_set(per_modality=2), 4, 3, seed=0)[0]
    assert len(set(rgb)) == 8


def test_too_few_identities_and_one_in_one_modality_only_are_refused():
    found = image_set()
    with pytest.raises(UserError, match=r"config\.batch\.identities=7.*use at most 6"):
        sampler.PKSampler.of(found, 7, 1, seed=0)
    found.modality[found.pid == 10] = Modality.VISIBLE
    with pytest.raises(UserError, match="training identity 10 has no infrared image: add one, or"):
        sampler.PKSampler.of(found, 5, 1, seed=0)


def test_steps_per_epoch_counts_the_larger_modality():
    found = image_set()  # 30 of each
    assert sampler.steps_per_epoch(found, 8) == 4
    found.modality[:5] = Modality.INFRARED  # 25 and 35
    assert sampler.steps_per_epoch(found, 5) == 8


# Loader


def test_loader_yields_the_planned_rows_in_order_from_any_step():
    found = image_set()
    plan = sampler.PKSampler.of(found, 4, 3, seed=0)
    batches = loader.Batches(found, plan, steps=9)
    placed = loader.iterate(batches, 4, jax.device_put)
    for step, batch in zip(range(4, 9), placed, strict=True):
        label, rgb, ir = plan[step]
        np.testing.assert_array_equal(batch.label, label)
        np.testing.assert_array_equal(batch.rgb[:, 0, 0, 0], rgb)
        np.testing.assert_array_equal(batch.ir[:, 0, 0, 0], ir)
        np.testing.assert_array_equal(batch.rgb_heatmap[:, 0, 0, 0], rgb)
        np.testing.assert_array_equal(batch.ir_heatmap[:, 1, 1, 0], ir)
        assert batch.rgb.dtype == batch.ir_heatmap.dtype == np.uint8
        assert isinstance(batch.rgb, jax.Array)


# Heatmaps


def test_a_keypoint_at_a_cell_centre_is_one_there_and_falls_off_as_a_gaussian():
    keypoints = np.zeros((1, 16, 3), np.float32)
    keypoints[0, 2] = 4 * 3 + 1.5, 4 * 5 + 1.5, 2  # column 3, row 5
    maps = heatmaps.keypoint_maps(keypoints, 64, 32, stride=4, sigma=6.0)
    assert maps.shape == (1, 16, 8, 16)
    assert maps[0, 5, 3, 2] == 1
    assert maps[0, 5, 4, 2] == pytest.approx(np.exp(-16 / 72))
    assert maps[0, 7, 4, 2] == pytest.approx(np.exp(-(16 + 64) / 72))
    assert maps.sum() == pytest.approx(maps[..., 2].sum())
    assert maps[0, 15, 7, 2] == 0


def test_hidden_joints_are_drawn_and_joints_outside_are_not():
    keypoints = np.full((1, 16, 3), 10, np.float32)
    keypoints[0, :, 2] = np.arange(16) % 3
    present = heatmaps.keypoint_maps(keypoints, 32, 32, 4, 5.0).max((0, 1, 2)) > 0
    np.testing.assert_array_equal(present, np.arange(16) % 3 > 0)


def test_merged_targets_are_the_maximum_over_joints():
    rng = np.random.default_rng(0)
    keypoints = np.concatenate([rng.uniform(0, 48, (2, 16, 2)), np.full((2, 16, 1), 2)], -1)
    joints = heatmaps.targets(keypoints, 96, 48, "joints")
    merged = heatmaps.targets(keypoints, 96, 48, "merged")
    assert joints.shape == (2, 24, 12, 16)
    assert joints.dtype == np.uint8
    np.testing.assert_array_equal(merged[..., 0], joints.max(-1))
    with pytest.raises(UserError, match="known: joints, joints_and_background, merged, none"):
        heatmaps.channels("jonts")


# Augmentation

OFF = {"crop_pad": 0, "flip": 0.0, "erase": 0.0, "erase_heatmaps": 0.0, "remix": 0.0, "grey": False}


@pytest.fixture(scope="module")
def drawn():
    """Images with a bright square where the heatmap has its peak, and their heatmaps."""
    keypoints = np.zeros((8, 16, 3), np.float32)
    keypoints[:, 0] = np.c_[np.arange(8) * 4 + 9.5, np.full(8, 45.5), np.full(8, 2)]
    pixels = np.zeros((8, 96, 48, 3), np.uint8)
    for image, (x, y, _) in zip(pixels, keypoints[:, 0], strict=True):
        image[round(y - 1.5) : round(y + 2.5), round(x - 1.5) : round(x + 2.5)] = 255
    return pixels, heatmaps.targets(keypoints, 96, 48, "joints")


def run(drawn, seed=0, **options):
    keys = jax.random.split(jax.random.key(seed), len(drawn[0]))
    pixels, maps = augment.augment(keys, *drawn, **(OFF | options))
    return np.asarray(pixels * augment.STD + augment.MEAN), np.asarray(maps)


def test_without_options_images_are_normalised_and_heatmaps_scaled(drawn):
    pixels, maps = run(drawn)
    np.testing.assert_allclose(pixels, drawn[0] / 255, atol=1e-6)
    np.testing.assert_allclose(maps, drawn[1] / 255, atol=1e-6)


@pytest.mark.parametrize("remix", [0.0, 1.0])
def test_grey_images_are_the_mean_of_their_colours(remix):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 4, 3), np.uint8)
    keys = jax.random.split(jax.random.key(0), 4)
    grey, colour = (
        augment.augment(keys, pixels, None, **(OFF | {"remix": remix, "grey": grey}))[0]
        for grey in (True, False)
    )
    grey, colour = (np.asarray(x * augment.STD + augment.MEAN) for x in (grey, colour))
    np.testing.assert_allclose(grey, colour.mean(-1, keepdims=True).repeat(3, -1), atol=1e-6)
    assert (np.abs(grey - colour).max() < 1e-6) == bool(remix)


def centroid(x):
    """Row and column of the mean mass of [B, h, w], in fractions of the size."""
    rows = (np.arange(x.shape[1]) + 0.5) / x.shape[1]
    columns = (np.arange(x.shape[2]) + 0.5) / x.shape[2]
    mass = x.sum((1, 2))
    return np.einsum("bhw,h->b", x, rows) / mass, np.einsum("bhw,w->b", x, columns) / mass


def test_crop_and_flip_move_image_and_heatmap_together(drawn):
    pixels, maps = run(drawn, crop_pad=6, flip=0.5)
    joint = maps[..., [0, 5]].sum(-1)  # right ankle, or left where mirrored
    for of_image, of_map in zip(centroid(pixels[..., 0]), centroid(joint), strict=True):
        np.testing.assert_allclose(of_image, of_map, atol=0.01)
    moved = np.abs(centroid(pixels[..., 0])[1] - centroid(drawn[0][..., 0])[1])
    assert moved.max() > 0.05


def test_flip_swaps_left_and_right_channels(drawn):
    pixels, maps = run(drawn, flip=1.0)
    np.testing.assert_allclose(pixels, drawn[0][:, :, ::-1] / 255, atol=1e-6)
    np.testing.assert_allclose(maps[..., 5], drawn[1][:, :, ::-1, 0] / 255, atol=1e-6)
    assert maps[..., 0].max() == 0
    mirrored = np.array(heatmaps.MIRRORED)
    np.testing.assert_array_equal(mirrored[mirrored], np.arange(16))
    for joint, other in enumerate(mirrored):
        side = {"r_": "l_", "l_": "r_"}.get(heatmaps.JOINTS[joint][:2])
        expected = side + heatmaps.JOINTS[joint][2:] if side else heatmaps.JOINTS[joint]
        assert heatmaps.JOINTS[other] == expected


def test_erasing_sets_a_rectangle_to_the_mean_and_leaves_the_heatmap():
    white = np.full((64, 96, 48, 3), 255, np.uint8), np.full((64, 24, 12, 1), 9, np.uint8)
    pixels, maps = run(white, erase=1.0)
    np.testing.assert_allclose(maps, 9 / 255, atol=1e-6)
    erased = np.isclose(pixels, augment.MEAN, atol=1e-6).all(-1)  # [B, H, W]
    assert (erased | np.isclose(pixels, 1, atol=1e-6).all(-1)).all()
    area = erased.mean((1, 2))
    assert 0.015 < area.min() < 0.1
    assert 0.2 < area.max() < 0.35
    for mask in erased:  # one rectangle each
        rows, columns = mask.any(1), mask.any(0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns)
        assert np.abs(np.diff(rows.astype(int))).sum() <= 2
    _, maps = run(white, erase=1.0, erase_heatmaps=1.0)  # rectangles of their own
    holes = maps[..., 0] == 0
    assert 0.2 < holes.mean((1, 2)).max() < 0.4
    corners = np.array([[np.flatnonzero(m.any(1))[0], np.flatnonzero(m.any(0))[0]] for m in holes])
    of_images = np.array([[np.flatnonzero(m.any(i))[0] for i in (1, 0)] for m in erased])
    assert abs(4 * corners - of_images).max() > 20
    some = np.isclose(run(white, erase=0.5)[0], augment.MEAN, atol=1e-6).all(-1).any((1, 2))
    assert 0.25 < some.mean() < 0.75


def test_tone_curves_are_those_of_interp():
    with jax.enable_x64(True):
        x, values = jnp.linspace(-3, 3, 1000), jax.random.normal(jax.random.key(0), (6,))
        expected = jnp.interp(x, jnp.linspace(-2, 2, 6), values)
        np.testing.assert_allclose(augment._piecewise(x, -2, 2, values), expected, atol=1e-12)


def test_remixing_makes_grey_images_of_the_same_mean_and_contrast():
    noise = np.random.default_rng(0).integers(90, 160, (16, 96, 48, 3), np.uint8)
    pixels, _ = run((noise, np.zeros((16, 24, 12, 1), np.uint8)), remix=1.0)
    np.testing.assert_allclose(pixels.std(-1), 0, atol=1e-6)
    grey = (noise / 255).mean(-1)
    np.testing.assert_allclose(pixels[..., 0].mean((1, 2)), grey.mean((1, 2)), atol=1e-3)
    np.testing.assert_allclose(pixels[..., 0].std((1, 2)), grey.std((1, 2)), rtol=0.05)
    pairs = zip(pixels[..., 0], grey, strict=True)
    correlation = [np.corrcoef(p.ravel(), g.ravel())[0, 1] for p, g in pairs]
    assert min(correlation) < -0.1
    assert max(correlation) > 0.1


def test_a_row_is_augmented_alike_in_any_batch(drawn):
    keys = jax.random.split(jax.random.key(0), 8)
    options = OFF | {"crop_pad": 4, "flip": 0.5, "erase": 0.5, "erase_heatmaps": 0.5, "remix": 0.5}
    whole = augment.augment(keys, *drawn, **options)
    half = augment.augment(keys[4:], drawn[0][4:], drawn[1][4:], **options)
    for a, b in zip(whole, half, strict=True):
        np.testing.assert_allclose(a[4:], b, atol=1e-5)


# Image sets


def test_decoded_images_keep_pixels_index_and_exact_heatmaps(tiny):
    data = tiny().data
    found = images.load_images(data, "train")
    assert len(found) == 6 * 4 * 2
    assert found.images.shape == (48, 96, 48, 3)
    assert found.heatmaps.shape == (48, 24, 12, 1)
    assert set(found.camid[found.modality == Modality.VISIBLE]) == {1, 2}
    assert set(found.camid[found.modality == Modality.INFRARED]) == {3, 6}
    assert len(set(found.path)) == 48
    infrared = found.images[found.modality == Modality.INFRARED]
    assert (infrared == infrared[..., :1]).all()
    again = images.load_images(data, "train")
    assert isinstance(again.images, np.memmap)
    assert again.fingerprint == found.fingerprint
    assert images.load_images(data, "test").fingerprint != found.fingerprint
    assert images.load_images(data, "test").heatmaps is None
    assert not set(images.load_images(data, "test").pid) & set(found.pid)


def test_the_teachers_maps_have_a_background_behind_the_joints():
    keypoints = np.zeros((1, 16, 3))
    keypoints[0, 2] = 3.5, 11.5, 1  # at the centre of cell (1, 0)
    maps = heatmaps.teacher_maps(keypoints, 32, 32)
    assert maps.shape == (1, 4, 4, 17)
    assert maps[0, 1, 0, 2] == 1
    np.testing.assert_allclose(maps[0, 2, 1, 2], np.exp(-(8**2 + 8**2) / (2 * 7**2)), rtol=1e-6)
    assert maps[0, :, :, [j for j in range(16) if j != 2]].max() == 0
    np.testing.assert_allclose(maps[..., 16], 1 - maps[..., 2])


def test_runs_that_start_together_prepare_and_decode_once(tiny, tmp_path, monkeypatch):
    data = tiny().data
    data.dir = str(tmp_path)
    decoded, resized = [], images.resized
    monkeypatch.setattr(images, "resized", lambda *args: decoded.append(1) or resized(*args))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: images.load_images(data, "train"), range(3)))
    assert len(decoded) == 48
    assert len({one.fingerprint for one in found}) == 1


def test_what_a_killed_run_left_is_removed(tiny):
    data = tiny().data
    data.height = 48
    folder = Path(images.prepare(data).data_dir) / "decoded"
    (folder / "train_0123.partialx").mkdir(parents=True)
    images.load_images(data, "train")
    assert not list(folder.glob("*.partial*"))


def test_heatmaps_by_choice_and_from_a_file(tiny, tmp_path):
    data = tiny().data
    merged = images.load_images(data, "train")
    data.heatmaps = "joints"
    joints = images.load_images(data, "train")
    assert joints.heatmaps.shape == (48, 24, 12, 16)
    np.testing.assert_array_equal(joints.heatmaps.max(-1), merged.heatmaps[..., 0])
    data.heatmaps = "none"
    assert images.load_images(data, "train").heatmaps is None

    data.heatmaps, data.heatmap_file = "merged", str(tmp_path / "maps.npz")
    maps = np.random.default_rng(0).integers(0, 256, (48, 24, 12, 1), np.uint8)
    shuffled = np.random.default_rng(1).permutation(48)
    np.savez(data.heatmap_file, path=merged.path[shuffled], heatmap=maps[shuffled])
    np.testing.assert_array_equal(images.load_images(data, "train").heatmaps, maps)

    data.heatmap_file = str(tmp_path / "short.npz")
    np.savez(data.heatmap_file, path=merged.path[1:], heatmap=maps[1:])
    with pytest.raises(UserError, match=f"no heatmap for 1 of 48 images.*{merged.path[0]}"):
        images.load_images(data, "train")
    (tmp_path / "text.npz").write_text("not an archive")
    data.heatmap_file = str(tmp_path / "text.npz")
    with pytest.raises(UserError, match="is no npz file with the arrays path and heatmap"):
        images.load_images(data, "train")
    data.heatmap_file = str(tmp_path / "large.npz")
    np.savez(data.heatmap_file, path=merged.path, heatmap=maps.repeat(2, 1))
    with pytest.raises(UserError, match=r"\(48, 12, 1\); the config needs uint8 of \(24, 12, 1\)"):
        images.load_images(data, "train")


def test_the_stored_splits_to_train_on_are_the_config_s(tiny):
    data = tiny().data
    sets = {split: images.load_images(data, split) for split in ("train", "test")}
    data.train_split = "train+test"
    both = images.load_images(data, "train")
    assert both.path.tolist() == sets["train"].path.tolist() + sets["test"].path.tolist()
    assert both.heatmaps.any((1, 2, 3)).all()


def test_unknown_data_sets_tiers_and_splits_are_refused(tiny):
    data = tiny().data
    with pytest.raises(UserError, match="no split 'val'; it has: train, test"):
        images.load_images(data, "val")
    data.protocol = "regdb"
    with pytest.raises(UserError, match=r"with --config\.data\.protocol=sysu"):
        images.load_images(data, "train")
    data.tier = "regdb"
    with pytest.raises(UserError, match="split='val' is unknown; known: test, train"):
        synthetic_vi.subset(data, "val")
    data.tier = "eazy"
    with pytest.raises(UserError, match="did you mean 'easy'"):
        images.load_images(data, "train")
    data.dataset = "synthetic"
    with pytest.raises(UserError, match="unknown data set 'synthetic'"):
        images.load_images(data, "train")
