"""Is a caption in the language it was asked for in? Told by py3langid among the languages of XM3600.

Captions are short and related languages hard to tell apart, so not every caption counts that is in the right
language. What the same measure says of the references people wrote is the mark to compare with.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from retrieval.errors import InvalidRequestError
from retrieval.languages import XM3600_LANGUAGES

# py3langid's own codes, where they are not ours. Labels of one set count as the same language.
_CODES = {"fil": "tl", "quz": "qu"}
_SAME = ({"no", "nb", "nn"},)


class LanguageCompliance:
    """Raises InvalidRequestError if py3langid is not installed."""

    def __init__(self) -> None:
        self._identifier = _identifier()
        self._known = frozenset(self._identifier.labels)

    def knows(self, language: str) -> bool:
        """Can the language be told at all? `language` is our code, such as `fil`."""
        return _CODES.get(language, language) in self._known

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
        wanted = _CODES.get(language, language)
        best = str(self._identifier.classify(text)[0])
        return best == wanted or any({best, wanted} <= same for same in _SAME)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise InvalidRequestError(
            "telling languages apart needs the package py3langid: pip install 'paellera[evaluation]'"
        ) from None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=False)
    wanted = {_CODES.get(code, code) for code in XM3600_LANGUAGES} | {"nb", "nn"}
    identifier.set_languages(sorted(wanted & set(identifier.labels)))
    return identifier
