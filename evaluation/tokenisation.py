"""Cutting captions into the tokens that the metrics count, and the signature that names how it was done.

A score means nothing without its tokeniser, so each one carries a signature that is printed with every score
computed on it. The tokenisers here need no model and no data beyond the Unicode tables of Python itself; they
know nothing of the vocabulary a language model uses.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

CHARACTER_LANGUAGES = frozenset({"zh"})  # written without spaces: one token a Han character


@dataclass(frozen=True)
class Tokeniser:
    """A named way of cutting a text into tokens. `signature` changes whenever its output could."""

    name: str
    signature: str
    split: Callable[[str], list[str]]
    loop_length: int  # an n-gram of this length coming twice in a caption marks a loop


class _WordTable(dict[int, str | None]):
    """For `str.translate`: letters, combining marks and numbers stay, the rest parts words.

    Python's own `\\w` leaves out combining marks and so cuts a Hindi word at each of its vowel signs.
    Format characters (joiners, soft hyphens, direction marks) are invisible and vanish.
    """

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        entry = None if category == "Cf" else self._visible(character, category)
        self[code] = entry
        return entry

    def _visible(self, character: str, category: str) -> str:
        return character if category[0] in "LMN" else " "


class _CharacterTable(_WordTable):
    """As the table of words, and every Han character is a token of its own."""

    def _visible(self, character: str, category: str) -> str:
        if unicodedata.name(character, "").startswith(("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH")):
            return f" {character} "
        return super()._visible(character, category)


def _splitter(table: _WordTable) -> Callable[[str], list[str]]:
    def split(text: str) -> list[str]:
        return unicodedata.normalize("NFC", text.lower()).translate(table).split()

    return split


WORDS = Tokeniser("words", "tok:words|case:lower|unicode:NFC|version:1", _splitter(_WordTable()), 3)
# Five characters: people repeat as many in Chinese about as often as they repeat three words elsewhere.
CHARACTERS = Tokeniser(
    "characters", "tok:characters|case:lower|unicode:NFC|version:1", _splitter(_CharacterTable()), 5
)


def tokeniser_for(language: str) -> Tokeniser:
    """The tokeniser a language (our code, such as `de`) is scored with."""
    return CHARACTERS if language in CHARACTER_LANGUAGES else WORDS
