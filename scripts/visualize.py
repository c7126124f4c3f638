"""Pictures of what a network sees, as one PNG.

$ python scripts/visualize.py attention --config=configs/synthetic.py --split=train \\
      --workdir=runs/baseline,runs/synthetic --output=attention.png
$ python scripts/visualize.py mask --config=configs/synthetic.py --workdir=runs/synthetic \\
      --output=mask.png
$ python scripts/visualize.py pose --config=configs/synthetic.py --teacher=FILE --output=poses.png

attention: a row for each identity, a visible image on the left and an infrared one on the right;
beside each, for every run, where its ReID branch and its pose branch look (Grad-CAM). It is what
speaks for the image's identity or, where the run was not trained on it, for the identity that the
branch takes it for.

mask: the same rows, with the keypoint maps that each run predicts (H-hat, where it was taught them)
and its mask (M, the mean over the channels, from the image's lowest value to its highest).

pose: visible images above infrared ones, each with the skeleton that the teacher in FILE finds (see
scripts/extract_heatmaps.py) and, to its right, with the maximum of its heatmaps laid over it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags
from PIL import Image, ImageDraw

from contact_sheet import GAP, SEEN, draw_skeleton
from vireid_jax import command_line, registry
from vireid_jax.data.heatmaps import SHOWN, STRIDE
from vireid_jax.data.images import load_images
from vireid_jax.evaluation import attention as looking
from vireid_jax.training import pose_maps, step, trained
from vireid_jax.types import Modality, UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "Whose data are shown.")
SPLIT = flags.DEFINE_string("split", "test", "Of the images.")
WORKDIR = flags.DEFINE_list("workdir", None, "Folders of runs, for attention and mask.")
TEACHER = flags.DEFINE_string("teacher", None, "File of the pose teacher's weights, for pose.")
OUTPUT = flags.DEFINE_string("output", None, "PNG file to write.")
IMAGES = flags.DEFINE_integer(
    "images", 6, "Identities, or images of either modality.", lower_bound=1
)
SCALE = flags.DEFINE_integer("scale", 2, "Enlargement.", lower_bound=1)


def attention() -> Image.Image:
    """Grad-CAM of the branches of runs."""
    return _beside_each_other("attention")


def mask() -> Image.Image:
    """Predicted keypoint maps and masks of runs."""
    return _beside_each_other("mask")


def _beside_each_other(kind):
    if not WORKDIR.value:
        raise UserError(f"{kind} shows runs: name them in --workdir=DIR[,DIR]")
    runs = [trained.load(folder) for folder in WORKDIR.value]
    if kind == "mask" and not all(run.network.pose_branch for run in runs):
        raise UserError("mask shows pose branches: leave out the runs of the variant baseline")
    found = load_images(CONFIG.value.data, SPLIT.value)
    pids = np.intersect1d(*(found.pid[found.modality == modality] for modality in Modality))
    pids = pids[np.unique(np.linspace(0, len(pids) - 1, IMAGES.value).astype(int))]
    label = np.searchsorted(np.unique(found.pid), pids)
    titles, columns = [], []
    for modality in Modality:
        own = [np.flatnonzero((found.pid == p) & (found.modality == modality))[0] for p in pids]
        images = np.asarray(found.images[own])
        titles.append(modality.name.lower())
        columns.append([_enlarged(image) for image in images])
        for run in runs:
            known = label if _trained_on_these(run) else np.full(len(pids), -1)
            for name, maps in _maps(run, kind, images, modality, known).items():
                titles.append(f"{run.config.variant}\n{name}")
                heat = jax.image.resize(maps, images.shape[:3], "linear")
                columns.append([
                    _enlarged(_with_heat(*pair)) for pair in zip(images, heat, strict=True)
                ])  # fmt: skip
    return _with_titles(_sheet(list(zip(*columns, strict=True))), titles)


def _trained_on_these(run):
    own, shown = run.config.data, CONFIG.value.data
    keys = ["dataset", "tier", "trial", "train_split", "test_fraction", "split_seed"]
    keys += ["source"] * (own.dataset == "folder")
    return SPLIT.value == "train" and all(own[key] == shown[key] for key in keys)


def _maps(run, kind, images, modality, label):
    """What `kind` shows of uint8 [B, H, W, 3], by name: [B, h, w] in [0, 1]."""

    def look(variables, images, label):
        grey = run.config.augment.grey
        apply = step.make_apply(run.network, variables, images, modality, grey)
        if kind == "mask":
            return looking.keypoints_and_mask(apply({}))
        return looking.attention(apply, label)

    maps = jax.jit(look)(run.variables, images, label)
    if not run.learned_poses:
        maps.pop("H-hat", None)
    return maps


def _with_titles(sheet, titles):
    """Words above the columns."""
    line = 12
    whole = Image.new("RGB", (sheet.width, sheet.height + 2 * line + GAP), "white")
    whole.paste(sheet, (0, 2 * line + GAP))
    draw = ImageDraw.Draw(whole)
    for column, title in enumerate(titles):
        x = column * (sheet.width + GAP) // len(titles)
        draw.multiline_text((x, 0), title, fill="black", spacing=1)
    return whole


def pose() -> Image.Image:
    """Skeletons and heatmaps by a teacher."""
    if not TEACHER.value:
        raise UserError("pose shows what a teacher finds: name its weights in --teacher=FILE")
    found, teacher = load_images(CONFIG.value.data, SPLIT.value), pose_maps.load(TEACHER.value)
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
        seen = SEEN * (maps.max((1, 2)) > SHOWN)[..., None]
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


KINDS = {"attention": attention, "mask": mask, "pose": pose}


def main(kind: str) -> None:
    """Draws, writes, says where it is."""
    sheet = registry.choose("KIND", kind, KINDS)()
    sheet.save(OUTPUT.value)
    print(f"{OUTPUT.value}: {sheet.width} x {sheet.height} pixels")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "output"])
    command_line.run(main)
