"""The whole network, in evaluation and in training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parity.check import (
    Check,
    biases_before_norm,
    captured,
    capturing,
    convolution,
    dtype,
    filled,
    nchw,
    nhwc,
    norm,
    recipe,
)
from vireid_jax import losses
from vireid_jax.interop import torch_weights
from vireid_jax.losses import distillation, hetero_center, identity, pose, teacher_identity
from vireid_jax.models.network import Network
from vireid_jax.training import optimizer
from vireid_jax.types import Targets, UserError

# Where the reference keeps what a module of it returns; beside these, its dconv4 returns F_p2.
_ACTIVATIONS = {
    "visible_net.b1": "streams/rgb/stem",
    "visible_net.b2": "streams/rgb/layer1",
    "thermal_net.b1": "streams/ir/stem",
    "thermal_net.b2": "streams/ir/layer1",
    "shared.b1": "streams/layer2",
    "shared.b2": "reid/layer3",
    "shared.b3": "reid/layer4",
    "shared.conv4": "pose/conv1",
    "shared.reduce": "pose/reduce",
    "shared.refinement_stages.0.trunk.0": "pose/refinement/u_block",
    "shared.refinement_stages.0": "pose/refinement/refine3",
    "shared.conv1": "pose/conv3",
    "shared.conv2": "pose/conv_b6_0",
    "shared.conv3": "pose/conv_b6_1",
    "shared.t_fc": "teacher/head/norm",
}
_HEADS = "parts/heads/norm"  # the reference's feature1 to feature12


def model_eval(check: Check) -> None:
    """Features, heatmaps and activations, one modality at a time."""
    batch, (height, width) = int(check["meta_B"]), check["meta_hw"]
    net, variables = _network(check)
    run = jax.jit(_capturing(net, train=False))
    for number in (1, 2):
        image = check.rule.image(f"input:eval:modal{number}", batch, height, width, 48, 0.5)
        pair = (nhwc(image), None) if number == 1 else (None, nhwc(image))
        outputs, state = run(variables, *pair)
        prefix = f"f64/modal{number}/"
        check.compare(f"{prefix}f_all", outputs.f_ALL, 1e-5)
        check.compare(f"{prefix}heatmap_sample0", nchw(outputs.heatmap)[0], 1e-5)
        check.summaries(f"{prefix}act/", _activations(outputs, state), 1e-5)


def model_train(check: Check) -> None:
    """One batch in training: outputs, losses, gradients, BatchNorm statistics, two SGD steps."""
    label, channels = check["labels"], int(check["meta_hm"])
    stored = next(key for key in ("f64/heatmap", "f64/heatmap_sample0") if key in check)
    h, w = check[stored].shape[-2:]
    case, rows = "a" if channels == 1 else "b", len(label)
    net, variables = _network(check)
    rgb, ir = (
        nhwc(check.rule.image(f"input:train:{case}:{m}", rows, 4 * h, 4 * w, 48, 0.5))
        for m in ("rgb", "ir")
    )
    label = jnp.concatenate([jnp.asarray(label, jnp.int32)] * 2)
    fine, coarse = (
        Targets(label, nhwc(x))
        for x in check.rule.targets(f"train:{case}", 2 * rows, channels, 4 * h, 4 * w)
    )
    run = _capturing(net, train=True)
    code_pose_weight = float(check["code_pose_weight"])  # 3 or 7, by data set

    def scalars(params):
        outputs, state = run({**variables, "params": params}, rgb, ir)
        totals = _totals(outputs, coarse, fine, code_pose_weight)
        return _terms(outputs, coarse, fine) | totals, (outputs, state)

    forward = jax.jit(lambda params: jax.vjp(scalars, params, has_aux=True))
    backward = jax.jit(lambda pull, weights: pull(weights)[0])

    def gradient(pull, name):
        return backward(pull, {n: jnp.asarray(float(n == name)) for n in found})

    params = variables["params"]
    found, pull, (outputs, state) = forward(params)
    _compare_losses(check, 0, found, 1e-4)
    _compare_outputs(check, outputs, state)
    _compare_heads(check, outputs, coarse)
    _compare_statistics(check, state["batch_stats"])
    grads = gradient(pull, "paper")
    _compare_gradients(check, lambda name: grads if name == "paper" else gradient(pull, name))

    rule = optimizer.build(recipe().optimizer, lambda _: 1e-4)
    opt_state, moved = rule.init(params), jax.tree.map(jnp.zeros_like, params)
    for step, of_norm, of_probe, of_loss in ((1, 3e-2, 0.15, 2e-2), (2, np.inf, np.inf, np.inf)):
        updates, opt_state = rule.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        moved = jax.tree.map(jnp.add, moved, updates)
        prefix = f"f64/sgd/step{step}/delta_"
        if f"{prefix}l2" in check:
            delta = torch_weights.to_torch({"params": moved}, torch_weights.PUBLISHED)
            check.named(prefix, check["param_names"], delta, of_norm, of_probe)
        found, pull, _ = forward(params)
        _compare_losses(check, step, found, of_loss)
        if step == 1:
            grads = gradient(pull, "paper")


def _network(check):
    ids, channels = int(check["meta_ncls"]), int(check["meta_hm"])
    net = Network(ids, heatmaps=channels, dtype=dtype(), conv_general_dilated=convolution())
    images = jax.ShapeDtypeStruct((1, 288, 144, 3), dtype())
    shapes = jax.eval_shape(
        lambda key, x: net.init(key, x, x, train=True), jax.random.key(0), images
    )
    return net, filled(check.rule, shapes, torch_weights.PUBLISHED)


def _capturing(net, train):
    return capturing(net, {*_ACTIVATIONS.values(), _HEADS}, train=train)


def _activations(outputs, state):
    """By the reference's names, NCHW."""
    found = {name: captured(state, path) for name, path in _ACTIVATIONS.items()}
    found["shared.dconv4"] = outputs.F_p2
    found = {name: nchw(x) if x.ndim == 4 else x for name, x in found.items() if x is not None}
    heads = captured(state, _HEADS)
    return found | {f"feature{i + 1}": features for i, features in enumerate(heads)}


def _head_terms(outputs, targets):
    """The raw terms that are sums over heads, by the fixtures' names."""
    return {
        "id": identity.term(outputs, targets),
        "hctri": hetero_center.term(outputs, targets, form="sum"),
        "contrastive6": hetero_center.term(outputs, targets, form="contrastive6"),
        "kd": distillation.term(outputs, targets),
    }


def _terms(outputs, coarse, fine):
    """Every raw term."""
    return _head_terms(outputs, coarse) | {
        "pose_mean": pose.term(outputs, coarse, form="mean"),
        "pose_sum": pose.term(outputs, coarse, form="sum"),
        "pose_code": pose.term(outputs, fine, form="upsampled"),
        "kd_detached": distillation.term(outputs, coarse, detach_teacher=True),
        "teacher_ce": teacher_identity.term(outputs, coarse),
    }


def _totals(outputs, coarse, fine, code_pose_weight):
    """Eq. 21 as the configs weight it."""
    paper, literal, detached = (recipe().loss for _ in range(3))
    literal.pose.form = "sum"
    detached.distillation.weight = 0.0
    code = recipe("full,published_code", "sysu_mm01").loss
    code.pose.weight = code_pose_weight
    kd = distillation.term(outputs, coarse, detach_teacher=True)
    return {
        "paper": losses.build(paper)(outputs, coarse)[0],
        "literal": losses.build(literal)(outputs, coarse)[0],
        "code": losses.build(code)(outputs, fine)[0],
        "detach": losses.build(detached)(outputs, coarse)[0] + kd,
    }


def _compare_losses(check, step, found, tolerance):
    for kind in ("term", "total"):
        key = f"f64/step{step}/loss_{kind}s"
        if key in check:
            check.compare(key, [found[n] for n in check[f"loss_{kind}_names"]], tolerance)


def _compare_outputs(check, outputs, state):
    arrays = {
        "logits": np.concatenate(outputs.logits),
        "feats": np.concatenate(outputs.features),
        "heatmap": nchw(outputs.heatmap),
        "teacher_logits": outputs.teacher_logits,
    }
    stored = arrays | {
        "logits_part0": arrays["logits"][0],
        "feats_part6": arrays["feats"][6],
        "heatmap_sample0": arrays["heatmap"][0],
    }
    for name, x in stored.items():
        if f"f64/{name}" in check:
            check.compare(f"f64/{name}", x, 1e-3)
    check.summaries("f64/stat/", arrays, 1e-3)
    check.summaries("f64/act/", _activations(outputs, state), 1e-3)


def _compare_heads(check, outputs, targets):
    """The terms of each head alone."""
    logits, features = np.concatenate(outputs.logits), np.concatenate(outputs.features)
    alone = [
        _head_terms(
            outputs.replace(
                id_logits=own_logits[None],
                id_features=own_features[None],
                pose_logits=None,
                pose_features=None,
            ),
            targets,
        )
        for own_logits, own_features in zip(logits, features, strict=True)
    ]
    for name in alone[0]:
        check.compare(f"f64/parts/{name}", [terms[name] for terms in alone], 1e-3)


def _compare_statistics(check, batch_stats):
    state = torch_weights.to_torch({"batch_stats": batch_stats}, torch_weights.PUBLISHED)
    check.named("f64/bn/", check["bn_names"], state, 1e-3, 1e-3)
    for key in check.below("f64/bn/"):
        name = key.removeprefix("f64/bn/")
        if name in state:
            check.compare(key, state[name], 1e-3)


def _compare_gradients(check, gradient):
    parameters = list(check["param_names"])
    stored = {f"f64/grad/term_{name}/l2" for name in check["grad_terms"]}
    if stored != {k for k in check.below("f64/grad/term_") if k.endswith("l2")}:
        raise UserError(f"{check.name}: grad_terms are not the terms with gradients")
    if set(check["zero_grad_names"]) != biases_before_norm(parameters, check["bn_names"]):
        raise UserError(f"{check.name}: zero_grad_names are not the biases in front of BatchNorms")
    # One channel's BatchNorm: two parameters whose gradients nearly cancel.
    one = int(check["meta_hm"]) == 1
    delicate = np.array(["reduce.1" in name and one for name in parameters])
    of_norm, of_probe = np.where(delicate, 0.25, 3e-2), np.where(delicate, 0.25, 0.15)
    for kind in ("term", "total"):
        for name in check[f"loss_{kind}_names"]:
            prefix = f"f64/grad/{kind}_{name}/"
            if f"{prefix}l2" not in check:
                continue
            of_params = {"params": gradient(name)}
            grads = torch_weights.to_torch(of_params, torch_weights.PUBLISHED)
            check.named(prefix, parameters, grads, of_norm, of_probe)
            for key in check.below(f"f64/gradslice/{kind}_{name}/"):
                values = grads[key.rsplit("/", 1)[1]].ravel()[:64]
                check.compare(key, values, 0.15, norm(check[key]))
