"""Table IV as data: what each row of the ablation leaves out."""

import difflib

_TEACHING = ("distillation", "teacher_identity")
VARIANTS = {
    #            pose branch, teacher, loss terms left out
    "baseline": (False, False, ("pose", *_TEACHING)),
    "peb": (True, False, ("pose", *_TEACHING)),
    "peb_pose": (True, False, _TEACHING),
    "full": (True, True, ()),
}


def apply(config, variant: str):
    """Cuts the full `config` down to a row of Table IV.

    Raises:
      ValueError: an unknown variant; lists the known ones.
    """
    if variant not in VARIANTS:
        near = difflib.get_close_matches(variant, VARIANTS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown variant {variant!r}; {hint}known: {', '.join(VARIANTS)}")
    config.model.pose_branch, config.model.teacher, left_out = VARIANTS[variant]
    for term in left_out:
        del config.loss[term]
    return config
