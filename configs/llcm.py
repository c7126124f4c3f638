"""LLCM at paper size; the paper has no figures for it.

$ python main.py --config=configs/llcm.py --workdir=runs/llcm --config.data.source=DIR

DIR holds vis/, nir/, test_vis/, test_nir/ and idx/; docs/datasets.md says how to get it. As with
the other data sets, heatmaps (config.data.heatmap_file) and weights (config.model.init_from) are
the user's to bring.
"""

from configs import default, variants


def get_config(choice: str = "full"):
    """For `choice` see configs/variants.py."""
    config = default.get_config()
    config.name = "llcm"
    config.data.dataset = "llcm"
    config.data.protocol = "llcm"
    return variants.apply(config, choice)
