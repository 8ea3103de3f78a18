import pytest

from retrieval.errors import UnknownLanguageError
from retrieval.languages import XM3600_LANGUAGES, autonym, display_name, match, normalise

TEN = ("ar", "cs", "de", "en", "es", "fr", "hi", "pt", "uk", "zh")


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("en_US", "en"),
        ("iw", "he"),
        ("pt-BR", "pt"),
        ("zh-Hans", "zh"),
        ("zh-Hant-TW", "zh"),
        ("cmn", "zh"),
        ("tl", "fil"),
        ("nb", "no"),
        ("qu", "quz"),
        ("es-419", "es"),
        ("arb", "ar"),
        ("is", "is"),  # not in XM3600, but a language
    ],
)
def test_tags_become_codes(tag: str, code: str) -> None:
    assert normalise(tag) == code


def test_the_36_codes_are_their_own() -> None:
    assert len(XM3600_LANGUAGES) == 36
    assert [normalise(code) for code in XM3600_LANGUAGES] == list(XM3600_LANGUAGES)


@pytest.mark.parametrize(
    "tag",
    [
        "",
        " ",
        "xx",
        "zz",
        "und",
        "mul",
        "zxx",
        "*",
        "1",
        "en en",
        "Spanish",
        "日本語",
        "qaa",
        "x-foo",
        "a" * 5000,
    ],
)
def test_what_is_no_tag_is_refused_on_one_short_line(tag: str) -> None:
    with pytest.raises(UnknownLanguageError) as error:
        normalise(tag)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 150


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("pt-PT", "pt"),
        ("zh-Hant", "zh"),
        ("Spanish", "es"),
        ("german", "de"),
        ("español", "es"),
        ("中文", "zh"),
    ],
)
def test_match_finds_the_supported_language(tag: str, code: str) -> None:
    assert match(tag, TEN) == code


@pytest.mark.parametrize("name", ["P\0\U00107ca1S", "Spanisch\0é", "\0語", "\udfff", "espa\u00f1ol\n\0"])
def test_names_with_control_characters_are_no_names(name: str) -> None:
    with pytest.raises(UnknownLanguageError) as error:
        match(name, TEN)
    assert str(error.value).isprintable()


def test_match_prefers_the_region_asked_for() -> None:
    assert match("pt-BR", ("pt-PT", "pt-BR")) == "pt-BR"
    assert match("zh-TW", ("zh-Hans", "zh-Hant")) == "zh-Hant"


def test_match_suggests_a_related_language_but_does_not_take_it() -> None:
    with pytest.raises(
        UnknownLanguageError, match=r"Catalan \(ca\).*ar, cs, .*Did you mean Spanish \(es\)\?"
    ):
        match("ca", TEN)
    with pytest.raises(UnknownLanguageError, match=r"zh$"):  # nothing near: only the list
        match("Thai", TEN)


def test_names() -> None:
    assert display_name("uk") == "Ukrainian"
    assert autonym("uk") == "українська"
    assert all(display_name(code) and autonym(code) for code in XM3600_LANGUAGES)
