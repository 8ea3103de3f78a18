from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.neutral import count_words, evaluate_neutral, neutral_report, with_words
from evaluation.references import Photo, References
from evaluation.run_description import RunDescription
from models.captions import Caption, CaptionResult, CaptionSettings, ImageCaptions
from models.neutral.lexicon import load_lexicons
from retrieval.errors import InvalidRequestError

PLAIN = ["A man walks his dog.", "A girl on a swing.", "Two dogs run.", "Three people eat."]
NEUTRAL = ["A person walks a dog.", "A dog on a swing.", "Two dogs run.", "Three people eat."]
REFERENCES = {
    "en": References(
        "en",
        ("human",),
        {
            str(number): (text, "Somebody is here.")
            for number, text in enumerate(PLAIN)
        },
    )
}  # fmt: skip


class TwoWays:
    """Writes what it is asked for, by the shade of the photo."""

    def caption(self, images: Sequence[Image.Image], settings: CaptionSettings) -> CaptionResult:
        texts = NEUTRAL if settings.neutral else PLAIN
        return CaptionResult(
            tuple(
                ImageCaptions((Caption("en", texts[int(np.asarray(image)[0, 0, 0])], 1.0),))
                for image in images
            )
        )


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    photos = []
    for shade in range(len(PLAIN)):
        photos.append(Photo(str(shade), tmp_path / f"{shade}.png"))
        Image.new("RGB", (4, 4), (shade, 0, 0)).save(photos[-1].path)
    return photos


def test_gendered_words_are_counted_with_and_without(photos: list[Photo]) -> None:
    done: list[int] = []
    (result,) = evaluate_neutral(TwoWays(), photos, REFERENCES, batch_size=3, advance=done.append)
    assert done == [3, 1]
    assert (result.plain.gendered, result.plain.people) == (0.5, 0.75)
    assert result.plain.words == {"man": 1, "his": 1, "girl": 1}
    assert (result.neutral.gendered, result.neutral.people) == (0.0, 0.5)
    assert result.kept == 0.5  # the man is a person now, and the girl has become a dog
    assert (result.reference_words.gendered, result.reference_words.people) == (0.25, 0.875)
    assert result.plain_scores.cider_d > result.neutral_scores.cider_d > 0


def test_the_report_names_languages_words_and_cost(photos: list[Photo]) -> None:
    results = evaluate_neutral(TwoWays(), photos, REFERENCES)
    report = neutral_report(results, RunDescription("tiny", "r1", "v1", "dev", 4, 3))
    text = report.markdown()
    assert "| en | 25.0% | 50.0% | 0.0% | 75.0% | 50.0% | 50.0% |" in text
    assert "| en | man 1, his 1, girl 1 |  |" in text
    assert report.document["languages"][0]["neutral"]["gendered"] == 0
    assert list(report.document) == [  # nothing that this run does not know
        "evaluation", "bundle", "revision", "datastore", "split", "photos", "beams", "languages",
    ]  # fmt: skip


def test_only_languages_with_words_are_measured() -> None:
    thai = References("th", ("human",), {"0": ("…",)})
    assert list(with_words({**REFERENCES, "th": thai})) == ["en"]
    with pytest.raises(InvalidRequestError, match="not for th"):
        with_words({"th": thai})


def test_counting_knows_the_language() -> None:
    counts = count_words(["Ein Mann und ein Mann.", "Der Hund.", "Leute."], load_lexicons()["de"])
    assert counts.words == {"Mann": 2}
    assert (counts.gendered, counts.people) == (1 / 3, 2 / 3)
