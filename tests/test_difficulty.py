"""How hard the default benchmark is. Moving a band needs a reason in writing.

Colour must say nothing across the spectra. A leak (shared backgrounds or poses, infrared tied to
visible brightness) lifts HOG far above its band; a lost cue drops it below.
"""

import pytest

from configs import synthetic
from vireid_jax.data import images
from vireid_jax.evaluation import baselines, protocols

BANDS = {  # of rank-1 and mAP, percent, under `all-seeded`
    "colour histogram": ((0, 3), (4, 8)),
    "HOG": ((9, 16), (16, 23)),
    "LDA on HOG": ((22, 31), (30, 38)),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    data = synthetic.get_config().data
    data.dir = str(tmp_path_factory.mktemp("easy"))
    train, test = (images.load_images(data, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (128 * 20, 64 * 20)
    return baselines.baseline_results(train, test, protocols.protocols_for("sysu", test))


@pytest.mark.parametrize("name", BANDS)
def test_baselines_stay_in_their_bands(measured, name):
    figures = measured[name]["all-seeded"]
    for figure, (low, high) in zip(("rank1", "mAP"), BANDS[name], strict=True):
        assert low <= figures[figure]["mean"] <= high, f"{name} {figure}"


def test_colour_is_no_better_than_chance(measured):
    colour, chance = (measured[n]["all-seeded"] for n in ("colour histogram", "chance"))
    assert colour["mAP"]["mean"] < chance["mAP"]["mean"] + 1
