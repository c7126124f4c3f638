"""RegDB at paper size, trial 1 of ten.

$ python main.py --config=configs/regdb.py --workdir=runs/regdb_1 --config.data.source=DIR

DIR holds Visible/, Thermal/ and idx/. Without heatmaps (config.data.heatmap_file) L_pose is off.
Without weights (config.model.init_from) the network starts at random, the paper's from ImageNet's:
do not expect its figures, means of ten trials, which are printed beside the measured ones.
"""

from configs import default, variants


def get_config(choice: str = "full"):
    """For `choice` see configs/variants.py."""
    config = default.get_config()
    config.name = "regdb"
    config.data.dataset = "regdb"
    config.data.protocol = "regdb"
    return variants.apply(config, choice)
