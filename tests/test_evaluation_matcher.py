"""The evaluation of the matcher, with a matcher that knows what it is to say."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from evaluation.foils import load_lexicons
from evaluation.matcher import RERANKED, MatcherResult, evaluate_matcher
from evaluation.matcher_plot import draw_reliability
from evaluation.matcher_report import MatcherRun, matcher_report
from evaluation.references import Photo, References

PHOTOS = 30
NOUNS = ("dog", "cat", "horse", "cow", "goat")


def caption(shade: int) -> str:
    return f"A {NOUNS[shade % len(NOUNS)]} number {shade}"


class Shades:
    """The embedder says nothing: all vectors are alike but for `blur`. The matcher knows who is who."""

    def __init__(self, *, knows: bool = True) -> None:
        self.knows = knows
        self.asked: Counter[tuple[int, str]] = Counter()
        self.largest = 0

    def embed_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        return self._vectors([_shade(image) for image in images])

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        # Each text is where the next photo is, so the embedder's best is always the neighbour's.
        return self._vectors([int(text.split()[-1]) + 1 for text in texts])

    def _vectors(self, shades: Sequence[int]) -> npt.NDArray[np.float32]:
        angles = np.array(shades) / 100
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def match(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        self.largest = max(self.largest, len(images))
        for image, own in zip(images, texts, strict=True):
            self.asked.update((_shade(image), text) for text in own)
        return [
            [3.0 if self.knows and text == caption(_shade(image)) else -3.0 for text in own]
            for image, own in zip(images, texts, strict=True)
        ]


def _shade(image: Image.Image) -> int:
    return int(np.asarray(image)[0, 0, 0])


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    for shade in range(PHOTOS):
        Image.new("RGB", (2, 2), (shade, 0, 0)).save(tmp_path / f"{shade}.png")
    return [Photo(str(shade), tmp_path / f"{shade}.png") for shade in range(PHOTOS)]


REFERENCES = {
    "en": References("en", ("human",), {str(shade): [caption(shade)] for shade in range(PHOTOS)}),
    # The same texts of fewer photos, in a language that has no lexicon.
    "uk": References("uk", ("MT",), {str(shade): [caption(shade)] for shade in range(25)}),
}


def evaluate(model: Shades, photos: Sequence[Photo], weight: float = 0.1) -> MatcherResult:
    return evaluate_matcher(
        model, model, photos, REFERENCES, load_lexicons(), match_weight=weight, batch_size=7
    )


def test_a_matcher_that_knows_finds_what_the_embedder_does_not(photos: list[Photo]) -> None:
    result = evaluate(Shades(), photos)
    english, ukrainian = (language.scores for language in result.languages)
    assert english.retrieval.before[1] < 0.1
    assert english.retrieval.after == {1: 1.0, 5: 1.0, 10: 1.0}
    gain = english.retrieval.gain
    assert gain.value == pytest.approx(1 - english.retrieval.before[1])
    assert gain.low > 0.8
    assert (ukrainian.retrieval.photos, ukrainian.retrieval.captions) == (25, 25)
    assert (result.together.retrieval.photos, result.together.retrieval.captions) == (PHOTOS, 55)
    assert english.foils is not None
    assert (english.foils.pairs, english.foils.matcher.value) == (PHOTOS, 1.0)
    # A foil keeps the number, so that the embedder has both at the same place: ties count as wrong.
    assert english.foils.embedder.value == 0.0
    assert len({foil.image_id for foil in english.foils.examples}) == 2
    assert ukrainian.foils is None
    calibration = english.calibration
    assert (calibration.pairs, calibration.auc, calibration.accuracy) == (2 * PHOTOS, 1.0, 1.0)
    assert calibration.ece == pytest.approx(1 / (1 + np.exp(3.0)))
    assert result.diagram.counts.sum() == result.together.calibration.pairs == 110


def test_no_pair_is_scored_twice_and_batches_are_kept(photos: list[Photo]) -> None:
    model = Shades()
    evaluate(model, photos)
    assert set(model.asked.values()) == {1}
    assert model.largest == 7


def test_without_weight_or_knowledge_nothing_is_gained(photos: list[Photo]) -> None:
    plain = evaluate(Shades(), photos, weight=0.0).languages[0].scores.retrieval
    assert plain.before == plain.after
    assert (plain.gain.low, plain.gain.high) == (0.0, 0.0)
    ignorant = evaluate(Shades(knows=False), photos).languages[0].scores
    assert ignorant.retrieval.after == ignorant.retrieval.before
    assert ignorant.foils is not None
    assert ignorant.foils.matcher.value == 0.0
    assert ignorant.calibration.auc == 0.5


def test_what_the_embedder_ranks_low_stays_out_of_reach(tmp_path: Path) -> None:
    """The own caption of the last photo is farther than `RERANKED` others."""
    count = RERANKED + 5
    photos = []
    for shade in range(count):
        Image.new("RGB", (2, 2), (shade, 0, 0)).save(tmp_path / f"{shade}.png")
        photos.append(Photo(str(shade), tmp_path / f"{shade}.png"))

    class Backwards(Shades):
        def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            return self._vectors([count - 1 - int(text.split()[-1]) for text in texts])

    references = {"en": References("en", ("human",), {str(n): [caption(n)] for n in range(count)})}
    model = Backwards()
    result = evaluate_matcher(model, model, photos, references, {}, match_weight=1.0)
    # Shade n has its caption at 24 - n: both ends are too far from theirs.
    near = [
        n for n in range(count) if sum(abs(n - (24 - m)) <= abs(2 * n - 24) for m in range(25)) <= RERANKED
    ]
    assert 0 < len(near) < count
    assert result.together.retrieval.after[1] == pytest.approx(len(near) / count)


def test_results_do_not_depend_on_batches(photos: list[Photo]) -> None:
    model = Shades()
    one = evaluate_matcher(model, model, photos, REFERENCES, load_lexicons(), match_weight=0.1, batch_size=1)
    many = evaluate(Shades(), photos)
    assert one.together == many.together


def test_report_and_picture(photos: list[Photo], tmp_path: Path) -> None:
    result = evaluate(Shades(), photos)
    report = matcher_report(result, MatcherRun("tiny", "r1", "shades-2", "dev", PHOTOS, False, 0.1, 0))
    markdown = report.markdown()
    assert "every second photo" in markdown
    assert "| en | 30 | 100.0 [100.0, 100.0] | 0.0 [0.0, 0.0] |" in markdown
    assert "| uk | 0 |  |  |" in markdown
    assert "| all |  | 30 | 55 |" in markdown
    english, ukrainian = report.document["languages"]
    assert english["retrieval"]["after"]["1"] == 1.0
    assert english["foils"]["examples"][0]["caption"] == caption(0)
    assert ukrainian["foils"] is None
    assert None in report.document["reliability"]["accuracy"]  # of empty bins
    draw_reliability(result.diagram, 0.05, tmp_path / "diagram.png")
    with Image.open(tmp_path / "diagram.png") as picture:
        assert picture.size == (650, 780)
