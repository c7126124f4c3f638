"""Prints what the true garment map of each image reaches on the synthetic benchmark.

    python scripts/oracle.py --config=configs/synthetic.py

The renderer knows which garment is seen at each pixel. That map has neither colours nor light, and
is the same in every spectrum; averaged over a coarse grid, it says how much of an identity can be
seen at all, by a feature that no one trained. Not for the tier `regdb`, which is stored whole.
"""

import numpy as np
from absl import flags
from tqdm import tqdm

from baselines import CONFIG, table
from vireid_jax import command_line
from vireid_jax.data.datasets import synthetic_vi
from vireid_jax.data.images import load_images
from vireid_jax.data.synthetic.farm import render_example
from vireid_jax.data.synthetic.tiers import Example
from vireid_jax.data.synthetic.wardrobe import Slot
from vireid_jax.evaluation.baselines import chance, garment_map, lda
from vireid_jax.evaluation.protocols import evaluate, protocols_for


def garments(config, split, images):
    """The garment maps of an image set, int8 [n, H, W]."""
    shown = zip(images.pid, images.camid, images.path, strict=True)
    found = []
    for pid, camid, path in tqdm(shown, f"garments, {split}", len(images), unit="img"):
        example = Example(split, int(pid), int(camid), int(path[-8:-4]))
        rendered = render_example(config.tier, example, config.seed, config.height, config.width)
        found.append(rendered.garments)
    return np.stack(found)


def main():
    """Renders both splits again, measures, prints."""
    data = CONFIG.value.data
    config = synthetic_vi.builder(data).builder_config
    train, test = (load_images(data, split) for split in ("train", "test"))
    seen = garment_map(garments(config, "test", test), len(Slot))
    known = garment_map(garments(config, "train", train), len(Slot))
    features = {"garment map": seen, "LDA on it": lda(known, train.pid, seen)}
    protocols = protocols_for(data.protocol, test)
    measured = evaluate(features, test, protocols)
    rows = {name: {p: figures[name] for p, figures in measured.items()} for name in features}
    print(table({"chance": chance(test, protocols), **rows}))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    command_line.run(main)
