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


# What else the languages of XM3600 are called: withdrawn and bibliographic codes, those of three letters, the
# members of a group that its common code stands for, regions and scripts.
ALIASES = {
    "ar": "ara arb ar-EG ar-SA ar-Arab",
    "bn": "ben bn-BD bn-IN",
    "cs": "ces cze cs-CZ",
    "da": "dan da-DK",
    "de": "deu ger de-DE de-AT de-CH de-Latn",
    "el": "ell gre el-GR el-CY",
    "en": "eng en-US en-GB en_AU EN-in",
    "es": "spa es-ES es-MX es-419",
    "fa": "fas per pes prs fa-IR fa-AF",
    "fi": "fin fi-FI",
    "fil": "tl tgl fil-PH tl-PH",
    "fr": "fra fre fr-FR fr-CA",
    "he": "iw heb he-IL iw-IL",
    "hi": "hin hi-IN hi-Deva",
    "hr": "hrv hr-HR hr-BA",
    "hu": "hun hu-HU",
    "id": "in ind id-ID in-ID",
    "it": "ita it-IT it-CH",
    "ja": "jpn ja-JP",
    "ko": "kor ko-KR ko-KP ko-Kore",
    "mi": "mri mao mi-NZ",
    "nl": "nld dut nl-NL nl-BE",
    "no": "nb nor nob nb-NO no-NO no-bok",
    "pl": "pol pl-PL",
    "pt": "por pt-BR pt-PT pt_br",
    "quz": "qu que qu-PE quz-PE",
    "ro": "ron rum mo ro-RO ro-MD",
    "ru": "rus ru-RU",
    "sv": "swe sv-SE sv-FI",
    "sw": "swa swh sw-KE sw-TZ",
    "te": "tel te-IN",
    "th": "tha th-TH",
    "tr": "tur tr-TR",
    "uk": "ukr uk-UA",
    "vi": "vie vi-VN",
    "zh": "zho chi cmn zh-CN zh-TW zh-HK zh-Hans zh-Hant-TW zh_TW zh-cmn",
}


@pytest.mark.parametrize("code", XM3600_LANGUAGES)
def test_each_of_the_36_is_found_by_all_its_tags_and_names(code: str) -> None:
    for tag in ALIASES[code].split():
        assert normalise(tag) == code, tag
        assert match(tag, XM3600_LANGUAGES) == code, tag
    for name in (display_name(code), autonym(code), autonym(code).casefold(), f" {display_name(code)} "):
        assert match(name, XM3600_LANGUAGES) == code, name


def test_a_relative_of_one_of_the_36_is_suggested_and_not_taken() -> None:
    for relative, suggestion in (("nn", "Norwegian"), ("quy", "Cusco Quechua"), ("arz", "Arabic")):
        with pytest.raises(UnknownLanguageError, match=f"Did you mean {suggestion}"):
            match(relative, XM3600_LANGUAGES)
    with pytest.raises(UnknownLanguageError, match="Cantonese"):
        match("yue", XM3600_LANGUAGES)


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


def test_what_another_name_of_a_language_finds() -> None:
    names = {"Farsi": "fa", "Mandarin": "zh", "Tagalog": "fil", "Bokmål": "no", "Flemish": "nl"}
    names |= {
        "Bengali": "bn",
        "Castilian": "es",
        "Maori": "mi",
        "Quechua": "quz",
        "Brazilian Portuguese": "pt",
    }
    assert {name: match(name, XM3600_LANGUAGES) for name in names} == names


def test_names() -> None:
    assert display_name("uk") == "Ukrainian"
    assert autonym("uk") == "українська"
    assert all(display_name(code) and autonym(code) for code in XM3600_LANGUAGES)
