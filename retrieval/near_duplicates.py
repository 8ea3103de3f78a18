"""Are two captions nearly the same? Decided on characters, so that it works in every script.

Near duplicates are dropped among the neighbours of one query: a prompt with four times the same sentence
tells the language model no more than one with it once.
"""

import unicodedata

import regex

_OTHERS = regex.compile(r"[^\p{L}\p{M}\p{N}]+")  # marks stay: in Hindi and Arabic they are vowels
_ASCII = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
SIMILARITY = 0.8  # Jaccard similarity of the character trigrams from which two texts count as one


class NearDuplicateFilter:
    """Remembers the texts it let through and says whether another is nearly one of them."""

    def __init__(self, similarity: float = SIMILARITY) -> None:
        self._similarity = similarity
        self._kept: list[frozenset[str]] = []

    def admit(self, text: str) -> bool:
        """True, and the text is remembered, unless it nearly equals an earlier one."""
        trigrams = character_trigrams(text)
        if any(jaccard(trigrams, kept) >= self._similarity for kept in self._kept):
            return False
        self._kept.append(trigrams)
        return True


def character_trigrams(text: str) -> frozenset[str]:
    """Trigrams of the text as `fold` leaves it."""
    folded = fold(text)
    return frozenset(folded[i : i + 3] for i in range(len(folded) - 2))


def fold(text: str) -> str:
    """The text without case, punctuation and compatibility forms, one space at each end."""
    if text.isascii():  # the same, several times as fast
        return f" {' '.join(text.translate(_ASCII).split()) or text} "
    folded = unicodedata.normalize("NFKC", text).casefold()
    return f" {_OTHERS.sub(' ', folded).strip() or text} "


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """|a ∩ b| / |a ∪ b|; 0 if both are empty."""
    shared = len(a & b)
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0
