"""One's own images at paper size.

$ python main.py --config=configs/folder.py --workdir=runs/own --config.data.source=DIR

DIR holds visible/PID/* and infrared/PID/*, see vireid_jax/data/datasets/folder.py. All visible
images search all infrared ones and the reverse, as in RegDB.
"""

from configs import default, variants


def get_config(choice: str = "full"):
    """For `choice` see configs/variants.py."""
    config = default.get_config()
    config.name = "folder"
    config.data.dataset = "folder"
    config.data.protocol = "regdb"
    return variants.apply(config, choice)
