"""Words for people, by language: those that say man or woman, and those that do not (words.toml).

It finds them in texts, for evaluation and for choosing neighbours; how a language model is kept from writing
them is models/neutral/wording.py's work. It knows words only, no grammar.
"""

import tomllib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any

import regex

WORD = regex.compile(r"[\p{L}\p{M}]+")
# Arabic vowel signs and the stroke that only widens a word: mostly left out, and never another word.
_UNWRITTEN = regex.compile(r"[\u0640\u064B-\u0652\u0670]")


@dataclass(frozen=True)
class WordGroup:
    """Gendered words, and those for anybody that can stand for them."""

    gendered: frozenset[str]
    anybody: frozenset[str]


@dataclass(frozen=True)
class Lexicon:
    """The words of one language, all of them as `fold` makes them."""

    language: str
    groups: tuple["WordGroup", ...]
    other: frozenset[str]  # more words for people, neither gendered nor offered instead
    cased: bool = False  # upper and lower case are different words
    spaces: bool = True  # between words
    feminine: frozenset[str] = frozenset()  # words for anybody that cannot follow one of `masculine`
    masculine: frozenset[str] = frozenset()
    unless: frozenset[str] = frozenset()  # without spaces: words that only look as if they held one of these

    @cached_property
    def gendered(self) -> frozenset[str]:
        return frozenset().union(*(group.gendered for group in self.groups))

    @cached_property
    def people(self) -> frozenset[str]:
        """All words for people, gendered or not."""
        return self.other.union(self.gendered, *(group.anybody for group in self.groups))

    def fold(self, text: str) -> str:
        """A text as words are compared: without what makes no difference here."""
        text = _UNWRITTEN.sub("", unicodedata.normalize("NFC", text))
        return text if self.cased else text.casefold()

    def gendered_in(self, text: str) -> list[str]:
        """The gendered words of a text, folded, in order."""
        return [word for word in self._words(text, self.gendered) if word in self.gendered]

    def people_in(self, text: str) -> list[str]:
        """All words for people of a text, gendered or not, folded, in order."""
        return [word for word in self._words(text, self.people) if word in self.people]

    def _words(self, text: str, wanted: frozenset[str]) -> Iterator[str]:
        pattern = WORD if self.spaces else _any_of(wanted | self.unless)
        return (found.group() for found in pattern.finditer(self.fold(text)))


@lru_cache(maxsize=1)
def load_lexicons() -> dict[str, Lexicon]:
    """The lexicons shipped with the package, by language code."""
    text = resources.files(__package__).joinpath("words.toml").read_text(encoding="utf-8")
    return {language: _lexicon(language, entry) for language, entry in tomllib.loads(text).items()}


def _lexicon(language: str, entry: dict[str, Any]) -> Lexicon:
    cased, spaces = entry.get("cased", False), entry.get("spaces", True)
    empty = Lexicon(language, (), frozenset(), cased, spaces)

    def forms(name: str, before: Sequence[str] = ()) -> frozenset[str]:
        words = entry.get(name, "").split()
        return frozenset(empty.fold(first + word) for first in ("", *before) for word in words)

    before = entry.get("before", ())
    groups = (
        WordGroup(forms("gendered", before), forms("person", before)),
        WordGroup(forms("young", before), forms("child", before)),
    )
    return Lexicon(
        language,
        groups,
        forms("other", before),
        cased,
        spaces,
        forms("feminine"),
        forms("masculine"),
        forms("unless"),
    )


@lru_cache(maxsize=16)
def _any_of(words: frozenset[str]) -> "regex.Pattern[str]":
    return regex.compile("|".join(regex.escape(word) for word in sorted(words, key=len, reverse=True)))
