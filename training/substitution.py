"""Other words in the same sentences: what forces a language model to read its prompt.

Captions say the same few hundred things, so a model learns to guess them and never needs to look at its
neighbours. Here a word that a caption shares with its neighbours is replaced, in all of them, by another of
the language, mostly a rare one: now it can be predicted only by copying it. Which is what the service needs
when a datastore names things that no training caption does.
"""

import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from models.language.vocabulary import Vocabulary

Captions = list[list[int]]
Word = tuple[int, ...]
_MAX_REPLACED = 5


class WordSubstitution:
    """Replaces shared words, language by language.

    Args:
        ids: language → photo → captions as token ids.
        frequent: the most frequent words of a language, which are left alone: they are its grammar.
        least: occurrences that a word needs to serve as a replacement; fewer are mostly misspelt.
    """

    def __init__(
        self,
        ids: Mapping[str, Mapping[str, Captions]],
        tokenizer: Vocabulary,
        *,
        frequent: int = 40,
        least: int = 3,
    ) -> None:
        pieces = tokenizer.pieces()
        self._begins = [piece.startswith("▁") for piece in pieces]
        self._letters = [all(c.isalpha() or _is_mark(c) for c in piece.lstrip("▁")) for piece in pieces]
        self._replacements: dict[str, list[Word]] = {}
        self._replaceable: dict[str, frozenset[Word]] = {}
        for language, photos in ids.items():
            counts: Counter[Word] = Counter()
            for captions in photos.values():
                for caption in captions:
                    counts.update(self._words(caption, language))
            for word in [word for word in counts if not self._is_word(word)]:
                del counts[word]
            ranked = [word for word, _ in counts.most_common()]
            self._replaceable[language] = frozenset(ranked[frequent:])
            self._replacements[language] = [word for word in ranked[frequent:] if counts[word] >= least]

    def apply(
        self,
        language: str,
        learnt: Sequence[Sequence[int]],
        neighbours: Sequence[Sequence[int]],
        rng: random.Random,
    ) -> tuple[Captions, Captions]:
        """Captions to learn and their neighbours, with one to five shared words replaced in both."""
        learnt_words = [self._words(caption, language) for caption in learnt]
        neighbour_words = [self._words(caption, language) for caption in neighbours]
        shared = {word for caption in learnt_words for word in caption}
        shared &= {word for caption in neighbour_words for word in caption}
        words = sorted(shared & self._replaceable[language])
        chosen = rng.sample(words, min(len(words), rng.randint(1, _MAX_REPLACED)))
        other = {word: rng.choice(self._replacements[language]) for word in chosen}
        return _replace(learnt_words, other), _replace(neighbour_words, other)

    def _words(self, caption: Sequence[int], language: str) -> list[Word]:
        """The caption cut into words and what stands between them."""
        words: list[Word] = []
        for token in caption:
            # Chinese has no spaces, so there every piece is a word of its own.
            continues = words and language != "zh" and not self._begins[token] and self._letters[token]
            if continues and self._letters[words[-1][-1]]:
                words[-1] += (token,)
            else:
                words.append((token,))
        return words

    def _is_word(self, word: Word) -> bool:
        return all(self._letters[token] for token in word)


def _is_mark(character: str) -> bool:
    """Whether it is a vowel sign or the like: part of a word, though no letter."""
    return unicodedata.category(character).startswith("M")


def _replace(captions: Iterable[Sequence[Word]], other: Mapping[Word, Word]) -> Captions:
    return [[token for word in caption for token in other.get(word, word)] for caption in captions]
