"""Cross entropy of the teacher: an alternative in neither the paper nor its code.

The published teacher learns from the distillation term alone, whose gradient therefore has to
flow into it. With `distillation.detach_teacher` it needs this term instead.
"""

import jax

from vireid_jax.losses.identity import identity
from vireid_jax.types import Outputs, Targets


def term(outputs: Outputs, targets: Targets) -> jax.Array:
    """Eq. 17 applied to PCB_T's logits."""
    return identity(outputs.teacher_logits[None], targets.label)
