"""A thin pose teacher on the embedded benchmark's `easy` tier, both modalities, for two cores.

$ python main.py --config=configs/pose_synthetic.py --workdir=runs/pose_synthetic

Its 1,500 steps take about five minutes. PCKh at 0.5 is 95.9 in visible and 95.9 in infrared images
of unseen people, where the mean pose of the training images has 76.3 and 77.0 (docs/results.md).
"""

from configs import pose_lip


def get_config():
    """The recipe of configs/pose_lip.py from random weights, in minutes."""
    config = pose_lip.get_config()
    config.name = "pose_synthetic"
    config.data.dataset = "synthetic_vi"
    config.data.tier = "easy"
    config.data.trial = 1  # of the tier regdb
    config.data.protocol = "sysu"
    config.data.height, config.data.width = 96, 48  # as rendered
    config.data.test_split = "test"
    config.model.input = (128, 64)
    config.model.width = 32
    config.model.stages = 1
    # From random weights BatchNorm and ReLU in thirty layers without shortcuts make similar images
    # dissimilar, and nothing but the mean pose is learned for thousands of steps. Nearly linear
    # layers keep them similar.
    config.model.norm_bias = 1.5
    config.batch.images = 16
    # Unseen people are rendered as these are, in a frame that they fill.
    config.augment.mask = config.augment.permute = config.augment.rotate = 0.0
    config.augment.scale = 0.0
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.0
    config.optimizer.bias_multiplier = 1.0
    config.optimizer.refinement_multiplier = 1.0
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.patience = 0
    config.train.steps = 1500
    config.train.keep_memory = True
    config.train.checkpoint_every = 200
    config.train.eval_every = 0
    return config
