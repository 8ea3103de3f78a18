"""Other words in the same sentences: what forces a language model to read its prompt.

Captions say the same few hundred things, so a model learns to guess them and never needs to look at its
neighbours. Here a word that a caption shares with its neighbours is replaced, in all of them, by a random
one: now it can be predicted only by copying it. Which is what the service needs when a datastore names things
that no training caption does.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from models.language.tokenizer import Tokenizer

Captions = list[list[int]]


class WordSubstitution:
    """Replaces shared words, language by language.

    Args:
        ids: language → photo → captions as token ids.
        frequent: the most frequent pieces of a language, which are left alone: they are its grammar.
        least: occurrences that a piece needs to serve as a replacement.
    """

    def __init__(
        self,
        ids: Mapping[str, Mapping[str, Captions]],
        tokenizer: Tokenizer,
        *,
        frequent: int = 300,
        least: int = 3,
    ) -> None:
        self._words: dict[str, list[int]] = {}
        for language, photos in ids.items():
            counts: Counter[int] = Counter()
            for captions in photos.values():
                for caption in captions:
                    counts.update(caption)
            self._words[language] = [
                token
                for token, count in counts.most_common()[frequent:]
                # Chinese has no spaces, so there every piece may be a word of its own.
                if count >= least and (language == "zh" or tokenizer.starts_word(token))
            ]
        self._sets = {language: frozenset(words) for language, words in self._words.items()}

    def apply(
        self,
        language: str,
        learnt: Sequence[Sequence[int]],
        neighbours: Sequence[Sequence[int]],
        rng: random.Random,
    ) -> tuple[Captions, Captions]:
        """Captions to learn and their neighbours, with one or two of their shared words replaced in both."""
        shared = {token for caption in learnt for token in caption}
        shared &= {token for caption in neighbours for token in caption}
        words = sorted(shared & self._sets[language])
        chosen = rng.sample(words, min(len(words), rng.choice([1, 2])))
        other = {word: rng.choice(self._words[language]) for word in chosen}
        learnt_now = [[other.get(token, token) for token in caption] for caption in learnt]
        return learnt_now, [[other.get(token, token) for token in caption] for caption in neighbours]
