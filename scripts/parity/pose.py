"""The refinement stage alone, and the pose teacher."""

import jax
import jax.numpy as jnp
import numpy as np

from parity.check import Check, captured, capturing, filled, layers, nchw, nhwc, norm
from vireid_jax.interop import torch_weights
from vireid_jax.models.pose_teacher import PoseTeacher
from vireid_jax.models.refinement import RefinementStage

# Where the reference keeps what a module of it returns.
_ACTIVATIONS = {"model.0": "stem", "cpm": "cpm_1"} | {
    f"model.{i}": f"separable{i}" for i in range(1, 12)
}


def refine(check: Check) -> None:
    """The refinement stage alone: both modes, and the gradient of given cotangents."""
    key = check.name.split("_")[1]  # c of refine_c_oddsize
    batch, channels, features, heatmap_channels, height, width = map(int, check["meta"])
    x = nhwc(np.float32(check.rule.normal(f"input:refine:{key}", (batch, channels, height, width))))

    def stage(train):
        return RefinementStage(layers(train), features, heatmap_channels)

    shapes = jax.eval_shape(lambda k: stage(False).init(k, x), jax.random.key(0))
    prefix = "shared.refinement_stages.0."
    variables = filled(check.rule, shapes, torch_weights.REFINEMENT, prefix)
    cotangent = {
        name: nhwc(
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
        f = nchw(f)
        check.compare(f"f64/{mode}/features_l2", norm(f), tolerance)
        probe = check.rule.probe(f"refine:{key}:features", f)
        check.compare(f"f64/{mode}/features_probe", probe, tolerance, norm(f))
        if f"f64/{mode}/features_first8ch_sample0" in check:
            check.compare(f"f64/{mode}/features_first8ch_sample0", f[0, :8], tolerance)
        check.compare(f"f64/{mode}/heatmap", nchw(heatmap), tolerance)
    grads = torch_weights.to_torch({"params": of_params}, torch_weights.REFINEMENT)
    check.named("f64/vjp/param_", check["param_names"], grads, 3e-2, 0.15, draw=prefix)
    of_input = nchw(of_input)
    check.compare("f64/vjp/input_l2", norm(of_input), 3e-2)
    check.compare("f64/vjp/input_first4ch_sample0", of_input[0, :4], 0.15, norm(of_input[0, :4]))
    stats = torch_weights.to_torch(updates, torch_weights.REFINEMENT)
    check.named("f64/bn/", check["bn_names"], stats, 1e-3, 1e-3, draw=prefix)


def gccpm(check: Check) -> None:
    """The pose teacher: maps of all stages, and where stored one training batch."""
    batch, stages, maps, height, width = map(int, check["meta"])
    case = "a" if stages == 1 else "b"
    image = check.rule.image(f"input:gccpm:{case}", batch, height, width, 32, 0.5)
    x = nhwc(np.float32(0.25 * image.astype(np.float64)))

    def net(train):
        return PoseTeacher(layers(train), stages)

    shapes = jax.eval_shape(lambda key: net(False).init(key, x), jax.random.key(0))
    variables = filled(check.rule, shapes, torch_weights.GCCPM, "gccpm.")
    run = capturing(net(False), set(_ACTIVATIONS.values()))
    found, state = jax.jit(run)(variables, x)
    check.compare("f64/eval/stages", nchw(found), 1e-5)
    of_modules = {name: nchw(captured(state, path)) for name, path in _ACTIVATIONS.items()}
    check.summaries("f64/eval/act/", of_modules, 1e-5)
    if "f64/train/stages" not in check:
        return
    target = check.rule.uniform(f"heatmap:gccpm:{case}", (batch, maps, height // 8, width // 8))
    target = nhwc(np.float32(target))

    def loss(params):
        found, updates = net(True).apply(
            {**variables, "params": params}, x, mutable=["batch_stats"]
        )
        each = jnp.square(found - target).sum((1, 2, 3, 4)) / 2 / batch
        return each.sum(), (found, each, updates)

    grads, (found, each, updates) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    check.compare("f64/train/stages", nchw(found), 1e-3)
    check.compare("f64/train/losses", each, 1e-4)
    grads = torch_weights.to_torch({"params": grads}, torch_weights.GCCPM)
    check.named("f64/train/grad_", check["param_names"], grads, 3e-2, 0.15, draw="gccpm.")
    stats = torch_weights.to_torch(updates, torch_weights.GCCPM)
    check.named("f64/bn/", check["bn_names"], stats, 1e-3, 1e-3, draw="gccpm.")
