"""The embedded benchmark's `easy` tier with a thin, shallow network, for two cores.

$ python main.py --config=configs/synthetic.py --workdir=runs/synthetic

Four and a half minutes on two cores, without the rendering; a mAP of 35 to 40 by either feature.
"""

from configs import default, variants


def get_config(choice: str = "full"):
    """For `choice` see configs/variants.py."""
    config = default.get_config()
    config.name = "synthetic"
    config.data.dataset = "synthetic_vi"
    config.data.tier = "easy"  # or sysu; or regdb, with config.data.protocol=regdb
    config.data.protocol = "sysu"
    config.data.height, config.data.width = 96, 48
    config.model.width = 16
    config.model.pose_width = 8
    config.model.blocks = (1, 1, 1, 1)
    config.model.features = 128
    config.model.teacher_features = 256
    # Eq. 19 summed over anchors collapses features that start from random weights.
    config.loss.hetero_center.form = "mean"
    # Small batches: many updates within minutes are worth more than smooth ones.
    config.batch.images = 2
    config.augment.crop_pad = 4
    config.augment.erase = 0.0
    config.augment.remix = 0.8
    config.augment.grey = True  # colours say nothing of the other spectrum
    config.optimizer.rule = "adamw"
    config.optimizer.learning_rate = 0.003
    config.optimizer.weight_decay = 0.05
    config.optimizer.schedule = "cosine"
    # L_pose starts large. At full speed it would ruin the pose branch within 200 steps, and the
    # memory of its first gradients would hold the branch back for a thousand.
    config.optimizer.warmup_epochs = 3.0
    config.optimizer.second_momentum = 0.99
    config.train.steps = 2600
    config.train.keep_memory = True
    config.train.checkpoint_every = 250
    return variants.apply(config, choice)
