"""CMC, mAP and mINP: worked on paper, against a slow loop, against stored reference numbers."""

from pathlib import Path

import numpy as np
import pytest

from torch_twin.ranking import loop
from vireid_jax.evaluation.ranking import camera_mask, rank
from vireid_jax.types import UserError

PARITY = Path(__file__).parents[1].parent / "shared" / "parity" / "eval_metrics.npz"
SYSU = ((3, 2),)


def ranked(similarity, query_pid, query_camid, gallery_pid, gallery_camid, excluded, cmc_on):
    valid = camera_mask(query_camid, gallery_camid, excluded)
    return rank(similarity, query_pid, gallery_pid, valid=valid, cmc_on=cmc_on)


@pytest.mark.parametrize(("cmc_on", "place"), [("images", 3), ("identities", 2)])
def test_four_images_on_paper(cmc_on, place):
    # By similarity: 3, 3, 7, 7. Matches at positions 3 and 4; two identities, the second is right.
    similarity = np.array([[0.1, 0.9, 0.7, 0.8]])
    result = rank(similarity, np.array([7]), np.array([7, 3, 7, 3]), cmc_on=cmc_on)
    assert result.ap == pytest.approx([(1 / 3 + 2 / 4) / 2])
    assert result.inp == pytest.approx([2 / 4])
    np.testing.assert_array_equal(result.cmc, np.arange(1, 21) >= place)
    assert result.percent() == pytest.approx(
        {
            "rank1": 0,
            "rank5": 100,
            "rank10": 100,
            "rank20": 100,
            "mAP": 100 * 5 / 12,
            "mINP": 50,
        }
    )


def test_equal_similarities_rank_by_gallery_row():
    similarity = np.full((2, 3), 0.5)
    result = rank(similarity, np.array([1, 2]), np.array([1, 1, 2]))
    assert result.ap == pytest.approx([1, 1 / 3])
    assert result.inp == pytest.approx([1, 1 / 3])
    assert result.cmc[:3] == pytest.approx([0.5, 0.5, 1])


def test_camera_rule_drops_every_identity_and_only_for_that_query_camera():
    gallery_pid, gallery_camid = np.array([5, 1, 5]), np.array([2, 2, 1])
    similarity = np.array([[0.9, 0.8, 0.7]] * 2)
    both = ranked(
        similarity, np.array([1, 1]), np.array([3, 6]), gallery_pid, gallery_camid, SYSU, "images"
    )
    # Camera 3 keeps one image of another identity; camera 6 finds its match second.
    np.testing.assert_array_equal(both.ap, [np.nan, 1 / 2])
    assert both.skipped == 1
    assert both.percent()["mAP"] == 50

    camera_3 = ranked(
        similarity[:1], np.array([5]), np.array([3]), gallery_pid, gallery_camid, SYSU, "images"
    )
    assert camera_3.ap == 1  # the other two images are gone, right or wrong


@pytest.mark.parametrize("cmc_on", ["images", "identities"])
@pytest.mark.parametrize("excluded", [(), SYSU, ((3, 2), (6, 1))])
@pytest.mark.parametrize(
    ("queries", "gallery", "identities"), [(80, 60, 12), (40, 7, 5), (9, 1, 2)]
)
def test_agrees_with_the_loop(queries, gallery, identities, excluded, cmc_on):
    rng = np.random.default_rng(queries)
    case = (
        rng.standard_normal((queries, gallery)).round(1),  # so that similarities coincide
        rng.integers(0, identities + 2, queries),  # two identities more than the gallery has
        rng.choice([3, 6], queries),
        rng.integers(0, identities, gallery),
        rng.choice([1, 2, 4], gallery),
        excluded,
        cmc_on,
    )
    ap, inp, cmc = loop(*case)
    result = ranked(*case)
    np.testing.assert_allclose(result.ap, ap, rtol=1e-12, atol=0)
    np.testing.assert_allclose(result.inp, inp, rtol=1e-12, atol=0)
    np.testing.assert_allclose(result.cmc, cmc, rtol=1e-12, atol=0)
    assert 0 < result.skipped == np.isnan(ap).sum() < queries


def test_no_query_with_a_match():
    result = rank(np.ones((2, 3)), np.array([1, 2]), np.array([3, 3, 4]))
    assert result.skipped == 2
    assert np.isnan(result.cmc).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_do_not_rank_first(bad):
    similarity = np.array([[0.5, bad]])
    with pytest.raises(UserError, match="not finite"):
        rank(similarity, np.array([1]), np.array([0, 1]))


def test_misspelt_cmc_is_refused():
    with pytest.raises(ValueError, match="'identity'"):
        rank(np.ones((1, 1)), np.array([1]), np.array([1]), cmc_on="identity")


@pytest.mark.skipif(not PARITY.exists(), reason="no reference numbers beside the repository")
def test_reference_numbers():
    with np.load(PARITY) as stored:
        cases = sorted({key.split("/")[0] for key in stored})
        assert cases
        for name in cases:
            part = {key: stored[f"{name}/{key}"] for key in ("q", "g", "cmc", "ap", "inp")}
            sysu = name.startswith("sysu")
            result = ranked(
                part["q"].astype(float) @ part["g"].astype(float).T,
                *(stored[f"{name}/{key}"] for key in ("q_pids", "q_cams", "g_pids", "g_cams")),
                SYSU if sysu else (),
                "identities" if sysu else "images",
            )
            np.testing.assert_allclose(result.ap, part["ap"], rtol=0, atol=1e-9, err_msg=name)
            np.testing.assert_allclose(result.inp, part["inp"], rtol=0, atol=1e-9, err_msg=name)
            # The reference rounded its CMC, and only that, to float32: equal after rounding.
            stored_cmc = np.pad(part["cmc"], (0, 20 - len(part["cmc"])), mode="edge")
            np.testing.assert_array_equal(result.cmc.astype(np.float32), stored_cmc, name)
            for figure in ("mAP", "mINP"):
                expected = 100 * stored[f"{name}/{figure}"]
                assert result.percent()[figure] == pytest.approx(expected, rel=0, abs=1e-7), name
