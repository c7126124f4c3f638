"""Shared by all tests: four host devices, compilations kept between runs, a tiny experiment."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

import dataclasses
from pathlib import Path

import jax
import pytest

from configs import synthetic
from vireid_jax.data.synthetic import tiers

_CACHE = Path(__file__).parents[1] / ".pytest_cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

TINY = dataclasses.replace(
    tiers.EASY, name="tiny", splits=(("train", 6), ("test", 4)), images=2, first_person=90_001
)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where the tiny tier is rendered, once for all tests."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def tiny(data_dir):
    """A function (variant) -> config of seconds: the full code on a very small network."""

    def config(variant="full"):
        c = synthetic.get_config(variant)
        c.data.tier = TINY.name
        c.data.dir = str(data_dir)
        c.model.width = c.model.pose_width = 4
        c.model.features, c.model.teacher_features = 8, 16
        c.batch.identities, c.batch.images = 4, 2
        c.train.steps, c.train.checkpoint_every, c.train.log_every = 4, 2, 1
        c.evaluation.batch = 8
        return c

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiers.TIERS, TINY.name, TINY)
        yield config
