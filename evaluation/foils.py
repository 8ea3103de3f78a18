"""Foils: a caption with one noun replaced by another of the same kind, so that it is wrong of its photo.

After Shekhar et al., FOIL it!, ACL 2017. Which nouns may replace one another is data:
`foil_nouns.toml`, whose first lines explain it. Knows no model.
"""

import random
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from itertools import groupby
from typing import Any

from evaluation.tokenisation import CHARACTER_LANGUAGES

_HYPHENS = "-‐‑"
Token = tuple[int, str]  # where it starts, and its text


@dataclass(frozen=True)
class Foil:
    """A caption and what became of it."""

    image_id: str
    caption: str
    foil: str
    noun: str
    replaced_by: str


@dataclass(frozen=True)
class Thing:
    """What some nouns name alike. Things are told apart by identity."""

    forms: Mapping[str, frozenset[str]]  # each noun → the grammatical forms it may be
    also: frozenset[str]  # other words that tell it may be in the photo

    @cached_property
    def tells(self) -> frozenset[str]:
        return frozenset(word.lower() for word in {*self.forms, *self.also})


class Lexicon:
    """The nouns of one language.

    Args:
        kinds: things that may replace one another.
        leave: phrases whose nouns stay, as tokens.
        compounds: does a word that ends in a noun name its thing, too?
        characters: is the language written without spaces?
    """

    def __init__(
        self,
        kinds: Mapping[str, Sequence[Thing]],
        *,
        leave: Iterable[str] = (),
        compounds: bool = False,
        characters: bool = False,
    ) -> None:
        self.kinds = kinds
        self._compounds = compounds
        self._things: dict[str, tuple[Thing, Sequence[Thing]]] = {}  # noun → its thing, all of that kind
        for things in kinds.values():
            for thing in things:
                for noun in thing.forms:
                    if noun in self._things:
                        raise ValueError(f"{noun} is in the lexicon twice")
                    self._things[noun] = (thing, things)
        also = {word for things in kinds.values() for thing in things for word in thing.also}
        self._segments = {*self._things, *also, *leave} if characters else None
        self._longest = max(map(len, self._segments or {""}))
        self._leave = [[text for _, text in self.tokens(phrase.lower())] for phrase in leave]

    def tokens(self, text: str) -> list[Token]:
        """Words; in a language written without spaces, the longest words of the lexicon, else characters."""
        if self._segments is None:
            parts = groupby(enumerate(text), key=lambda at: _is_word(at[1]))
            runs = [list(run) for inside, run in parts if inside]
            return [(run[0][0], "".join(character for _, character in run)) for run in runs]
        found, start = [], 0
        while start < len(text):
            lengths = range(min(self._longest, len(text) - start), 1, -1)
            length = next((n for n in lengths if text[start : start + n] in self._segments), 1)
            found.append((start, text[start : start + length]))
            start += length
        return found

    def foil(
        self, caption: str, references: Iterable[str], rng: random.Random
    ) -> tuple[str, str, str] | None:
        """A foil of a caption with the noun and what replaced it; None if no noun can be replaced.

        The noun's thing is named once in the caption, and the other thing in none of the references.
        """
        caption = unicodedata.normalize("NFC", caption)
        tokens = self.tokens(caption)
        nouns = [self._lookup(text) for _, text in tokens]
        named = self._named([caption, *references])
        choices: list[tuple[Token, list[list[str]]]] = []
        for token, noun, left in zip(tokens, nouns, self._left(tokens), strict=True):
            if noun is None or left:
                continue
            thing, kind = self._things[noun]
            if sum(other in thing.forms for other in nouns if other) > 1:
                continue  # "a black dog and a brown dog" would be right of the other dog
            replacements = [
                sorted(word for word, forms in other.forms.items() if forms >= thing.forms[noun])
                for other in kind
                if other is not thing and not self._is_named(other, named)
            ]
            if replacements := [words for words in replacements if words]:
                choices.append((token, replacements))
        if not choices:
            return None
        (start, noun_text), replacements = rng.choice(choices)
        word = rng.choice(rng.choice(replacements))
        if noun_text[0].isupper():
            word = word[0].upper() + word[1:]
        return caption[:start] + word + caption[start + len(noun_text) :], noun_text, word

    def _lookup(self, text: str) -> str | None:
        """The noun that a token is, at a sentence's start with a capital."""
        if text in self._things:
            return text
        lowered = text[0].lower() + text[1:]
        return lowered if lowered in self._things else None

    def _left(self, tokens: Sequence[Token]) -> list[bool]:
        """Which tokens are part of a phrase that stays."""
        words = [text.lower() for _, text in tokens]
        left = [False] * len(words)
        for phrase in self._leave:
            for start in range(len(words) - len(phrase) + 1):
                if words[start : start + len(phrase)] == phrase:
                    left[start : start + len(phrase)] = [True] * len(phrase)
        return left

    def _named(self, texts: Iterable[str]) -> set[str]:
        normal = [unicodedata.normalize("NFC", text).lower() for text in texts]
        if self._segments is not None:
            return set(normal)  # a character language is searched for substrings
        return {word for text in normal for _, word in self.tokens(text)}

    def _is_named(self, thing: Thing, named: set[str]) -> bool:
        if self._segments is not None:
            return any(word in text for text in named for word in thing.tells)
        if self._compounds:
            return any(text.endswith(tuple(thing.tells)) for text in named)
        return not named.isdisjoint(thing.tells)


def make_foils(
    lexicon: Lexicon, captions: Mapping[str, Sequence[str]], *, language: str, seed: int = 0
) -> list[Foil]:
    """A foil of every caption that has one. A caption's foil does not depend on what other photos there are.

    Args:
        captions: all captions of each photo in the language, by image id.
    """
    foils = []
    for image_id, texts in captions.items():
        for text in dict.fromkeys(texts):
            found = lexicon.foil(text, texts, random.Random(f"{seed}/{language}/{image_id}/{text}"))
            if found is not None:
                foils.append(Foil(image_id, text, *found))
    return foils


def load_lexicons() -> dict[str, Lexicon]:
    """The lexicons written for this project, by language."""
    text = resources.files(__package__).joinpath("foil_nouns.toml").read_text(encoding="utf-8")
    return {language: parse_lexicon(language, table) for language, table in tomllib.loads(text).items()}


def parse_lexicon(language: str, table: Mapping[str, Any]) -> Lexicon:
    """The lexicon of a table as `foil_nouns.toml` has for each language.

    Raises:
        ValueError: a noun is there twice.
    """
    return Lexicon(
        {kind["name"]: [_thing(row) for row in kind["rows"]] for kind in table["kinds"]},
        leave=table.get("leave", ()),
        compounds=table.get("compounds", False),
        characters=language in CHARACTER_LANGUAGES,
    )


def _thing(row: Mapping[str, str]) -> Thing:
    forms: dict[str, frozenset[str]] = {}
    for form, words in row.items():
        if form != "also":
            for word in words.split():
                forms[word] = forms.get(word, frozenset()) | {form}
    return Thing(forms, frozenset(row.get("also", "").split()))


def _is_word(character: str) -> bool:
    # Combining marks belong to a word, or a vowel sign would end it; "T-shirt" is one word, "dog's" two.
    return unicodedata.category(character)[0] in "LMN" or character in _HYPHENS
