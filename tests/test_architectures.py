"""Table III's methods: bilinear pooling, the hard triplets, each network and its run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny as tiny_config
import untrained
from jax.test_util import check_grads

from configs import default
from vireid_jax.evaluation import attention
from vireid_jax.interop import torch_weights
from vireid_jax.losses import cross_modality_triplet
from vireid_jax.models import bilinear, network
from vireid_jax.models.architectures import pgfa
from vireid_jax.training import step, train, trained
from vireid_jax.training.experiment import Experiment
from vireid_jax.types import Modality, Outputs, Targets, UserError

LABEL = np.array([0, 0, 3, 3, 1, 1])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def short(tiny):
    """A function (variant) -> the config of two steps in which nothing but a loss moves weights."""

    def config(variant):
        c = tiny(variant)
        c.train.steps, c.optimizer.weight_decay = 2, 0.0
        c.evaluation.flip_averaging = True
        return c

    return config


# Compact bilinear pooling


def outer_sketch(a, b, size, seeds):
    """The count sketch of a b^T, one product at a time."""
    h, s = bilinear.hashes(len(a), size, seeds[0])
    g, t = bilinear.hashes(len(b), size, seeds[1])
    y = np.zeros(size)
    for i, j in np.ndindex(len(a), len(b)):
        y[(h[i] + g[j]) % size] += s[i] * t[j] * a[i] * b[j]
    return y


@pytest.mark.parametrize("size", [8, 5])
def test_the_product_of_spectra_is_the_sketch_of_the_outer_product(rng, size):
    a, b = rng.normal(size=7), rng.normal(size=6)
    with jax.enable_x64(True):
        product = bilinear.spectrum(a, size, 3) * bilinear.spectrum(b, size, 4)
        found = jnp.fft.irfft(product, size)
    np.testing.assert_allclose(found, outer_sketch(a, b, size, (3, 4)), atol=1e-12)


def test_stripes_are_pooled_sums_under_root_and_norm(rng):
    a, b = rng.normal(size=(2, 2, 5, 3, 8)) * 10
    with jax.enable_x64(True):
        found = bilinear.pooled(a, b, 2)  # rows 0 to 2 and 2 to 4
    for part, image in np.ndindex(2, 2):
        region = (x[image, 2 * part :][:3].reshape(9, 8) for x in (a, b))
        y = sum(outer_sketch(*pair, 8, (0, 1)) for pair in zip(*region, strict=True))
        y = np.sign(y) * np.sqrt(np.abs(y))
        np.testing.assert_allclose(found[part, image], y / np.linalg.norm(y), rtol=1e-4)


def test_inner_products_are_those_of_outer_products_on_average(rng):
    a, b, c, d = rng.uniform(size=(4, 6))
    seeds = [(2 * i, 2 * i + 1) for i in range(2000)]
    found = [outer_sketch(a, b, 8, pair) @ outer_sketch(c, d, 8, pair) for pair in seeds]
    error, expected = np.std(found) / np.sqrt(len(found)), (a @ c) * (b @ d)
    assert abs(np.mean(found) - expected) < 3 * error < 0.1 * expected


def test_nothing_to_pool_has_finite_gradients():
    zero = jnp.zeros((1, 2, 2, 4))
    gradients = jax.grad(lambda a, b: bilinear.pooled(a, b, 1).sum(), (0, 1))(zero, zero)
    assert np.isfinite(gradients).all()


# The cross-modality hard triplets


def plain_pentaplet(f, label, infrared, margin):
    total = 0.0
    for across in (False, True):
        for i in range(len(f)):
            others = [j for j in range(len(f)) if not across or infrared[j] != infrared[i]]
            d = {j: np.linalg.norm(f[i] - f[j]) for j in others}
            positive = max(x for j, x in d.items() if label[j] == label[i])
            negative = min(x for j, x in d.items() if label[j] != label[i])
            total += max(0.0, margin + positive - negative) / len(f)
    return total


def test_triplets_by_hand():
    # Identity 0 at 0 (RGB) and 1 (IR), identity 1 at 4 (RGB) and 1.5 (IR).
    f, label = jnp.array([[0.0], [4.0], [1.0], [1.5]]), jnp.array([0, 1, 0, 1])
    infrared = jnp.array([False, False, True, True])
    # Over all: 0 by [.3 + 1 - 1.5]+, 4 by .3 + 2.5 - 3, 1 by .3 + 1 - .5, 1.5 by .3 + 2.5 - .5;
    # across: [.3 + 1 - 1.5]+, .3 + 2.5 - 3, [.3 + 1 - 3]+, .3 + 2.5 - 1.5.
    value = cross_modality_triplet.hard_pentaplet(f, label, infrared, 0.3)
    assert value == pytest.approx((0.8 + 2.3) / 4 + 1.3 / 4)


def outputs_of(features):
    return Outputs(None, features, None, None, None)


def test_triplets_against_a_loop_and_their_gradient(rng):
    features, label = rng.normal(size=(3, 12, 4)), np.concatenate([LABEL, LABEL])
    infrared = np.arange(12) >= 6
    with jax.enable_x64(True):

        def loss(x):
            return cross_modality_triplet.term(outputs_of(x), Targets(label), margin=1.0)

        expected = sum(plain_pentaplet(f, label, infrared, 1.0) for f in features)
        assert loss(features) == pytest.approx(expected)
        check_grads(loss, (features,), 1, ["rev"])
        assert np.isfinite(jax.grad(loss)(np.ones_like(features))).all()


def test_triplets_are_mined_over_all_devices(rng):
    features = rng.normal(size=(3, 2, 6, 4))  # by head, modality and row
    with jax.enable_x64(True):

        def whole(x):
            targets = Targets(jnp.concatenate([LABEL, LABEL]))
            return cross_modality_triplet.term(outputs_of(x.reshape(3, 12, 4)), targets)

        def split(x):
            def on_device(x, label):
                targets = Targets(jnp.concatenate([label, label]), axis_name="devices")
                return cross_modality_triplet.term(outputs_of(x.reshape(3, -1, 4)), targets)

            shares = x.reshape(3, 2, 3, 2, 4), LABEL.reshape(3, 2)  # an identity for each
            return jax.vmap(on_device, (2, 0), axis_name="devices")(*shares).mean()

        for a, b in zip(*(jax.value_and_grad(f)(features) for f in (whole, split)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


# PABR


def test_identities_alone_teach_the_pose_branch(short):
    experiment = Experiment(short("pabr"))
    state, batch = experiment.init_state(), experiment.batches()[0]
    before = jax.device_get(state.params["pose"])
    devices = experiment.devices
    state, _ = experiment.train_step()(devices.replicate(state), devices.place(batch))
    changed = jax.tree.map(lambda a, b: (a != b).any(), before, state.params["pose"])
    without_loss = [changed["refinement"].pop(name) for name in ("heatmap_0", "heatmap_1")]
    assert not any(jax.tree.leaves(without_loss))
    for path, learned in jax.tree.leaves_with_path(changed):
        before_norm = jax.tree_util.keystr(path).endswith("['conv']['bias']")
        assert learned != before_norm, path


def test_grad_cam_sees_pabrs_pose_branch_through_its_only_logits():
    config = tiny_config.get_config("pabr")
    net = network.build(config.model, untrained.IDS, "float32", heatmaps=1)
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 48, 3), np.uint8)
    apply = step.make_apply(net, untrained.variables(config), images, Modality.VISIBLE)
    maps = attention.attention(apply, np.full(2, -1))
    assert maps.keys() == {"ReID", "pose"}
    assert all((own.max((1, 2)) > 0.99).all() for own in maps.values())


# PGFA


@pytest.fixture(scope="module")
def extractors():
    """The tiny network as a function of variables, images and heatmaps [2, 3, ...]; and these."""
    config, rng = tiny_config.get_config("pgfa"), np.random.default_rng(0)
    net = network.build(config.model, untrained.IDS, "float32", heatmaps=1)

    def features(variables, images, maps):
        rows = maps.reshape(6, 24, 12, 1)
        return net.apply(variables, *images, rows, train=True, mutable=["batch_stats"])[0].f_ID

    images, maps = rng.normal(size=(2, 3, 96, 48, 3)), rng.uniform(size=(2, 3, 24, 12, 1))
    return jax.jit(features), (untrained.variables(config), jnp.array(images), jnp.array(maps))


@pytest.mark.parametrize("changed", [0, 1])
def test_the_modalities_share_nothing(extractors, changed):
    run, (variables, images, maps) = extractors
    name, rows = ("rgb", "ir")[changed], np.arange(6) // 3 == changed
    params = variables["params"]
    params = params | {name: jax.tree.map(lambda x: x + 0.1, params[name])}
    before = run(variables, images, maps)
    for arguments in (
        (variables | {"params": params}, images, maps),
        (variables, images.at[changed].multiply(-1), maps),
        (variables, images, maps.at[changed, :, :12].set(0)),
    ):
        after = run(*arguments)
        np.testing.assert_array_equal(before[~rows], after[~rows])
        assert (np.abs(before[rows] - after[rows]).max(1) > 1e-3).all()


def test_both_extractors_start_from_the_same_weights():
    net = network.build(tiny_config.get_config("pgfa").model, 5, "float32", heatmaps=1)
    params = network.init(net, jax.random.key(0), 96, 48)["params"]
    assert params.keys() == {"rgb", "ir"}
    jax.tree.map(np.testing.assert_array_equal, params["rgb"], params["ir"])


def test_attention_is_the_highest_joint_over_blocks(rng):
    maps = rng.uniform(size=(2, 18, 12, 17))  # 16 joints, then the background
    found = pgfa.attention(maps)
    highest = maps[..., :16].max(-1)
    assert found.shape == (2, 5, 3, 1)
    for i, j in np.ndindex(5, 3):
        block = highest[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        np.testing.assert_allclose(found[:, i, j, 0], block.mean((1, 2)), rtol=1e-6)


def test_both_extractors_take_a_torchvision_resnet():
    for module in ("rgb/streams", "ir/streams", "rgb/reid", "streams/ir"):
        path = "params", *module.split("/"), "layer3", "block0", "conv1", "kernel"
        assert torch_weights.TORCHVISION.names(path, ()) == ["layer3.0.conv1.weight"]
    path = "params", "rgb", "parts", "heads", "fc", "kernel"
    assert torch_weights.TORCHVISION.names(path, ()) == []


def test_the_diagnosis_sends_images_through_the_other_extractor(tiny):
    experiment = Experiment(tiny("pgfa"))
    state, few = experiment.init_state(), experiment.train_set
    changed = state.params | {"ir": jax.tree.map(lambda x: x + 0.05, state.params["ir"])}
    own, other = (
        experiment.identity_losses(state.replace(params=changed), few, swap)
        for swap in (False, True)
    )
    before = experiment.identity_losses(state, few, False)
    visible = few.modality == Modality.VISIBLE
    np.testing.assert_array_equal(own[visible], before[visible])
    np.testing.assert_array_equal(other[~visible], before[~visible])
    assert (own != before)[~visible].all()
    assert (other != before)[visible].all()


# Runs


@pytest.mark.parametrize(
    ("variant", "terms"), [("pgfa", {"identity"}), ("pabr", {"identity", "cross_modality_triplet"})]
)
def test_a_run_trains_and_evaluates(short, tmp_path, variant, terms):
    config = short(variant)
    results = train.train(config, str(tmp_path / "run"))
    assert set(results["losses"]) == terms
    assert results["protocols"]["all-seeded"].keys() == {"f_ID", "trials"}
    assert train.evaluate(config, str(tmp_path / "run")) == results


def test_the_published_codes_recipe_goes_with_either():
    config = default.get_config("pabr,published_code")
    assert set(config.loss) == {"identity", "cross_modality_triplet"}
    assert (config.model.architecture, config.model.parts) == ("pabr", 5)
    assert config.optimizer.schedule == "milestones"
    assert set(default.get_config("published_code,pgfa").loss) == {"identity"}


def test_what_cannot_be_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="pgfa and baseline exclude each other"):
        default.get_config("pgfa,baseline")
    config = tiny("pgfa")
    config.data.heatmaps = "none"
    with pytest.raises(UserError, match=r"pgfa looks only where .* has no heatmaps here"):
        Experiment(config)
    with pytest.raises(UserError, match=r"the variant pgfa, which looks only where .* keypoints"):
        trained.load(untrained.run(tmp_path / "run", "pgfa"))
    config = tiny("pabr")
    config.model.pose_branch = True
    with pytest.raises(UserError, match=r"pabr has no pose branch with heads"):
        Experiment(config)
    config.model.architecture = "pabrr"
    with pytest.raises(UserError, match="unknown architecture 'pabrr'; did you mean 'pabr'"):
        Experiment(config)
