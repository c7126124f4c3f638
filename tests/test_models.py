import functools
import math
import re
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default, regdb, synthetic
from vireid_jax.models import gpu_convolution, network, part_heads, refinement, upsampling
from vireid_jax.models.backbones import resnet
from vireid_jax.models.channel_sums import channel_sums
from vireid_jax.models.layers import BatchNorm, ConvBlock, Layers
from vireid_jax.types import UserError

# Trained parameters at paper size, 395 identities and one heatmap, by variant and part.
_BASELINE = {"streams": 1_670_272, "reid": 22_063_104, "parts": 7_516_482}
_PEB = _BASELINE | {"pose": 10_056_546, "parts": 15_032_964}
PARAMETERS = {
    "baseline": _BASELINE,
    "peb": _PEB,
    "peb_pose": _PEB,
    "full": _PEB | {"teacher": 4_602_251},
    "pabr": _PEB | {"parts": 6_263_735},
    "pgfa": dict.fromkeys(("rgb", "ir"), 1_444_928 + 22_063_104 + 6_263_735),
}

SHAPES = {  # for one RGB and one IR image of 288 x 144
    "F_S": (2, 36, 18, 512),
    "F_p1": (2, 36, 18, 256),
    "F_p2": (2, 72, 36, 128),
    "F_R": (2, 72, 36, 128),
    "heatmap": (2, 72, 36, 1),
    "F_P": (2, 18, 9, 2048),
    "M": (2, 18, 9, 2048),
    "F_id2": (2, 18, 9, 2048),
    "F_ID": (2, 18, 9, 2048),
    "id_features": (6, 2, 512),
    "pose_features": (6, 2, 512),
    "id_logits": (6, 2, 395),
    "pose_logits": (6, 2, 395),
    "teacher_logits": (2, 395),
    "f_ID": (2, 3072),
    "f_ALL": (2, 6144),
}


def paper_network(variant):
    config = default.get_config(variant)
    net = network.build(config.model, 395, "float32", heatmaps=1)
    images = jnp.zeros((1, config.data.height, config.data.width, 3))
    size = config.data.height, config.data.width
    variables = jax.eval_shape(lambda key: network.init(net, key, *size), jax.random.key(0))
    return net, variables, images


def count(params):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def test_paper_size_shapes_by_symbol():
    net, variables, images = paper_network("full")

    def run(v):
        outputs = net.apply(v, images, images, train=False)
        return {name: getattr(outputs, name) for name in SHAPES}

    shapes = {name: x.shape for name, x in jax.eval_shape(run, variables).items()}
    assert shapes == SHAPES


def test_five_parts_have_2560_dimensions():
    net, variables, images = paper_network("full,five_parts")
    run = jax.eval_shape(lambda v: net.apply(v, images, images, train=False).f_ID, variables)
    assert run.shape == (2, 2560)


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameter_counts(variant):
    _, variables, _ = paper_network(variant)
    counts = {part: count(params) for part, params in variables["params"].items()}
    assert counts == PARAMETERS[variant]
    if variant == "full":
        assert sum(counts.values()) == 53_425_137


@pytest.fixture(scope="module")
def small():
    """A small full network, its variables and images of both modalities."""
    net = network.Network(
        ids=5, width=4, pose_width=4, blocks=(1, 1, 1, 1), features=8, teacher_features=8
    )
    variables = network.init(net, jax.random.key(0), 96, 32)
    rgb, ir = jax.random.normal(jax.random.key(1), (2, 3, 96, 32, 3))
    return net, variables, rgb, ir


@pytest.fixture(scope="module")
def outputs(small):
    net, variables, rgb, ir = small
    return jax.jit(lambda v: net.apply(v, rgb, ir, train=False))(variables)


def test_mask_is_the_sigmoid_of_the_keypoint_features_and_is_applied(outputs):
    np.testing.assert_allclose(outputs.M, 1 / (1 + np.exp(-outputs.F_P)), rtol=1e-5)
    np.testing.assert_allclose(outputs.F_ID, outputs.M * outputs.F_id2, rtol=1e-6)
    assert (outputs.M < 0.5).any()


def test_part_features_have_length_five(outputs):
    for features in outputs.features:
        np.testing.assert_allclose(jnp.linalg.norm(features, axis=-1), 5.0, rtol=1e-5)


def test_f_all_is_identity_parts_then_pose_parts(outputs):
    row = outputs.f_ALL[2].reshape(12, 8)
    np.testing.assert_array_equal(row[:6], outputs.id_features[:, 2])
    np.testing.assert_array_equal(row[6:], outputs.pose_features[:, 2])
    np.testing.assert_array_equal(outputs.f_ID[2], outputs.f_ALL[2, :48])


def test_one_modality_alone_equals_its_rows_of_both(small, outputs):
    net, variables, rgb, ir = small
    only_rgb = net.apply(variables, rgb, None, train=False).f_ALL
    only_ir = net.apply(variables, None, ir, train=False).f_ALL
    np.testing.assert_allclose(outputs.f_ALL[:3], only_rgb, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs.f_ALL[3:], only_ir, rtol=1e-4, atol=1e-5)
    assert not np.allclose(outputs.f_ALL[:3], net.apply(variables, None, rgb, train=False).f_ALL)


def test_stripes_overlap_where_parts_do_not_divide_the_height():
    x = jnp.arange(18.0)[None, :, None, None] * jnp.ones((2, 18, 9, 4))
    pooled = part_heads.stripes(x, 5)  # 6 rows high, 3 apart
    np.testing.assert_allclose(pooled[:, 0, 0], [2.5, 5.5, 8.5, 11.5, 14.5])
    np.testing.assert_allclose(part_heads.stripes(x, 6)[:, 0, 0], [1, 4, 7, 10, 13, 16])


@pytest.mark.parametrize("size", [(13, 21), (8, 8)])
def test_refinement_keeps_odd_sizes(size):
    stage = refinement.RefinementStage(Layers(train=True), features=6, heatmaps=2)
    x = jnp.ones((2, *size, 5))
    features, heatmap = jax.eval_shape(
        lambda key: stage.init_with_output(key, x)[0], jax.random.key(0)
    )
    assert features.shape == (2, *size, 6)
    assert heatmap.shape == (2, *size, 2)


@pytest.mark.parametrize("size", [(2, 3), (1, 1), (9, 4)])
def test_doubling_is_bilinear_in_value_and_gradient(size):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, *size, 3)), rng.normal(size=(2, 2 * size[0], 2 * size[1], 3))
    with jax.enable_x64(True):
        y, backward = jax.vjp(upsampling.doubled, x)
        expected, expected_backward = jax.vjp(
            lambda x: jax.image.resize(x, dy.shape, "bilinear"), x
        )
        np.testing.assert_allclose(y, expected, 1e-12, 1e-12)
        np.testing.assert_allclose(backward(dy)[0], expected_backward(dy)[0], 1e-12, 1e-12)


def test_the_forms_for_a_gpu_have_the_same_losses_and_gradients(small, monkeypatch):
    net, variables, rgb, ir = small
    monkeypatch.setattr(gpu_convolution, "_TILE", 8)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype(float), variables["params"])

        def gradient(backend, convolve):
            monkeypatch.setattr(jax, "default_backend", lambda: backend)
            own = net.clone(dtype=jnp.float64, conv_general_dilated=convolve)

            def loss(params):
                given = variables | {"params": params}
                y, _ = own.apply(given, rgb, ir, train=True, mutable=["batch_stats"])
                return sum(jnp.sin(x).sum() for x in (y.f_ALL, y.heatmap, y.teacher_logits))

            return jax.jit(jax.value_and_grad(loss))(params)

        found = gradient("gpu", gpu_convolution.in_other_words)
        expected = gradient("cpu", None)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected[1]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-8, 1e-10 * largest), found, expected
    )


def test_remat_gives_the_same_gradients_and_statistics():
    x, found = np.random.default_rng(0).normal(size=(4, 8, 4, 8)), []
    with jax.enable_x64(True):
        for remat in (False, True):
            layers = Layers(train=True, dtype=jnp.float64, remat=remat)
            stage = resnet.Stage(layers, width=2, blocks=2)

            def loss(params, stage=stage):
                y, state = stage.apply({"params": params}, x, mutable=["batch_stats"])
                return jnp.square(y).mean(), state

            params = jax.jit(stage.init)(jax.random.key(0), x)["params"]
            found.append(jax.jit(jax.grad(loss, has_aux=True))(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *found)


def test_remat_keeps_less_for_the_backward_pass():
    config, kept = synthetic.get_config(), {}
    images = jnp.zeros((4, 96, 48, 3))
    for remat in (False, True):
        net = network.build(config.model, 8, "float32", heatmaps=1, remat=remat)
        variables = jax.eval_shape(
            lambda key, net=net: net.init(key, images, images, train=True), jax.random.key(0)
        )

        def backward(variables, net=net):
            run = functools.partial(net.apply, train=True, mutable=["batch_stats"])
            return jax.vjp(lambda v: run(v, images, images)[0].F_ID.sum(), variables)[1]

        residuals = jax.tree.leaves(jax.eval_shape(backward, variables))
        kept[remat] = sum(x.size * x.dtype.itemsize for x in residuals)
    assert kept[True] < 0.5 * kept[False]


def test_batchnorm_normalises_and_keeps_the_unbiased_variance():
    x = np.random.default_rng(0).normal(3, 2, (4, 5)).astype(np.float32)
    norm = BatchNorm(use_running_average=False)
    variables = norm.init(jax.random.key(0), x)
    y, updated = norm.apply(variables, x, mutable=["batch_stats"])
    expected = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    stats = updated["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "bias", "depthwise", "transposed"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("bfloat16", 2e-2)])
def test_at_test_time_a_convolution_and_its_norm_are_one(kind, dtype, tolerance):
    layers, options = Layers(False, jnp.dtype(dtype)), {"bias": kind == "bias"}
    build = functools.partial(layers.conv, **options, groups=4 if kind == "depthwise" else 1)
    build = layers.transposed_conv if kind == "transposed" else build

    class Both(nn.Module):
        @nn.compact
        def __call__(self, x):
            return layers.conv_and_norm(build(4, name="conv"), "norm", x)

    def apart(variables, x):
        x = build(4, name=None).apply({"params": variables["params"]["conv"]}, x)
        own = {name: group["norm"] for name, group in variables.items()}
        return layers.norm(name=None).apply(own, x)

    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2, 6, 4, 4)).astype(layers.dtype)
        variables = Both().init(jax.random.key(0), x)
        variables = jax.tree.map(lambda x: rng.uniform(0.5, 2, x.shape).astype(x.dtype), variables)
        expected = np.asarray(apart(variables, x), float)
        found = Both().apply(variables, x)
        np.testing.assert_allclose(
            np.asarray(found, float), expected, 0, tolerance * np.abs(expected).max()
        )
        program = str(jax.make_jaxpr(Both().apply)(variables, x))
    images = ",".join(map(str, found.shape))
    assert not re.search(rf"\[{images}\] = mul", program)


def test_sums_over_many_rows_round_little():
    x = jax.nn.softplus(jax.random.normal(jax.random.key(0), (16, 72, 36, 8)))
    found = channel_sums(x, x)
    precise = np.asarray(x, np.float64)
    exact = [precise.sum((0, 1, 2)), np.square(precise).sum((0, 1, 2))]
    np.testing.assert_allclose(found, exact, rtol=2e-6)


@pytest.mark.parametrize("backend", ["cpu", "gpu", "another"])
@pytest.mark.parametrize("devices", [1, 2])
def test_batchnorm_has_the_gradients_of_its_definition(monkeypatch, backend, devices):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, scale, bias = rng.normal(3, 2, (4, 3, 2, 5)), rng.normal(size=5), rng.normal(size=5)
        norm = BatchNorm(False, "devices", jnp.float64)

        def ours(x):
            def loss(x, scale, bias):
                variables = {"params": {"scale": scale, "bias": bias}}
                y, _ = norm.apply(variables, x, mutable=["batch_stats"])
                return jnp.sin(y).sum(), y

            return jax.value_and_grad(loss, (0, 1, 2), True)(x, scale, bias)

        def definition(x, scale, bias):
            axes = (0, 1, 2)
            y = scale * (x - x.mean(axes)) / jnp.sqrt(x.var(axes) + 1e-5) + bias
            return jnp.sin(y).sum(), y

        found = jax.vmap(ours, axis_name="devices")(x.reshape(devices, -1, *x.shape[1:]))
        (loss, y), (dx, *others) = found
        found = (loss.sum(), y.reshape(x.shape)), (dx.reshape(x.shape), *(g.sum(0) for g in others))
        expected = jax.value_and_grad(definition, (0, 1, 2), True)(x, scale, bias)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-10, 1e-10), found, expected)


@pytest.mark.parametrize(
    ("height", "width", "names"),
    [(100, 48, ("config.data.height=100", "use 96")), (96, 50, ("config.data.width=50", "use 48"))],
)
def test_a_size_that_does_not_divide_is_refused_with_the_nearest(height, width, names):
    with pytest.raises(UserError) as error:
        network.check_size(height, width, parts=6)
    assert all(name in str(error.value) for name in names)


def test_a_height_with_fewer_rows_than_parts_is_refused():
    network.check_size(96, 48, parts=6)
    with pytest.raises(UserError, match="height of at least 96"):
        network.check_size(80, 48, parts=6)


def test_a_backbone_is_one_file_with_three_functions():
    def specific(layers, width, blocks, x):
        return layers.conv(width, 3, strides=4, name="patches")(x)

    def halved(layers, width, blocks, x):
        return layers.conv(2 * x.shape[-1], 3, strides=2, name="conv")(x)

    plain = types.SimpleNamespace(specific=specific, shared=halved, identity=halved)
    net = network.Network(5, plain, width=4, pose_width=4, blocks=(), features=8)
    rgb, ir = jnp.zeros((2, 3, 96, 32, 3))
    outputs, variables = jax.eval_shape(
        lambda key: net.init_with_output(key, rgb, ir, train=True), jax.random.key(0)
    )
    assert outputs.F_id2.shape == outputs.F_P.shape == (6, 6, 2, 16)
    assert variables["params"]["streams"].keys() == {"rgb", "ir", "conv"}


def test_choices_compose_in_their_order():
    config = regdb.get_config("peb,published_code,five_parts")
    assert config.variant == "peb,published_code,five_parts"
    assert set(config.loss) == {"identity", "hetero_center"}
    assert config.loss.hetero_center.form == "contrastive6"
    assert (config.batch.identities, config.augment.flip, config.model.parts) == (16, 0.0, 5)
    assert regdb.get_config("full,published_code").loss.pose.weight == 7.0
    # The recipe is the same on top of any config.
    ours, theirs = (m.get_config("full,published_code") for m in (default, synthetic))
    for section in ("loss", "optimizer", "augment", "train"):
        own = {"checkpoint_every", "keep_memory"}  # of the machine, not of the recipe
        a, b = ({k: v for k, v in c[section].items() if k not in own} for c in (ours, theirs))
        assert a == b
    assert default.get_config().loss.pose.weight == 5.0


def test_the_mask_and_the_teacher_read_either_way(small, outputs):
    net, variables, rgb, ir = small
    other = net.clone(mask_relu=True).apply(variables, rgb, ir, train=False)
    assert (other.M >= 0.5).all()
    np.testing.assert_array_equal(other.F_P, jnp.maximum(outputs.F_P, 0))
    other = net.clone(masked_teacher=True).apply(variables, rgb, ir, train=False)
    np.testing.assert_allclose(other.F_ID, outputs.F_ID, rtol=1e-4, atol=1e-5)
    assert not np.allclose(other.teacher_logits, outputs.teacher_logits)


def test_a_teacher_needs_the_pose_branch():
    config = default.get_config("full")
    config.model.pose_branch = False
    with pytest.raises(UserError, match=r"config\.model\.pose_branch"):
        network.build(config.model, 5, "float32", heatmaps=1)


def test_a_zero_feature_stays_zero_with_a_finite_gradient():
    f = jnp.stack([jnp.zeros(4), jnp.arange(4.0)])
    value, gradient = jax.value_and_grad(lambda f: jnp.square(part_heads.normalised(f)).sum())(f)
    assert value == pytest.approx(part_heads.FEATURE_NORM**2)
    assert jnp.isfinite(gradient).all()


def test_batchnorm_in_half_precision_keeps_its_input_as_it_came():
    x, dy = jax.random.normal(jax.random.key(0), (2, 64, 8))
    norm = BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
    variables = norm.init(jax.random.key(0), x)

    def run(x):
        return norm.apply(variables, x, mutable=["batch_stats"])[0].astype(jnp.float32)

    half = x.astype(jnp.bfloat16)
    value, backward = jax.vjp(run, half)
    kept = [leaf.dtype for leaf in jax.tree.leaves(backward) if leaf.shape == x.shape]
    assert kept == [jnp.bfloat16]
    expected, expected_backward = jax.vjp(run, half.astype(jnp.float32))
    np.testing.assert_array_equal(value, expected)
    (gradient,), (expected,) = backward(dy), expected_backward(dy)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient, expected.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("build", "name", "shape"),
    [
        (lambda layers: ConvBlock(layers, 4, bias=True), "conv", (2, 6, 6, 3)),
        (lambda layers: part_heads.Head(layers, 4, 3), "fc", (5, 3)),
    ],
)
def test_a_bias_that_batchnorm_takes_away_has_no_gradient_in_training(build, name, shape):
    x = jax.random.normal(jax.random.key(1), shape)

    def gradient(train):
        block = build(Layers(train))
        variables = block.init(jax.random.key(0), x)

        def loss(params):
            y, _ = block.apply(variables | {"params": params}, x, mutable=["batch_stats"])
            return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(y))

        return jax.grad(loss)(variables["params"])[name]

    assert not gradient(train=True)["bias"].any()
    assert gradient(train=False)["bias"].all()
    assert gradient(train=True)["kernel"].all()
