"""How often captions guess at gender, with and without `neutral`, and what it costs.

Every photo is captioned twice. Words are counted with the lists that `neutral` itself goes by
(models/neutral/words.toml), so this measures whether the option does what it says, and at what price; what is
not in the lists is not counted either.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.captions import WritesCaptions
from evaluation.references import Photo, References, open_photo
from evaluation.report import Report, ReportTable
from evaluation.run_description import RunDescription
from evaluation.scores import CaptionScores, score_captions
from models.captions import CaptionSettings
from models.neutral.lexicon import Lexicon, load_lexicons
from retrieval.errors import InvalidRequestError

_MOST_WORDS = 5  # of a language, named in the report


@dataclass(frozen=True)
class WordCounts:
    """Shares of captions, from 0 to 1."""

    gendered: float  # with a gendered word
    people: float  # with any word for people
    words: Mapping[str, int]  # how often each gendered word is there


@dataclass(frozen=True)
class NeutralResult:
    """One language, captioned without and with `neutral`."""

    references: References
    reference_words: WordCounts  # of the references themselves
    plain: WordCounts
    neutral: WordCounts
    kept: float  # of the captions that held a gendered word: share whose neutral one still names somebody
    plain_scores: CaptionScores
    neutral_scores: CaptionScores


def with_words(references: Mapping[str, References]) -> dict[str, References]:
    """Those of the languages that there are word lists for.

    Raises:
        InvalidRequestError: there are none for any of them.
    """
    known = load_lexicons()
    chosen = {language: found for language, found in references.items() if language in known}
    if not chosen:
        raise InvalidRequestError(
            f"there are lists of gendered words for {', '.join(known)}, not for {', '.join(references)}"
        )
    return chosen


def evaluate_neutral(
    captioner: WritesCaptions,
    photos: Sequence[Photo],
    references: Mapping[str, References],
    *,
    beams: int = 3,
    batch_size: int = 8,
    advance: Callable[[int], None] = lambda photos: None,
) -> list[NeutralResult]:
    """Caption every photo twice in every language of the references, and count and score what is written.

    Args:
        references: of languages that `with_words` gives.
        batch_size: photos per call of the captioner.
        advance: told the number of photos done after each batch.

    Raises:
        InvalidImageError: a photo is missing or cannot be decoded.
        InvalidRequestError: no photo has a reference in some language.
    """
    texts: dict[tuple[str, bool], dict[str, str]] = {}
    for start in range(0, len(photos), batch_size):
        batch = photos[start : start + batch_size]
        images = [open_photo(photo) for photo in batch]
        for neutral in (False, True):
            settings = CaptionSettings(tuple(references), beams=beams, neutral=neutral)
            for photo, image in zip(batch, captioner.caption(images, settings).images, strict=True):
                for caption in image.captions:
                    own = texts.setdefault((caption.language, neutral), {})
                    own[photo.image_id] = caption.text
        advance(len(batch))
    lexicons = load_lexicons()
    return [
        _result(lexicons[language], found, texts[language, False], texts[language, True])
        for language, found in references.items()
    ]


def _result(
    lexicon: Lexicon, references: References, plain: Mapping[str, str], neutral: Mapping[str, str]
) -> NeutralResult:
    guessed = [image_id for image_id, text in plain.items() if lexicon.gendered_in(text)]
    kept = sum(bool(lexicon.people_in(neutral[image_id])) for image_id in guessed)
    return NeutralResult(
        references,
        count_words([text for texts in references.texts.values() for text in texts], lexicon),
        count_words(list(plain.values()), lexicon),
        count_words(list(neutral.values()), lexicon),
        kept / len(guessed) if guessed else 1.0,
        score_captions(plain, references.texts, references.language),
        score_captions(neutral, references.texts, references.language),
    )


def count_words(texts: Sequence[str], lexicon: Lexicon) -> WordCounts:
    """Count the words for people in some texts, at least one."""
    gendered = [lexicon.gendered_in(text) for text in texts]
    return WordCounts(
        sum(map(bool, gendered)) / len(texts),
        sum(bool(lexicon.people_in(text)) for text in texts) / len(texts),
        dict(Counter(word for words in gendered for word in words).most_common()),
    )


def neutral_report(results: Sequence[NeutralResult], run: RunDescription) -> Report:
    """The report of a run."""
    return Report(
        title="Gendered words in captions",
        facts=[
            f"bundle {run.bundle}, revision {run.revision}",
            f"datastore {run.datastore}",
            f"split {run.split}: {run.photos} photos; beams {run.beams}",
            *sorted({f"`{result.plain_scores.signature}`" for result in results}),
        ],
        tables=[_words_table(results), _cost_table(results), _frequent_table(results)],
        document={
            "evaluation": "neutral",
            **asdict(run),
            "languages": [_language_document(result) for result in results],
        },
    )


def _words_table(results: Sequence[NeutralResult]) -> ReportTable:
    return ReportTable(
        "Share of captions with gendered words, and with any word for people",
        ["language", "references", "captions", "with neutral", "people", "people with neutral", "kept"],
        [
            [
                result.references.language,
                *(
                    f"{share:.1%}"
                    for share in (
                        result.reference_words.gendered,
                        result.plain.gendered,
                        result.neutral.gendered,
                        result.plain.people,
                        result.neutral.people,
                        result.kept,
                    )
                ),
            ]
            for result in results
        ],
    )


def _cost_table(results: Sequence[NeutralResult]) -> ReportTable:
    return ReportTable(
        "CIDEr-D × 100 against references as they are, and loops",
        ["language", "kind", "CIDEr-D", "with neutral", "loops", "loops with neutral"],
        [
            [
                result.references.language,
                ", ".join(result.references.kinds),
                f"{result.plain_scores.cider_d:.1f}",
                f"{result.neutral_scores.cider_d:.1f}",
                f"{result.plain_scores.loops:.1%}",
                f"{result.neutral_scores.loops:.1%}",
            ]
            for result in results
        ],
    )


def _frequent_table(results: Sequence[NeutralResult]) -> ReportTable:
    def most(words: Mapping[str, int]) -> str:
        return ", ".join(f"{word} {count}" for word, count in list(words.items())[:_MOST_WORDS])

    return ReportTable(
        "The gendered words most frequent",
        ["language", "captions", "with neutral"],
        [
            [result.references.language, most(result.plain.words), most(result.neutral.words)]
            for result in results
        ],
    )


def _language_document(result: NeutralResult) -> dict[str, Any]:
    return {
        "language": result.references.language,
        "kinds": list(result.references.kinds),
        "references": asdict(result.reference_words),
        "captions": {**asdict(result.plain), "cider_d": result.plain_scores.cider_d},
        "neutral": {**asdict(result.neutral), "cider_d": result.neutral_scores.cider_d},
        "kept": result.kept,
        "signature": result.plain_scores.signature,
    }
