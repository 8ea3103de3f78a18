"""Is a text in the language that it is labelled with? Told by py3langid, which knows 139 languages offline.

A caption is short, so the answer is often unsure; only what is plainly another language counts as that.
"""

from retrieval.errors import DatastoreError

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
    """Raises DatastoreError if py3langid is not installed."""

    def __init__(self) -> None:
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError:
            raise DatastoreError(
                "telling languages apart needs the package py3langid: pip install 'paellera[languages]'"
            ) from None
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self._known = frozenset(self._identifier.labels)

    def plainly_other(self, language: str, text: str) -> str | None:
        """The language that a text is in if that is plainly not `language`; None if it may be.

        A label that the model does not know is never wrong.
        """
        if language not in self._known:
            return None
        best, probability = self._identifier.classify(text)
        if best == language or probability < _SURE or any({best, language} <= alike for alike in _ALIKE):
            return None
        label = dict(self._identifier.rank(text))[language]
        return str(best) if probability >= _RATIO * label else None
