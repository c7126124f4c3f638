"""The head of a ranking in blocks: the whole ranking's, whatever the blocks, in bounded memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vireid_jax.evaluation.nearest import nearest
from vireid_jax.types import UserError


def whole(query, gallery, count):
    """By the whole matrix of similarities, sorted."""
    similarity = query @ gallery.T
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return rows, np.take_along_axis(similarity, rows, 1)


def read(gallery):
    return lambda start, stop: gallery[start:stop]


@pytest.mark.parametrize("block", [1, 7, 64, 100, None])
@pytest.mark.parametrize("count", [1, 10, 63])
def test_equals_the_whole_ranking_with_its_ties(block, count):
    rng = np.random.default_rng(count)
    # Small whole numbers: their products are exact in float32, and many coincide.
    query, gallery = (rng.integers(-2, 3, (n, 6)).astype(np.float32) for n in (20, 64))
    rows, similarity = nearest(query, read(gallery), len(gallery), count, block)
    expected = whole(query, gallery, count)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(similarity, expected[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_file_on_disk_ranks_as_its_features_do_in_float64(tmp_path, dtype):
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(500, 96)).astype(dtype)
    query = rng.normal(size=(30, 96)).astype(dtype)
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = read_file(tmp_path / "gallery.npy")
    rows, similarity = nearest(query, mapped, len(gallery), 10, block=64)
    expected_rows, expected = whole(query.astype(float), gallery.astype(float), 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(similarity, expected, rtol=1e-5)


def read_file(file):
    return lambda start, stop: np.load(file, mmap_mode="r")[start:stop]


def test_fewer_images_than_asked_for_and_none():
    query, gallery = np.eye(2, dtype=np.float32), np.array([[0, 1], [2, 0]], np.float32)
    rows, similarity = nearest(query, read(gallery), 2, 10)
    assert rows.tolist() == [[1, 0], [0, 1]]
    assert similarity.tolist() == [[2, 0], [1, 0]]
    assert nearest(query, read(gallery), 0, 10)[0].shape == (2, 0)


def test_features_that_are_not_finite_are_refused():
    gallery = np.array([[1, 0], [np.nan, 0]], np.float32)
    with pytest.raises(UserError, match="not finite"):
        nearest(np.ones((1, 2)), read(gallery), 2, 1)


MEASURED = """
import re, sys, time
from pathlib import Path
import numpy as np
from vireid_jax.evaluation.nearest import nearest

def peak():  # that of this process alone: ru_maxrss begins with the parent's
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

file, total, width, queries, block = sys.argv[1], *map(int, sys.argv[2:])
wanted = np.arange(queries) * (total // queries)
query = np.stack([np.load(file, mmap_mode="r")[row] for row in wanted])
before, start = peak(), time.perf_counter()
read = lambda a, b: np.load(file, mmap_mode="r")[a:b]
rows, best = nearest(query, read, total, 10, block or None)
seconds = time.perf_counter() - start
assert (rows[:, 0] == wanted).all()  # each finds itself
print(before, peak(), round(seconds, 1))
"""


def measure(file, total, width, dtype, queries, block=0):
    """Writes features, ranks them in a process of its own; MiB before and at the peak."""
    rng = np.random.default_rng(0)
    some = rng.normal(size=(1009, width)).astype(dtype)  # repeated, each row with its own start
    features = np.lib.format.open_memmap(file, "w+", dtype, (total, width))
    for start in range(0, total, len(some)):
        own = features[start : start + len(some)]
        own[:] = some[: len(own)]
        direction = rng.normal(size=(len(own), 8))
        own[:, :8] = 20 * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    features.flush()
    del features
    numbers = map(str, (total, width, queries, block))
    command = [sys.executable, "-c", MEASURED, str(file), *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, peak, seconds = map(float, done.stdout.split())
    print(f"{total:,} features of {width} {np.dtype(dtype).name}, {queries} queries: {seconds} s, "
          f"peak {peak:.0f} MiB, {before:.0f} of them before")  # fmt: skip
    return before, peak


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is Linux's")
def test_memory_is_bounded_however_large_the_file(tmp_path):
    before, peak = measure(tmp_path / "gallery.npy", 20_000, 3072, np.float32, 8, block=1000)
    assert peak - before < 100  # of a file of 234 MiB


@pytest.mark.slow
def test_a_million_features_of_paper_size(tmp_path):
    """12 GB on the disk; see docs/search.md."""
    before, peak = measure(tmp_path / "gallery.npy", 1_000_000, 6144, np.float16, 20)
    assert peak - before < 700
