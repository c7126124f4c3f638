"""Fig. 2: the two-stream network with its pose branch, mask, part heads and teacher."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vireid_jax import registry
from vireid_jax.models import backbones, cpu_convolution
from vireid_jax.models.backbones import resnet
from vireid_jax.models.layers import INITIALIZERS, Layers
from vireid_jax.models.part_heads import PartHeads, Teacher, stripes
from vireid_jax.models.pose_branch import PoseBranch
from vireid_jax.models.reid_branch import ReidBranch
from vireid_jax.models.streams import TwoStream
from vireid_jax.types import Outputs, UserError

STRIDE = 16  # of the features that are cut into stripes
HEATMAP_STRIDE = 4
_SIZE_MULTIPLE = 8  # F_p1 (stride 8) doubled by DConv2 must meet the heatmaps at stride 4


class Network(nn.Module):
    """The whole network (Eq. 1-14).

    Attributes:
      ids: N, identities in training.
      backbone: a file of `backbones`.
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
    def __call__(self, rgb, ir, *, train: bool) -> Outputs:
        """Runs both streams, or one where the other's images are None.

        Args:
          rgb, ir: normalised images [B, H, W, 3]; H and W as `check_size` wants them.
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
        backbone = layers, self.backbone, self.width, self.blocks
        F_S = TwoStream(*backbone, name="streams")(rgb, ir)
        F_id2 = ReidBranch(*backbone, name="reid")(F_S)
        pose = {}
        F_ID = F_id2
        if self.pose_branch:
            branch = PoseBranch(
                layers,
                self.pose_width,
                F_id2.shape[-1],
                self.heatmaps,
                self.mask_relu,
                name="pose",
            )
            pose = branch(F_S)
            pose["F_P"] = self._perturbed("F_P", pose["F_P"])
            pose["M"] = nn.sigmoid(pose["F_P"])  # Eq. 7
            F_ID = pose["M"] * F_id2  # Eq. 9
        F_ID = self._perturbed("F_ID", F_ID)
        pooled = [stripes(x, self.parts) for x in (F_ID, pose.get("F_P")) if x is not None]
        heads = PartHeads(layers, len(pooled) * self.parts, self.features, self.ids, name="parts")
        features, logits = heads(jnp.concatenate(pooled))  # [P or 2P, 2B, F], [.., 2B, N]
        if self.pose_branch:
            pose["pose_features"] = features[self.parts :]
            pose["pose_logits"] = logits[self.parts :]
            pose["heatmap"] = pose["heatmap"].astype(logits.dtype)
        if self.teacher:
            head = Teacher(layers, self.teacher_features, self.ids, name="teacher")
            pose["teacher_logits"] = head(F_ID if self.masked_teacher else F_id2, pose["F_P"])
        return Outputs(
            id_logits=logits[: self.parts],
            id_features=features[: self.parts],
            F_S=F_S,
            F_id2=F_id2,
            F_ID=F_ID,
            **pose,
        )

    def _perturbed(self, name, x):
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
      UserError: an unknown backbone or initialisation, blocks of another number, or a teacher
        without a pose branch.
    """
    if model.teacher and not model.pose_branch:
        raise UserError("config.model.teacher needs config.model.pose_branch: set it to True")
    backbone = registry.find(backbones.__name__, model.backbone, "backbone")
    registry.choose("config.model.initializers", model.initializers, INITIALIZERS)
    if len(model.blocks) != backbone.STAGES:
        raise UserError(
            f"config.model.blocks={model.blocks} must have {backbone.STAGES} numbers, one for each "
            f"stage of {model.backbone}"
        )
    options = {key: value for key, value in model.items() if not key.startswith("init_")}
    options |= {"backbone": backbone, "blocks": tuple(model.blocks)}
    return Network(
        ids=ids,
        dtype=jnp.dtype(dtype),
        heatmaps=heatmaps,
        axis_name=axis_name,
        remat=remat,
        conv_general_dilated=cpu_convolution.for_backend(),
        **options,
    )


@partial(jax.jit, static_argnums=(0, 2, 3))
def init(network: Network, key: jax.Array, height: int, width: int):
    """Random variables of the network: {"params": ..., "batch_stats": ...}, float32.

    The two modality-specific modules start from the same weights, as they do when both are taken
    from one pre-trained network (Sec. IV-A): what they then learn starts aligned.
    """
    images = jnp.zeros((2, height, width, 3))
    found = network.init(key, images, images, train=True)
    streams = found["params"]["streams"]
    params = found["params"] | {"streams": streams | {"ir": streams["rgb"]}}
    return found | {"params": params}


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
