"""Rows of the paper's tables and the published code's recipe, as changes to a config.

A choice is one or more names with commas between them, applied in that order:
`--config=configs/regdb.py:peb_pose,published_code`.
"""

import difflib

from ml_collections import ConfigDict

_TEACHING = ("distillation", "teacher_identity")

# Table IV: (pose branch, teacher, loss terms left out).
_ABLATION = {
    "baseline": (False, False, ("pose", *_TEACHING)),
    "peb": (True, False, ("pose", *_TEACHING)),
    "peb_pose": (True, False, _TEACHING),
    "full": (True, True, ()),
}

# Table III: pose-guided methods for one modality, by architecture, with all their loss terms.
_POSE_GUIDED = {
    "pgfa": {"identity": {"weight": 1.0}},
    "pabr": {"identity": {"weight": 1.0}, "cross_modality_triplet": {"weight": 0.1, "margin": 0.3}},
}

# The published code's recipe, whole, so that it is the same on top of any config; the rows are
# those of docs/fidelity.md.
_PUBLISHED_CODE = {
    "loss.hetero_center.form": "contrastive6",  # row 1
    "loss.hetero_center.weight": 0.1,
    "loss.hetero_center.margin": 0.3,
    "loss.pose.form": "upsampled",  # row 5
    "loss.distillation.weight": 1.0,
    "loss.distillation.temperature": 1.0,  # row 10
    "loss.distillation.detach_teacher": False,  # row 11
    "loss.teacher_identity.weight": 0.0,
    "batch.identities": 16,  # row 12
    "batch.images": 4,
    "model.initializers": "published_code",  # row 19
    "augment.crop_pad": 0,  # row 21
    "augment.flip": 0.5,  # row 22
    "augment.erase": 0.5,  # row 23
    "augment.erase_heatmaps": 0.5,
    "augment.remix": 0.0,
    "augment.grey": False,
    "optimizer.rule": "sgd",  # row 17
    "optimizer.learning_rate": 0.01,
    "optimizer.momentum": 0.9,
    "optimizer.second_momentum": 0.999,
    "optimizer.weight_decay": 5e-4,
    "optimizer.stem_multiplier": 0.1,  # row 18
    "optimizer.schedule": "milestones",  # row 16
    "optimizer.factors": (0.75, 0.5, 0.25, 0.125, 0.1, 0.05),
    "optimizer.warmup_epochs": 0.0,
    "train.steps": 0,  # row 15: as many as its epochs have
}
_PUBLISHED_CODE_FOR = {
    "sysu_mm01": {
        "loss.pose.weight": 3.0,  # row 3
        "train.epochs": 150,  # row 15
        "optimizer.milestones": (12, 30, 50, 75, 125, 180),
    },
    "regdb": {
        "loss.pose.weight": 7.0,
        "train.epochs": 25,
        "optimizer.milestones": (8, 15, 25, 40, 60, 80),
        "augment.flip": 0.0,  # row 22
    },
}


def _published_code(config):
    own = _PUBLISHED_CODE_FOR.get(config.data.dataset, _PUBLISHED_CODE_FOR["sysu_mm01"])
    for key, value in (_PUBLISHED_CODE | own).items():
        section, term, *_ = key.split(".")
        if section != "loss" or term in config.loss:  # an ablation may have left the term out
            config.update_from_flattened_dict({key: value})


def _five_parts(config):
    config.model.parts = 5  # Table III: f_ID of 2560 dimensions


def _pose_guided(row):
    def apply_row(config):
        _five_parts(config)
        config.model.architecture = row
        config.model.pose_branch = config.model.teacher = False
        config.loss = ConfigDict(_POSE_GUIDED[row])

    return apply_row


def _ablation(row):
    def apply_row(config):
        config.model.pose_branch, config.model.teacher, left_out = _ABLATION[row]
        for term in left_out:
            del config.loss[term]

    return apply_row


_ROWS = {row: _ablation(row) for row in _ABLATION}
_ROWS |= {row: _pose_guided(row) for row in _POSE_GUIDED}
VARIANTS = _ROWS | {
    "five_parts": _five_parts,
    "published_code": _published_code,
}


def apply(config, choice: str):
    """Applies each name of `choice`, e.g. "full" or "baseline,published_code", to `config`.

    Raises:
      ValueError: an unknown name (lists the known ones), or two rows of Tables III and IV.
    """
    names = [name.strip() for name in choice.split(",")]
    for name in names:
        if name not in VARIANTS:
            near = difflib.get_close_matches(name, VARIANTS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown variant {name!r}; {hint}known: {', '.join(VARIANTS)}")
    if len(rows := [name for name in names if name in _ROWS]) > 1:
        raise ValueError(
            f"{' and '.join(rows)} exclude each other: choose one row of Tables III and IV"
        )
    for name in names:
        VARIANTS[name](config)
    config.variant = ",".join(names)
    return config
