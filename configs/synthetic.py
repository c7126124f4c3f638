"""The embedded benchmark's `easy` tier with a thin, shallow network, for two cores.

$ python main.py --config=configs/synthetic.py --workdir=runs/synthetic
"""

from configs import default


def get_config(variant: str = "full"):
    """`variant`: baseline, peb, peb_pose or full."""
    config = default.get_config(variant)
    config.name = "synthetic"
    config.data.dataset = "synthetic_vi"
    config.data.tier = "easy"  # easy, sysu or regdb, see vireid_jax/data/synthetic/tiers.py
    config.data.trial = 1  # of tier regdb: 1 to 10
    config.data.protocol = "sysu"
    config.data.height, config.data.width = 96, 48
    config.model.width = 16
    config.model.pose_width = 8
    config.model.blocks = (1, 1, 1, 1)
    config.model.features = 128
    config.model.teacher_features = 256
    config.augment.crop_pad = 4
    config.optimizer.learning_rate = 0.1
    config.optimizer.stem_multiplier = 1.0  # nothing here is pre-trained
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 1.0
    config.train.steps = 1500
    config.train.checkpoint_every = 250
    return config
