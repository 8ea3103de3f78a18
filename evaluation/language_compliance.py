"""Is a caption in the language it was asked for in? Told among the languages of XM3600.

Captions are short and related languages hard to tell apart, so not every caption counts that is in the right
language. What the same measure says of the references people wrote is the mark to compare with.
"""

from collections.abc import Iterable

from retrieval.language_identification import LanguageIdentifier
from retrieval.languages import XM3600_LANGUAGES

_NORWEGIAN = frozenset({"no", "nb", "nn"})  # count as the same language


class LanguageCompliance:
    """Raises InvalidRequestError if py3langid is not installed."""

    def __init__(self) -> None:
        self._identifier = LanguageIdentifier({*XM3600_LANGUAGES, *_NORWEGIAN})

    def knows(self, language: str) -> bool:
        """Can the language be told at all? `language` is our code, such as `fil`."""
        return language in self._identifier.languages

    def share(self, texts: Iterable[str], language: str) -> float | None:
        """Share of the texts whose most probable language is this one; None if it is unknown, or no text.

        Texts without a letter are in no language.
        """
        if not self.knows(language):
            return None
        found = [self.holds(text, language) for text in texts]
        return sum(found) / len(found) if found else None

    def holds(self, text: str, language: str) -> bool:
        """Is this language the most probable one of the text?"""
        if not any(map(str.isalpha, text)):
            return False
        best, _ = self._identifier.most_probable(text)
        return best == language or {best, language} <= _NORWEGIAN
