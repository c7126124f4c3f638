"""One fixture file: what is in it, what was compared, and how near it came."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from vireid_jax.interop import torch_weights
from vireid_jax.interop.fixtures import Rule
from vireid_jax.models import cpu_convolution
from vireid_jax.models.layers import Layers
from vireid_jax.types import UserError

CPU_CONVOLUTION = flags.DEFINE_bool(
    "cpu_convolution", False, "Convolve as training on a CPU does, which is quicker there."
)


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
        if float64():
            tolerance = 1e-6
            if scale is None:
                rms = math.sqrt(np.nanmean(np.square(reference)))
                scale = np.maximum(abs(reference), rms)
        elif scale is None:
            errors, scale = norm(errors), norm(np.nan_to_num(reference))
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
            length = norm(x)
            if kind == "l2":
                self.compare(key, length, tolerance)
            elif kind == "first":
                self.compare(key, x.ravel()[:32], tolerance)
            elif kind == "probe":
                draw = "out" if prefix.endswith("stat/") else "act"
                self.compare(key, self.rule.probe(f"{draw}:{name}", x), tolerance, length)

    def named(self, prefix, names, state, of_norm, of_probe, draw=""):
        """Compares the norms and probes of tensors, stored as one array each for all `names`.

        A bias in front of a BatchNorm has gradient zero and what is stored is rounding; it counts
        relative to its weight.
        """
        norms = [norm(state[n]) for n in names]
        probes = [self.rule.probe(draw + n, state[n]) for n in names]
        l2 = dict(zip(names, self[f"{prefix}l2"], strict=True))
        zeros = biases_before_norm(names, self["bn_names"])
        scale = np.array(
            [l2[n.removesuffix("bias") + "weight" if n in zeros else n] for n in names]
        )
        self.compare(f"{prefix}l2", norms, of_norm, scale)
        self.compare(f"{prefix}probe", probes, of_probe, scale)

    def forgotten(self):
        """Reference numbers that nothing was compared with."""
        return sorted(k for k in self._content.keys() - self._used if not k.startswith("f32/"))


def recipe(choice="full", dataset=""):
    """A config of configs/default.py, which is importable once `command_line.run` is running."""
    from configs import default, variants

    config = default.get_config()
    config.data.dataset = dataset
    return variants.apply(config, choice)


def convolution():
    """What replaces `jax.lax.conv_general_dilated` in this run, or None."""
    return cpu_convolution.conv_general_dilated if CPU_CONVOLUTION.value else None


def layers(train: bool) -> Layers:
    """How this run builds layers."""
    return Layers(train, dtype(), conv_general_dilated=convolution())


def filled(rule: Rule, shapes, layout: torch_weights.Layout, prefix=""):
    """Variables of `shapes` with the rule's weights, in the dtype of this run."""
    zeros = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    state = {
        name: rule.weight(prefix + name, x.shape)
        for name, x in torch_weights.to_torch(zeros, layout).items()
    }
    return jax.tree.map(array, torch_weights.to_flax(state, shapes, layout))


def capturing(net, paths, **options):
    """`net.apply` with what the modules at `paths` return beside its result."""
    return functools.partial(
        net.apply,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, _: "/".join(module.path) in paths,
        **options,
    )


def captured(state, path):
    """What the module at `path` returned in a `capturing` run; None if the run had none."""
    x = state["intermediates"]
    for key in (*path.split("/"), "__call__"):
        x = x.get(key, {})
    return x[0] if x else None


def biases_before_norm(names, norms):
    """Those `X.0.bias` of `names` behind which `norms` has a BatchNorm `X.1`, which undoes them."""
    modules = {name.rsplit(".", 1)[0] for name in norms}
    return {n for n in names if n.endswith("0.bias") and n[: -len("0.bias")] + "1" in modules}


def float64() -> bool:
    """Whether this run computes in float64."""
    return jax.config.jax_enable_x64


def dtype():
    """Of this run."""
    return jnp.float64 if float64() else jnp.float32


def array(x) -> jax.Array:
    """`x` in the dtype of this run."""
    return jnp.asarray(x, dtype())


def nhwc(x) -> jax.Array:
    """A stored NCHW array."""
    return array(np.transpose(x, (0, 2, 3, 1)))


def nchw(x) -> np.ndarray:
    """An NHWC array as it is stored."""
    return np.moveaxis(np.asarray(x), -1, -3)


def norm(x) -> float:
    """The root of the sum of squares of all elements."""
    return np.linalg.norm(np.asarray(x, np.float64).ravel())
