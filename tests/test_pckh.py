import numpy as np

from vireid_jax.evaluation.pckh import pckh


def test_two_images_worked_by_hand():
    truth = np.full((3, 16, 2), -1.0)
    truth[:2, 8], truth[:2, 9] = (20, 30), (20, 20)  # head of 10 pixels
    truth[0, 0], truth[1, 0], truth[1, 6] = (5, 80), (7, 80), (10, 50)
    truth[2, 8], truth[2, 0] = (20, 30), (5, 80)  # no head top: the image is not counted
    predicted = truth.copy()
    predicted[0, 0] += (3, 4)  # 5 pixels off: found at 0.5, not at 0.4
    predicted[1, 0] += (5, 1)  # a little more: not found
    predicted[1, 6] += (50, 0)  # pelvis: in no average
    predicted[0, 9] += (0, 4)
    table = pckh(predicted, truth, (0.4, 0.5))
    assert table.shape == (2, 18)
    np.testing.assert_allclose(table[:, 0], [0, 50])  # right ankle
    np.testing.assert_allclose(table[:, 6], [0, 0])
    np.testing.assert_allclose(table[:, 9], [100, 100])
    np.testing.assert_allclose(table[:, 16], [100, 100])  # neck and head top, twice each
    np.testing.assert_allclose(table[:, 17], [100 * 4 / 6, 100 * 5 / 6])
    assert np.isnan(table[:, 15]).all()
