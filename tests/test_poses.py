"""The pose teacher's training: data, augmentation, optimiser, metric, and its use for ReID."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees

from configs import pose_lip
from vireid_jax.data import augment_poses, heatmaps, images, poses
from vireid_jax.data.heatmaps import MIRRORED
from vireid_jax.training import pose_experiment, pose_maps, pose_step, train
from vireid_jax.training.experiment import Experiment
from vireid_jax.types import Modality, PoseBatch, PoseSet, UserError


def lip_config(folder, source):
    c = pose_lip.get_config()
    c.data.dir, c.data.source = str(folder / "data"), str(source)
    c.model.input, c.model.width, c.model.stages = (64, 32), 16, 1
    c.batch.images = 4
    c.train.steps, c.train.log_every, c.train.checkpoint_every, c.train.eval_every = 2, 1, 1, 1
    c.evaluation.batch = 3
    return c


# LIP


def test_a_lip_tree_is_read_with_hidden_and_missing_joints(tmp_path):
    config = lip_config(tmp_path, trees.lip(tmp_path / "lip"))
    found = poses.load_poses(config.data, "train", 64, 32)
    assert found.images.shape == (4, 64, 32, 3)
    assert set(found.modality) == {Modality.VISIBLE}
    for path, keypoints, box, image in zip(
        found.path, found.keypoints, found.box, found.images, strict=True
    ):
        number = int(path.split("/")[-1].split("_")[0])
        assert list(box) == [5, 0, 53, 32]  # 40 x 24 enlarged by 4/3
        assert keypoints[15, 2] == (0 if number % 2 else 2)
        assert keypoints[10, 2] == 1
        x, y = np.random.default_rng(number).integers(0, (24, 40), (16, 2))[3]
        wanted = (x + 0.5) * 32 / 24 - 0.5, (y + 0.5) * 53 / 40 - 0.5 + 5
        assert keypoints[3, :2] == pytest.approx(wanted, abs=1e-4)
        assert (image[:5] == poses.GREY).all()
        assert image[5:58].std() > 20


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0_train.jpg,1,2", "line 3: 2 values instead of 48; it should be NAME.jpg and x,y,hidden"),
        (",".join(["0_train.jpg", *["x"] * 48]), "line 3: could not convert string to float: 'x'"),
        (",".join(["no.jpg", *["1"] * 48]), "line 3: .*no.jpg does not exist"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, message):
    root = trees.lip(tmp_path / "lip")
    file = root / "TrainVal_pose_annotations" / "lip_train_set.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], line, *lines[3:]]))
    with pytest.raises(UserError, match=message):
        poses.load_poses(lip_config(tmp_path, root).data, "train", 64, 32)


def test_data_without_keypoints_are_refused(tmp_path):
    config = lip_config(tmp_path, trees.folder(tmp_path / "people"))
    config.data.dataset = "folder"
    config.data.test_fraction, config.data.split_seed = 0.5, 0
    with pytest.raises(UserError, match="folder has no keypoints"):
        poses.load_poses(config.data, "train", 64, 32)


# Training


def test_training_on_lip_ends_with_a_table_and_weights(tmp_path, capsys):
    config = lip_config(tmp_path, trees.lip(tmp_path / "lip"))
    results = train.train(config, str(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    teacher = results["pckh"]["visible"]["teacher"]
    assert 0 <= teacher["average"] <= 100
    assert "head_top" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"<td>{teacher['average']:.2f}</td>" in page
    assert "<figcaption>L, weighted</figcaption>" in page
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(np.isfinite(line["loss"]) for line in lines)
    again = train.evaluate(config, str(tmp_path / "run"))
    assert again == results
    own = pose_maps.load(tmp_path / "run" / pose_experiment.WEIGHTS)
    assert (own.stages, own.width, own.size) == (1, 16, (64, 32))


def test_biases_of_norms_start_where_the_config_says(tmp_path):
    config = lip_config(tmp_path, trees.lip(tmp_path / "lip"))
    config.model.norm_bias = 1.5
    params = pose_experiment.PoseExperiment(config).init_state().params
    starts = {
        (path[-2].key.endswith("norm"), float(value))
        for path, values in jax.tree_util.tree_leaves_with_path(params)
        for value in np.unique(values)
        if path[-1].key == "bias"
    }
    assert starts == {(True, 1.5), (False, 0.0)}


def test_a_few_steps_on_one_batch_lower_the_loss(tmp_path):
    config = lip_config(tmp_path, trees.lip(tmp_path / "lip"))
    config.augment = dict.fromkeys(config.augment, 0.0)
    config.optimizer.learning_rate = 0.003
    experiment = pose_experiment.PoseExperiment(config)
    update, state = experiment.train_step(), experiment.devices.replicate(experiment.init_state())
    losses = []
    for _ in range(20):
        state, metrics = update(state, experiment.devices.place(experiment.batches()[0]))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]


def test_every_epoch_shows_each_image_once(tmp_path):
    n = 11
    pose_set = PoseSet(np.arange(n), np.arange(n), np.arange(n), np.zeros(n), np.arange(n))
    batches = pose_experiment.PoseBatches(pose_set, 4, 6, seed=1, own=slice(None))
    epochs = [np.concatenate([batches[i].images for i in pair]) for pair in ((0, 1), (2, 3))]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert not np.array_equal(*epochs)
    other = pose_experiment.PoseBatches(pose_set, 4, 6, seed=1, own=slice(2, 4))
    np.testing.assert_array_equal(other[3].images, batches[3].images[2:])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.width", 24, r"config\.model\.width=24 must be a multiple of 16"),
        ("model.input", (64, 30), "must be multiples of 8"),
        ("optimizer.schedule", "cosin", "did you mean 'cosine'"),
        ("train.eval_every", 0, r"config\.optimizer\.patience=5 counts evaluations"),
        ("batch.images", 6, r"cannot be split over 4 devices"),
        ("batch.images", 8, r"has only 4 images"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, key, value, message):
    config = lip_config(tmp_path, trees.lip(tmp_path / "lip"))
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        train.train(config, str(tmp_path / "run"))


# Augmentation

CENTRE = np.array([31.5, 63.5])  # of a frame of 128 x 64
NOTHING = {"mask": 0.0, "permute": 0.0, "rotate": 0.0, "scale": 0.0, "flip": 0.0}


def blobs(points, height=128, width=64, sigma=2.0):
    """One image with a bright spot in red at each of these points, over grey."""
    rows, columns = np.mgrid[:height, :width]
    image = np.full((height, width, 3), float(poses.GREY))
    for x, y in points:
        spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
        image[..., 0] += 127 * spot
    return np.round(np.minimum(image, 255)).astype(np.uint8)


@pytest.mark.parametrize("change", [{"rotate": 40.0}, {"scale": 1.0}, {"flip": 1.0}, "all"])
def test_keypoints_move_with_the_image(change):
    change = {"rotate": 40.0, "scale": 1.0, "flip": 0.5} if change == "all" else change
    keypoints = np.zeros((8, 16, 3), np.float32)
    points = np.random.default_rng(0).uniform((22, 44), (42, 84), (8, 2))
    keypoints[:, 0] = np.concatenate([points, np.full((8, 1), 2)], 1)
    batch = PoseBatch(
        np.stack([blobs([point]) for point in points]), keypoints, np.tile([0, 0, 128, 64], (8, 1))
    )
    keys = jax.random.split(jax.random.key(0), 8)
    moved, found = augment_poses.augment(keys, batch, **(NOTHING | change))
    flipped = 0
    for image, joints in zip(np.asarray(moved), np.asarray(found), strict=True):
        mirrored = joints[MIRRORED[0], 2] == 2
        flipped += mirrored
        x, y, _ = joints[MIRRORED[0] if mirrored else 0]
        weight = np.maximum(image[..., 0] - poses.GREY, 0)
        rows, columns = np.mgrid[:128, :64]
        centre = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        assert centre == pytest.approx((x, y), abs=0.4)
    assert flipped == {0.0: 0, 1.0: 8}.get((NOTHING | change)["flip"], flipped)
    if "flip" not in change:
        away = np.linalg.norm(np.asarray(found)[:, 0, :2] - points, axis=1)
        assert away.max() > 2


def test_what_a_turned_image_spans_is_fitted_into_the_frame():
    corners = [(16, 32), (47, 95)]  # of a box in the middle
    keypoints = np.zeros((64, 16, 3), np.float32)
    keypoints[:, :2, :2] = corners
    batch = PoseBatch(
        np.zeros((64, 128, 64, 3), np.uint8), keypoints, np.tile([32, 16, 64, 32], (64, 1))
    )
    keys = jax.random.split(jax.random.key(0), 64)
    _, found = augment_poses.augment(keys, batch, **(NOTHING | {"rotate": 40.0}))
    away = np.abs(np.asarray(found)[:, :2, :2] - CENTRE)
    assert (away <= (32.01, 64.01)).all()
    touching = (away.max(1) / (32, 64)).max(1)  # what spans the box reaches the frame's edge
    assert np.quantile(touching, 0.5) > 0.7


def test_masks_are_grey_and_channels_change_places():
    pixels = np.random.default_rng(0).integers(0, 100, (64, 128, 64, 3), np.uint8)
    batch = PoseBatch(pixels, np.zeros((64, 16, 3)), np.tile([0, 0, 128, 64], (64, 1)))
    keys = jax.random.split(jax.random.key(0), 64)
    same, _ = augment_poses.augment(keys, batch, **NOTHING)
    np.testing.assert_allclose(same, pixels, atol=1e-3)
    masked, _ = augment_poses.augment(keys, batch, **(NOTHING | {"mask": 1.0}))
    covered = np.isclose(masked, poses.GREY).all(-1)
    np.testing.assert_allclose(np.where(covered[..., None], pixels, masked), pixels, atol=1e-3)
    shares = covered.mean((1, 2))
    assert (shares > 0).all()
    assert (shares < 0.36).all()
    assert 0.03 < shares.mean() < 0.15
    moved, _ = augment_poses.augment(keys, batch, **(NOTHING | {"permute": 1.0}))
    orders = {
        tuple(int(np.abs(image[..., [c]] - own).mean((0, 1)).argmin()) for c in range(3))
        for image, own in zip(np.asarray(moved), pixels, strict=True)
    }
    assert orders == {(0, 1, 2), (0, 2, 2), (1, 1, 2), (1, 2, 1), (2, 2, 2), (2, 1, 2)}


# Maps and metric


def test_target_maps_are_the_same_on_the_device():
    rng = np.random.default_rng(0)
    keypoints = np.concatenate([rng.uniform(0, 64, (2, 16, 2)), rng.integers(0, 3, (2, 16, 1))], -1)
    host = heatmaps.teacher_maps(keypoints, 64, 64)
    device = jax.jit(lambda k: heatmaps.teacher_maps(k, 64, 64))(jnp.asarray(keypoints))
    assert isinstance(device, jax.Array)
    np.testing.assert_allclose(host, device, atol=1e-6)


def test_the_highest_points_of_target_maps_are_the_joints():
    rng = np.random.default_rng(0)
    keypoints = np.concatenate([rng.uniform(8, 120, (2, 16, 2)), np.full((2, 16, 1), 2)], -1)
    maps = heatmaps.teacher_maps(keypoints, 128, 128)[..., :16]
    whole = np.array([[0, 0, 128, 128]] * 2)
    found = pose_maps.highest(maps, whole, 8)
    assert np.abs(found - keypoints[..., :2]).max() < 2.5  # a third of a cell
    box = np.array([[32, 40, 64, 50]] * 2)
    inside = pose_maps.highest(maps, box, 8)
    assert (inside >= np.array([40, 32])).all()
    assert (inside < np.array([90, 96])).all()


def test_the_mean_pose_follows_the_box():
    keypoints = np.ones((2, 16, 3))
    keypoints[:, 4] = [[10, 30, 2], [14, 99, 0]]  # the second is missing
    box = np.array([[10, 5, 40, 20], [0, 0, 10, 10]])
    pose_set = PoseSet(None, keypoints, box, None, None)
    mean = pose_experiment.mean_pose(pose_set, np.array([[0, 0, 80, 60]]))
    assert mean[0, 4] == pytest.approx((60 * 5 / 20, 80 * 20 / 40))


# Optimiser


def test_groups_step_at_their_multiples_and_norms_are_not_decayed():
    c = pose_lip.get_config().optimizer
    params = {
        "cpm_0": {"conv": {"kernel": 1.0, "bias": 1.0}, "norm": {"scale": 1.0, "bias": 1.0}},
        "stem": {"norm": {"scale": 1.0}},
        "refinement_0": {"refine1": {"initial": {"kernel": 1.0, "bias": 1.0}}},
        "separable1": {"depthwise": {"kernel": 1.0}, "depthwise_norm": {"bias": 1.0},
                       "pointwise": {"kernel": 1.0}},
    }  # fmt: skip
    params = jax.tree.map(jnp.asarray, params)
    rule = pose_step.build_optimizer(c, lambda _: 1.0)
    still = jax.tree.map(jnp.zeros_like, params)
    pushed, _ = rule.update(jax.tree.map(jnp.ones_like, params), rule.init(params), params)
    assert jax.tree.map(lambda u: round(-float(u), 3), pushed) == {
        "cpm_0": {"conv": {"kernel": 1, "bias": 2}, "norm": {"scale": 0, "bias": 0}},
        "stem": {"norm": {"scale": 1}},
        "refinement_0": {"refine1": {"initial": {"kernel": 4, "bias": 8}}},
        "separable1": {"depthwise": {"kernel": 1}, "depthwise_norm": {"bias": 1},
                       "pointwise": {"kernel": 1}},
    }  # fmt: skip
    decayed, _ = rule.update(still, rule.init(params), params)
    moved = {
        "/".join(key.key for key in path)
        for path, update in jax.tree_util.tree_leaves_with_path(decayed)
        if abs(float(update)) > 1e-6
    }
    assert moved == {
        "cpm_0/conv/kernel", "refinement_0/refine1/initial/kernel", "separable1/pointwise/kernel"
    }  # fmt: skip


def test_the_rate_falls_after_the_sixth_evaluation_without_progress():
    c = pose_lip.get_config().optimizer
    rule = pose_step.build_plateau(c)
    state, scales = rule.init({"w": jnp.zeros(1)}), []
    for value in (50.0, *[49.6] * 6, 40.0, *[41.0] * 5, 39.0, 39.0):
        _, state = rule.update({}, state, value=value)
        scales.append(round(float(state.scale), 3))
    assert scales == [1.0] * 6 + [0.1] * 9
    c.patience = 0
    assert pose_step.build_plateau(c) is None


def test_a_plateau_lowers_the_rate_of_the_next_step(tmp_path):
    config = lip_config(tmp_path, trees.lip(tmp_path / "lip"))
    config.train.steps, config.optimizer.patience = 5, 1
    config.optimizer.plateau_threshold = 1.0  # nothing is ever an improvement
    train.train(config, str(tmp_path / "run"))
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").open()]
    rates = [line["learning_rate"] / config.optimizer.learning_rate for line in lines]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


# For re-identification


def test_the_pose_branch_starts_from_a_teachers_refinement_stage(tiny, tmp_path):
    config = lip_config(tmp_path, trees.lip(tmp_path / "lip"))
    config.train.steps = 1
    train.train(config, str(tmp_path / "run"))
    file = tmp_path / "run" / pose_experiment.WEIGHTS
    reid = tiny()
    reid.data.heatmaps = "joints_and_background"
    reid.model.pose_width = 8
    reid.model.init_pose_from = str(file)
    state = Experiment(reid).init_state()
    stage = pose_maps.load(file).variables
    for kind, own in (("params", state.params), ("batch_stats", state.batch_stats)):
        jax.tree.map(
            np.testing.assert_array_equal, own["pose"]["refinement"], stage[kind]["refinement_0"]
        )
    reid.data.heatmaps = "merged"
    shapes = Experiment(reid).abstract_state()
    variables = {"params": shapes.params, "batch_stats": shapes.batch_stats}
    with pytest.raises(UserError, match=r"heatmaps=joints_and_background and .*pose_width=8"):
        pose_maps.start_pose_branch(file, variables)


def test_the_background_stays_what_the_joints_leave(tiny, tmp_path):
    data = tiny().data
    data.heatmaps = "joints_and_background"
    found = images.load_images(data, "train")
    assert found.heatmaps.shape[-1] == 17
    np.testing.assert_array_equal(found.heatmaps[..., 16], 255 - found.heatmaps[..., :16].max(-1))
    heatmaps.save(tmp_path / "joints.npz", found.path, found.heatmaps[..., :16], {})
    loaded = heatmaps.load(tmp_path / "joints.npz", found.path, found.heatmaps.shape[1:])
    np.testing.assert_array_equal(loaded, found.heatmaps)
