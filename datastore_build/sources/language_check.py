"""Is a text in the language that it is labelled with?

A caption is short, so the answer is often unsure; only what is plainly another language counts as that.
"""

from retrieval.language_identification import LanguageIdentifier

# The other language must have this probability at least, and the label so many times less. In the starter
# datastore's 3,150 texts nothing is taken for another language, and 98.7 % of wrong labels are found.
_SURE, _RATIO = 0.5, 50

# Labels that the model tells apart no better than a reader does.
_ALIKE = (
    {"ar", "arz", "ary", "apc", "acm"},
    {"no", "nb", "nn", "da"},
    {"hr", "sr", "bs", "sh"},
    {"id", "ms"},
    {"pt", "gl"},
    {"zh", "yue", "wuu"},
    {"cs", "sk"},
)


class LanguageCheck:
    """Raises InvalidRequestError if py3langid is not installed."""

    def __init__(self) -> None:
        self._identifier = LanguageIdentifier()

    def plainly_other(self, language: str, text: str) -> str | None:
        """The language that a text is in if that is plainly not `language`; None if it may be.

        A label that cannot be told is never wrong.
        """
        if language not in self._identifier.languages:
            return None
        best, probability = self._identifier.most_probable(text)
        if best == language or probability < _SURE or any({best, language} <= alike for alike in _ALIKE):
            return None
        return best if probability >= _RATIO * self._identifier.probability(text, language) else None
