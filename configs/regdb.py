"""RegDB at paper size, trial 1 of ten.

$ python main.py --config=configs/regdb.py --workdir=runs/regdb_1 --config.data.source=DIR

DIR holds Visible/, Thermal/ and idx/. Without heatmaps (config.data.heatmap_file) L_pose is off.
The network starts from random weights, the paper's from ImageNet's: do not expect its figures,
means of ten trials, which are printed beside the measured ones.
"""

from configs import default


def get_config(variant: str = "full"):
    """`variant`: baseline, peb, peb_pose or full."""
    config = default.get_config(variant)
    config.name = "regdb"
    config.data.dataset = "regdb"
    config.data.protocol = "regdb"
    return config
