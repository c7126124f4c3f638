"""One training step of the pose teacher and its optimiser, as pure functions of arrays."""

import jax
import jax.numpy as jnp
import optax

from vireid_jax.data import augment_poses, heatmaps
from vireid_jax.training import step
from vireid_jax.training.state import TrainState
from vireid_jax.types import PoseBatch


def normalise(images):
    """RGB [..., 3], 0 to 255 -> the teacher's BGR, (value - 128) / 256."""
    return (images[..., ::-1].astype(jnp.float32) - 128) / 256


def make_train_step(network, rule, rate, augmentation, seed: int, axis_name=None):
    """The update of one batch: augmentation, target maps, forward pass, loss, gradients, Adam.

    The loss is half the squared error of the maps of all stages, summed over cells, per image.

    Args:
      network: a `PoseTeacher` in training mode, with the same `axis_name`.
      rule: of `build_optimizer`.
      rate: learning rate by step, before the plateau's factor.
      augmentation: options of `augment_poses.augment`.
      seed: with the step number it determines all that is random.
      axis_name: the mapped axis over which batches are split, or None.

    Returns:
      A function (TrainState, PoseBatch) -> (TrainState, {"loss", "learning_rate"}), those of the
      global batch. `opt_state` is a pair: the optimiser's, and the plateau's (or None).
    """

    def mean_over_devices(tree):
        return jax.lax.pmean(tree, axis_name) if axis_name else tree

    def train_step(state: TrainState, batch: PoseBatch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        rows, height, width, _ = batch.images.shape
        keys = step.row_keys(key, rows, axis_name)
        images, keypoints = augment_poses.augment(keys, batch, **augmentation)
        target = heatmaps.teacher_maps(keypoints, height, width)

        def loss(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            maps, updates = network.apply(variables, normalise(images), mutable=["batch_stats"])
            error = jnp.square(maps.astype(target.dtype) - target)
            return error.sum() / (2 * rows), updates["batch_stats"]

        (total, batch_stats), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        adam, plateau = state.opt_state
        updates, adam = rule.update(mean_over_devices(grads), adam, state.params)
        factor = 1.0 if plateau is None else plateau.scale
        params = optax.apply_updates(state.params, jax.tree.map(lambda u: factor * u, updates))
        metrics = {
            "loss": mean_over_devices(total),
            "learning_rate": jnp.asarray(factor * rate(state.step), jnp.float32),
        }
        return TrainState(state.step + 1, params, batch_stats, (adam, plateau)), metrics

    return train_step


def build_optimizer(c, rate: optax.Schedule) -> optax.GradientTransformation:
    """Adam with the published groups.

    Weight decay is added to the gradients of kernels, depthwise ones apart. Biases step with
    `bias_multiplier` times the rate, the refinement stages' kernels and biases with
    `refinement_multiplier` times theirs; BatchNorm with the rate, but that of `cpm` is in none of
    the published groups and stays as it is.

    Args:
      c: the config's `optimizer` section.
      rate: learning rate by step.
    """

    def decayed(path, _):
        return path[-1].key == "kernel" and path[-2].key != "depthwise"

    def multiplied(path, update):
        names = [key.key for key in path]
        is_norm = names[-2].endswith("norm")
        if is_norm:
            return update * (not names[0].startswith("cpm"))
        factor = c.bias_multiplier if names[-1] == "bias" else 1.0
        return update * factor * (c.refinement_multiplier if "refinement" in names[0] else 1.0)

    return optax.chain(
        optax.add_decayed_weights(
            c.weight_decay, lambda params: jax.tree_util.tree_map_with_path(decayed, params)
        ),
        optax.scale_by_adam(),
        optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(multiplied, updates)),
        optax.scale_by_learning_rate(rate),
    )


def build_plateau(c) -> optax.GradientTransformationExtraArgs | None:
    """The factor of the rate, which falls after `patience` evaluations without improvement.

    As PyTorch's ReduceLROnPlateau, which lets one more pass than optax.

    Args:
      c: the config's `optimizer` section.
    """
    if not c.patience:
        return None
    return optax.contrib.reduce_on_plateau(
        c.plateau_factor, c.patience + 1, rtol=c.plateau_threshold, atol=0.0
    )
