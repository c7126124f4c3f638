"""One training step and one embedding step, as pure functions of arrays."""

import jax
import jax.numpy as jnp
import optax

from vireid_jax.data import augment
from vireid_jax.losses.identity import identity
from vireid_jax.models import part_heads
from vireid_jax.training.state import TrainState
from vireid_jax.types import Batch, Modality, Targets


def make_train_step(network, objective, optimizer, rate, augmentation, seed: int, axis_name=None):
    """The update of one batch: augmentation, forward pass, all losses, gradients, the optimiser.

    Args:
      network: a `Network` with the same `axis_name`.
      objective: of `losses.build`.
      optimizer: of `optimizer.build`.
      rate: learning rate by step, for the log.
      augmentation: options of `augment.augment`.
      seed: with the step number it determines all that is random.
      axis_name: the mapped axis over which batches are split by identity, or None.

    Returns:
      A function (TrainState, Batch) -> (TrainState, metrics): "loss" (L), the raw terms by name
      and "learning_rate", each of the global batch. It does not depend on how the batch is split.
    """

    def mean_over_devices(tree):
        return jax.lax.pmean(tree, axis_name) if axis_name else tree

    def train_step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def augmented(modality, images, heatmaps):
            keys = row_keys(jax.random.fold_in(key, modality), len(images), axis_name)
            return augment.augment(keys, images, heatmaps, **augmentation)

        with jax.named_scope("augment"):
            rgb, rgb_map = augmented(Modality.VISIBLE, batch.rgb, batch.rgb_heatmap)
            ir, ir_map = augmented(Modality.INFRARED, batch.ir, batch.ir_heatmap)
        targets = Targets(
            label=jnp.concatenate([batch.label, batch.label]),
            heatmap=None if rgb_map is None else jnp.concatenate([rgb_map, ir_map]),
            axis_name=axis_name,
        )

        def loss(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            outputs, updates = network.apply(
                variables, rgb, ir, targets.heatmap, train=True, mutable=["batch_stats"]
            )
            with jax.named_scope("losses"):
                total, terms = objective(outputs, targets)
            return total, (terms, updates["batch_stats"])

        (total, (terms, batch_stats)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        grads = mean_over_devices(grads)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        metrics = mean_over_devices({"loss": total, **terms})
        metrics["learning_rate"] = rate(state.step)
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    return train_step


def make_embed(network, modality: Modality, flip_averaging: bool = False, grey: bool = False):
    """Features of images of one modality.

    Args:
      network: a `Network`.
      modality: of the images.
      flip_averaging: each part's feature is the mean of the image's and its mirror image's, scaled
        to the length of either.
      grey: see `augment.normalise`.

    Returns:
      A function (variables, uint8 images [B, H, W, 3]) -> {"f_ID": [B, P F], "f_ALL": [B, 2 P F]},
      float32; the latter only with a pose branch (Eq. 12-13). Where the architecture needs them,
      heatmaps, uint8 [B, h, w, J], are its third argument.
    """

    def embed(variables, *inputs):
        inputs = _normalised(*inputs, grey=grey)
        outputs = _apply(network, variables, modality, *inputs)
        if flip_averaging:
            mirrored = _apply(network, variables, modality, *(x[:, :, ::-1] for x in inputs))
            outputs = outputs.replace(
                **{
                    name: part_heads.normalised(getattr(outputs, name) + getattr(mirrored, name))
                    for name in ("id_features", "pose_features")
                    if getattr(outputs, name) is not None
                }
            )
        features = {"f_ID": outputs.f_ID, "f_ALL": outputs.f_ALL}
        return {name: f for name, f in features.items() if f is not None}

    return embed


def make_apply(network, variables, images, modality: Modality, grey: bool = False):
    """The network on images of one modality, as `attention.attention` wants it.

    Args:
      network: a `Network`.
      variables: of it.
      images: uint8 [B, H, W, 3].
      modality: of the images.
      grey: see `augment.normalise`.

    Returns:
      A function (perturbations, {} or {"F_ID": ..., "F_P": ...}) -> `Outputs`.
    """
    images = augment.normalise(images, grey)

    def apply(perturbations):
        added = {"perturbations": perturbations} if perturbations else {}
        return _apply(network, variables | added, modality, images)

    return apply


def make_identity_loss(network, grey: bool = False):
    """Eq. 17 of each image, summed over the heads of all branches, through the visible stem.

    Args:
      network: a `Network`.
      grey: see `augment.normalise`.

    Returns:
      A function (variables, label int [B], uint8 images [B, H, W, 3]) -> float32 [B]; heatmaps as
      in `make_embed`.
    """

    def identity_loss(variables, label, *inputs):
        inputs = _normalised(*inputs, grey=grey)
        outputs = _apply(network, variables, Modality.VISIBLE, *inputs)
        logits = jnp.concatenate(outputs.logits)
        return jax.vmap(lambda x, y: identity(x[:, None], y[None]), (1, 0))(logits, label)

    return identity_loss


def make_heatmaps(network, modality: Modality, grey: bool = False):
    """Keypoint heatmaps of images of one modality, by a network with a pose branch.

    Args:
      network, modality, grey: as in `make_embed`.

    Returns:
      A function (variables, uint8 images [B, H, W, 3]) -> float32 [B, h, w, J] in [0, 1].
    """

    def heatmaps(variables, images):
        outputs = _apply(network, variables, modality, augment.normalise(images, grey))
        return jnp.clip(outputs.heatmap, 0, 1)

    return heatmaps


def _normalised(images, *heatmaps, grey):
    return augment.normalise(images, grey), *(x.astype(float) / 255 for x in heatmaps)


def _apply(network, variables, modality, images, *heatmaps):
    pair = (images, None) if modality == Modality.VISIBLE else (None, images)
    return network.apply(variables, *pair, *heatmaps, train=False)


def row_keys(key, rows: int, axis_name=None):
    """A key for each of `rows` rows here, the same however many devices share the batch."""
    first = rows * jax.lax.axis_index(axis_name) if axis_name else 0
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(first + jnp.arange(rows))
