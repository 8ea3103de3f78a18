"""The language of a text, told by py3langid, offline, from 139 of them.

py3langid has names of its own for two of the languages of XM3600; here they have ours. A text of a few words
is often taken for a related language: how much that matters is for the caller to say.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from retrieval.errors import InvalidRequestError

_THEIR_NAMES = {"fil": "tl", "quz": "qu"}
_OUR_NAMES = {theirs: ours for ours, theirs in _THEIR_NAMES.items()}


class LanguageIdentifier:
    """
    Args:
        among: codes of the languages that a text can be in, of which those that are unknown do not count;
            None: all that are known.

    Raises:
        InvalidRequestError: py3langid is not installed.
    """

    def __init__(self, among: Iterable[str] | None = None) -> None:
        try:
            import py3langid.langid  # noqa: F401
        except ImportError:
            raise InvalidRequestError(
                "telling languages apart needs the package py3langid: pip install 'paellera[languages]'"
            ) from None
        self._model = _load(None if among is None else frozenset(_THEIR_NAMES.get(own, own) for own in among))
        self.languages = frozenset(_OUR_NAMES.get(label, label) for label in self._model.labels)

    def most_probable(self, text: str) -> tuple[str, float]:
        """The code of the language that a text is most likely in, and its probability."""
        label, probability = self._model.classify(text)
        return _OUR_NAMES.get(label, str(label)), float(probability)

    def probability(self, text: str, language: str) -> float:
        """How likely a text is in a language, which is one of `languages`."""
        return float(dict(self._model.rank(text))[_THEIR_NAMES.get(language, language)])


@lru_cache(maxsize=2)
def _load(labels: frozenset[str] | None) -> Any:
    from py3langid.langid import MODEL_FILE
    from py3langid.langid import LanguageIdentifier as Model

    model = Model.from_model_file(MODEL_FILE, norm_probs=True)  # takes a second
    if labels is not None:
        model.set_languages(sorted(labels & set(model.labels)))
    return model
