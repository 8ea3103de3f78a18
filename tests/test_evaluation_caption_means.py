"""Means over languages, of the groups that are published, with intervals."""

import numpy as np
import pytest

from evaluation.bootstrap import bootstrap_mean_of_means
from evaluation.caption_means import group_means, mean_of
from evaluation.captions import LanguageResult
from evaluation.references import References
from evaluation.scores import score_captions

TEXTS = {
    "1": "a dog runs over the green grass",
    "2": "two kids swim in a lake",
    "3": "an old man repairs a bicycle",
    "4": "a red car stands on a street",
}


def result(language: str, wrong: int) -> LanguageResult:
    """With retrieval all captions are right, without it the first `wrong` photos have another's caption."""
    references = References(language, ("human",), {key: [text] for key, text in TEXTS.items()})
    blind = {key: TEXTS["4"] if int(key) <= wrong else text for key, text in TEXTS.items()}
    return LanguageResult(
        references,
        {
            "with": score_captions(TEXTS, references.texts, language),
            "without": score_captions(blind, references.texts, language),
        },
    )


def test_the_mean_of_languages_and_what_retrieval_adds() -> None:
    mean = mean_of("both", [result("en", 1), result("sw", 3)])
    assert mean.modes["with"].value == pytest.approx(1000)
    without = mean.modes["without"]
    assert without.low < without.value < without.high < 1000
    assert mean.gain is not None
    assert mean.gain.value == pytest.approx(mean.modes["with"].value - without.value)
    assert 0 < mean.gain.low < mean.gain.high


def test_groups_say_how_many_of_their_languages_are_there() -> None:
    means = group_means([result("en", 1), result("sw", 2), result("ca", 1)])
    assert [mean.name for mean in means] == ["L36 (2 of 36)", "L5 (1 of 5)", "core (1 of 4)"]
    assert means[0].languages == ("en", "sw")
    assert group_means([result("ca", 1)]) == []


def test_the_mean_of_means_weighs_languages_alike_whatever_photos_they_have() -> None:
    values = np.array([[1.0, 10.0], [3.0, np.nan], [5.0, np.nan]])
    found = bootstrap_mean_of_means(values)
    assert found.value == pytest.approx((3 + 10) / 2)
    assert 2 < found.low < found.value < found.high < 8
    same = bootstrap_mean_of_means(np.full((5, 2), 7.0))
    assert (same.low, same.value, same.high) == (7, 7, 7)
    with pytest.raises(ValueError, match="at least one photo"):
        bootstrap_mean_of_means(np.array([[1.0, np.nan]]))


def test_its_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(100):
        photo = rng.normal(size=(80, 1))  # what all languages of a photo have in common
        found = bootstrap_mean_of_means(photo + 0.5 * rng.normal(size=(80, 3)), resamples=400, seed=trial)
        covered += found.low <= 0 <= found.high
    assert 88 <= covered <= 99
