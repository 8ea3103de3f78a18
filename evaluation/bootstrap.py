"""How sure is a mean over photos? Confidence intervals by resampling the photos.

Percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). A photo is
drawn with all that was measured on it, in whatever languages: those results hang together, and taking them
for independent would make the intervals too narrow.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
COVERAGE = 0.95
_AT_ONCE = 200  # resamples drawn together, which bounds the memory of their counts


@dataclass(frozen=True)
class Interval:
    """A share or a mean, and between what it lies with the confidence `COVERAGE`."""

    value: float
    low: float
    high: float


def bootstrap_ratio(
    totals: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Sum of the totals by sum of the counts: the mean over all cases, with photos resampled.

    For a paired comparison, give the sums of the cases' differences.

    Args:
        totals: (P,) sum over each photo's cases.
        counts: (P,) how many cases each photo has, at least 1.

    Raises:
        ValueError: there is no photo, the shapes differ, or a photo has no case.
    """
    photos = len(totals)
    if photos == 0 or totals.shape != counts.shape or counts.min() < 1:
        raise ValueError("totals and counts must be of the same photos, each with at least one case")
    resampled = _resampled(photos, resamples, seed)
    means = []
    for start in range(0, resamples, _AT_ONCE):
        drawn = resampled[start : start + _AT_ONCE].astype(np.float64)  # (rows, P)
        means.append((drawn @ totals) / (drawn @ counts))
    low, high = np.quantile(np.concatenate(means), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(totals.sum() / counts.sum()), float(low), float(high))


def bootstrap_mean_of_means(
    values: npt.NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean over languages of the mean over photos, with photos resampled in all languages together.

    A resample in which a language has no photo leaves that language out. For a paired comparison, give the
    differences.

    Args:
        values: (P, L) of P photos in L languages; nan where a photo has no value in a language.

    Raises:
        ValueError: there is no photo or no language, or a language has no value at all.
    """
    photos = len(values)
    present = ~np.isnan(values)
    if values.ndim != 2 or not photos or not values.shape[1] or not present.any(axis=0).all():
        raise ValueError("every language must have a value of at least one photo")
    filled, has = np.where(present, values, 0.0), present.astype(np.float64)
    resampled = _resampled(photos, resamples, seed)
    means = []
    for start in range(0, resamples, _AT_ONCE):
        drawn = resampled[start : start + _AT_ONCE].astype(np.float64)  # (rows, P)
        counts = drawn @ has  # (rows, L)
        of_languages = np.full(counts.shape, np.nan)
        np.divide(drawn @ filled, counts, out=of_languages, where=counts > 0)
        means.append(np.nanmean(of_languages, axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(np.nanmean(values, axis=0).mean()), float(low), float(high))


@lru_cache(maxsize=4)  # a report asks for many intervals over the same photos, and drawing is what takes long
def _resampled(photos: int, resamples: int, seed: int) -> npt.NDArray[np.uint8]:
    """How often each photo comes in each resample (resamples, P)."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, photos), dtype=np.uint8)
    for start in range(0, resamples, _AT_ONCE):
        rows = min(_AT_ONCE, resamples - start)
        counts = rng.multinomial(photos, np.full(photos, 1 / photos), size=rows)
        drawn[start : start + rows] = np.minimum(counts, 255)
    return drawn
