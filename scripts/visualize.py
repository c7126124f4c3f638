"""Pictures of what a network sees, as one PNG.

$ python scripts/visualize.py pose --config=configs/synthetic.py --teacher=FILE --output=poses.png

pose: images of the config's test split, visible ones above infrared ones, each with the skeleton
that the teacher in FILE finds (see scripts/extract_heatmaps.py) and, to its right, with the
maximum of its heatmaps laid over it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags
from PIL import Image

from contact_sheet import GAP, SEEN, draw_skeleton
from vireid_jax import command_line, registry
from vireid_jax.data.heatmaps import STRIDE
from vireid_jax.data.images import load_images
from vireid_jax.training import pose_maps
from vireid_jax.types import Modality

CONFIG = config_flags.DEFINE_config_file("config", None, "Whose data are shown.")
TEACHER = flags.DEFINE_string("teacher", None, "File of the pose teacher's weights.")
OUTPUT = flags.DEFINE_string("output", None, "PNG file to write.")
IMAGES = flags.DEFINE_integer("images", 6, "Of either modality.", lower_bound=1)
SCALE = flags.DEFINE_integer("scale", 2, "Enlargement.", lower_bound=1)
_LEAST = 0.1  # of a map, for its joint to be drawn


def pose() -> Image.Image:
    """Skeletons and heatmaps by a teacher."""
    found, teacher = load_images(CONFIG.value.data, "test"), pose_maps.load(TEACHER.value)
    height, width = found.images.shape[1:3]
    predict = jax.jit(pose_maps.make_predict(teacher, height, width))
    rows = []
    for modality in Modality:
        own = np.flatnonzero(found.modality == modality)
        own = own[np.linspace(0, len(own) - 1, IMAGES.value).astype(int)]
        images = np.asarray(found.images[own])
        maps = predict(teacher.variables, images)
        box = np.tile([0, 0, height, width], (len(images), 1))
        places = pose_maps.highest(maps, box, STRIDE)
        seen = SEEN * (maps.max((1, 2)) > _LEAST)[..., None]
        keypoints = np.concatenate([places, seen], -1)
        merged = jax.image.resize(maps.max(-1), images.shape[:3], "linear")
        rows.append([
            tile
            for image, joints, heat in zip(images, keypoints, jnp.clip(merged, 0, 1), strict=True)
            for tile in (_with_skeleton(image, joints), _enlarged(_with_heat(image, heat)))
        ])  # fmt: skip
    return _sheet(rows)


def _with_skeleton(image, keypoints):
    picture = _enlarged(image)
    draw_skeleton(picture, keypoints, SCALE.value)
    return picture


def _with_heat(image, heat):
    """The image in grey, red where it is hot."""
    weight = np.asarray(heat)[..., None]
    grey = np.broadcast_to(image.mean(-1, keepdims=True), image.shape)
    return ((1 - weight) * grey + weight * np.array([255, 32, 0])).astype(np.uint8)


def _enlarged(image):
    height, width = image.shape[:2]
    size = SCALE.value * width, SCALE.value * height
    return Image.fromarray(image).resize(size, Image.Resampling.NEAREST)


def _sheet(rows):
    width, height = rows[0][0].size
    across, down = max(map(len, rows)), len(rows)
    sheet = Image.new("RGB", (across * (width + GAP) - GAP, down * (height + GAP) - GAP), "white")
    for j, row in enumerate(rows):
        for i, tile in enumerate(row):
            sheet.paste(tile, (i * (width + GAP), j * (height + GAP)))
    return sheet


KINDS = {"pose": pose}


def main(kind: str) -> None:
    """Draws, writes, says where it is."""
    sheet = registry.choose("KIND", kind, KINDS)()
    sheet.save(OUTPUT.value)
    print(f"{OUTPUT.value}: {sheet.width} x {sheet.height} pixels")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "teacher", "output"])
    command_line.run(main)
