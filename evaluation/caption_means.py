"""Means over languages with confidence intervals: of all that were evaluated, and of published groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.bootstrap import Interval, bootstrap_mean_of_means
from evaluation.captions import WITH, WITHOUT, LanguageResult, Mode
from retrieval.languages import XM3600_LANGUAGES

# Ramos et al., PAELLA, Findings of NAACL 2024: all languages of XM3600, those with few resources, those that
# PAELLA_core is trained on.
GROUPS: dict[str, tuple[str, ...]] = {
    "L36": XM3600_LANGUAGES,
    "L5": ("bn", "mi", "quz", "sw", "te"),
    "core": ("en", "es", "hi", "zh"),
}


@dataclass(frozen=True)
class GroupMean:
    """Mean CIDEr-D × 100 of a group's languages that were evaluated, and what retrieval adds to it."""

    group: str
    languages: tuple[str, ...]  # those evaluated
    of: int  # languages the group has
    modes: Mapping[Mode, Interval]
    gain: Interval | None  # None: not both modes were run

    @property
    def name(self) -> str:
        """With how many languages are there, if some are missing: "L36 (10 of 36)"."""
        there = len(self.languages)
        return self.group if there == self.of else f"{self.group} ({there} of {self.of})"


def group_means(results: Sequence[LanguageResult]) -> list[GroupMean]:
    """The groups of GROUPS of which there is at least one language."""
    means = []
    for group, codes in GROUPS.items():
        found = [result for result in results if result.references.language in codes]
        if found:
            means.append(mean_of(group, found, len(codes)))
    return means


def mean_of(group: str, results: Sequence[LanguageResult], of: int | None = None) -> GroupMean:
    """The mean over some languages; photos are resampled in all of them together."""
    modes = list(results[0].scores)
    values = {mode: _values(results, mode) for mode in modes}
    gain = None
    if WITH in values and WITHOUT in values:
        gain = bootstrap_mean_of_means(values[WITH] - values[WITHOUT])
    return GroupMean(
        group,
        tuple(result.references.language for result in results),
        of or len(results),
        {mode: bootstrap_mean_of_means(values[mode]) for mode in modes},
        gain,
    )


def _values(
    results: Sequence[LanguageResult], mode: Mode
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """CIDEr-D × 100 (P, L) of every photo in every language, nan where a photo has no reference."""
    photos = dict.fromkeys(
        image_id
        for result in results
        for scores in result.scores.values()
        for image_id in scores.image_cider_d
    )
    values = np.full((len(photos), len(results)), np.nan)
    rows = {image_id: row for row, image_id in enumerate(photos)}
    for column, result in enumerate(results):
        for image_id, value in result.scores[mode].image_cider_d.items():
            values[rows[image_id], column] = value
    return values
