"""Does the matcher know which caption fits? Re-ranked retrieval, foils and calibration, on the same photos.

What the matcher says is held against the embedder alone, because that is what is there without it. No
datastore is involved and no caption is written.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from evaluation.bootstrap import Interval, bootstrap_ratio
from evaluation.calibration import Calibration, Reliability, measure_calibration, reliability
from evaluation.foils import Foil, Lexicon, make_foils
from evaluation.references import Photo, Progress, References, open_photo
from evaluation.retrieval import (
    EmbedsImages,
    EmbedsTexts,
    FloatVectors,
    embed_photos,
    own_ranks,
    recall_of_ranks,
)

RERANKED = 20  # captions of a photo that are ranked anew, best first
_HARD = 5  # foreign captions, best first, that a hard pair is drawn from
_ROWS = 256  # photos searched at once, which bounds the memory of the score matrix
_EXAMPLES = 2

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def _silent(description: str, photos: Sequence[Photo]) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda done: None)


class MatchesPhotos(EmbedsImages, Protocol):
    """The part of `models.photo_matching.PhotoMatcher` that is used."""

    def match(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Logit of each image with each of its own texts; InvalidRequestError if there is no matcher."""


@dataclass(frozen=True)
class Reranking:
    """Recall before and after. `gain` is the difference of recall@1."""

    photos: int
    captions: int
    before: Mapping[int, float]
    after: Mapping[int, float]
    gain: Interval


@dataclass(frozen=True)
class FoilAccuracy:
    """Share of pairs in which the true caption scores higher than its foil."""

    pairs: int
    matcher: Interval
    embedder: Interval
    examples: tuple[Foil, ...]


@dataclass(frozen=True)
class Judged:
    """All measures of one language, or of all together. `foils` is None if there is no pair."""

    retrieval: Reranking
    foils: FoilAccuracy | None
    calibration: Calibration


@dataclass(frozen=True)
class LanguageResult:
    language: str
    kinds: tuple[str, ...]
    by_people: bool
    scores: Judged


@dataclass(frozen=True)
class MatcherResult:
    languages: Sequence[LanguageResult]
    together: Judged
    diagram: Reliability  # of the pairs of all languages


@dataclass(frozen=True)
class _Plan:
    """What is asked about the photos in one language: P photos described, M captions."""

    references: References
    rows: Integers  # (P,) which of all photos they are
    texts: Sequence[str]  # (M,)
    owner: Integers  # (M,) 0…P-1
    vectors: FloatVectors  # (M, E)
    ranks: Integers  # (P,) foreign captions that the embedder ranks before the best own one
    nearest: Integers  # (P, K) the embedder's best captions, best first
    foils: Sequence[tuple[int, Foil]]  # with the photo's row
    pairs: Sequence[tuple[int, str, bool]]  # row, caption, is it the photo's own?


@dataclass(frozen=True)
class _Findings:
    """What came out, case by case, in one language."""

    rows: Integers  # (P,)
    captions: int
    before: Integers  # (P,) ranks
    after: Integers  # (P,)
    foils: Sequence[tuple[int, Foil]]  # F of them
    foil_matcher: Flags  # (F,) was the true caption higher?
    foil_embedder: Flags  # (F,)
    probabilities: Floats  # (N,)
    labels: Flags  # (N,)


def evaluate_matcher(
    matcher: MatchesPhotos,
    embedder: EmbedsTexts,
    photos: Sequence[Photo],
    references: Mapping[str, References],
    lexicons: Mapping[str, Lexicon],
    *,
    match_weight: float,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress = _silent,
) -> MatcherResult:
    """Measure a matcher on photos with reference captions.

    Every pair of a photo and a text is scored once, whatever it is needed for.

    Args:
        references: by language; only photos that have a caption in a language take part in it.
        lexicons: by language; a language without one has no foils.
        match_weight: of the logit beside the cosine, when captions are ranked anew.
        progress: opened for each stage; gives what is called with the number of photos just done.

    Raises:
        InvalidImageError: a photo is missing or cannot be decoded.
    """
    with progress("embedding photos", photos) as advance:
        vectors = embed_photos(matcher, photos, batch_size=batch_size, advance=advance)
    plans = [
        _plan(photos, vectors, embedder, captions, lexicons.get(language), seed)
        for language, captions in references.items()
    ]
    with progress("matching photos", photos) as advance:
        logits = _match(matcher, photos, plans, batch_size, advance)
    found = [_find(plan, vectors, embedder, logits, match_weight) for plan in plans]
    results = [
        LanguageResult(
            plan.references.language,
            plan.references.kinds,
            plan.references.by_people,
            _judge([findings], len(photos), seed),
        )
        for plan, findings in zip(plans, found, strict=True)
    ]
    probabilities = np.concatenate([findings.probabilities for findings in found])
    labels = np.concatenate([findings.labels for findings in found])
    return MatcherResult(results, _judge(found, len(photos), seed), reliability(probabilities, labels))


def _plan(
    photos: Sequence[Photo],
    vectors: FloatVectors,
    embedder: EmbedsTexts,
    references: References,
    lexicon: Lexicon | None,
    seed: int,
) -> _Plan:
    rows = np.array([row for row, photo in enumerate(photos) if photo.image_id in references.texts])
    captions = {photos[row].image_id: references.texts[photos[row].image_id] for row in rows}
    texts = [text for group in captions.values() for text in group]
    owner = np.repeat(np.arange(len(rows)), [len(group) for group in captions.values()])
    text_vectors = embedder.embed_texts(texts)
    nearest = _nearest(vectors[rows], text_vectors, owner)
    foils: list[Foil] = []
    if lexicon is not None:
        foils = make_foils(lexicon, captions, language=references.language, seed=seed)
    row_of = dict(zip(captions, rows.tolist(), strict=True))
    pairs: list[tuple[int, str, bool]] = []
    text_ids = np.unique(texts, return_inverse=True)[1]
    for place, image_id in enumerate(captions):
        rng = random.Random(f"{seed}/{references.language}/{image_id}")
        row, own = row_of[image_id], text_ids[owner == place]
        pairs.append((row, rng.choice(captions[image_id]), True))
        # Somebody may have said the very same of two photos: that is no wrong caption.
        foreign = np.flatnonzero(~np.isin(text_ids, own))
        hard = [text for text in nearest[place].tolist() if text_ids[text] not in own][:_HARD]
        drawn_from = hard if place % 2 and hard else foreign.tolist()
        if drawn_from:
            pairs.append((row, texts[rng.choice(drawn_from)], False))
    return _Plan(
        references,
        rows,
        texts,
        owner,
        text_vectors,
        own_ranks(vectors[rows], text_vectors, owner),
        nearest,
        [(row_of[foil.image_id], foil) for foil in foils],
        pairs,
    )


def _nearest(image_vectors: FloatVectors, text_vectors: FloatVectors, owner: Integers) -> Integers:
    """The best captions (P, K) of each photo; of equals, foreign ones first, as `recall_at_k` counts."""
    blocks = []
    for start in range(0, len(image_vectors), _ROWS):
        scores = image_vectors[start : start + _ROWS] @ text_vectors.T  # (b, M)
        own = owner[None, :] == np.arange(start, start + len(scores))[:, None]
        blocks.append(np.lexsort((own, -scores), axis=1)[:, :RERANKED])
    return np.concatenate(blocks)


def _match(
    matcher: MatchesPhotos,
    photos: Sequence[Photo],
    plans: Sequence[_Plan],
    batch_size: int,
    advance: Callable[[int], None],
) -> list[dict[str, float]]:
    """Of each photo, the logits of all texts that any plan asks about."""
    wanted: list[dict[str, float]] = [{} for _ in photos]
    for plan in plans:
        for row, near in zip(plan.rows.tolist(), plan.nearest.tolist(), strict=True):
            wanted[row].update((plan.texts[number], 0.0) for number in near)
        for row, foil in plan.foils:
            wanted[row].update({foil.caption: 0.0, foil.foil: 0.0})
        for row, text, _ in plan.pairs:
            wanted[row][text] = 0.0
    for start in range(0, len(photos), batch_size):
        batch = wanted[start : start + batch_size]
        images = [open_photo(photo) for photo in photos[start : start + batch_size]]
        for texts, logits in zip(batch, matcher.match(images, [list(own) for own in batch]), strict=True):
            texts.update(zip(list(texts), logits, strict=True))
        advance(len(batch))
    return wanted


def _find(
    plan: _Plan,
    vectors: FloatVectors,
    embedder: EmbedsTexts,
    logits: Sequence[Mapping[str, float]],
    match_weight: float,
) -> _Findings:
    after = plan.ranks.copy()
    for place, (row, near) in enumerate(zip(plan.rows.tolist(), plan.nearest, strict=True)):
        own = plan.owner[near] == place
        if own.any():
            matched = np.array([logits[row][plan.texts[number]] for number in near])
            keys = plan.vectors[near] @ vectors[row] + match_weight * matched
            after[place] = (keys[~own] >= keys[own].max()).sum()
    true, false = _foil_cosines(plan, vectors, embedder)
    matcher = [logits[row][foil.caption] > logits[row][foil.foil] for row, foil in plan.foils]
    confidences = np.array([logits[row][text] for row, text, _ in plan.pairs])
    return _Findings(
        plan.rows,
        len(plan.texts),
        plan.ranks,
        after,
        plan.foils,
        np.array(matcher, dtype=np.bool_),
        true > false,
        1 / (1 + np.exp(-np.clip(confidences, -700, 700))),  # beyond that, exp overflows
        np.array([label for _, _, label in plan.pairs]),
    )


def _foil_cosines(
    plan: _Plan, vectors: FloatVectors, embedder: EmbedsTexts
) -> tuple[FloatVectors, FloatVectors]:
    """Cosines (F,) of the photos with the captions and with their foils."""
    if not plan.foils:
        return np.empty(0, np.float32), np.empty(0, np.float32)
    images = vectors[[row for row, _ in plan.foils]]  # (F, E)
    number = {text: i for i, text in enumerate(plan.texts)}
    captions = plan.vectors[[number[foil.caption] for _, foil in plan.foils]]
    foils = embedder.embed_texts([foil.foil for _, foil in plan.foils])
    return (images * captions).sum(axis=1), (images * foils).sum(axis=1)


def _judge(found: Sequence[_Findings], photos: int, seed: int) -> Judged:
    """The measures of some languages together, each case counting alike."""
    rows = np.concatenate([findings.rows for findings in found])
    before = np.concatenate([findings.before for findings in found])
    after = np.concatenate([findings.after for findings in found])
    gained = (after < 1).astype(np.float64) - (before < 1)
    retrieval = Reranking(
        len(np.unique(rows)),
        sum(findings.captions for findings in found),
        recall_of_ranks(before),
        recall_of_ranks(after),
        _interval(rows, gained, photos, seed),
    )
    pairs = [pair for findings in found for pair in findings.foils]
    foils = None
    if pairs:
        foil_rows = np.array([row for row, _ in pairs])
        by_matcher = np.concatenate([findings.foil_matcher for findings in found])
        by_embedder = np.concatenate([findings.foil_embedder for findings in found])
        # From the first photo and from the middle: two captions of one photo would show less.
        examples = tuple(pairs[number][1] for number in sorted({0, len(pairs) // _EXAMPLES}))
        foils = FoilAccuracy(
            len(pairs),
            _interval(foil_rows, by_matcher, photos, seed),
            _interval(foil_rows, by_embedder, photos, seed),
            examples,
        )
    probabilities = np.concatenate([findings.probabilities for findings in found])
    labels = np.concatenate([findings.labels for findings in found])
    return Judged(retrieval, foils, measure_calibration(probabilities, labels))


def _interval(rows: Integers, values: npt.NDArray[np.generic], photos: int, seed: int) -> Interval:
    """The mean of some cases; `rows` says which photo each is of."""
    counts = np.bincount(rows, minlength=photos)
    totals = np.bincount(rows, values.astype(np.float64), photos).astype(np.float64)
    some = counts > 0
    return bootstrap_ratio(totals[some], counts[some], seed=seed)
