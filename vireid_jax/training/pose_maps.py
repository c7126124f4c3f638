"""From images to heatmap targets, by the pose teacher."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vireid_jax.data.heatmaps import JOINTS, MIRRORED, STRIDE
from vireid_jax.interop import torch_weights
from vireid_jax.models import cpu_convolution, pose_teacher
from vireid_jax.models.layers import Layers
from vireid_jax.types import UserError

SIDE = 256  # of the teacher's square input, pixels
_GREY = 128.0  # of its border
_UNMIRRORED = np.array([*MIRRORED, len(JOINTS)])  # the background stays


def load(file: str | Path):
    """The teacher in `file`: its variables and its number of refinement stages.

    Raises:
      UserError: a file that cannot be read, or of another network.
    """
    state = torch_weights.read(file)
    if torch_weights.detect(state) is not torch_weights.GCCPM:
        raise UserError(f"{file} is {torch_weights.detect(state).title}, not a pose teacher's")
    numbers = [re.match(r"refinement_stages\.(\d+)\.", name) for name in state]
    stages = len({found[1] for found in numbers if found})
    net = pose_teacher.PoseTeacher(Layers(train=False), stages)
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), image)
    return torch_weights.to_flax(state, shapes, torch_weights.GCCPM), stages


def make_predict(stages: int, height: int, width: int, flip: bool = False, scales=(1.0,)):
    """What the teacher sees in images of one size.

    An image is fitted into a square of `SIDE` pixels times a scale, with a grey border; the maps of
    the last stage are sampled at the cells of ReID heatmaps.

    Args:
      stages: of the teacher.
      height, width: of the images, pixels.
      flip: averages the maps with those of the mirrored image.
      scales: averages the maps over these.

    Returns:
      A function (variables, uint8 [B, H, W, 3], RGB) -> float32 [B, H/4, W/4, 16] in [0, 1], in
      LIP's order.
    """
    convolution = cpu_convolution.for_backend()
    net = pose_teacher.PoseTeacher(Layers(False, conv_general_dilated=convolution), stages)
    cells = height // STRIDE, width // STRIDE

    def at_scale(variables, images, scale):
        side = pose_teacher.STRIDE * round(SIDE * scale / pose_teacher.STRIDE)
        factor = side / max(height, width)
        size = np.round(np.array([height, width]) * factor).astype(int)
        border = (side - size) // 2
        x = jax.image.resize(images, (len(images), *size, 3), "cubic")
        margins = [(b, side - s - b) for b, s in zip(border, size, strict=True)]
        x = jnp.pad(x, ((0, 0), *margins, (0, 0)), constant_values=_GREY)
        maps = net.apply(variables, (x[..., ::-1] - _GREY) / 256)[-1]
        # The centre of cell i lies at STRIDE (i + 1/2) factor + border pixels of the square.
        return jax.image.scale_and_translate(
            maps,
            (len(images), *cells, pose_teacher.MAPS),
            (1, 2),
            jnp.full(2, pose_teacher.STRIDE / STRIDE / factor),
            jnp.asarray(-border / STRIDE / factor, jnp.float32),
            "cubic",
            antialias=False,
        )

    def predict(variables, images):
        images = images.astype(jnp.float32)
        maps = [at_scale(variables, images, scale) for scale in scales]
        if flip:
            mirrored = [at_scale(variables, images[:, :, ::-1], scale) for scale in scales]
            maps += [x[:, :, ::-1][..., _UNMIRRORED] for x in mirrored]
        return jnp.clip(sum(maps) / len(maps), 0, 1)[..., : len(JOINTS)]

    return predict


def extract(predict, variables, images, merged: bool, batch: int, partial: Path) -> np.ndarray:
    """Maps of all images, uint8 [n, h, w, J]; an interrupted call continues.

    Args:
      predict: of `make_predict`.
      variables: of the teacher.
      images: uint8 [n, H, W, 3].
      merged: the maximum over the joints (J = 1) instead of all 16.
      batch: images at a time; the last one is filled up.
      partial: folder that keeps what is done, for the caller to remove.
    """

    @jax.jit
    def run(variables, images):
        maps = predict(variables, images)
        maps = maps.max(-1, keepdims=True) if merged else maps
        return jnp.round(255 * maps).astype(jnp.uint8)

    n, height, width, _ = images.shape
    shape = n, height // STRIDE, width // STRIDE, 1 if merged else len(JOINTS)
    partial.mkdir(parents=True, exist_ok=True)
    file, progress = partial / "maps.npy", partial / "done.json"
    done = json.loads(progress.read_text()) if progress.exists() else 0
    mode = "r+" if done else "w+"
    maps = np.lib.format.open_memmap(file, mode, np.uint8, shape)
    with tqdm(total=n, initial=done, desc="heatmaps", unit="img") as bar:
        for start in range(done, n, batch):
            rows = np.arange(start, min(start + batch, n))
            own = images[np.resize(rows, batch)]
            maps[rows] = np.asarray(run(variables, own))[: len(rows)]
            maps.flush()
            progress.with_suffix(".new").write_text(json.dumps(int(rows[-1]) + 1))
            progress.with_suffix(".new").rename(progress)
            bar.update(len(rows))
    return maps
