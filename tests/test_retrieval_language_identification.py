import sys

import pytest

from retrieval.errors import InvalidRequestError
from retrieval.language_identification import LanguageIdentifier

FILIPINO = "Isang kayumangging aso ang tumatakbo sa berdeng damo."


def test_languages_have_our_codes() -> None:
    identifier = LanguageIdentifier()
    assert {"fil", "quz", "no", "zh"} <= identifier.languages
    assert not {"tl", "qu"} & identifier.languages
    best, probability = identifier.most_probable(FILIPINO)
    assert best == "fil"
    assert identifier.probability(FILIPINO, "fil") == pytest.approx(probability)
    assert identifier.probability(FILIPINO, "en") < 0.1 < probability


def test_a_text_is_in_one_of_the_languages_that_it_can_be_in() -> None:
    identifier = LanguageIdentifier(["de", "en", "mi"])  # Maori is not known
    assert identifier.languages == {"de", "en"}
    assert identifier.most_probable(FILIPINO)[0] in {"de", "en"}
    assert "fil" in LanguageIdentifier().languages  # another one is not narrowed by that


def test_without_the_package_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(InvalidRequestError, match=r"pip install 'paellera\[languages\]'"):
        LanguageIdentifier()
