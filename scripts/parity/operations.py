"""Every loss with its gradients, and the small operations, on stored inputs."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from parity.check import Check, array, layers, nchw, nhwc, norm
from vireid_jax.interop import torch_weights
from vireid_jax.losses import distillation, hetero_center, identity, pose
from vireid_jax.models import part_heads
from vireid_jax.models.upsampling import upsample
from vireid_jax.types import Targets


def losses_ops(check: Check) -> None:
    """Each stored case; its name without the number says what it is of."""
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
    rgb, ir = (array(check[f"{prefix}{m}"]) for m in ("f_rgb", "f_ir"))
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
    student, teacher = array(check[f"{prefix}student"]), array(check[f"{prefix}teacher"])
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
        array(check[f"{prefix}logits"])
    )
    check.compare(f"{prefix}value", value, 1e-4)
    check.compare(f"{prefix}grad", grad, 1e-3)


def _pose(check, prefix):
    predicted, fine, coarse = (
        nhwc(check[f"{prefix}{name}"]) for name in ("pred", "target_full", "target_block_mean")
    )
    for name, form, target in (
        ("code", "upsampled", fine),
        ("mean", "mean", coarse),
        ("sum", "sum", coarse),
    ):
        value, grad = jax.value_and_grad(pose.FORMS[form])(predicted, target)
        check.compare(f"{prefix}value_{name}", value, 1e-4)
        check.compare(f"{prefix}grad_{name}_l2", norm(grad), 1e-3)
    check.compare(f"{prefix}grad_sum_sample0", nchw(grad)[0], 1e-3)


def _l2x5(check, prefix):
    y, vjp = jax.vjp(part_heads.normalised, array(check[f"{prefix}x"]))
    check.compare(f"{prefix}y", y, 1e-5)
    check.compare(f"{prefix}vjp", vjp(array(check[f"{prefix}cot"]))[0], 1e-3)


def _part(check, prefix):
    for case in {key.split("/")[1] for key in check.below(prefix)}:
        pooled = part_heads.stripes(nhwc(check[f"{prefix}{case}/x"]), int(case.split("_")[1]))
        check.compare(f"{prefix}{case}/y", pooled.transpose(1, 2, 0), 1e-5)


def _deconv(check, prefix):
    kernel = check[f"{prefix}w_torch_IOHW"]
    leaf = torch_weights.PUBLISHED.names(("params", "pose", "dconv2", "kernel"), ())[0]
    shape = jax.ShapeDtypeStruct((*kernel.shape[2:], *kernel.shape[:2]), np.float32)
    variables = {"params": {"pose": {"dconv2": {"kernel": shape}}}}
    variables = torch_weights.to_flax({leaf: kernel}, variables, torch_weights.PUBLISHED)
    layer = layers(False).transposed_conv(kernel.shape[1], name=None)
    params = jax.tree.map(array, variables["params"]["pose"]["dconv2"])
    y = layer.apply({"params": params}, nhwc(check[f"{prefix}x"]))
    check.compare(f"{prefix}y", nchw(y), 1e-5)


def _bilinear(check, prefix):
    for case in {key.split("/")[1] for key in check.below(prefix)}:
        y = check[f"{prefix}{case}/y"]
        like = jax.ShapeDtypeStruct(np.array(y.shape)[[0, 2, 3, 1]], y.dtype)
        check.compare(
            f"{prefix}{case}/y", nchw(upsample(nhwc(check[f"{prefix}{case}/x"]), like)), 1e-5
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
