"""Caption the photos of a data set and score what was written, per language, with and without retrieval.

It drives a captioner as the service does, all languages of a photo in one call. It does not know where the
captioner comes from; the command line opens the bundle.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from typing import Protocol

from PIL import Image

from evaluation.corpus_scores import CorpusScores, score_corpus
from evaluation.language_compliance import LanguageCompliance
from evaluation.references import Photo, References, open_photo
from evaluation.scores import CaptionScores, score_captions
from evaluation.tokenisation import Tokeniser, tokeniser_for
from models.captions import Caption, CaptionResult, CaptionSettings

Mode = str  # "with" or "without" retrieval, or "k=3": with three neighbours
WITH, WITHOUT = "with", "without"
MODES: tuple[Mode, ...] = (WITH, WITHOUT)

Similarities = Mapping[tuple[str, str, Mode], float]  # image id, language, mode → cosine of photo and caption


class WritesCaptions(Protocol):
    """The part of `models.captioner.Captioner` that is evaluated."""

    def caption(self, images: Sequence[Image.Image], settings: CaptionSettings) -> CaptionResult: ...


@dataclass(frozen=True)
class WrittenCaption:
    """One output, with all that is needed to look at it later."""

    image_id: str
    file: str
    retrieval: Mode
    caption: Caption


@dataclass(frozen=True)
class OtherScores:
    """What is measured beside CIDEr-D. Shares are from 0 to 1."""

    corpus: CorpusScores
    in_language: float | None  # None: the language cannot be told
    references_in_language: float | None
    clip_score: float | None  # mean over images, times 100; None: not measured


@dataclass(frozen=True)
class LanguageResult:
    """The scores of one language in each mode that was run: those of MODES first, then by neighbours."""

    references: References
    scores: Mapping[Mode, CaptionScores]
    others: Mapping[Mode, OtherScores] = field(default_factory=dict)


def mode_of(neighbours: int) -> Mode:
    """The mode in which so many neighbours stand in the prompt."""
    return f"k={neighbours}" if neighbours else WITHOUT


def neighbours_of(mode: Mode) -> int | None:
    """How many neighbours a mode takes; None for the bundle's own number."""
    return {WITH: None, WITHOUT: 0}[mode] if mode in MODES else int(mode.removeprefix("k="))


def write_captions(
    captioner: WritesCaptions,
    photos: Sequence[Photo],
    languages: Sequence[str],
    mode: Mode,
    *,
    beams: int = 3,
    batch_size: int = 8,
    advance: Callable[[int], None] = lambda photos: None,
) -> list[WrittenCaption]:
    """Caption every photo in every language, photo by photo in the order given.

    Args:
        mode: `with` takes the bundle's default number of neighbours, `without` none, `k=3` three.
        batch_size: photos per call of the captioner.
        advance: told the number of photos done after each call.

    Raises:
        InvalidImageError: a photo is missing or cannot be decoded.
    """
    settings = CaptionSettings(languages=tuple(languages), beams=beams, neighbours=neighbours_of(mode))
    written: list[WrittenCaption] = []
    for start in range(0, len(photos), batch_size):
        batch = photos[start : start + batch_size]
        result = captioner.caption([open_photo(photo) for photo in batch], settings)
        for photo, image in zip(batch, result.images, strict=True):
            for caption in image.captions:
                written.append(WrittenCaption(photo.image_id, photo.path.name, mode, caption))
        advance(len(batch))
    return written


def score_written(
    written: Sequence[WrittenCaption],
    references: Mapping[str, References],
    *,
    tokeniser: Callable[[str], Tokeniser] = tokeniser_for,
    similarities: Similarities | None = None,
) -> list[LanguageResult]:
    """Score the outputs of a run, language by language in the order of `references`.

    Photos that have no reference in a language do not count in it.

    Args:
        tokeniser: gives the tokeniser of a language.
        similarities: cosines for CLIPScore, if it was measured.

    Raises:
        InvalidRequestError: there is no output to hold against the references of some language, or a package
            that a measure needs is not installed.
    """
    hypotheses: dict[tuple[str, Mode], dict[str, str]] = {}
    for output in written:
        key = (output.caption.language, output.retrieval)
        hypotheses.setdefault(key, {})[output.image_id] = output.caption.text
    found = {output.retrieval for output in written}
    modes = [mode for mode in MODES if mode in found] + sorted(
        found.difference(MODES), key=lambda mode: neighbours_of(mode) or 0
    )
    compliance = LanguageCompliance()
    results = []
    for language, own in references.items():
        scores, others = {}, {}
        cut = tokeniser(language)
        # The same references are cut by both scorers, in every mode.
        cut = replace(cut, split=lru_cache(maxsize=None)(cut.split))
        of_references: dict[tuple[str, ...], float | None] = {}  # photos → share in the language
        for mode in modes:
            texts = hypotheses.get((language, mode), {})
            scores[mode] = score_captions(texts, own.texts, language, cut)
            image_ids = tuple(scores[mode].image_cider_d)
            captions = [texts[image_id] for image_id in image_ids]
            targets = [own.texts[image_id] for image_id in image_ids]
            if image_ids not in of_references:
                of_references[image_ids] = compliance.share(chain.from_iterable(targets), language)
            others[mode] = OtherScores(
                score_corpus(captions, targets, cut),
                compliance.share(captions, language),
                of_references[image_ids],
                _clip_score(similarities, image_ids, language, mode),
            )
        results.append(LanguageResult(own, scores, others))
    return results


def _clip_score(
    similarities: Similarities | None, image_ids: Sequence[str], language: str, mode: Mode
) -> float | None:
    """CLIPScore, Hessel et al., EMNLP 2021: 2.5 times the cosine, and nothing below 0. Here times 100."""
    if similarities is None:
        return None
    cosines = [similarities[image_id, language, mode] for image_id in image_ids]
    return 250.0 * sum(max(cosine, 0.0) for cosine in cosines) / len(cosines)
