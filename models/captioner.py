"""The facade: images and languages in, captions out.

Every image is encoded once, whatever the number of languages: the same pass gives the visual tokens and the
query for retrieval. All images and languages of a call are generated as batches. It decodes no files.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models.captions import Alternative, Caption, CaptionResult, CaptionSettings, ImageCaptions, WordAttention
from models.explanation import explain
from models.fusion.bridge import Bridge
from models.generation import GenerationSettings, Hypothesis, generate
from models.language.decoding import LanguageModel
from models.lengths import choose, within
from models.manifest import GenerationDefaults
from models.matching import CaptionMatcher
from models.neighbour_cache import Copying
from models.neutral.lexicon import load_lexicons
from models.neutral.neighbours import neutral_first
from models.neutral.token_texts import TokenTexts
from models.neutral.wording import NeutralRows, NeutralWording
from models.photo_embedding import IMAGES_AT_ONCE, PhotoEmbedder
from models.photo_matching import PhotoMatcher, trust
from models.prompts.builder import PromptBuilder
from models.vision.encoder import VisionEncoder
from models.vision.features import VisionFeatures
from retrieval.datastore import Datastore, Neighbour
from retrieval.embedder import Queries, QueryEmbedder
from retrieval.errors import DatastoreError, InvalidRequestError
from retrieval.languages import display_name, match

_ROWS_AT_ONCE = 64  # captions generated together


@dataclass(frozen=True)
class _Written:
    """A hypothesis as text."""

    hypothesis: Hypothesis
    text: str  # as it is shown
    confidence: float
    cut: bool = False  # it was longer


class Captioner:
    """All parts of a bundle, loaded.

    Attributes:
        bundle_name, revision: which bundle this is.
        languages: codes it can write.
        datastore: where neighbours come from.
    """

    def __init__(
        self,
        *,
        bundle_name: str,
        revision: str,
        languages: tuple[str, ...],
        vision: VisionEncoder,
        embedder: QueryEmbedder,
        datastore: Datastore,
        prompts: PromptBuilder,
        language_model: LanguageModel,
        bridge: Bridge[Any],
        defaults: GenerationDefaults,
        matcher: CaptionMatcher | None = None,
    ) -> None:
        self.bundle_name = bundle_name
        self.revision = revision
        self.languages = languages
        self.datastore = datastore
        self._vision = vision
        self._embedder = embedder
        self._prompts = prompts
        self._language_model = language_model
        self._bridge = bridge
        self._defaults = defaults
        self._matcher = matcher
        self._token_texts = TokenTexts(prompts.tokenizer)
        self._wordings: dict[str, NeutralWording] = {}  # by language, made when first needed

    def caption(self, images: Sequence[Image.Image], settings: CaptionSettings) -> CaptionResult:
        """Caption every image in every language of the settings; otherwise as `caption_each`."""
        return self.caption_each(images, [settings.languages] * len(images), settings)

    def caption_each(
        self,
        images: Sequence[Image.Image],
        languages: Sequence[Sequence[str]],
        settings: CaptionSettings,
    ) -> CaptionResult:
        """Caption every image in languages of its own.

        Args:
            images: decoded photos of any size and mode.
            languages: of each image, one or more.
            settings: of all of them; their languages are not looked at.

        Raises:
            InvalidRequestError: no language, settings out of range, or one that the bundle or its language
                has nothing for.
            UnknownLanguageError: a language the bundle cannot write.
        """
        asked = [tuple(match(language, self.languages) for language in own) for own in languages]
        generation = self._generation_settings(settings)
        k = self._defaults.neighbours if settings.neighbours is None else settings.neighbours
        if not all(asked):
            raise InvalidRequestError("name at least one language")
        if k < 0:
            raise InvalidRequestError("neighbours must not be negative")
        if settings.rerank and self._matcher is None:
            raise InvalidRequestError(f"the bundle {self.bundle_name} has no matcher to rerank captions with")
        if settings.neutral:
            _check_neutral(itertools.chain.from_iterable(asked))
        timings = dict.fromkeys(("encode", "retrieve", "generate"), 0.0)
        captioned: list[ImageCaptions] = []
        for chunk in _chunks([len(own) for own in asked]):
            captioned += self._caption_chunk(images[chunk], asked[chunk], k, generation, timings, settings)
        return CaptionResult(tuple(captioned), timings)

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Query vectors of photos, as of `PhotoEmbedder`."""
        return PhotoEmbedder(self._vision, self._embedder).embed_images(images)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Query vectors of texts, as `embed_images` makes them of photos."""
        return self._embedder.embed_texts(texts)

    @property
    def count_tokens(self) -> Callable[[Sequence[str]], list[int]]:
        """Tells how many tokens each text has in the language model's vocabulary; does not hold the model."""
        return self._prompts.tokenizer.count

    def on_version(self, version: str) -> "Captioner":
        """This captioner on another version of its datastore: all other parts are shared with this one.

        Raises:
            DatastoreError: no such version, damaged, built with another embedder, or this captioner's
                datastore was opened as a single version.
        """
        root = self.datastore.root
        if root is None:
            raise DatastoreError(f"{self.datastore.folder} is a single version and has no others beside it")
        other = copy.copy(self)
        other.datastore = Datastore.open(
            root,
            embedder_id=self._embedder.id,
            dimension=self._embedder.dimension,
            version=version,
            device=self.datastore.device,
        )
        return other

    def match(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """How well each photo fits each of its own texts, as `PhotoMatcher.match` tells.

        Raises:
            InvalidRequestError: the bundle has no matcher.
        """
        if self._matcher is None:
            raise InvalidRequestError(f"the bundle {self.bundle_name} has no matcher")
        return PhotoMatcher(self._vision, self._embedder, self._matcher).match(images, texts)

    def _caption_chunk(
        self,
        images: Sequence[Image.Image],
        languages: Sequence[Sequence[str]],
        k: int,
        generation: GenerationSettings,
        timings: dict[str, float],
        settings: CaptionSettings,
    ) -> Iterator[ImageCaptions]:
        started = time.perf_counter()
        features = self._encode(images)
        encoded = time.perf_counter()
        queries = self._embed(features)
        neighbours = self._retrieve(features, queries, languages, k, settings.neutral)  # [image][language]
        retrieved = time.perf_counter()
        prompts = self._build_prompts(languages, neighbours, queries.novelty)
        counts = [len(own) for own in languages]
        wordings = self._neutral_rows(languages) if settings.neutral else None
        hypotheses = self._generate(features, prompts, counts, queries.novelty, generation, wordings)
        written = self._judge(features, queries, hypotheses, languages, settings)  # a row a prompt
        attention: list[tuple[WordAttention, ...]] = [()] * len(written)
        if settings.explain:
            best = [row[0].hypothesis.ids for row in written]
            attention = explain(
                self._language_model, self._bridge, self._prompts.tokenizer, features, counts, prompts, best
            )
            for number, (first, *_) in enumerate(written):
                if first.cut:
                    whole = self._prompts.tokenizer.decode(first.hypothesis.ids)
                    attention[number] = within(attention[number], whole, first.text)
        generated = time.perf_counter()
        for stage, seconds in (
            ("encode", encoded - started),
            ("retrieve", retrieved - encoded),
            ("generate", generated - retrieved),
        ):
            timings[stage] += 1000 * seconds
        rows = iter(zip(written, attention, strict=True))
        for own, found in zip(languages, neighbours, strict=True):
            yield ImageCaptions(
                tuple(
                    Caption(
                        language,
                        best.text,
                        best.confidence,
                        tuple(Alternative(other.text, other.confidence) for other in others),
                        tuple(retrieved_here),
                        words,
                        sum(len(one.hypothesis.ids) for one in (best, *others)),
                    )
                    for language, retrieved_here in zip(own, found, strict=True)
                    for (best, *others), words in [next(rows)]
                )
            )

    @torch.inference_mode()
    def _encode(self, images: Sequence[Image.Image]) -> VisionFeatures:
        return self._vision.encode(images)

    def _embed(self, features: VisionFeatures) -> Queries:
        return self._embedder.embed_pooled(features.pooled, features.class_logits)

    def _retrieve(
        self,
        features: VisionFeatures,
        queries: Queries,
        languages: Sequence[Sequence[str]],
        k: int,
        neutral: bool,
    ) -> list[list[list[Neighbour]]]:
        if k == 0:
            return [[[] for _ in own] for own in languages]
        lowest = min(self._defaults.min_score, self._defaults.min_score_new)
        fetched = k if self._matcher is None and not neutral else max(k, self._defaults.candidates)
        found = self.datastore.neighbours(queries.vectors, languages, fetched, min_score=lowest)
        weight, least = self._defaults.match_weight, self._least_scores(queries.novelty)
        if self._matcher is not None:
            taken = fetched if neutral else k
            found = self._matcher.rank_neighbours(
                features.tokens, trust(queries), found, taken, weight, least
            )
        if neutral:
            found = [
                [neutral_first(own, lowest)[:k] for own in per_language]
                for per_language, lowest in zip(found, least, strict=True)
            ]
        return found

    @torch.inference_mode()
    def _generate(
        self,
        features: VisionFeatures,
        prompts: Sequence[list[int]],
        counts: Sequence[int],
        novelty: NDArray[np.float32],
        generation: GenerationSettings,
        neutral: Sequence[NeutralWording] | None,
    ) -> list[list[Hypothesis]]:
        """Hypotheses of each prompt; each image has so many of them in turn."""
        model = self._language_model
        state = self._bridge.prepare(features.tokens.to(model.dtype), features.mask)
        prefix = self._bridge.prefix(state)
        longest = max(map(len, prompts)) + generation.max_new_tokens
        longest += 0 if prefix is None else prefix.shape[1]
        limit = model.config.max_positions
        if longest > limit:
            raise InvalidRequestError(
                f"prompt and caption have {longest} tokens together, more than the model's "
                f"{limit}: ask for fewer neighbours or a smaller max_tokens"
            )
        rows = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(model.device)
        # The less a photo is like those the bridge was trained on, the more of the neighbours' words.
        copied = (self._defaults.copy_weight * novelty).repeat(counts).tolist()
        hypotheses: list[list[Hypothesis]] = []
        for start in range(0, len(prompts), _ROWS_AT_ONCE):  # more than one only for very many languages
            chunk = slice(start, start + _ROWS_AT_ONCE)
            hypotheses += generate(
                model,
                prompts[chunk],
                generation,
                bridge=self._bridge,
                bridge_state=state.select(rows[chunk]),
                copying=self._copying(prompts[chunk], copied[chunk]),
                neutral=None if neutral is None else NeutralRows(neutral[chunk]),
            )
        return hypotheses

    def _build_prompts(
        self,
        languages: Sequence[Sequence[str]],
        neighbours: Sequence[Sequence[Sequence[Neighbour]]],
        novelty: NDArray[np.float32],
    ) -> list[list[int]]:
        """The prompt of each language of each image in turn."""
        least = self._least_scores(novelty)
        return [
            self._prompts.build(language, [n.text for n in found if n.score >= least_here])
            for own, per_language, least_here in zip(languages, neighbours, least, strict=True)
            for language, found in zip(own, per_language, strict=True)
        ]

    def _least_scores(self, novelty: NDArray[np.float32]) -> list[float]:
        """The cosine under which a photo's neighbours are not read."""
        # Neighbours that fit badly mislead; of a photo unlike those the bridge knows they still tell more.
        familiar, new = self._defaults.min_score, self._defaults.min_score_new
        least: list[float] = (familiar + (new - familiar) * novelty).tolist()
        return least

    def _copying(self, prompts: Sequence[list[int]], weights: Sequence[float]) -> Copying | None:
        if not any(weights):  # most photos are familiar
            return None
        return Copying([self._prompts.continuations(prompt) for prompt in prompts], weights)

    def _neutral_rows(self, languages: Sequence[Sequence[str]]) -> list[NeutralWording]:
        """The wording of each language of each image in turn."""
        for language in set(itertools.chain.from_iterable(languages)) - self._wordings.keys():
            self._wordings[language] = NeutralWording(self._token_texts, load_lexicons()[language])
        return [self._wordings[language] for own in languages for language in own]

    def _judge(
        self,
        features: VisionFeatures,
        queries: Queries,
        hypotheses: Sequence[Sequence[Hypothesis]],
        languages: Sequence[Sequence[str]],
        settings: CaptionSettings,
    ) -> list[list[_Written]]:
        """Each row's captions with their confidence, at most `num_captions`."""
        rows = [
            self._as_shown(row, language, settings.max_length)
            for row, language in zip(hypotheses, itertools.chain.from_iterable(languages), strict=True)
        ]
        if self._matcher is not None:
            left = iter(rows)
            by_image = [
                [one.text for row in itertools.islice(left, len(own)) for one in row] for own in languages
            ]
            logits = itertools.chain.from_iterable(
                self._matcher.logits(features.tokens, by_image, trust(queries))
            )
            confidences = [torch.tensor([next(logits) for _ in row]).sigmoid().tolist() for row in rows]
            rows = [
                [replace(one, confidence=confidence) for one, confidence in zip(*pair, strict=True)]
                for pair in zip(rows, confidences, strict=True)
            ]
        if settings.rerank:
            for row in rows:
                # Stable, and to the hundredth: what the matcher cannot tell stays in order of likelihood.
                row.sort(key=lambda one: (one.cut, -round(one.confidence, 2)))
        return [row[: settings.num_captions] for row in rows]

    def _as_shown(
        self, hypotheses: Sequence[Hypothesis], language: str, max_length: int | None
    ) -> list[_Written]:
        """The captions of a row, those that need no cutting first; the confidence is that of their words."""
        texts = [self._prompts.tokenizer.decode(hypothesis.ids) for hypothesis in hypotheses]
        shown = list(enumerate(texts)) if max_length is None else choose(texts, max_length, language)
        return [
            _Written(hypotheses[index], text, _likelihood(hypotheses[index]), cut=text != texts[index])
            for index, text in shown
        ]

    def _generation_settings(self, settings: CaptionSettings) -> GenerationSettings:
        defaults, special = self._defaults, self._prompts.tokenizer.special
        chosen = GenerationSettings(
            max_new_tokens=defaults.max_tokens if settings.max_tokens is None else settings.max_tokens,
            min_new_tokens=defaults.min_tokens if settings.min_tokens is None else settings.min_tokens,
            beams=defaults.beams if settings.beams is None else settings.beams,
            num_captions=settings.num_captions,
            length_penalty=defaults.length_penalty,
            no_repeat_ngram=defaults.no_repeat_ngram,
            temperature=settings.temperature,
            top_p=GenerationSettings.top_p if settings.top_p is None else settings.top_p,
            seed=settings.seed,
            end=special.end,
            never=special.never,
        )
        if settings.rerank or settings.max_length is not None:
            chosen = replace(chosen, num_captions=chosen.width)
        if chosen.max_new_tokens < 1 or chosen.beams < 1 or chosen.num_captions < 1:
            raise InvalidRequestError("max_tokens, beams and num_captions must be at least 1")
        if settings.max_length is not None and settings.max_length < 1:
            raise InvalidRequestError("max_length must be at least 1")
        if chosen.temperature is not None and not chosen.temperature > 0:
            raise InvalidRequestError("temperature must be above 0; leave it out for beam search")
        if not 0 < chosen.top_p <= 1:
            raise InvalidRequestError("top_p must be above 0 and at most 1")
        return chosen


def _chunks(counts: Sequence[int]) -> Iterator[slice]:
    """Images, each with so many captions, in runs that are not too large to be worked on together."""
    start = rows = 0
    for number, count in enumerate(counts):
        if number > start and (number - start == IMAGES_AT_ONCE or rows + count > _ROWS_AT_ONCE):
            yield slice(start, number)
            start, rows = number, 0
        rows += count
    if start < len(counts):
        yield slice(start, len(counts))


def _check_neutral(languages: Iterable[str]) -> None:
    known = load_lexicons()
    missing = sorted(set(languages) - known.keys())
    if missing:
        raise InvalidRequestError(
            f"neutral has no words yet for {', '.join(map(display_name, missing))}: there are some for "
            f"{', '.join(known)}; leave it out for others"
        )


def _likelihood(hypothesis: Hypothesis) -> float:
    """The geometric mean of the tokens' probabilities: how sure the model was of its words, in (0, 1]."""
    return math.exp(hypothesis.log_probability / max(1, hypothesis.length))
