"""Pieces of a vocabulary put together to words, as a reader sees them."""

import unicodedata
from collections.abc import Sequence

_SPACE = "▁"  # how SentencePiece writes the space before a word
_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # scripts, by name


def group_words(pieces: Sequence[str]) -> list[list[int]]:
    """Which pieces belong to one word: lists of indices, in order, every index once.

    A piece that begins with a space begins a word. In scripts without spaces between words each piece is one.
    Punctuation stays with the word before it.
    """
    words: list[list[int]] = []
    before = ""  # text of the word so far
    for index, piece in enumerate(pieces):
        text = piece.removeprefix(_SPACE)
        if not words or piece.startswith(_SPACE) or (before and _parts(before[-1], text[:1])):
            words.append([])
            before = ""
        words[-1].append(index)
        before += text
    return words


def _parts(last: str, first: str) -> bool:
    """Whether a word ends between these two characters though no space is there."""
    return _unspaced(first) or (_unspaced(last) and first.isalnum())


def _unspaced(character: str) -> bool:
    return character.isalnum() and unicodedata.name(character, "").startswith(_WITHOUT_SPACES)
