import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.negotiation import default_language, locale_language, named_languages, preferred_language
from retrieval.errors import InvalidRequestError, UnknownLanguageError

SUPPORTED = ("ar", "en", "es", "he", "pt", "zh")


def test_names_keep_their_order_and_come_once() -> None:
    assert named_languages(["pt-BR", "es", "iw", "ES-mx"], SUPPORTED) == ("pt", "es", "he")
    assert named_languages(["es,pt", " zh "], SUPPORTED) == ("es", "pt", "zh")
    assert named_languages(["zh", "All"], SUPPORTED) == ("zh", "ar", "en", "es", "he", "pt")
    assert named_languages([], SUPPORTED) == ()


def test_names_that_are_none() -> None:
    with pytest.raises(UnknownLanguageError):
        named_languages(["es", "fr"], SUPPORTED)
    with pytest.raises(InvalidRequestError, match="empty"):
        named_languages(["es,"], SUPPORTED)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("es", "es"),
        ("da, en-GB;q=0.8, pt;q=0.9", "pt"),
        ("pt;q=0.5, es;q=0.5", "pt"),
        ("es;q=0, pt;q=0.001", "pt"),
        ("es ; q = 0.3 , pt ; q=0.4", "pt"),
        ("*", "en"),
        ("fr, *;q=0.1, es;q=0.05", "en"),
        ("es;q=1.5", "es"),
        ("es;q=7, pt", "pt"),
        ("iw-IL", "he"),
        ("zh-Hant-TW", "zh"),
        ("es-419", "es"),
        ("ES;Q=0.5", "es"),  # tags and the q are the same in capitals
        ("es;q=0.5\t,\tpt;q=0.7", "pt"),
        (",, ,es,", "es"),
        ("es;q=, pt", "pt"),
        ("es;q=0.1234, pt;q=0.1", "pt"),
        ("es;level=1, pt;q=0.1", "pt"),
        ("es;q=0.5;x=1, pt;q=0.1", "pt"),
        ("es;q=-1, pt;q=0.1", "pt"),
        ("es pt, zh", "zh"),
        ("Spanish, pt;q=0.1", "pt"),  # names are no tags
        ("es;q=0.000, pt;q=0.001", "pt"),
        ("en;q=0", "ar"),  # anything but the default: the first the server has
        ("en;q=0, *", "ar"),
        ("en;q=0, *;q=0.5, pt;q=0.1", "ar"),
        ("ar;q=0, en;q=0, *;q=0.5", "es"),
        ("en-US;q=0", "en"),  # the English of others is not excluded
        ("en-US, en;q=0", "en"),
        ("en;q=0.1, *;q=0.5", "ar"),  # `*` stands for what is not named
        ("fr, *;q=0", "en"),  # nothing is acceptable: the header is disregarded
        ("ar;q=0, en;q=0, es;q=0, he;q=0, pt;q=0, zh;q=0", "en"),
    ],
)
def test_accept_language(header: str, language: str) -> None:
    assert preferred_language(header, SUPPORTED, "en") == language


@given(st.text())
def test_any_accept_language_header_is_survived(header: str) -> None:
    assert preferred_language(header, SUPPORTED, "en") in SUPPORTED


def test_a_hostile_accept_language_header_is_quick() -> None:
    assert preferred_language("a-" * 500_000 + ";q=" + "0" * 500_000, SUPPORTED, "en") == "en"


def test_what_a_long_header_says_last_is_left_out_whole() -> None:
    padding = ", ".join(["fr"] * 249)  # 994 characters
    assert preferred_language(f"{padding}, es", SUPPORTED, "en") == "es"
    assert preferred_language(f"{padding}, es-419;q=0.1", SUPPORTED, "en") == "en"


def test_many_unknown_tags_are_quick() -> None:
    letters = "bcdfghjklmnpqrstvwxz"
    tags = [first + second + third for first in letters for second in letters for third in letters]
    started = time.process_time()
    for page in range(5):
        header = ",".join(tags[250 * page : 250 * (page + 1)])
        assert preferred_language(header, SUPPORTED, "en") == "en"
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "pt_BR.UTF-8"}, "pt"),
        ({"LANG": "pt_BR.UTF-8", "LC_ALL": "es_ES@euro"}, "es"),
        ({"LC_ALL": "", "LC_MESSAGES": "ar"}, "ar"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "POSIX"}, "en"),
        ({"LANG": "sv_SE"}, "en"),
        ({"LANG": "?"}, "en"),
        ({}, "en"),
    ],
)
def test_locale(environment: dict[str, str], language: str) -> None:
    assert locale_language(environment, SUPPORTED, "en") == language


def test_default_language_falls_back_to_one_the_bundle_has() -> None:
    assert default_language("pt-PT", SUPPORTED) == "pt"
    assert default_language("ja", SUPPORTED) == "ar"
