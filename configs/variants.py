"""Rows of the paper's tables and the published code's recipe, as changes to a config.

A choice is one or more names with commas between them, applied in that order:
`--config=configs/regdb.py:peb_pose,published_code`.
"""

import difflib

_TEACHING = ("distillation", "teacher_identity")

# Table IV: (pose branch, teacher, loss terms left out).
_ABLATION = {
    "baseline": (False, False, ("pose", *_TEACHING)),
    "peb": (True, False, ("pose", *_TEACHING)),
    "peb_pose": (True, False, _TEACHING),
    "full": (True, True, ()),
}

# What the published code does instead of the paper; the rows are those of docs/fidelity.md.
_PUBLISHED_CODE = {
    "loss.hetero_center.form": "contrastive6",  # row 1
    "loss.pose.form": "upsampled",  # row 5
    "batch.identities": 16,  # row 12
    "model.initializers": "published_code",  # row 19
    "augment.crop_pad": 0,  # row 21
    "augment.erase_heatmaps": 0.5,  # row 23
    "optimizer.schedule": "milestones",  # row 16
    "optimizer.factors": (0.75, 0.5, 0.25, 0.125, 0.1, 0.05),
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
        section, _ = key.rsplit(".", 1)
        if section != "loss.pose" or "pose" in config.loss:
            config.update_from_flattened_dict({key: value})


def _five_parts(config):
    config.model.parts = 5  # Table III: f_ID of 2560 dimensions


def _ablation(row):
    def apply_row(config):
        config.model.pose_branch, config.model.teacher, left_out = _ABLATION[row]
        for term in set(left_out) & set(config.loss):
            del config.loss[term]

    return apply_row


VARIANTS = {row: _ablation(row) for row in _ABLATION} | {
    "five_parts": _five_parts,
    "published_code": _published_code,
}


def apply(config, choice: str):
    """Applies each name of `choice`, e.g. "full" or "baseline,published_code", to `config`.

    Raises:
      ValueError: an unknown name; lists the known ones.
    """
    for name in choice.split(","):
        if name not in VARIANTS:
            near = difflib.get_close_matches(name, VARIANTS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown variant {name!r}; {hint}known: {', '.join(VARIANTS)}")
        VARIANTS[name](config)
    config.variant = choice
    return config
