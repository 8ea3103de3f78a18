"""The examples a bridge learns from: photos with prompts as the service will fill them.

Some prompts hold fewer, farther, unrelated or foreign captions or none, so that the bridge neither ignores
the neighbours nor trusts them blindly.

The photos show little of the world. So some examples borrow one: captions of a photo that we have only as
text, neighbours that fit them well, and the training photo whose own captions come nearest. They teach the
bridge to take from the neighbours what it has never seen.
"""

import random
from collections.abc import Mapping, Sequence, Set
from typing import Protocol

from models.prompts.builder import PromptBuilder
from retrieval.errors import InvalidRequestError
from training.prompt_examples import PromptExamples, TokenisedCorpus
from training.sequences import Example


class RetrievedExamples:
    """Draws photos with prompts as retrieval would fill them.

    Args:
        learnt: captions by photo.
        neighbours: captions that stand in prompts, by what `retrieved` names.
        retrieved: photo → other photos whose captions the embedder finds for it, best first.

    Raises:
        InvalidRequestError: `learnt` has none of the languages.
    """

    def __init__(
        self,
        learnt: TokenisedCorpus,
        neighbours: TokenisedCorpus,
        prompts: PromptBuilder,
        retrieved: Mapping[str, Sequence[str]],
        language_weights: Mapping[str, float],
        max_captions: int,
    ) -> None:
        self._learnt = learnt
        self._neighbours = neighbours
        self._prompts = prompts
        self._retrieved = retrieved
        self._languages = [language for language in language_weights if language in learnt.ids]
        self._weights = [language_weights[language] for language in self._languages]
        self._max_captions = max_captions
        if not self._languages:
            raise InvalidRequestError(
                f"there is no caption to learn in {', '.join(language_weights) or 'no language'}: "
                "set language_weights to languages of the captions"
            )

    def draw(self, rng: random.Random, bare_share: float = 0.0) -> Example:
        """One example; depends on the arguments alone. `bare_share` of them have no neighbours on purpose."""
        language = rng.choices(self._languages, self._weights)[0]
        photo = rng.choice(self._learnt.photos[language])
        own = self._learnt.ids[language][photo]
        learnt = rng.sample(own, min(self._max_captions, len(own)))
        neighbours = [] if rng.random() < bare_share else self._draw_neighbours(language, photo, rng)
        prompt = self._prompts.build_from_ids(language, neighbours)
        return Example(photo, prompt, learnt)

    def _draw_neighbours(self, language: str, photo: str, rng: random.Random) -> list[list[int]]:
        count = rng.choices([0, 1, 2, 3, 4], [0.08, 0.05, 0.05, 0.07, 0.75])[0]
        kind = rng.random()
        if kind < 0.07:
            language = rng.choice(self._languages)  # a datastore that lacks the asked language
        photos = self._neighbours.ids[language]
        if kind > 0.92:
            sources = [rng.choice(self._neighbours.photos[language]) for _ in range(count)]
        else:
            ranked = [other for other in self._retrieved[photo] if other in photos]
            # The best few as they come, or a sample from farther down: datastores differ in what they hold.
            depth = rng.choices([count, 6, 12, len(ranked)], [0.4, 0.25, 0.2, 0.15])[0]
            window = ranked[: max(depth, count)]
            sources = [window[i] for i in sorted(rng.sample(range(len(window)), min(count, len(window))))]
            if len(sources) > 1 and rng.random() < 0.3:  # two captions of one scene
                sources[1] = sources[0]
        return [rng.choice(photos[source]) for source in sources]


class BorrowedExamples:
    """Draws captions known only as text, with their prompts and the training photo nearest to them."""

    def __init__(self, texts: PromptExamples, near: Mapping[str, Sequence[str]], photos: Set[str]) -> None:
        self._texts = texts
        self._nearest = {
            text: next((other for other in others if other in photos), None) for text, others in near.items()
        }
        if not any(self._nearest.values()):
            raise InvalidRequestError("no text is near a training photo: make `near` from both caption files")

    def draw(self, rng: random.Random) -> Example:
        """One example; depends on `rng` alone."""
        while True:
            example = self._texts.draw(rng)
            photo = self._nearest.get(example.image_id)
            if photo is not None:
                return Example(photo, example.prompt, example.captions)


class Mixture(Protocol):
    """What of a recipe says how the examples are mixed."""

    @property
    def bare_pools(self) -> int: ...
    @property
    def bare_share(self) -> float: ...
    @property
    def borrowed_share(self) -> float: ...


class BridgeExamples:
    """What the bridge learns from: bare prompts at first, then also borrowed photos."""

    def __init__(
        self, retrieved: RetrievedExamples, borrowed: BorrowedExamples | None, mixture: Mixture
    ) -> None:
        self._retrieved = retrieved
        self._borrowed = borrowed
        self._mixture = mixture

    def draw(self, rng: random.Random, pool: int) -> Example:
        """One example of a pool; depends on the arguments alone."""
        bare = pool < self._mixture.bare_pools
        if self._borrowed and not bare and rng.random() < self._mixture.borrowed_share:
            return self._borrowed.draw(rng)
        return self._retrieved.draw(rng, self._mixture.bare_share if bare else 0.0)
