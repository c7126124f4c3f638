"""Shared by all tests: four host devices, compilations kept between runs, a tiny experiment."""

import gc
import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

from pathlib import Path

import jax
import pytest
import tiny as tiny_config

CACHE = Path(__file__).parents[1] / ".pytest_cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)  # of the processes that tests start
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(autouse=True)
def _room_for_programs():
    """Unloads old programs: each kernel maps 3 ranges, and Linux gives a process 65,530."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 25_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where the tiny tier is rendered, once for all tests."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def tiny(data_dir):
    """A function (variant) -> tests/tiny.py's config."""

    def config(variant="full"):
        c = tiny_config.get_config(variant)
        c.data.dir = str(data_dir)
        return c

    return config
