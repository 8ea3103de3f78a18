"""The tokens of a vocabulary as lexicons compare them: made once, whatever the number of languages.

A large vocabulary has a quarter of a million tokens, and a lexicon concerns some hundred of them. Which those
are is found with the words that stand in each token, and only they are looked at closely.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import regex

from models.neutral.lexicon import WORD, Lexicon

_SPACE = "▁"  # how SentencePiece writes the space before a word
_LETTERS = regex.compile(r"[\p{L}\p{M}]*")
_BETWEEN = (
    "\n"  # neither a letter nor changed by folding, nor does what stands behind it change what is before
)


class Pieces(Protocol):
    """The part of `models.language.vocabulary.Vocabulary` that is needed."""

    def pieces(self) -> list[str]: ...


@dataclass(frozen=True)
class _Mixed:
    """A token that is more than a word with or without a space before it, and holds a letter."""

    token: int
    begun: str  # the letters that it begins with
    words: frozenset[str]  # behind them


class FoldedTokens:
    """All tokens, folded in one way.

    Attributes:
        texts: of each token; a space where a word begins.
    """

    def __init__(self, pieces: Sequence[str], fold: Callable[[str], str]) -> None:
        joined = _BETWEEN.join(piece.replace(_BETWEEN, "\t") for piece in pieces)
        self.texts = fold(joined.replace(_SPACE, " ")).split(_BETWEEN)

    def begun(self, token: int) -> str:
        """The letters that a token begins with."""
        return str(_LETTERS.match(self.texts[token]).group())

    def with_words(
        self, beginnings: frozenset[str], behind_space: frozenset[str], anywhere: frozenset[str]
    ) -> list[int]:
        """Tokens of a language with spaces, ascending, that have some words in them.

        Args:
            beginnings: letters that a token begins with, all of them.
            behind_space: what a token is after its first character, a space.
            anywhere: words that stand in a token behind the letters that it begins with.
        """
        plain, spaced, mixed = self._by_kind
        found = [token for token, word in plain if word in beginnings]
        found += [token for token, word in spaced if word in behind_space or word in anywhere]
        found += [
            one.token
            for one in mixed
            if one.begun in beginnings
            or not one.words.isdisjoint(anywhere)
            or self.texts[one.token][1:] in behind_space
        ]
        return sorted(found)

    def with_characters(self, characters: frozenset[str]) -> list[int]:
        """Tokens, ascending, that hold one of some characters."""
        return [token for token, text in enumerate(self.texts) if not characters.isdisjoint(text)]

    @cached_property
    def _by_kind(self) -> tuple[list[tuple[int, str]], list[tuple[int, str]], list[_Mixed]]:
        """Tokens with a letter: those that are a word, those that are one behind a space, and all others."""
        plain: list[tuple[int, str]] = []
        spaced: list[tuple[int, str]] = []
        mixed: list[_Mixed] = []
        for token, text in enumerate(self.texts):
            word = text.removeprefix(" ")
            if word.isalpha() or (words := WORD.findall(word)) == [word]:
                (plain if word is text else spaced).append((token, word))
            elif words:
                begun = self.begun(token)
                mixed.append(_Mixed(token, begun, frozenset(WORD.findall(text[len(begun) :]))))
        return plain, spaced, mixed


class TokenTexts:
    """The tokens of one vocabulary, folded as each lexicon wants it."""

    def __init__(self, vocabulary: Pieces) -> None:
        self._vocabulary = vocabulary
        self._by_case: dict[bool, FoldedTokens] = {}

    @cached_property
    def _pieces(self) -> list[str]:
        return self._vocabulary.pieces()

    def folded(self, lexicon: Lexicon) -> FoldedTokens:
        """As `lexicon.fold` folds them."""
        found = self._by_case.get(lexicon.cased)  # all else is the same for all lexicons
        if found is None:
            found = self._by_case[lexicon.cased] = FoldedTokens(self._pieces, lexicon.fold)
        return found
