"""Table IV as data: what each row of the ablation has."""

import difflib

VARIANTS = {
    #            pose branch, teacher, loss terms
    "baseline": (False, False, ("identity", "hetero_center")),
    "peb": (True, False, ("identity", "hetero_center")),
    "peb_pose": (True, False, ("identity", "hetero_center", "pose")),
    "full": (True, True, ("identity", "hetero_center", "pose", "distillation")),
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
    config.model.pose_branch, config.model.teacher, terms = VARIANTS[variant]
    for term in set(config.loss) - set(terms):
        del config.loss[term]
    return config
