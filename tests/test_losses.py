"""Each loss: a value worked by hand, a plain loop, finite differences, the degenerate case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from vireid_jax import losses
from vireid_jax.losses import distillation, hetero_center, identity, pose
from vireid_jax.types import Outputs, Targets, UserError


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


# Identity, Eq. 17


def test_identity_by_hand():
    logits = jnp.log(jnp.array([[[0.5, 0.5], [0.25, 0.75]], [[0.1, 0.9], [0.8, 0.2]]]))
    value = identity.identity(logits, jnp.array([0, 1]))
    assert value == pytest.approx(-(np.log([0.5, 0.75]).mean() + np.log([0.1, 0.2]).mean()))


def test_identity_against_a_loop(rng):
    logits, label = rng.normal(size=(3, 4, 5)), np.array([0, 4, 2, 2])
    expected = 0
    for head in logits:
        for row, own in zip(head, label, strict=True):
            expected -= np.log(softmax(row)[own]) / len(label)
    assert identity.identity(logits, label) == pytest.approx(expected)


def test_identity_gradient(rng):
    label = jnp.array([0, 4, 2, 2])
    check_grads(lambda x: identity.identity(x, label), (rng.normal(size=(3, 4, 5)),), 1, ["rev"])


def test_identity_of_extreme_logits_is_finite():
    value, gradient = jax.value_and_grad(lambda x: identity.identity(x, jnp.array([1])))(
        jnp.array([[[1e4, -1e4]]])
    )
    assert value == pytest.approx(2e4)
    assert np.isfinite(gradient).all()


# Hetero-center triplet, Eq. 18-20


def test_hetero_center_by_hand():
    # Two identities on a line: RGB centres 0 and 1, IR centres 0.5 and 3.
    rgb, ir, label = jnp.array([[0.0], [1.0]]), jnp.array([[0.5], [3.0]]), jnp.array([7, 3])
    # RGB: 0.3 + 0.5 - 1 < 0 and 0.3 + 2 - 0.5; IR: 0.3 + 0.5 - 0.5 and 0.3 + 2 - 2.5 < 0.
    assert hetero_center.hetero_center_sum(rgb, ir, label, 0.3) == pytest.approx(1.8 + 0.3)
    assert hetero_center.hetero_center_mean(rgb, ir, label, 0.3) == pytest.approx(2.1 / 4)


def plain_hetero_center(f_rgb, f_ir, label, margin):
    ids = sorted(set(label.tolist()))
    center = {(0, i): f_rgb[label == i].mean(0) for i in ids}
    center |= {(1, i): f_ir[label == i].mean(0) for i in ids}
    total = 0.0
    for i in ids:
        for m in (0, 1):
            positive = np.linalg.norm(center[m, i] - center[1 - m, i])
            negative = min(
                np.linalg.norm(center[m, i] - center[n, j]) for j in ids if j != i for n in (0, 1)
            )
            total += max(0.0, margin + positive - negative)
    return total, 2 * len(ids)


def centered(form, rgb, ir, label, margin):
    return form(hetero_center.centers(rgb, label), hetero_center.centers(ir, label), label, margin)


@pytest.mark.parametrize("label", [[5, 5, 1, 1, 9, 9], [1, 5, 9, 5, 9, 1]])
def test_hetero_center_against_a_loop(rng, label):
    rgb, ir = rng.normal(size=(2, 6, 3))
    label = np.array(label)
    total, anchors = plain_hetero_center(rgb, ir, label, 0.3)
    args = rgb, ir, jnp.array(label), 0.3
    assert total > 0
    assert centered(hetero_center.hetero_center_sum, *args) == pytest.approx(total)
    assert centered(hetero_center.hetero_center_mean, *args) == pytest.approx(total / anchors)


def test_contrastive6_against_a_loop(rng):
    rgb, ir = 0.02 * rng.normal(size=(2, 4, 3))  # near enough for the repulsion to act
    label = np.array([2, 2, 0, 0])
    centers = [np.array([f[label == i].mean(0) for i in label]) for f in (rgb, ir)]
    middle = (centers[0] + centers[1]) / 2
    expected = 0.0
    for center in centers:
        for i in range(4):
            for j in range(4):
                d = np.linalg.norm(center[i] - middle[j])
                push = max(0.0, 0.3 - np.sqrt(d + 1e-10)) ** 2
                expected += (d**2 if label[i] == label[j] else push) / 16
    value = centered(hetero_center.contrastive6, rgb, ir, jnp.array(label), 0.3)
    assert value == pytest.approx(expected)


@pytest.mark.parametrize("form", hetero_center.FORMS.values())
def test_hetero_center_gradient(rng, form):
    label = jnp.array([5, 5, 1, 1])
    rgb, ir = rng.normal(size=(2, 4, 3))
    check_grads(lambda a, b: centered(form, a, b, label, 0.3), (rgb, ir), 1, ["rev"])


def test_distances_have_the_gradient_of_their_definition(rng):
    x, y, weights = (rng.normal(size=(2, n, m)) for n, m in ((4, 6), (5, 6), (4, 5)))
    y[:, 2] = x[:, 1]

    def total(x, y, dtype, differences):
        x, y = (jnp.asarray(a, dtype) for a in (x, y))
        return (jnp.asarray(weights, dtype) * differences(x, y)).sum()

    def defined(x, y):
        squared = jnp.square(x[:, :, None] - y[:, None]).sum(-1)
        return jnp.where(squared, jnp.sqrt(jnp.where(squared, squared, 1.0)), 0.0)

    gradients = jax.grad(total, (0, 1))
    expected = gradients(x, y, "float64", defined)
    for a, b in zip(gradients(x, y, "float64", hetero_center.distances), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    # A hundred times as far from zero as from each other, in what float32 holds exactly.
    x, y = (np.round(1024 * a) / 1024 + 128 for a in (x, y))
    expected = gradients(x, y, "float64", defined)
    for a, b in zip(gradients(x, y, "float32", hetero_center.distances), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("form", hetero_center.FORMS)
def test_hetero_center_is_mined_over_all_devices(rng, form):
    label = np.array([4, 4, 0, 0, 2, 2])
    features = 0.1 * rng.normal(size=(3, 2, 6, 4))  # by head, modality and row

    def term(features, label, axis_name=None):
        targets = Targets(jnp.concatenate([label, label]), axis_name=axis_name)
        outputs = Outputs(None, features.reshape(3, -1, 4), None, None, None)
        return hetero_center.term(outputs, targets, form=form)

    def split(x):
        shares = x.reshape(3, 2, 3, 2, 4), label.reshape(3, 2)  # an identity for each device
        mapped = jax.vmap(lambda *share: term(*share, "devices"), (2, 0), axis_name="devices")
        return mapped(*shares).mean()

    expected = jax.value_and_grad(lambda x: term(x, label))(features)
    for a, b in zip(jax.value_and_grad(split)(features), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("form", hetero_center.FORMS.values())
def test_hetero_center_of_equal_centres_has_a_finite_gradient(form):
    label, same = jnp.array([0, 0, 1, 1]), jnp.ones((4, 3))
    gradients = jax.grad(lambda a, b: centered(form, a, b, label, 0.3), (0, 1))(same, same)
    assert np.isfinite(gradients).all()


# Pose, Eq. 16


def test_pose_by_hand():
    predicted, target = jnp.zeros((2, 1, 2, 1)), jnp.array([[[[1.0], [2.0]]], [[[0.0], [3.0]]]])
    assert pose.pose_sum(predicted, target) == pytest.approx((1 + 4 + 9) / 2)
    assert pose.pose_mean(predicted, target) == pytest.approx(14 / 4)


def test_pose_against_a_loop(rng):
    predicted, target = rng.normal(size=(2, 3, 4, 2, 2))
    total = 0.0
    for i in range(3):
        for index in np.ndindex(4, 2, 2):
            total += (target[i][index] - predicted[i][index]) ** 2
    assert pose.pose_sum(predicted, target) == pytest.approx(total / 3)
    assert pose.pose_mean(predicted, target) == pytest.approx(total / 3 / 16)


def test_pose_gradient_and_degenerate_case(rng):
    x, y = rng.normal(size=(2, 2, 3, 2, 1))
    for form in pose.FORMS.values():
        check_grads(form, (x, y), 1, ["rev"])
        np.testing.assert_array_equal(jax.grad(form)(x, x), 0)


def test_upsampled_pose_loss_has_the_gradient_of_block_means(rng):
    predicted, fine = rng.normal(size=(2, 3, 2, 1)), rng.normal(size=(2, 12, 8, 1))
    blocks = fine.reshape(2, 3, 4, 2, 4, 1).mean((2, 4))
    np.testing.assert_allclose(
        jax.grad(pose.pose_upsampled)(predicted, fine),
        jax.grad(pose.pose_mean)(predicted, blocks),
    )


# Distillation, Eq. 14-15


def test_distillation_by_hand():
    teacher = jnp.log(jnp.array([[0.5, 0.5]]))
    student = jnp.log(jnp.array([[[0.25, 0.75]], [[0.5, 0.5]]]))
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert distillation.distillation(teacher, student) == pytest.approx(expected)


def test_distillation_against_a_loop(rng):
    teacher, student = rng.normal(size=(4, 5)), rng.normal(size=(3, 4, 5))
    expected = 0.0
    for head in student:
        for t, s in zip(teacher, head, strict=True):
            p, q = softmax(t / 2), softmax(s / 2)
            expected += 4 * (p * np.log(p / q)).sum() / 4
    assert distillation.distillation(teacher, student, 2.0) == pytest.approx(expected)


def test_distillation_gradient_flows_to_both_and_vanishes_at_agreement(rng):
    teacher, student = rng.normal(size=(4, 5)), rng.normal(size=(3, 4, 5))
    check_grads(distillation.distillation, (teacher, student), 1, ["rev"])
    same = jnp.stack([teacher] * 3)
    for gradient in jax.grad(distillation.distillation, (0, 1))(teacher, same):
        np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_detaching_the_teacher_stops_its_gradient(rng):
    logits = rng.normal(size=(1, 2, 3))

    def gradient(detach):
        def loss(teacher):
            outputs = Outputs(logits, logits, None, None, None, teacher_logits=teacher)
            return distillation.term(outputs, None, detach_teacher=detach)

        return jax.grad(loss)(rng.normal(size=(2, 3)))

    assert np.abs(gradient(False)).max() > 0
    np.testing.assert_array_equal(gradient(True), 0)


# The objective, Eq. 21


def made_up_outputs(rng):
    logits, features = rng.normal(size=(2, 3, 8, 5)), rng.normal(size=(2, 3, 8, 4))
    outputs = Outputs(
        id_logits=logits[0],
        pose_logits=logits[1],
        id_features=features[0],
        pose_features=features[1],
        teacher_logits=rng.normal(size=(8, 5)),
        heatmap=rng.normal(size=(8, 4, 2, 1)),
        F_S=None,
        F_id2=None,
        F_ID=None,
    )
    label = np.array([0, 0, 3, 3])
    return outputs, Targets(np.concatenate([label, label]), rng.normal(size=(8, 4, 2, 1)))


def test_objective_is_the_weighted_sum_of_its_raw_terms(rng):
    outputs, targets = made_up_outputs(rng)
    weights = {"identity": 1.0, "hetero_center": 0.1, "pose": 5.0, "distillation": 1.0}
    total, raw = losses.build({name: {"weight": w} for name, w in weights.items()})(
        outputs, targets
    )
    assert raw.keys() == weights.keys()
    assert total == pytest.approx(sum(weights[name] * raw[name] for name in weights))
    both = np.concatenate([outputs.id_features, outputs.pose_features])
    expected = sum(plain_hetero_center(f[:4], f[4:], targets.label[:4], 0.3)[0] for f in both)
    assert raw["hetero_center"] == pytest.approx(expected)
    heads = np.concatenate([outputs.id_logits, outputs.pose_logits])
    assert raw["identity"] == pytest.approx(float(identity.identity(heads, targets.label)))


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="'hetero_centre'; did you mean 'hetero_center'"):
        losses.build({"hetero_centre": {"weight": 1.0}})
    with pytest.raises(UserError, match="no option 'marginn'; did you mean 'margin'"):
        losses.build({"hetero_center": {"weight": 1.0, "marginn": 0.3}})
    with pytest.raises(UserError, match="did you mean 'sum'"):
        losses.build({"hetero_center": {"weight": 1.0, "form": "summ"}})
