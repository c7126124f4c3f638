"""The pose teacher on LIP, by the published recipe of "Global Context for CPM" (Osokin 2019).

$ python main.py --config=configs/pose_lip.py --workdir=runs/pose_lip --config.data.source=DIR

The published network reaches a PCKh of 84.57 on the validation images; it starts from a MobileNet
of ImageNet, here --config.model.init_from=FILE. Not measured.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Every knob of the pose teacher's training."""
    config = ConfigDict()
    config.task = "pose"
    config.name = "pose_lip"
    config.seed = 0  # of initialisation, the order of images, and augmentation
    config.dtype = "float32"  # of activations: float32 or bfloat16; parameters stay float32

    config.data = ConfigDict()
    config.data.dataset = "lip"  # or another file in vireid_jax/data/datasets with keypoints
    config.data.dir = "data"  # where prepared data lie
    config.data.source = ""  # folder of a data set obtained by hand
    config.data.train_split = "train"
    config.data.test_split = "val"

    config.model = ConfigDict()
    config.model.input = (256, 256)  # height and width, pixels; images are fitted into it
    config.model.width = 128  # of the refinement stages; all others in proportion
    config.model.stages = 5  # of refinement
    config.model.norm_bias = 0.0  # where BatchNorm's biases start
    config.model.init_from = ""  # a MobileNet-v1 or a whole teacher: .safetensors, .npz, PyTorch's

    config.batch = ConfigDict()
    config.batch.images = 32

    config.augment = ConfigDict()  # see vireid_jax/data/augment_poses.py
    config.augment.mask = 0.5  # a probability, as those below
    config.augment.permute = 0.5
    config.augment.rotate = 40.0  # degrees
    config.augment.scale = 0.5
    config.augment.flip = 0.5

    config.optimizer = ConfigDict()  # Adam with PyTorch's weight decay
    config.optimizer.learning_rate = 4e-5
    config.optimizer.weight_decay = 5e-4  # not on BatchNorm, biases and depthwise convolutions
    config.optimizer.bias_multiplier = 2.0  # of the rate
    config.optimizer.refinement_multiplier = 4.0  # of the refinement stages' convolutions
    config.optimizer.schedule = "constant"  # or cosine (to zero)
    config.optimizer.warmup_epochs = 0.0  # of linear rise
    config.optimizer.patience = 5  # evaluations without improvement before the rate falls; 0: never
    config.optimizer.plateau_factor = 0.1
    config.optimizer.plateau_threshold = 0.01  # of an improvement, relative

    config.train = ConfigDict()
    config.train.epochs = 100
    config.train.steps = 0  # in all; 0: as many as `epochs` have
    config.train.keep_memory = False  # see configs/default.py
    config.train.log_every = 10  # steps
    config.train.checkpoint_every = 951  # steps
    config.train.eval_every = 951  # steps; an epoch of LIP; 0: at the end only

    config.evaluation = ConfigDict()
    config.evaluation.batch = 64  # images at a time and device
    config.evaluation.images = 1000  # first ones of the test split, while training; 0: all
    return config
