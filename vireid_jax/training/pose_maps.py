"""From images to heatmap targets, by the pose teacher."""

import dataclasses
import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vireid_jax.data import poses
from vireid_jax.data.heatmaps import JOINTS, MIRRORED, STRIDE
from vireid_jax.evaluation.features import in_batches
from vireid_jax.interop import torch_weights
from vireid_jax.models import convolution, pose_teacher
from vireid_jax.models.layers import Layers
from vireid_jax.training import pose_step
from vireid_jax.training.devices import Devices
from vireid_jax.types import UserError

_PUBLISHED_SIZE = 256, 256  # of the teacher's input, pixels
_UNMIRRORED = np.array([*MIRRORED, len(JOINTS)])  # the background stays


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained pose teacher.

    Attributes:
      variables: of its network.
      stages, width: of its network, see `PoseTeacher`.
      size: height and width of its input, pixels; images are fitted into it.
    """

    variables: dict
    stages: int
    width: int
    size: tuple[int, int]


def load(file: str | Path) -> Teacher:
    """The teacher in `file`, ours or a GCCPM checkpoint.

    Raises:
      UserError: a file that cannot be read, or of another network.
    """
    state = torch_weights.read(file)
    if torch_weights.detect(state) is not torch_weights.GCCPM:
        raise UserError(f"{file} is {torch_weights.detect(state).title}, not a pose teacher's")
    numbers = [re.match(r"refinement_stages\.(\d+)\.", name) for name in state]
    stages = len({found[1] for found in numbers if found})
    width = len(state["cpm.1.0.weight"])
    size = tuple(int(side) for side in state.get(torch_weights.INPUT_SIZE, _PUBLISHED_SIZE))
    net = pose_teacher.PoseTeacher(Layers(train=False), stages, width)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), image)
    variables = torch_weights.to_flax(state, shapes, torch_weights.GCCPM)
    return Teacher(variables, stages, width, size)


def save(file: str | Path, variables: dict, size: tuple[int, int]) -> None:
    """Writes a teacher for `load`, with the names of GCCPM's tensors.

    Raises:
      UserError: as `torch_weights.write`.
    """
    state = torch_weights.to_torch(variables, torch_weights.GCCPM)
    state[torch_weights.INPUT_SIZE] = np.array(size, np.int64)
    torch_weights.write(file, state)


def start_pose_branch(file: str | Path, variables: dict) -> dict:
    """A re-identification network whose refinement stage is a teacher's first (Sec. IV-D).

    Args:
      file: see `load`.
      variables: of the network.

    Raises:
      UserError: as `load`; the network has no pose branch, or one of other sizes.
    """
    if "pose" not in variables["params"]:
        raise UserError(
            f"config.model.init_pose_from={file} needs a network with a pose branch: leave it "
            "out, or choose a variant that has one, such as full"
        )
    teacher = load(file)

    def replaced(kind):
        own = variables[kind]["pose"]["refinement"]
        stage = teacher.variables[kind]["refinement_0"]
        if jax.tree.map(np.shape, own) != jax.tree.map(np.shape, stage):
            raise UserError(
                f"config.model.init_pose_from={file}: the teacher's refinement stages do not fit "
                "the pose branch; they do with config.data.heatmaps=joints_and_background and "
                f"config.model.pose_width={teacher.width // 2}"
            )
        return variables[kind] | {"pose": variables[kind]["pose"] | {"refinement": stage}}

    return variables | {kind: replaced(kind) for kind in ("params", "batch_stats")}


def make_predict(teacher: Teacher, height: int, width: int, flip: bool = False, scales=(1.0,)):
    """What the teacher sees in images of one size.

    An image is fitted into the teacher's input size times a scale, with a grey border; the maps of
    the last stage are sampled at the cells of ReID heatmaps.

    Args:
      teacher: its variables are not used.
      height, width: of the images, pixels.
      flip: averages the maps with those of the mirrored image.
      scales: averages the maps over these.

    Returns:
      A function (variables, uint8 [B, H, W, 3], RGB) -> float32 [B, H/4, W/4, 16] in [0, 1], in
      LIP's order.
    """
    layers = Layers(False, conv_general_dilated=convolution.for_backend())
    net = pose_teacher.PoseTeacher(layers, teacher.stages, teacher.width)
    cells = height // STRIDE, width // STRIDE

    def at_scale(variables, images, scale):
        stride = pose_teacher.STRIDE
        frame = [stride * round(side * scale / stride) for side in teacher.size]
        top, left, *size = poses.fit((height, width), *frame)
        x = jax.image.resize(images, (len(images), *size, 3), "cubic")
        after = frame[0] - top - size[0], frame[1] - left - size[1]
        margins = (0, 0), (top, after[0]), (left, after[1]), (0, 0)
        x = jnp.pad(x, margins, constant_values=poses.GREY)
        maps = net.apply(variables, pose_step.normalise(x))[-1]
        # The centre of cell i lies at STRIDE (i + 1/2) factor + border pixels of the frame.
        factor = np.array([size[0] / height, size[1] / width])
        return jax.image.scale_and_translate(
            maps,
            (len(images), *cells, pose_teacher.MAPS),
            (1, 2),
            jnp.asarray(stride / STRIDE / factor, jnp.float32),
            jnp.asarray(-np.array([top, left]) / STRIDE / factor, jnp.float32),
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


def highest(maps, box, stride: int):
    """The joints' places: the highest points of their maps, enlarged to pixels by cubic sampling.

    Args:
      maps: float [B, h, w, 16].
      box: int [B, 4], see `PoseSet`; points outside are not considered.
      stride: pixels per cell.

    Returns:
      float32 [B, 16, 2], x and y in pixels.
    """
    rows, h, w, joints = maps.shape
    height, width = h * stride, w * stride
    maps = jax.image.resize(maps, (rows, height, width, joints), "cubic")
    top, left, tall, wide = (box[:, i, None, None] for i in range(4))
    y, x = jnp.mgrid[:height, :width]
    inside = (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide)
    maps = jnp.where(inside[..., None], maps, -jnp.inf).reshape(rows, -1, joints)
    y, x = jnp.divmod(maps.argmax(1), width)
    return jnp.stack([x, y], -1).astype(jnp.float32)


def extract(predict, variables, images, merged: bool, batch: int, partial: Path) -> np.ndarray:
    """Maps of all images, uint8 [n, h, w, J]; an interrupted call continues.

    Args:
      predict: of `make_predict`.
      variables: of the teacher.
      images: uint8 [n, H, W, 3].
      merged: the maximum over the joints (J = 1) instead of all 16.
      batch: images at a time on each device; the last one is filled up.
      partial: folder that keeps what is done, for the caller to remove.
    """

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
    devices = Devices()
    computed = functools.partial(devices.embed(run), devices.replicate(variables))
    size = batch * devices.here
    with tqdm(total=n, initial=done, desc="heatmaps", unit="img") as bar:
        for rows, found in in_batches(computed, np.arange(done, n), size, images.__getitem__):
            maps[rows] = found
            maps.flush()
            progress.with_suffix(".new").write_text(json.dumps(int(rows[-1]) + 1))
            progress.with_suffix(".new").rename(progress)
            bar.update(len(rows))
    return maps
