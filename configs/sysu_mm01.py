"""SYSU-MM01 at paper size.

$ python main.py --config=configs/sysu_mm01.py --workdir=runs/sysu --config.data.source=DIR

DIR holds cam1/ to cam6/ and exp/; docs/datasets.md says how to get it. Without heatmaps
(config.data.heatmap_file) L_pose is off. Without weights (config.model.init_from) the network
starts at random, the paper's from ImageNet's: do not expect its figures, which are printed beside
the measured ones. Training on train and val together, as the field does, leaves nothing to select
on; for config.train.selection=best-on-val also give --config.data.train_split=train.
"""

from configs import default, variants


def get_config(choice: str = "full"):
    """For `choice` see configs/variants.py."""
    config = default.get_config()
    config.name = "sysu_mm01"
    config.data.dataset = "sysu_mm01"
    config.data.train_split = "train+val"
    config.data.protocol = "sysu"
    return variants.apply(config, choice)
