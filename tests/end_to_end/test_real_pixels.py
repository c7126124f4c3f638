"""The chain on real visible and thermal pixels in RegDB's layout, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest

from configs import regdb
from vireid_jax.data import images
from vireid_jax.training import train

PIXELS = Path(__file__).parents[3] / "shared" / "real_pixels" / "regdb_layout"
pytestmark = pytest.mark.skipif(not PIXELS.is_dir(), reason="needs the real pixels")


def test_training_and_both_directions(tmp_path):
    config = regdb.get_config("baseline")
    config.data.source, config.data.dir = str(PIXELS), str(tmp_path / "data")
    config.data.height, config.data.width = 96, 48
    config.model.width, config.model.blocks = 4, (1, 1, 1, 1)
    config.model.features = 8
    config.train.steps, config.evaluation.batch = 2, 50
    results = train.train(config, str(tmp_path / "run"))
    found = images.load_images(config.data, "train")
    assert len(set(found.pid)) == 20
    np.testing.assert_array_equal(np.bincount(found.modality), [200, 200])
    assert results["protocols"].keys() == {"visible-thermal", "thermal-visible"}
    for protocol in results["protocols"].values():
        assert protocol["trials"] == 1
        assert 0 < protocol["f_ID"]["mAP"]["mean"] < 100
    hog, chance = (results["baselines"][name] for name in ("HOG", "chance"))
    for direction in hog:
        assert hog[direction]["mAP"]["mean"] > 2 * chance[direction]["mAP"]["mean"]
