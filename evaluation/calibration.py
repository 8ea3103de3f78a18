"""Can a confidence be taken at its word? Measures of probabilities held against what came true."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 15

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Reliability:
    """Equal-width bins of [0, 1]; what an empty bin has is nan."""

    counts: npt.NDArray[np.int64]  # (bins,)
    confidence: Floats  # (bins,) mean of the probabilities
    accuracy: Floats  # (bins,) share that came true


@dataclass(frozen=True)
class Calibration:
    """All measures of one set of pairs. `auc` is nan if all labels are the same."""

    pairs: int
    ece: float
    brier: float
    accuracy: float  # of the decision at 0.5
    mean_confidence: float
    auc: float


def measure_calibration(probabilities: Floats, labels: Labels) -> Calibration:
    """All measures of N pairs.

    Args:
        probabilities: (N,) in [0, 1] that the label is true.
        labels: (N,) bool.

    Raises:
        ValueError: no pairs, or the shapes differ.
    """
    _check(probabilities, labels)
    return Calibration(
        len(labels),
        expected_calibration_error(probabilities, labels),
        brier_score(probabilities, labels),
        float(((probabilities > 0.5) == labels).mean()),
        float(probabilities.mean()),
        area_under_roc(probabilities, labels),
    )


def reliability(probabilities: Floats, labels: Labels, bins: int = BINS) -> Reliability:
    """The pairs by their probability. A bin holds its lower edge; the last one holds 1 too."""
    _check(probabilities, labels)
    number = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    counts = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 of empty bins
        confidence = np.bincount(number, probabilities, bins) / counts
        accuracy = np.bincount(number, labels, bins) / counts
    return Reliability(counts, confidence, accuracy)


def expected_calibration_error(probabilities: Floats, labels: Labels, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy of a bin, weighted by its pairs.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 5, for the probability of one
    class: that the caption fits.
    """
    found = reliability(probabilities, labels, bins)
    gaps = np.nan_to_num(np.abs(found.confidence - found.accuracy))
    return float((gaps * found.counts).sum() / found.counts.sum())


def brier_score(probabilities: Floats, labels: Labels) -> float:
    """Mean squared distance of the probabilities from what came true (Brier, 1950, for two classes)."""
    _check(probabilities, labels)
    return float(np.square(probabilities - labels).mean())


def area_under_roc(scores: Floats, labels: Labels) -> float:
    """Probability that a true pair scores higher than a false one; equal scores count half.

    By the ranks (Hanley and McNeil, Radiology 1982): no threshold is tried. Nan if all labels are the same.
    """
    _check(scores, labels)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (
        np.cumsum(counts) - (counts - 1) / 2
    )  # of each different score: the mean rank of its pairs, from 1
    above = ranks[place][labels].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def _check(values: Floats, labels: Labels) -> None:
    if len(values) == 0 or values.shape != labels.shape:
        raise ValueError(f"{values.shape} values do not fit {labels.shape} labels, or there are none")
