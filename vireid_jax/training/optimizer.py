"""The paper's schedule and the published parameter groups, from optax's parts."""

import jax
import optax

from vireid_jax.registry import choose
from vireid_jax.types import UserError


def _step(c, steps, steps_per_epoch):
    return optax.exponential_decay(
        c.learning_rate, c.decay_epochs * steps_per_epoch, c.decay_factor, staircase=True
    )


def _cosine(c, steps, steps_per_epoch):
    return optax.cosine_decay_schedule(c.learning_rate, steps)


def _milestones(c, steps, steps_per_epoch):
    if len(c.milestones) != len(c.factors):
        raise UserError(
            f"config.optimizer.milestones has {len(c.milestones)} epochs, but .factors has "
            f"{len(c.factors)} values: give one for each"
        )
    rates = [optax.constant_schedule(c.learning_rate * factor) for factor in (1.0, *c.factors)]
    return optax.join_schedules(rates, [epoch * steps_per_epoch for epoch in c.milestones])


def _constant(c, steps, steps_per_epoch):
    return optax.constant_schedule(c.learning_rate)


SCHEDULES = {"step": _step, "milestones": _milestones, "cosine": _cosine, "constant": _constant}


def schedule(c, steps: int, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by step.

    "step" multiplies by `decay_factor` every `decay_epochs` epochs (Sec. IV-A: 0.5 every 20);
    "milestones" is `factors[i]` times the first rate from epoch `milestones[i]` on; "cosine" falls
    to zero at `steps`; "constant" stays. Over the first `warmup_epochs` the rate rises linearly.

    Args:
      c: the config's `optimizer` section.
      steps: of the whole run.
      steps_per_epoch: see `vireid_jax.data.sampler.steps_per_epoch`.

    Raises:
      UserError: an unknown `c.schedule`; not a factor for each milestone.
    """
    rate = choose("config.optimizer.schedule", c.schedule, SCHEDULES)(c, steps, steps_per_epoch)
    warmup = round(c.warmup_epochs * steps_per_epoch)
    if not warmup:
        return rate
    ramp = optax.linear_schedule(1 / warmup, 1.0, warmup - 1)
    return lambda step: ramp(step) * rate(step)


_ALONE = 10_000  # numbers of an array that has memory of its own


def _grouped(rule):
    """`rule` with one vector of memory for all small arrays, whose number costs time.

    A large one has its own, since a vector of everything would wait for the last gradient.
    """

    def large(params):
        return jax.tree.map(lambda x: x.size >= _ALONE, params)

    def small(params):
        return jax.tree.map(lambda x: x.size < _ALONE, params)

    return optax.chain(optax.masked(rule, large), optax.masked(optax.flatten(rule), small))


def _sgd(c):
    momentum = _grouped(optax.trace(c.momentum, nesterov=True))
    return optax.chain(optax.add_decayed_weights(c.weight_decay), momentum)


def _adamw(c):
    adam = _grouped(optax.scale_by_adam(b1=c.momentum, b2=c.second_momentum))
    return optax.chain(adam, optax.add_decayed_weights(c.weight_decay))


RULES = {"sgd": _sgd, "adamw": _adamw}


def build(c, rate: optax.Schedule) -> optax.GradientTransformation:
    """The optimiser of a config's `optimizer` section.

    "sgd" has Nesterov momentum as PyTorch computes it, and weight decay added to every gradient;
    "adamw" is Adam with decoupled decay. Both decay every parameter, BatchNorm's and biases too.
    The two modality-specific modules step with `stem_multiplier` times the rate.

    Raises:
      UserError: an unknown `c.rule`.
    """

    def stems(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[0].key == "streams" and path[1].key in ("rgb", "ir"), params
        )

    return optax.chain(
        choose("config.optimizer.rule", c.rule, RULES)(c),
        optax.masked(optax.scale(c.stem_multiplier), stems),
        optax.scale_by_learning_rate(rate),
    )
