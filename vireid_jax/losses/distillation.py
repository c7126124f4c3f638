"""Hierarchical feature constraint: knowledge distillation from PCB_T, Eq. 14-15."""

import jax
import jax.numpy as jnp

from vireid_jax.types import Outputs, Targets


def distillation(teacher: jax.Array, student: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Eq. 15: L = 1/M sum_i sum_j KL(p_T^i, p_j^i), times temperature^2.

    Args:
      teacher: logits [M, N] (Eq. 14).
      student: logits of the heads, [heads, M, N].
      temperature: divides all logits; 1 in the paper.

    Returns:
      A scalar; its gradient flows into both arguments.
    """
    log_t = jax.nn.log_softmax(teacher / temperature)
    log_s = jax.nn.log_softmax(student / temperature)
    divergence = (jnp.exp(log_t) * (log_t - log_s)).sum(-1)  # [heads, M]
    return divergence.mean(1).sum() * temperature**2


def term(
    outputs: Outputs,
    targets: Targets,
    *,
    temperature: float = 1.0,
    detach_teacher: bool = False,
) -> jax.Array:
    """`distillation` into the part heads of both branches.

    The teacher has no other loss, so its gradient flows unless `detach_teacher`, which is of use
    only beside the term `teacher_identity`.
    """
    del targets
    teacher = outputs.teacher_logits
    if detach_teacher:
        teacher = jax.lax.stop_gradient(teacher)
    return sum(distillation(teacher, logits, temperature) for logits in outputs.logits)
