"""Every knob once, at the paper's values. Other configs override a handful.

Where paper and published code differ, docs/fidelity.md says why a value was chosen; "row" is its
row there.

Sections and equations are those of "On Exploring Pose Estimation as an Auxiliary Learning Task
for Visible-Infrared Person Re-identification".
"""

from ml_collections import ConfigDict

from configs import variants


def get_config(choice: str = "full") -> ConfigDict:
    """The paper's recipe without a data set; for `choice` see configs/variants.py."""
    config = ConfigDict()
    config.task = "reid"  # or pose: see configs/pose_lip.py
    config.name = "default"
    config.variant = "full"
    config.seed = 0  # of initialisation, sampling and augmentation
    config.dtype = "float32"  # of activations: float32 or bfloat16; parameters stay float32

    config.data = ConfigDict()
    config.data.dataset = ""  # a file in vireid_jax/data/datasets
    config.data.dir = "data"  # where prepared data lie
    config.data.source = ""  # folder of a data set obtained by hand
    config.data.tier = ""  # of synthetic_vi: easy, sysu or regdb
    config.data.trial = 1  # of RegDB and the tier regdb: 1 to 10, each with its own split
    config.data.train_split = "train"  # or train+val, for data with a split val
    config.data.test_fraction = 0.5  # of the identities of `folder`, where it has no lists
    config.data.split_seed = 0  # of their draw
    config.data.protocol = ""  # of evaluation: sysu, regdb or llcm
    config.data.height = 288  # Sec. IV-A
    config.data.width = 144
    config.data.heatmaps = "merged"  # L_pose targets: merged (1 channel), joints (16),
    # joints_and_background (17, as the pose teacher), none; row 6
    config.data.heatmap_file = ""  # npz with `path` and uint8 `heatmap`, for data without keypoints

    config.model = ConfigDict()
    config.model.architecture = "auxiliary_pose"  # a file in vireid_jax/models/architectures
    config.model.backbone = "resnet"  # a file in vireid_jax/models/backbones
    config.model.width = 64  # of the stem; ResNet-50's
    config.model.pose_width = 64  # of the pose branch, in proportion
    config.model.blocks = (3, 4, 6, 3)  # bottlenecks in layer1 to layer4; ResNet-50's
    config.model.parts = 6  # P, Eq. 11; row 29
    config.model.features = 512  # of f_ID_i and f_P_i, Eq. 11
    config.model.teacher_features = 1024  # of f_T, Eq. 14
    config.model.init_from = ""  # weights to start from: .safetensors, .npz or PyTorch's; row 19
    config.model.init_pose_from = (
        ""  # a pose teacher's weights, for the refinement stage; Sec. IV-D
    )
    config.model.initializers = "paper"  # row 19; xavier, published_code
    config.model.mask_relu = False  # behind the last convolution of ConvB6, row 8
    config.model.masked_teacher = False  # PCB_T sees F_ID instead of F_id2, row 9
    config.model.pose_branch = True  # of auxiliary_pose alone, as the teacher
    config.model.teacher = True

    config.loss = ConfigDict()  # Eq. 21; each key is a file in vireid_jax/losses; 0 leaves one out
    config.loss.identity = ConfigDict({"weight": 1.0})  # Eq. 17
    config.loss.hetero_center = ConfigDict()  # Eq. 18-20
    config.loss.hetero_center.weight = 0.1  # beta
    config.loss.hetero_center.form = "sum"  # Eq. 19; mean; contrastive6; row 1
    config.loss.hetero_center.margin = 0.3  # rho
    config.loss.pose = ConfigDict()  # Eq. 16
    config.loss.pose.weight = 5.0  # lambda, row 3
    config.loss.pose.form = "mean"  # over pixels; sum (Eq. 16); upsampled; rows 4 and 5
    config.loss.distillation = ConfigDict()  # Eq. 14-15
    config.loss.distillation.weight = 1.0  # gamma
    config.loss.distillation.temperature = 1.0  # row 10
    config.loss.distillation.detach_teacher = False  # True: the next term has to teach it; row 11
    config.loss.teacher_identity = ConfigDict({"weight": 0.0})  # in neither paper nor code

    config.batch = ConfigDict()  # Sec. III-E: M = 2 D K
    config.batch.identities = 8  # D, row 12
    config.batch.images = 4  # K, of each modality

    config.augment = ConfigDict()  # Sec. IV-A; see vireid_jax/data/augment.py
    config.augment.crop_pad = 10  # pixels, row 21
    config.augment.flip = 0.5  # a probability, as those below; row 22
    config.augment.erase = 0.5
    config.augment.erase_heatmaps = 0.0  # by rectangles of their own, row 23
    config.augment.remix = 0.0  # not in the paper
    config.augment.grey = False  # R, G and B become their mean, in evaluation too; not in the paper

    config.optimizer = ConfigDict()  # Sec. IV-A
    config.optimizer.rule = "sgd"  # or adamw
    config.optimizer.learning_rate = 0.01
    config.optimizer.momentum = 0.9  # sgd: Nesterov's, row 17; adamw: of the gradients
    config.optimizer.second_momentum = 0.999  # adamw: of their squares
    config.optimizer.weight_decay = 5e-4  # on every parameter, row 17
    config.optimizer.stem_multiplier = 0.1  # of the modality-specific modules' rate, row 18
    config.optimizer.schedule = "step"  # milestones; cosine (to zero); row 16
    config.optimizer.decay_epochs = 20  # of "step"
    config.optimizer.decay_factor = 0.5  # of "step"
    config.optimizer.milestones = ()  # epochs, of "milestones"
    config.optimizer.factors = ()  # of the first rate from those epochs on
    config.optimizer.warmup_epochs = 0.0  # of linear rise

    # Runs to train as one program, see vireid_jax/training/replicas.py: a value for each of them.
    config.replicas = ConfigDict()
    config.replicas.seed = ()  # in place of config.seed
    config.replicas.hetero_center = ()  # in place of config.loss.hetero_center.weight
    config.replicas.pose = ()
    config.replicas.distillation = ()

    config.train = ConfigDict()
    config.train.epochs = 100  # row 15
    config.train.steps = 0  # in all; 0: as many as `epochs` have
    config.train.remat = False  # less memory for more work, see docs/scaling.md
    config.train.keep_memory = False  # on CPUs, for small steps, see docs/scaling.md
    config.train.log_every = 10  # steps
    config.train.checkpoint_every = 1000  # steps
    config.train.eval_every = 0  # steps; 0: at the end only
    config.train.selection = "last"  # best-on-val; best-on-test, as in much published code

    config.evaluation = ConfigDict()
    config.evaluation.batch = 64  # images at a time and device
    config.evaluation.shots = (1,)  # of sysu's galleries, images per identity and camera; (1, 10)
    config.evaluation.galleries = ("seeded",)  # of sysu; official: by the set's own index file
    config.evaluation.flip_averaging = False  # features averaged with the mirrored image's
    config.evaluation.re_ranking = False  # by k-reciprocal neighbours
    return variants.apply(config, choice)
