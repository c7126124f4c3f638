"""Prints what the renderer's own knowledge of each image reaches on the synthetic benchmark.

    python scripts/oracle.py --config=configs/synthetic.py

The renderer knows which garment is seen at each pixel, and where the joints are. Neither has
colours or light, and both are the same in every spectrum. Garments averaged over a coarse grid say
how much of an identity can be seen at all, by a feature that no one trained; averaged around the
joints, what knowing the pose adds to that; the places of the joints alone, what a pose says of who
it is. Not for the tier `regdb`, which is stored whole.
"""

import numpy as np
from absl import flags
from sklearn.preprocessing import normalize
from tqdm import tqdm

from baselines import CONFIG, table
from vireid_jax import command_line
from vireid_jax.data.datasets import synthetic_vi
from vireid_jax.data.images import load_images
from vireid_jax.data.synthetic.farm import render_example
from vireid_jax.data.synthetic.render import OUTSIDE
from vireid_jax.data.synthetic.tiers import Example
from vireid_jax.data.synthetic.wardrobe import Slot
from vireid_jax.evaluation.baselines import chance, garment_map, lda
from vireid_jax.evaluation.protocols import evaluate
from vireid_jax.training.experiment import protocols_of


def truth(config, split, images):
    """Of an image set: garment maps, int8 [n, H, W], and keypoints, float32 [n, 16, 3]."""
    shown = zip(images.pid, images.camid, images.path, strict=True)
    garments, keypoints = [], []
    for pid, camid, path in tqdm(shown, f"garments, {split}", len(images), unit="img"):
        example = Example(split, int(pid), int(camid), int(path[-8:-4]))
        rendered = render_example(config.tier, example, config.seed, config.height, config.width)
        garments.append(rendered.garments)
        keypoints.append(rendered.keypoints)
    return np.stack(garments), np.stack(keypoints)


def around_joints(garments, keypoints):
    """The share of each kind of garment in a square around each joint in the image: [n, 16 kinds].

    The square has an eighth of the image's height.
    """
    half = garments.shape[1] // 16
    shares = np.zeros((*keypoints.shape[:2], len(Slot)), np.float32)
    padded = np.pad(garments, ((0, 0), (half, half), (half, half)), constant_values=-1)
    for image, joint in zip(*np.nonzero(keypoints[..., 2] != OUTSIDE), strict=True):
        x, y = np.rint(keypoints[image, joint, :2]).astype(int)
        own = padded[image, y : y + 2 * half + 1, x : x + 2 * half + 1]
        shares[image, joint] = np.bincount(own[own >= 0], minlength=len(Slot)) / own.size
    return normalize(shares.reshape(len(shares), -1))


def joints(keypoints):
    """Places of the joints relative to their centre, in lengths of their extent: [n, 32]."""
    there = (keypoints[..., 2] != OUTSIDE)[..., None]
    centre = (keypoints[..., :2] * there).sum(1) / there.sum(1)
    return normalize(((keypoints[..., :2] - centre[:, None]) * there).reshape(len(keypoints), -1))


def main():
    """Renders both splits again, measures, prints."""
    data = CONFIG.value.data
    config = synthetic_vi.builder(data).builder_config
    sets = train, test = [load_images(data, split) for split in ("train", "test")]
    kinds = {"garment map": [], "garments around joints": [], "both": [], "joints alone": []}
    for split, own in zip(("train", "test"), sets, strict=True):
        garments, keypoints = truth(config, split, own)
        pair = garment_map(garments, len(Slot)), around_joints(garments, keypoints)
        found = *pair, np.concatenate(pair, 1), joints(keypoints)
        for feature, values in zip(found, kinds.values(), strict=True):
            values.append(feature)
    features = {}
    for name, (known, seen) in kinds.items():
        features |= {name: seen, f"{name}, LDA": lda(known, train.pid, seen)}
    protocols = protocols_of(CONFIG.value, test)
    measured = evaluate(features, test, protocols)
    rows = {name: {p: figures[name] for p, figures in measured.items()} for name in features}
    print(table({"chance": chance(test, protocols), **rows}))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    command_line.run(main)
