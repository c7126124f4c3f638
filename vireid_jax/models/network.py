"""The network of a config: an architecture (Fig. 2 or another), its start, its image sizes."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vireid_jax import registry
from vireid_jax.models import architectures, backbones, convolution
from vireid_jax.models.architectures import auxiliary_pose
from vireid_jax.models.backbones import resnet
from vireid_jax.models.layers import INITIALIZERS, Layers
from vireid_jax.types import Outputs, UserError

STRIDE = 16  # of the features that are cut into stripes
HEATMAP_STRIDE = 4
_SIZE_MULTIPLE = 8  # F_p1 (stride 8) doubled by DConv2 must meet the heatmaps at stride 4


class Network(nn.Module):
    """The whole network, as its architecture puts it together.

    Attributes:
      ids: N, identities in training.
      backbone: a file of `backbones`.
      architecture: a file of `architectures`.
      width: channels of the stem: 64 in ResNet-50, whose other widths follow in proportion.
      pose_width: the same of the pose branch.
      blocks: bottlenecks of layer1 to layer4.
      parts: P.
      features: F, of each part.
      teacher_features: of PCB_T.
      pose_branch: with pose branch, mask and pose heads.
      teacher: with PCB_T; needs the pose branch.
      heatmaps: J.
      mask_relu: see `PoseBranch.relu`.
      masked_teacher: PCB_T sees F_ID, not F_id2.
      initializers: a name of `layers.INITIALIZERS`.
      dtype: of activations.
      axis_name: mapped axis of a split batch, for BatchNorm.
      conv_general_dilated: see `Layers`.
      remat: compute the inner results of every block again in the backward pass, instead of keeping
        them: less memory, about a third more work, the same gradients.
    """

    ids: int
    backbone: ModuleType = resnet
    architecture: ModuleType = auxiliary_pose
    width: int = 64
    pose_width: int = 64
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    parts: int = 6
    features: int = 512
    teacher_features: int = 1024
    pose_branch: bool = True
    teacher: bool = True
    heatmaps: int = 1
    mask_relu: bool = False
    masked_teacher: bool = False
    initializers: str = "paper"
    dtype: Any = jnp.float32
    axis_name: str | None = None
    conv_general_dilated: Callable | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, rgb, ir, heatmap=None, *, train: bool) -> Outputs:
        """Runs both streams, or one where the other's images are None.

        Args:
          rgb, ir: normalised images [B, H, W, 3]; H and W as `check_size` wants them.
          heatmap: keypoint maps of the same rows in [0, 1], [2B, H/4, W/4, J]; of use only where
            the architecture needs them.
          train: use batch statistics in BatchNorm and update the running ones.

        Returns:
          `Outputs`, with the rows of `rgb` before those of `ir`.
        """
        layers = Layers(
            train,
            self.dtype,
            self.axis_name,
            self.conv_general_dilated,
            INITIALIZERS[self.initializers],
            self.remat,
        )
        rgb, ir = (None if x is None else x.astype(self.dtype) for x in (rgb, ir))
        return self.architecture.outputs(self, layers, rgb, ir, heatmap)

    def perturbed(self, name, x):
        """`x` and what is given for it in the collection "perturbations", if there is one."""
        return x if self.is_initializing() else self.perturb(name, x)


def build(
    model, ids: int, dtype: str, heatmaps: int, axis_name: str | None = None, remat: bool = False
) -> Network:
    """The network of a config.

    Args:
      model: the config's `model` section: fields of `Network` by name, and files to start from.
      ids: N.
      dtype: "float32", "bfloat16" or "float64".
      heatmaps: J.
      axis_name, remat: see `Network`.

    Raises:
      UserError: an unknown architecture, backbone or initialisation, blocks of another number, a
        teacher without a pose branch, or either in an architecture that has none.
    """
    if model.teacher and not model.pose_branch:
        raise UserError("config.model.teacher needs config.model.pose_branch: set it to True")
    chosen = architecture(model)
    if chosen is not auxiliary_pose and model.pose_branch:
        raise UserError(
            f"config.model.architecture={model.architecture} has no pose branch with heads and "
            "losses: set config.model.pose_branch and .teacher to False, as its variant does"
        )
    backbone = registry.find(backbones.__name__, model.backbone, "backbone")
    registry.choose("config.model.initializers", model.initializers, INITIALIZERS)
    if len(model.blocks) != backbone.STAGES:
        raise UserError(
            f"config.model.blocks={model.blocks} must have {backbone.STAGES} numbers, one for each "
            f"stage of {model.backbone}"
        )
    options = {key: value for key, value in model.items() if not key.startswith("init_")}
    options |= {"architecture": chosen, "backbone": backbone, "blocks": tuple(model.blocks)}
    return Network(
        ids=ids,
        dtype=jnp.dtype(dtype),
        heatmaps=heatmaps,
        axis_name=axis_name,
        remat=remat,
        conv_general_dilated=convolution.for_backend(),
        **options,
    )


def architecture(model) -> ModuleType:
    """The file that a config's `model` section names; a run's stored config may be without a name.

    Raises:
      UserError: no such file.
    """
    name = model.get("architecture", "auxiliary_pose")
    return registry.find(architectures.__name__, name, "architecture")


@partial(jax.jit, static_argnums=(0, 2, 3))
def init(network: Network, key: jax.Array, height: int, width: int):
    """Random variables of the network: {"params": ..., "batch_stats": ...}, float32.

    What the modalities do not share starts from the same weights in both, as it does when both are
    taken from one pre-trained network (Sec. IV-A): what they then learn starts aligned.
    """
    images = jnp.zeros((2, height, width, 3))
    size = height // HEATMAP_STRIDE, width // HEATMAP_STRIDE
    heatmap = jnp.zeros((4, *size, network.heatmaps))
    found = network.init(key, images, images, heatmap, train=True)
    return found | {"params": exchanged(found["params"], "ir", "rgb")}


def exchanged(tree, name: str, source: str):
    """Parameters or statistics with those of one modality replaced by another's.

    Args:
      tree: of a network.
      name, source: "rgb" or "ir"; modules called `name` get the values of those called `source`.
    """
    if not isinstance(tree, dict):
        return tree
    if source in tree:
        return tree | {name: tree[source]}
    return {key: exchanged(own, name, source) for key, own in tree.items()}


def check_size(height: int, width: int, parts: int) -> None:
    """Refuses image sizes that the network cannot take.

    Raises:
      UserError: not a multiple of 8, or fewer feature rows than parts.
    """
    for key, size in (("height", height), ("width", width)):
        if size % _SIZE_MULTIPLE:
            near = max(1, round(size / _SIZE_MULTIPLE)) * _SIZE_MULTIPLE
            raise UserError(
                f"config.data.{key}={size} is not a multiple of {_SIZE_MULTIPLE}, as the network "
                f"needs: use {near}"
            )
    if -(-height // STRIDE) < parts:
        raise UserError(
            f"config.data.height={height} gives {-(-height // STRIDE)} rows of features for "
            f"config.model.parts={parts}: use a height of at least {STRIDE * parts}"
        )
