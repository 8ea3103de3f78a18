"""Intervals by resampling photos."""

import math

import numpy as np
import pytest

from evaluation.bootstrap import bootstrap_ratio


def test_the_same_result_on_every_photo_leaves_no_doubt() -> None:
    found = bootstrap_ratio(np.array([1.0, 2.0, 4.0]), np.array([2, 4, 8]))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_of_two_photos_the_distribution_is_known() -> None:
    # Resamples are (0, 0), (0, 1) in two orders, (1, 1): a quarter each end, so 95 % reach both ends.
    found = bootstrap_ratio(np.array([0.0, 1.0]), np.array([1, 1]))
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_agrees_with_the_normal_approximation() -> None:
    hits = (np.random.default_rng(1).random(2000) < 0.3).astype(np.float64)
    found = bootstrap_ratio(hits, np.ones(2000, dtype=np.int64), resamples=4000)
    half = 1.96 * math.sqrt(found.value * (1 - found.value) / 2000)
    assert found.value == pytest.approx(hits.mean())
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)


def test_cases_of_a_photo_stay_together() -> None:
    # Ten cases that always agree tell no more than one.
    hits = (np.random.default_rng(2).random(100) < 0.5).astype(np.float64)
    once = bootstrap_ratio(hits, np.ones(100, dtype=np.int64))
    assert bootstrap_ratio(10 * hits, np.full(100, 10)) == once


def test_follows_from_the_seed_alone() -> None:
    totals, counts = np.arange(30.0), np.full(30, 30)
    assert bootstrap_ratio(totals, counts, seed=3) == bootstrap_ratio(totals, counts, seed=3)
    assert bootstrap_ratio(totals, counts, seed=3) != bootstrap_ratio(totals, counts, seed=4)


@pytest.mark.parametrize(("totals", "counts"), [([], []), ([1.0], [1, 1]), ([1.0, 0.0], [1, 0])])
def test_photos_without_cases_are_refused(totals: list[float], counts: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one case"):
        bootstrap_ratio(np.array(totals), np.array(counts, dtype=np.int64))
