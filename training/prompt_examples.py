"""Training examples in the prompt's form, from text alone: what teaches the language model to use neighbours.

A frozen language model can only use retrieved captions if its own training taught it to. So its examples look
like what it will be asked: neighbours that are other captions of the same photo or captions of photos near by
meaning, at times unrelated ones, in another language, or none; and then the captions themselves.
"""

import random
from collections.abc import Callable, Mapping, Sequence

from models.prompts.builder import PromptBuilder
from training.corpus import CaptionCorpus
from training.sequences import Example
from training.substitution import WordSubstitution

MAX_CAPTION_TOKENS = 40

Tokenise = Callable[[Sequence[str]], list[list[int]]]


class TokenisedCorpus:
    """A corpus as token ids; captions longer than `MAX_CAPTION_TOKENS` are left out."""

    def __init__(self, corpus: CaptionCorpus, tokenise: Tokenise) -> None:
        self.ids: dict[str, dict[str, list[list[int]]]] = {}
        for language, photos in corpus.texts.items():
            flat = tokenise([text for captions in photos.values() for text in captions])
            start = 0
            self.ids[language] = {}
            for photo, captions in photos.items():
                kept = [ids for ids in flat[start : start + len(captions)] if len(ids) <= MAX_CAPTION_TOKENS]
                start += len(captions)
                if kept:
                    self.ids[language][photo] = kept
        self.photos = {language: list(photos) for language, photos in self.ids.items()}


class PromptExamples:
    """Draws examples: a language, a photo, some of its captions to learn, and neighbours for the prompt.

    Args:
        near: photo → photos whose captions are near in meaning, nearest first.
        max_captions: captions learnt in one row.
        substituted_share: of the examples, have shared words replaced (training/substitution.py).
    """

    def __init__(
        self,
        corpus: TokenisedCorpus,
        prompts: PromptBuilder,
        near: Mapping[str, Sequence[str]],
        language_weights: Mapping[str, float],
        max_captions: int,
        substituted_share: float = 0.0,
    ) -> None:
        self._corpus = corpus
        self._prompts = prompts
        self._near = near
        self._languages = [language for language in language_weights if language in corpus.ids]
        self._weights = [language_weights[language] for language in self._languages]
        self._max_captions = max_captions
        self._substituted_share = substituted_share
        self._substitution = WordSubstitution(corpus.ids, prompts.tokenizer) if substituted_share else None

    def draw(self, rng: random.Random) -> Example:
        """One example; depends on `rng` alone."""
        language = rng.choices(self._languages, self._weights)[0]
        photos = self._corpus.ids[language]
        photo = rng.choice(self._corpus.photos[language])
        own = rng.sample(photos[photo], len(photos[photo]))
        count = rng.choices([0, 1, 2, 3, 4], [0.12, 0.06, 0.06, 0.06, 0.70])[0]
        # At least one caption stays to be learnt; those beyond `max_captions` are there to be neighbours.
        learnt = own[: max(1, min(self._max_captions, len(own) - 1))]
        same = own[len(learnt) :]
        kind = rng.random()
        if kind < 0.10:
            pool = [rng.choice(photos[rng.choice(self._corpus.photos[language])]) for _ in range(count)]
        elif kind < 0.20:
            pool = self._foreign_captions(photo, count, rng)
        else:
            share_same = 0.0 if kind < 0.55 else rng.choice([0.25, 0.5, 1.0])
            near = self._near_captions(language, photo, rng)
            pool = []
            while len(pool) < count and (same or near):
                source = same if same and (not near or rng.random() < share_same) else near
                pool.append(source.pop())
        neighbours = [caption for caption in pool if caption not in learnt]
        if self._substitution is not None and rng.random() < self._substituted_share:
            learnt, neighbours = self._substitution.apply(language, learnt, neighbours, rng)
        prompt = self._prompts.build_from_ids(language, neighbours)
        return Example(photo, prompt, learnt, learn_prompt=True)

    def _near_captions(self, language: str, photo: str, rng: random.Random) -> list[list[int]]:
        photos = self._corpus.ids[language]
        captions = [rng.choice(photos[other]) for other in self._near.get(photo, ()) if other in photos]
        nearest = captions[:8]
        rng.shuffle(nearest)
        return nearest

    def _foreign_captions(self, photo: str, count: int, rng: random.Random) -> list[list[int]]:
        """What a datastore without the asked language falls back to: captions in whatever it has."""
        language = rng.choice(self._languages)
        photos = self._corpus.ids[language]
        sources = [other for other in [photo, *self._near.get(photo, ())] if other in photos]
        return [rng.choice(photos[other]) for other in rng.sample(sources[:8], min(count, len(sources[:8])))]
