"""Measures of calibration, against values worked out by hand."""

import math

import numpy as np
import pytest

from evaluation.calibration import (
    area_under_roc,
    brier_score,
    expected_calibration_error,
    measure_calibration,
    reliability,
)

PROBABILITIES = np.array([0.1, 0.3, 0.6, 0.9])
LABELS = np.array([False, True, False, True])


def test_expected_calibration_error_by_hand() -> None:
    # Two bins: (0.1, 0.3) has mean 0.2 and half of it true, (0.6, 0.9) has mean 0.75 and half of it true.
    assert expected_calibration_error(PROBABILITIES, LABELS, bins=2) == pytest.approx((0.3 + 0.25) / 2)
    # Bins of one pair each: the distances 0.1, 0.7, 0.6 and 0.1.
    assert expected_calibration_error(PROBABILITIES, LABELS, bins=10) == pytest.approx(1.5 / 4)


def test_bins_are_weighted_by_their_pairs() -> None:
    probabilities, labels = np.array([0.0, 0.0, 0.0, 1.0]), np.array([False, False, False, False])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(1 / 4)


def test_an_edge_belongs_to_the_bin_above_and_one_to_the_last() -> None:
    found = reliability(np.array([0.0, 0.5, 1.0]), np.array([False, True, True]), bins=2)
    assert found.counts.tolist() == [1, 2]
    assert found.confidence.tolist() == [0.0, 0.75]
    assert found.accuracy.tolist() == [0.0, 1.0]
    empty = reliability(np.array([0.9]), np.array([True]), bins=2)
    assert empty.counts.tolist() == [0, 1]
    assert np.isnan(empty.accuracy[0])


def test_brier_score_by_hand() -> None:
    assert brier_score(PROBABILITIES, LABELS) == pytest.approx((0.01 + 0.49 + 0.36 + 0.01) / 4)


def test_area_under_roc_by_hand() -> None:
    # Of the four couples of a true and a false pair, 0.3 < 0.6 alone is in the wrong order.
    assert area_under_roc(PROBABILITIES, LABELS) == pytest.approx(3 / 4)
    assert area_under_roc(np.array([0.5, 0.5, 0.7]), np.array([True, False, True])) == pytest.approx(3 / 4)
    assert area_under_roc(np.full(6, 0.2), np.array([True] * 4 + [False] * 2)) == 0.5
    assert math.isnan(area_under_roc(PROBABILITIES, np.ones(4, dtype=np.bool_)))


def test_area_under_roc_equals_comparing_all_couples() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 20, 300) / 20, rng.random(300) < 0.3
    true, false = scores[labels][:, None], scores[~labels][None, :]
    assert area_under_roc(scores, labels) == pytest.approx(((true > false) + (true == false) / 2).mean())


def test_all_measures_together() -> None:
    found = measure_calibration(PROBABILITIES, LABELS)
    assert (found.pairs, found.accuracy) == (4, 0.5)
    assert found.mean_confidence == pytest.approx(0.475)
    assert found.auc == pytest.approx(0.75)
    assert found.brier == pytest.approx(0.2175)
    # Exactly 0.5 is no claim that a caption fits.
    assert measure_calibration(np.array([0.5]), np.array([True])).accuracy == 0.0


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        measure_calibration(PROBABILITIES, LABELS[:2])
    with pytest.raises(ValueError, match="there are none"):
        measure_calibration(PROBABILITIES[:0], LABELS[:0])
