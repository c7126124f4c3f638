"""The hand-made features find what they are made for, and chance is chance."""

import numpy as np
import pytest

from vireid_jax.evaluation.baselines import (
    baseline_results,
    chance,
    colour_histogram,
    garment_map,
    hog,
    lda,
)
from vireid_jax.evaluation.protocols import evaluate, regdb_protocols
from vireid_jax.types import ImageSet, Modality

SHOTS = 4


def image_set(pids, draw):
    """Visible and infrared images of each pid; `draw(pid, modality, rng)` is float [32, 16, 3]."""
    rng = np.random.default_rng([7, *pids])
    images, pid, modality = [], [], []
    for p in pids:
        for m in Modality:
            for _ in range(SHOTS):
                noisy = draw(p, m, rng) + rng.normal(0, 8, (32, 16, 3))
                images.append(noisy.clip(0, 255).astype(np.uint8))
                pid.append(p)
                modality.append(m)
    return ImageSet(
        images=np.stack(images),
        pid=np.array(pid, np.int32),
        camid=np.array(modality, np.int32),
        modality=np.array(modality, np.int32),
        path=np.array([f"{i}.png" for i in range(len(pid))]),
    )


def shaped(pid, modality, rng):
    """A shape per identity in a grey that is random in every image, inverted in infrared."""
    pattern = np.random.default_rng([1, pid]).random((4, 2)) < 0.5
    image = np.kron(pattern, np.ones((8, 8))) * rng.uniform(80, 140) + rng.uniform(20, 90)
    return (image if modality == Modality.VISIBLE else 255 - image)[..., None]


def coloured(pid, modality, rng):
    """A colour per identity and modality alike, on a texture that is random in every image."""
    colour = np.random.default_rng([2, pid]).uniform(40, 216, 3)
    return colour + 12 * rng.standard_normal((32, 16, 1))


def textured(pid, modality, rng):
    """Identity in a faint component of the feature, among strong ones that differ per image."""
    identity = np.random.default_rng([3, pid]).uniform(-20, 20, (16, 8, 1))
    distraction = np.kron(rng.uniform(-60, 60, (4, 2, 1)), np.ones((8, 8, 1)))
    return 128 + np.kron(identity, np.ones((2, 2, 1))) + distraction


def rank1(feature, images):
    protocol = regdb_protocols(images)[0]
    return evaluate({"f": feature}, images, [protocol])[protocol.name]["f"]["rank1"]["mean"]


def test_chance_is_the_expected_figure():
    images = image_set(range(10), shaped)
    results = chance(images, regdb_protocols(images))
    assert set(results) == {"visible-thermal", "thermal-visible"}
    for figures in results.values():
        assert figures["rank1"]["mean"] == pytest.approx(100 / 10, abs=3)
        # One minus the chance that the first 5 of 40 images hold none of the 4 matches.
        missed = np.prod([(36 - i) / (40 - i) for i in range(5)])
        assert figures["rank5"]["mean"] == pytest.approx(100 * (1 - missed), abs=5)
    assert results == chance(images, regdb_protocols(images))


def test_hog_sees_shapes_that_the_colour_histogram_does_not():
    images = image_set(range(20), shaped)
    assert rank1(hog(images.images), images) > 60
    assert rank1(colour_histogram(images.images), images) < 25  # chance 5


def test_colour_histogram_sees_colours_that_hog_does_not():
    images = image_set(range(20), coloured)
    assert rank1(colour_histogram(images.images), images) > 60
    assert rank1(hog(images.images), images) < 25


def test_colour_histogram_keeps_the_stripes_apart():
    red_over_blue = np.zeros((1, 12, 4, 3), np.uint8)
    red_over_blue[:, :6, :, 0] = red_over_blue[:, 6:, :, 2] = 255
    upside_down = red_over_blue[:, ::-1]
    a, b, mirrored = colour_histogram(
        np.concatenate([red_over_blue, upside_down, red_over_blue[:, :, ::-1]])
    )
    assert a @ a == pytest.approx(1)
    assert a @ mirrored == pytest.approx(1)
    assert a @ b == 0


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_colour_histogram_sees_every_channel(channel):
    two = np.zeros((2, 12, 4, 3), np.uint8)
    two[1, ..., channel] = 255
    black, bright = colour_histogram(two)
    assert black @ bright == 0


def test_garment_map_is_the_share_of_each_kind_in_each_cell():
    image = np.full((4, 6), -1, np.int8)
    image[:2, :2] = 1  # the whole first cell of two rows and three columns
    image[2, 4:] = 0  # half of the last one
    expected = np.zeros((2, 3, 2), np.float32)
    expected[0, 0, 1], expected[1, 2, 0] = 1, 0.5
    feature = garment_map(image[None], 2, rows=2, columns=3)
    np.testing.assert_allclose(feature[0], expected.ravel() / np.sqrt(1.25), rtol=1e-6)


def test_hog_has_unit_length_and_one_size_for_large_images():
    rng = np.random.default_rng(0)
    small = np.kron(rng.integers(0, 255, (2, 24, 12, 1)), np.ones((1, 4, 4, 3))).astype(np.uint8)
    large = small.repeat(3, 1).repeat(3, 2)  # 288 x 144
    feature = hog(small)
    np.testing.assert_allclose(np.linalg.norm(feature, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(hog(large), feature, atol=1e-5)
    assert hog(np.zeros((1, 96, 48, 3), np.uint8)).max() == 0  # no NaN from a blank image


def test_lda_improves_with_training_identities():
    test = image_set(range(100, 130), textured)
    raw = hog(test.images)

    def trained_on(identities):
        train = image_set(range(identities), textured)
        return rank1(lda(hog(train.images), train.pid, raw), test)

    few, many = trained_on(4), trained_on(60)
    assert many > few + 5
    assert many > rank1(raw, test) + 10


def test_table_of_baselines():
    train, test = image_set(range(12), shaped), image_set(range(20, 30), shaped)
    results = baseline_results(train, test, regdb_protocols(test))
    assert list(results) == ["chance", "colour histogram", "HOG", "LDA on HOG"]
    for protocols in results.values():
        assert set(protocols) == {"visible-thermal", "thermal-visible"}
        assert set(protocols["visible-thermal"]) == {
            *("rank1", "rank5", "rank10", "rank20"),
            *("mAP", "mINP"),
        }
    hog_mean, chance_mean = (
        results[name]["visible-thermal"]["mAP"]["mean"] for name in ("HOG", "chance")
    )
    assert hog_mean > chance_mean + 20
