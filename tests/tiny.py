"""A config of seconds: the full code on a very small network and tier, for main.py as for tests."""

import dataclasses

from configs import synthetic
from vireid_jax.data.synthetic import tiers

TINY = dataclasses.replace(
    tiers.EASY, name="tiny", splits=(("train", 6), ("test", 4)), images=2, first_person=90_001
)
tiers.TIERS[TINY.name] = TINY


def get_config(choice: str = "full"):
    """The tiny experiment; for `choice` see configs/variants.py."""
    c = synthetic.get_config(choice)
    c.data.tier = TINY.name
    c.model.width = c.model.pose_width = 4
    c.model.features, c.model.teacher_features = 8, 16
    c.batch.identities, c.batch.images = 4, 2
    c.train.steps, c.train.checkpoint_every, c.train.log_every = 4, 2, 1
    c.train.keep_memory = False  # of a process that goes on with other tests
    c.evaluation.batch = 8
    return c
