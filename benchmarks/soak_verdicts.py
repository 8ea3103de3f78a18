"""What a soak has shown: rules that say of measurements over time whether something grows, leaks or fails."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median, quantiles

GROWTH_LIMIT = 30.0  # MB an hour
WARM_UP = 0.25  # of the time is not looked at: caches fill, allocators find their size


@dataclass(frozen=True)
class Verdict:
    """One line of the report."""

    about: str
    passed: bool
    finding: str


@dataclass(frozen=True)
class Growth:
    """Of a quantity in MB over the time after the warm-up."""

    per_hour: float  # slope
    total: float  # slope times time
    noise: float  # how far measurements lie apart, the slope taken out: their middle half

    @property
    def is_flat(self) -> bool:
        """Grows by less than the limit, or by less than what it moves up and down anyway."""
        return self.per_hour < GROWTH_LIMIT or self.total < self.noise


def growth(seconds: Sequence[float], megabytes: Sequence[float]) -> Growth:
    """The median of the slopes between all pairs (Theil and Sen), which a few outliers do not move.

    Raises ValueError for fewer than eight measurements after the warm-up.
    """
    begin = seconds[0] + WARM_UP * (seconds[-1] - seconds[0]) if seconds else 0.0
    points = [(time, size) for time, size in zip(seconds, megabytes, strict=True) if time >= begin]
    if len(points) < 8:
        raise ValueError(f"{len(points)} measurements after the warm-up are too few to see a growth in")
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] > a[0]]
    slope = median(slopes)
    rest = [size - slope * time for time, size in points]
    low, _, high = quantiles(rest, n=4)
    return Growth(3600 * slope, slope * (points[-1][0] - points[0][0]), high - low)


def flat(about: str, seconds: Sequence[float], megabytes: Sequence[float]) -> Verdict:
    """Whether memory stays as it is."""
    try:
        found = growth(seconds, megabytes)
    except ValueError as error:
        return Verdict(about, False, str(error))
    finding = (
        f"{megabytes[0]:.0f} MB at first, {max(megabytes):.0f} at most, {megabytes[-1]:.0f} at the end; after"
        f" the warm-up {found.per_hour:+.0f} MB an hour ({found.total:+.1f} MB, noise {found.noise:.1f})"
    )
    return Verdict(about, found.is_flat, finding)


def back(about: str, before: float, after: float, slack: float = 0) -> Verdict:
    """Whether a count is at rest what it was before."""
    return Verdict(about, after <= before + slack, f"{before:g} before, {after:g} after")


def at_most(about: str, found: int, of: int, share: float = 0.0) -> Verdict:
    """Whether something happened no more often than a share of all times."""
    return Verdict(about, found <= share * of, f"{found} of {of}")


def percentile(values: Sequence[float], share: float) -> float:
    """0 if there are none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0
