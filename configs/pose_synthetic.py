"""A thin pose teacher on the embedded benchmark's `easy` tier, both modalities, for two cores.

$ python main.py --config=configs/pose_synthetic.py --workdir=runs/pose_synthetic

Its 600 steps take 4 minutes and are too few: PCKh at 0.5 is 69.8 in visible and 69.7 in infrared
images of unseen people, where the mean pose of the training images has 76.3 and 77.0.
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
    # In a frame that people fill, a turned image would be shrunk a lot.
    config.augment.rotate = 5.0
    config.augment.mask = 0.2
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.0
    config.optimizer.bias_multiplier = 1.0
    config.optimizer.refinement_multiplier = 1.0
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.patience = 0
    config.train.steps = 600
    config.train.checkpoint_every = 200
    config.train.eval_every = 0
    return config
