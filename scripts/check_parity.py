"""Compares this implementation with reference numbers of the PyTorch networks it implements.

$ python scripts/check_parity.py DIR [--float64]

DIR holds fixtures (.npz): the whole network in evaluation and training, the refinement stage, the
pose teacher, losses, metrics, sampler, schedules, heatmaps. Prints a line for each file, with the
error that comes nearest to its tolerance, and ends with status 1 if one is too large, if a file is
of no known kind, or if a reference number in it was not compared.
"""

import functools
import json
import math
import re
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from vireid_jax import command_line, losses
from vireid_jax.data import heatmaps, sampler
from vireid_jax.evaluation import pckh, ranking
from vireid_jax.interop import torch_weights
from vireid_jax.interop.fixtures import Rule
from vireid_jax.losses import distillation, hetero_center, identity, pose, teacher_identity
from vireid_jax.models import part_heads
from vireid_jax.models.layers import Layers
from vireid_jax.models.network import Network
from vireid_jax.models.pose_branch import transposed
from vireid_jax.models.pose_teacher import PoseTeacher
from vireid_jax.models.refinement import RefinementStage, upsample
from vireid_jax.training import optimizer
from vireid_jax.types import ImageSet, Modality, Targets, UserError

FLOAT64 = flags.DEFINE_bool("float64", False, "Compute in float64; every tolerance is 1e-6 then.")

# Where the networks that the references are from keep what a module of theirs returns.
REID_ACTIVATIONS = {
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
TEACHER_ACTIVATIONS = {"model.0": "stem", "cpm": "cpm_1"} | {
    f"model.{i}": f"separable{i}" for i in range(1, 12)
}


class Check:
    """The comparisons of one file."""

    def __init__(self, file: Path, rule: Rule):
        """Reads the file; `check[key]` hands out what is in it."""
        self.name, self.rule = file.stem, rule
        with np.load(file) as archive:
            self._content = dict(archive)
        self._used, self.comparisons = set(), 0
        self.worst = (0.0, 0.0, 0.0, "nothing")  # share of the tolerance, error, tolerance, key

    def __contains__(self, key) -> bool:
        return key in self._content

    def __getitem__(self, key):
        self._used.add(key)
        return self._content[key]

    def below(self, prefix=""):
        """The keys that start with `prefix`."""
        return [key for key in self._content if key.startswith(prefix)]

    def compare(self, key, value, tolerance=1e-6, scale=None):
        """Takes the largest error of `value` against the reference at `key`.

        Args:
          key: of the reference.
          value: array of its shape.
          tolerance: of float32 computations, one or one for each element; infinity where float32
            says nothing. In float64 it is 1e-6.
          scale: what errors are relative to. Without one, float64 takes each element's error
            relative to the larger of the element and the reference's root mean square, float32
            the norm of all errors relative to that of the reference.
        """
        reference, value = (np.asarray(x, np.float64) for x in (self[key], value))
        if reference.shape != value.shape:
            raise UserError(f"{self.name}: {key} is {reference.shape}, computed {value.shape}")
        same = (value == reference) | (np.isnan(value) & np.isnan(reference))
        errors = np.where(same, 0.0, abs(value - reference))
        if FLOAT64.value:
            tolerance = 1e-6
            if scale is None:
                rms = math.sqrt(np.nanmean(np.square(reference)))
                scale = np.maximum(abs(reference), rms)
        elif scale is None:
            errors, scale = _norm(errors), _norm(np.nan_to_num(reference))
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.where(errors == 0, 0.0, errors / scale)
        errors = np.where(np.isnan(errors), np.inf, errors)
        tolerance = np.broadcast_to(tolerance, errors.shape)
        without = np.where(np.isfinite(errors), 0.0, np.inf)
        share = np.where(np.isinf(tolerance), without, errors / tolerance)
        self.comparisons += 1
        at = np.unravel_index(share.argmax(), share.shape)
        if share[at] > self.worst[0]:
            self.worst = float(share[at]), float(errors[at]), float(tolerance[at]), key

    def summaries(self, prefix, arrays, tolerance):
        """Compares .l2, .probe and .first of named arrays (NCHW) below `prefix`."""
        for key in self.below(prefix):
            name, kind = key.removeprefix(prefix).rsplit(".", 1)
            x = np.asarray(arrays[name], np.float64)
            norm = _norm(x)
            if kind == "l2":
                self.compare(key, norm, tolerance)
            elif kind == "first":
                self.compare(key, x.ravel()[:32], tolerance)
            elif kind == "probe":
                draw = "out" if prefix.endswith("stat/") else "act"
                self.compare(key, self.rule.probe(f"{draw}:{name}", x), tolerance, norm)

    def named(self, prefix, names, state, of_norm, of_probe, draw=""):
        """Compares the norms and probes of tensors, stored as one array each for all `names`.

        A bias in front of a BatchNorm has gradient zero and what is stored is rounding; it counts
        relative to its weight.
        """
        norms = [_norm(state[n]) for n in names]
        probes = [self.rule.probe(draw + n, state[n]) for n in names]
        l2 = dict(zip(names, self[f"{prefix}l2"], strict=True))
        zeros = _biases_before_norm(names)
        scale = np.array(
            [l2[n.removesuffix("bias") + "weight" if n in zeros else n] for n in names]
        )
        self.compare(f"{prefix}l2", norms, of_norm, scale)
        self.compare(f"{prefix}probe", probes, of_probe, scale)

    def forgotten(self):
        """Reference numbers that nothing was compared with."""
        return sorted(k for k in self._content.keys() - self._used if not k.startswith("f32/"))


def model_eval(check):
    """The whole network in evaluation, one modality at a time."""
    batch, (height, width) = int(check["meta_B"]), check["meta_hw"]
    net, variables = _reid(check, int(check["meta_ncls"]), int(check["meta_hm"]))
    for number in (1, 2):
        image = check.rule.image(f"input:eval:modal{number}", batch, height, width, 48, 0.5)
        pair = (_nhwc(image), None) if number == 1 else (None, _nhwc(image))
        outputs, state = jax.jit(_capturing(net, REID_ACTIVATIONS, train=False))(variables, *pair)
        prefix = f"f64/modal{number}/"
        check.compare(f"{prefix}f_all", outputs.f_ALL, 1e-5)
        check.compare(f"{prefix}heatmap_sample0", _nchw(outputs.heatmap)[0], 1e-5)
        found = _activations(state, REID_ACTIVATIONS) | _of_outputs(outputs, state)
        check.summaries(f"{prefix}act/", found, 1e-5)


def model_train(check):
    """One batch in training: outputs, losses, gradients, BatchNorm statistics, two SGD steps."""
    case = {"hm1": "a", "hm16": "b"}[check.name.removeprefix("model_train_")]
    label, channels = check["labels"], int(check["meta_hm"])
    h, w = check["f64/heatmap" if channels == 1 else "f64/heatmap_sample0"].shape[-2:]
    rows = len(label)
    net, variables = _reid(check, int(check["meta_ncls"]), channels)
    rgb, ir = (
        _nhwc(check.rule.image(f"input:train:{case}:{m}", rows, 4 * h, 4 * w, 48, 0.5))
        for m in ("rgb", "ir")
    )
    label = jnp.concatenate([jnp.asarray(label, jnp.int32)] * 2)
    fine, coarse = (
        Targets(label, _nhwc(x))
        for x in check.rule.targets(f"train:{case}", 2 * rows, channels, 4 * h, 4 * w)
    )
    run = _capturing(net, REID_ACTIVATIONS, train=True)

    code = _config("full,published_code", "sysu_mm01").loss
    code.pose.weight = float(check["code_pose_weight"])  # 3 or 7, by data set

    def scalars(params, batch_stats):
        outputs, state = run({"params": params, "batch_stats": batch_stats}, rgb, ir)
        found = _terms(outputs, coarse, fine) | _totals(outputs, coarse, fine, code)
        return found, (outputs, state)

    names = [*check["loss_term_names"], *check["loss_total_names"]]
    forward = jax.jit(
        lambda params, stats: jax.vjp(lambda p: scalars(p, stats), params, has_aux=True)
    )
    backward = jax.jit(lambda pull, weights: pull(weights)[0])
    params, stats = variables["params"], variables["batch_stats"]

    found, pull, (outputs, state) = forward(params, stats)
    _compare_losses(check, 0, found, 1e-4)
    _compare_outputs(check, outputs, state)
    _compare_heads(check, outputs, coarse)
    stats_state = torch_weights.to_torch(
        {"batch_stats": state["batch_stats"]}, torch_weights.PUBLISHED
    )
    check.named("f64/bn/", check["bn_names"], stats_state, 1e-3, 1e-3)
    for key in check.below("f64/bn/"):
        if key.removeprefix("f64/bn/") in stats_state:
            check.compare(key, stats_state[key.removeprefix("f64/bn/")], 1e-3)

    def gradient(pull, name):
        return backward(pull, {n: jnp.asarray(float(n == name)) for n in found})

    parameters = list(check["param_names"])
    stored = {f"f64/grad/term_{name}/l2" for name in check["grad_terms"]}
    if stored != {k for k in check.below("f64/grad/term_") if k.endswith("l2")}:
        raise UserError(f"{check.name}: grad_terms are not the terms with gradients")
    if set(check["zero_grad_names"]) != _biases_before_norm(parameters):
        raise UserError(f"{check.name}: zero_grad_names are not the biases in front of BatchNorms")
    for name in names:
        kind = "total" if name in check["loss_total_names"] else "term"
        if f"f64/grad/{kind}_{name}/l2" not in check:
            continue
        grads = torch_weights.to_torch({"params": gradient(pull, name)}, torch_weights.PUBLISHED)
        prefix = f"f64/grad/{kind}_{name}/"
        # One channel's BatchNorm: two parameters whose gradients nearly cancel.
        delicate = np.array(["reduce.1" in n and channels == 1 for n in parameters])
        of_norm, of_probe = np.where(delicate, 0.25, 3e-2), np.where(delicate, 0.25, 0.15)
        check.named(prefix, parameters, grads, of_norm, of_probe)
        for key in check.below(f"f64/gradslice/{kind}_{name}/"):
            values = grads[key.rsplit("/", 1)[1]].ravel()[:64]
            check.compare(key, values, 0.15, _norm(check[key]))
    grads = gradient(pull, "paper")
    del pull

    c = _config().optimizer
    rule = optimizer.build(c, lambda _: 1e-4)
    opt_state, moved = rule.init(params), jax.tree.map(jnp.zeros_like, params)
    for step in (1, 2):
        updates, opt_state = rule.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        moved = jax.tree.map(jnp.add, moved, updates)
        state = torch_weights.to_torch({"params": moved}, torch_weights.PUBLISHED)
        of_norm, of_probe = (3e-2, 0.15) if step == 1 else (np.inf, np.inf)
        if f"f64/sgd/step{step}/delta_l2" in check:
            check.named(f"f64/sgd/step{step}/delta_", parameters, state, of_norm, of_probe)
        found, pull, _ = forward(params, stats)
        _compare_losses(check, step, found, 2e-2 if step == 1 else np.inf)
        if step == 1:
            grads = gradient(pull, "paper")
        del pull


def refine(check):
    """The refinement stage alone: both modes, and the gradient of given cotangents."""
    key = check.name.split("_")[1]  # c of refine_c_oddsize
    batch, channels, features, heatmap_channels, height, width = map(int, check["meta"])
    x = _nhwc(
        np.float32(check.rule.normal(f"input:refine:{key}", (batch, channels, height, width)))
    )

    def stage(train):
        return RefinementStage(Layers(train, _dtype()), features, heatmap_channels)

    shapes = jax.eval_shape(lambda k: stage(False).init(k, x), jax.random.key(0))
    prefix = "shared.refinement_stages.0."
    variables = _filled(check.rule, shapes, torch_weights.REFINEMENT, prefix)
    cotangent = {
        name: _nhwc(
            np.float32(check.rule.normal(f"cot:refine:{key}:{name}", (batch, c, height, width)))
        )
        for name, c in (("features", features), ("heatmap", heatmap_channels))
    }

    def train(params, x):
        found, updates = stage(True).apply(
            {**variables, "params": params}, x, mutable=["batch_stats"]
        )
        products = [(a * b).sum() for a, b in zip(found, cotangent.values(), strict=True)]
        return sum(products), (found, updates)

    evaluated = jax.jit(stage(False).apply)(variables, x)
    gradient = jax.jit(jax.grad(train, (0, 1), has_aux=True))
    (of_params, of_input), (trained, updates) = gradient(variables["params"], x)
    for mode, (f, heatmap), tolerance in (("eval", evaluated, 1e-5), ("train", trained, 1e-3)):
        f = _nchw(f)
        check.compare(f"f64/{mode}/features_l2", _norm(f), tolerance)
        probe = check.rule.probe(f"refine:{key}:features", f)
        check.compare(f"f64/{mode}/features_probe", probe, tolerance, _norm(f))
        if f"f64/{mode}/features_first8ch_sample0" in check:
            check.compare(f"f64/{mode}/features_first8ch_sample0", f[0, :8], tolerance)
        check.compare(f"f64/{mode}/heatmap", _nchw(heatmap), tolerance)
    grads = torch_weights.to_torch({"params": of_params}, torch_weights.REFINEMENT)
    check.named("f64/vjp/param_", check["param_names"], grads, 3e-2, 0.15, draw=prefix)
    of_input = _nchw(of_input)
    check.compare("f64/vjp/input_l2", _norm(of_input), 3e-2)
    check.compare("f64/vjp/input_first4ch_sample0", of_input[0, :4], 0.15, _norm(of_input[0, :4]))
    stats = torch_weights.to_torch(updates, torch_weights.REFINEMENT)
    check.named("f64/bn/", check["bn_names"], stats, 1e-3, 1e-3, draw=prefix)


def gccpm(check):
    """The pose teacher: maps of all stages, and where stored one training batch."""
    batch, stages, maps, height, width = map(int, check["meta"])
    case = {1: "a", 5: "b"}[stages]
    image = check.rule.image(f"input:gccpm:{case}", batch, height, width, 32, 0.5)
    x = _nhwc(np.float32(0.25 * image.astype(np.float64)))

    def net(train):
        return PoseTeacher(Layers(train, _dtype()), stages)

    shapes = jax.eval_shape(lambda key: net(False).init(key, x), jax.random.key(0))
    variables = _filled(check.rule, shapes, torch_weights.GCCPM, "gccpm.")
    run = _capturing(net(False), TEACHER_ACTIVATIONS)
    found, state = jax.jit(run)(variables, x)
    check.compare("f64/eval/stages", _nchw(found), 1e-5)
    check.summaries("f64/eval/act/", _activations(state, TEACHER_ACTIVATIONS), 1e-5)
    if "f64/train/stages" not in check:
        return
    target = check.rule.uniform(f"heatmap:gccpm:{case}", (batch, maps, height // 8, width // 8))
    target = _nhwc(np.float32(target))

    def loss(params):
        found, updates = net(True).apply(
            {**variables, "params": params}, x, mutable=["batch_stats"]
        )
        each = jnp.square(found - target).sum((1, 2, 3, 4)) / 2 / batch
        return each.sum(), (found, each, updates)

    grads, (found, each, updates) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    check.compare("f64/train/stages", _nchw(found), 1e-3)
    check.compare("f64/train/losses", each, 1e-4)
    grads = torch_weights.to_torch({"params": grads}, torch_weights.GCCPM)
    check.named("f64/train/grad_", check["param_names"], grads, 3e-2, 0.15, draw="gccpm.")
    stats = torch_weights.to_torch(updates, torch_weights.GCCPM)
    check.named("f64/bn/", check["bn_names"], stats, 1e-3, 1e-3, draw="gccpm.")


def losses_ops(check):
    """Every loss with its gradients, and the small operations, on stored inputs."""
    for case in sorted({key.split("/")[0] for key in check.below()}):
        kind = case.rstrip("0123456789")
        _OPERATIONS[kind](check, f"{case}/")


def _hctri(check, prefix):
    forms = {"value_sum": "sum", "value_mean": "mean"}
    _two_modalities(check, prefix, forms, gradient_of="value_sum")


def _contr(check, prefix):
    check[f"{prefix}value_f32run"]
    _two_modalities(check, prefix, {"value": "contrastive6"}, gradient_of="value")


def _two_modalities(check, prefix, forms, gradient_of):
    rgb, ir = (_array(check[f"{prefix}{m}"]) for m in ("f_rgb", "f_ir"))
    label = jnp.asarray(check[f"{prefix}labels"], jnp.int32)

    def loss(rgb, ir, form):
        outputs = types.SimpleNamespace(features=[jnp.concatenate([rgb, ir])[None]])
        return hetero_center.term(outputs, Targets(jnp.concatenate([label, label])), form=form)

    for name, form in forms.items():
        check.compare(f"{prefix}{name}", loss(rgb, ir, form), 1e-4)
    grads = jax.grad(loss, (0, 1))(rgb, ir, forms[gradient_of])
    check.compare(f"{prefix}grad_rgb", grads[0], 1e-3)
    check.compare(f"{prefix}grad_ir", grads[1], 1e-3)


def _kd(check, prefix):
    student, teacher = _array(check[f"{prefix}student"]), _array(check[f"{prefix}teacher"])
    temperature = float(check[f"{prefix}T"])

    def loss(student, teacher):
        return distillation.distillation(teacher, student[None], temperature)

    value, grads = jax.value_and_grad(loss, (0, 1))(student, teacher)
    check.compare(f"{prefix}value", value, 1e-4)
    check.compare(f"{prefix}grad_student", grads[0], 1e-3)
    check.compare(f"{prefix}grad_teacher", grads[1], 1e-3)


def _ce(check, prefix):
    label = jnp.asarray(check[f"{prefix}labels"], jnp.int32)
    value, grad = jax.value_and_grad(lambda x: identity.identity(x[None], label))(
        _array(check[f"{prefix}logits"])
    )
    check.compare(f"{prefix}value", value, 1e-4)
    check.compare(f"{prefix}grad", grad, 1e-3)


def _pose(check, prefix):
    predicted, fine, coarse = (
        _nhwc(check[f"{prefix}{name}"]) for name in ("pred", "target_full", "target_block_mean")
    )
    for name, form, target in (
        ("code", "upsampled", fine),
        ("mean", "mean", coarse),
        ("sum", "sum", coarse),
    ):
        value, grad = jax.value_and_grad(pose.FORMS[form])(predicted, target)
        check.compare(f"{prefix}value_{name}", value, 1e-4)
        check.compare(f"{prefix}grad_{name}_l2", _norm(grad), 1e-3)
    check.compare(f"{prefix}grad_sum_sample0", _nchw(grad)[0], 1e-3)


def _l2x5(check, prefix):
    y, vjp = jax.vjp(part_heads.normalised, _array(check[f"{prefix}x"]))
    check.compare(f"{prefix}y", y, 1e-5)
    check.compare(f"{prefix}vjp", vjp(_array(check[f"{prefix}cot"]))[0], 1e-3)


def _part(check, prefix):
    for case in {key.split("/")[1] for key in check.below(prefix)}:
        pooled = part_heads.stripes(_nhwc(check[f"{prefix}{case}/x"]), int(case.split("_")[1]))
        check.compare(f"{prefix}{case}/y", pooled.transpose(1, 2, 0), 1e-5)


def _deconv(check, prefix):
    kernel = check[f"{prefix}w_torch_IOHW"]
    leaf = torch_weights.PUBLISHED.names(("params", "pose", "dconv2", "kernel"), 0)[0]
    shape = jax.ShapeDtypeStruct((*kernel.shape[2:], *kernel.shape[:2]), np.float32)
    variables = {"params": {"pose": {"dconv2": {"kernel": shape}}}}
    variables = torch_weights.to_flax({leaf: kernel}, variables, torch_weights.PUBLISHED)
    layer = transposed(Layers(False, _dtype()), kernel.shape[1], name=None)
    params = jax.tree.map(_array, variables["params"]["pose"]["dconv2"])
    y = layer.apply({"params": params}, _nhwc(check[f"{prefix}x"]))
    check.compare(f"{prefix}y", _nchw(y), 1e-5)


def _bilinear(check, prefix):
    for case in {key.split("/")[1] for key in check.below(prefix)}:
        y = check[f"{prefix}{case}/y"]
        like = jax.ShapeDtypeStruct(np.array(y.shape)[[0, 2, 3, 1]], y.dtype)
        check.compare(
            f"{prefix}{case}/y", _nchw(upsample(_nhwc(check[f"{prefix}{case}/x"]), like)), 1e-5
        )


_OPERATIONS = {
    "hctri": _hctri,
    "contr": _contr,
    "kd": _kd,
    "ce": _ce,
    "pose": _pose,
    "l2x": _l2x5,
    "part": _part,
    "deconv": _deconv,
    "bilinear": _bilinear,
}


def eval_metrics(check):
    """CMC, mAP and mINP under SYSU-MM01's and RegDB's rules, on stored features."""
    for case in sorted({key.split("/")[0] for key in check.below()}):
        q, g, q_pids, g_pids, q_cams, g_cams = (
            check[f"{case}/{name}"] for name in ("q", "g", "q_pids", "g_pids", "q_cams", "g_cams")
        )
        check[f"{case}/f32_rank_identical"]
        sysu = case.startswith("sysu")
        found = ranking.rank(
            q.astype(np.float64) @ g.astype(np.float64).T,
            q_pids,
            g_pids,
            valid=ranking.camera_mask(q_cams, g_cams, ((3, 2),) if sysu else ()),
            cmc_on="identities" if sysu else "images",
        )
        cmc = check[f"{case}/cmc"]
        check.compare(f"{case}/cmc", found.cmc[: len(cmc)])
        check.compare(f"{case}/ap", found.ap)
        check.compare(f"{case}/inp", found.inp)
        check.compare(f"{case}/mAP", np.nanmean(found.ap))
        check.compare(f"{case}/mINP", np.nanmean(found.inp))


def sampler_lr_pose_teacher(check):
    """What batches consist of, learning rates by epoch, heatmap targets, PCKh."""
    for case in sorted({key.split("/")[0] for key in check.below()} - {"lr", "heatmap", "pckh"}):
        _sampler(check, f"{case}/")
    for key in check.below("lr/"):
        epochs = np.arange(len(check[key]))
        c = _SCHEDULES[key.split("/")[1].split("_epoch")[0]]().optimizer
        rate = optimizer.schedule(c, len(epochs), 1)
        check.compare(key, [rate(epoch) for epoch in epochs], 1e-6)

    keypoints = check["heatmap/keypoints"].reshape(-1, 16, 3).copy()
    keypoints[..., 2] = keypoints[..., 0] != -1  # hidden joints are drawn, missing ones are not
    side = 8 * check["heatmap/maps"].shape[-1]
    maps = heatmaps.teacher_maps(keypoints, side, side)
    check.compare("heatmap/maps", maps.transpose(0, 3, 1, 2), 1e-6)
    check.compare("heatmap/merged_max16", maps[..., :16].max(-1), 1e-6)

    truth = check["pckh/gt"]
    table = pckh.pckh(check["pckh/pred"], truth, check["pckh/thresholds"])
    check.compare("pckh/table_16joints_ubody_avg", table)
    heads = np.linalg.norm(truth[:, 8] - truth[:, 9], axis=-1)
    missing = (truth[:, 8:10, 0] == -1).any(1)
    check.compare("pckh/head_size", np.where(missing, 0, heads))


def _sampler(check, prefix):
    """Both the reference's example epoch and ours have the structure that the fixture states."""
    visible, infrared = check[f"{prefix}color_labels"], check[f"{prefix}thermal_labels"]
    identities, images = int(check[f"{prefix}D"]), int(check[f"{prefix}K"])
    batch = identities * images
    pid = np.concatenate([visible, infrared])
    modality = np.repeat([Modality.VISIBLE, Modality.INFRARED], [len(visible), len(infrared)])
    image_set = ImageSet(pid, pid, pid, modality, pid)
    seed = int(check[f"{prefix}np_seed"])
    ours = sampler.PKSampler.of(image_set, identities, images, seed)
    steps = sampler.steps_per_epoch(image_set, batch)
    check.compare(f"{prefix}n_batches", steps)  # ours; the next three describe the reference
    check.compare(f"{prefix}images_per_modality_per_epoch", steps * batch)
    check.compare(f"{prefix}len", max(len(visible), len(infrared)))
    for modality_rows in (check[f"{prefix}index1"], check[f"{prefix}index2"]):
        check.compare(f"{prefix}images_per_modality_per_epoch", len(modality_rows))
    examples = np.stack([check[f"{prefix}index1"], check[f"{prefix}index2"] + len(visible)])
    drawn = np.concatenate([np.stack(ours[step][1:]) for step in range(steps)], 1)
    for rows in (examples, drawn):
        for rgb, ir in rows.reshape(2, steps, batch).transpose(1, 0, 2):
            label = pid[rgb].reshape(identities, images)
            sound = (
                (pid[rgb] == pid[ir]).all()
                and (label == label[:, :1]).all()
                and len(set(label[:, 0])) == identities
                and len(set(rgb)) == len(set(ir)) == batch
                and (rgb < len(visible)).all()
                and (ir >= len(visible)).all()
            )
            if not sound:
                raise UserError(f"{check.name}: a batch of {prefix} has another structure")


def _config(choice="full", dataset=""):
    from configs import default, variants  # importable once `command_line.run` is running

    config = default.get_config()
    config.data.dataset = dataset
    return variants.apply(config, choice)


_SCHEDULES = {
    "paper": _config,
    "code_sysu": lambda: _config("full,published_code", "sysu_mm01"),
    "code_regdb": lambda: _config("full,published_code", "regdb"),
}
KINDS = {
    "model_eval_": model_eval,
    "model_train_": model_train,
    "refine_": refine,
    "gccpm_": gccpm,
    "losses_ops": losses_ops,
    "eval_metrics": eval_metrics,
    "sampler_lr_pose_teacher": sampler_lr_pose_teacher,
}


def main(directory: str) -> None:
    """Runs the comparisons of every file in `directory`."""
    folder = Path(directory)
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise UserError(f"{folder} has no .npz files")
    jax.config.update("jax_enable_x64", FLOAT64.value)
    jax.config.update("jax_default_matmul_precision", "highest")
    settings = folder / "set.json"
    rule = Rule(json.loads(settings.read_text())["tag"] if settings.exists() else "")
    failed = 0
    for file in files:
        failed += not _checked(file, rule)
    sys.exit(1 if failed else 0)


def _checked(file, rule):
    function = next((f for prefix, f in KINDS.items() if file.stem.startswith(prefix)), None)
    if function is None:
        print(f"FAIL {file.name}: of no known kind", flush=True)
        return False
    check = Check(file, rule)
    try:
        function(check)
    except (UserError, KeyError, IndexError, ValueError) as error:
        print(f"FAIL {file.name}: {type(error).__name__}: {error}", flush=True)
        return False
    share, error, tolerance, key = check.worst
    forgotten = check.forgotten()
    ok = share <= 1 and not forgotten and check.comparisons > 0
    note = f"; not compared: {', '.join(forgotten)}" if forgotten else ""
    print(
        f"{'ok  ' if ok else 'FAIL'} {file.name:<32} largest relative error {error:.1e}, "
        f"tolerance {tolerance:.0e} ({key}){note}",
        flush=True,
    )
    return ok


def _dtype():
    return jnp.float64 if FLOAT64.value else jnp.float32


def _array(x):
    return jnp.asarray(x, _dtype())


def _nhwc(x):
    return _array(np.transpose(x, (0, 2, 3, 1)))


def _nchw(x):
    return np.moveaxis(np.asarray(x), -1, -3)


def _norm(x):
    return np.linalg.norm(np.asarray(x, np.float64).ravel())


def _biases_before_norm(names):
    """Those `X.0.bias` behind which there is a BatchNorm `X.1`, whose mean takes them out."""
    names = set(names)
    behind = {n: n.removesuffix("0.bias") + "1.weight" for n in names if n.endswith(".0.bias")}
    blocks = re.compile(r"feat_block|trunk|coder|cpm|initial_stage")
    return {n for n, norm in behind.items() if norm in names and blocks.search(n)}


def _filled(rule, shapes, layout, prefix=""):
    """Variables of `shapes` with the rule's weights, in the dtype of this run."""
    zeros = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    state = {
        name: rule.weight(prefix + name, x.shape)
        for name, x in torch_weights.to_torch(zeros, layout).items()
    }
    return jax.tree.map(_array, torch_weights.to_flax(state, shapes, layout))


def _reid(check, ids, channels):
    net = Network(ids=ids, heatmaps=channels, dtype=_dtype())
    images = jax.ShapeDtypeStruct((1, 288, 144, 3), _dtype())
    shapes = jax.eval_shape(
        lambda key, x: net.init(key, x, x, train=True), jax.random.key(0), images
    )
    return net, _filled(check.rule, shapes, torch_weights.PUBLISHED)


def _capturing(net, activations, **options):
    """`net.apply` with what the modules of `activations` return beside its result."""
    paths = set(activations.values()) | {"parts/heads/norm"}
    return functools.partial(
        net.apply,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, _: "/".join(module.path) in paths,
        **options,
    )


def _activations(state, names):
    """By the references' names, those that the run had, NCHW."""
    found = {}
    for name, path in names.items():
        x = state["intermediates"]
        for key in (*path.split("/"), "__call__"):
            x = x.get(key, {})
        if x:
            found[name] = _nchw(x[0]) if x[0].ndim == 4 else x[0]
    return found


def _of_outputs(outputs, state):
    """The references' activations that no module of ours returns."""
    heads = state["intermediates"]["parts"]["heads"]["norm"]["__call__"][0]
    return {"shared.dconv4": _nchw(outputs.F_p2)} | {
        f"feature{i + 1}": features for i, features in enumerate(heads)
    }


def _terms(outputs, coarse, fine):
    """Every raw term, by the fixtures' names."""
    return {
        "id": identity.term(outputs, coarse),
        "hctri": hetero_center.term(outputs, coarse, form="sum"),
        "contrastive6": hetero_center.term(outputs, coarse, form="contrastive6"),
        "pose_mean": pose.term(outputs, coarse, form="mean"),
        "pose_sum": pose.term(outputs, coarse, form="sum"),
        "pose_code": pose.term(outputs, fine, form="upsampled"),
        "kd": distillation.term(outputs, coarse),
        "kd_detached": distillation.term(outputs, coarse, detach_teacher=True),
        "teacher_ce": teacher_identity.term(outputs, coarse),
    }


def _totals(outputs, coarse, fine, code):
    """Eq. 21 as the configs weight it (`code`: the published code's), by the fixtures' names."""
    paper, literal, detached = (_config().loss for _ in range(3))
    literal.pose.form = "sum"
    detached.distillation.weight = 0.0
    total = {
        "paper": losses.build(paper)(outputs, coarse)[0],
        "literal": losses.build(literal)(outputs, coarse)[0],
        "code": losses.build(code)(outputs, fine)[0],
    }
    kd = distillation.term(outputs, coarse, detach_teacher=True)
    total["detach"] = losses.build(detached)(outputs, coarse)[0] + kd
    return total


def _compare_losses(check, step, found, tolerance):
    for kind in ("term", "total"):
        key = f"f64/step{step}/loss_{kind}s"
        if key in check:
            check.compare(key, [found[n] for n in check[f"loss_{kind}_names"]], tolerance)


def _compare_outputs(check, outputs, state):
    arrays = {
        "logits": np.concatenate(outputs.logits),
        "feats": np.concatenate(outputs.features),
        "heatmap": _nchw(outputs.heatmap),
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
    found = _activations(state, REID_ACTIVATIONS) | _of_outputs(outputs, state)
    check.summaries("f64/act/", found, 1e-3)


def _compare_heads(check, outputs, targets):
    """The terms of each of the 12 heads."""
    logits, features = np.concatenate(outputs.logits), np.concatenate(outputs.features)
    found = {"id": [], "hctri": [], "contrastive6": [], "kd": []}
    for own_logits, own_features in zip(logits, features, strict=True):
        one = outputs.replace(
            id_logits=own_logits[None],
            id_features=own_features[None],
            pose_logits=None,
            pose_features=None,
        )
        terms = {
            "id": identity.term(one, targets),
            "hctri": hetero_center.term(one, targets, form="sum"),
            "contrastive6": hetero_center.term(one, targets, form="contrastive6"),
            "kd": distillation.term(one, targets),
        }
        for name, value in terms.items():
            found[name].append(value)
    for name, values in found.items():
        check.compare(f"f64/parts/{name}", values, 1e-3)


if __name__ == "__main__":
    command_line.run(main)
