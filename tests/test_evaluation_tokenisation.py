"""What counts as a token in each language's captions."""

import pytest

from evaluation.tokenisation import CHARACTERS, WORDS, tokeniser_for


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A dog's RED ball, no. 23!", ["a", "dog", "s", "red", "ball", "no", "23"]),
        ("Ein Mädchen — im Café.", ["ein", "mädchen", "im", "café"]),
        ("हिंदी में एक लड़की।", ["हिंदी", "में", "एक", "लड़की"]),  # vowel signs stay in their word
        ("رجلٌ على دراجة، وطفل", ["رجلٌ", "على", "دراجة", "وطفل"]),
        ("co\u00adoperate e\u200bx\u200dy", ["cooperate", "exy"]),  # invisible characters
        ("snake_case 3.5", ["snake", "case", "3", "5"]),
        (" .?! ", []),
        ("", []),
    ],
)
def test_words(text: str, tokens: list[str]) -> None:
    assert WORDS.split(text) == tokens


def test_chinese_is_cut_into_characters_and_latin_stays_whole() -> None:
    assert CHARACTERS.split("两只狗,在T-shirt上。BMX2骑手") == [
        *"两只狗在",
        "t",
        "shirt",
        "上",
        "bmx2",
        *"骑手",
    ]


def test_composed_and_decomposed_letters_are_the_same_token() -> None:
    assert WORDS.split("cafe\u0301 ЇЖАК") == WORDS.split("café їжак")


def test_the_language_decides() -> None:
    assert tokeniser_for("zh") is CHARACTERS
    assert all(tokeniser_for(language) is WORDS for language in ("ar", "de", "en", "hi", "uk"))
    assert WORDS.signature != CHARACTERS.signature
