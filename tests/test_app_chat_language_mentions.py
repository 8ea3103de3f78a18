import time

import pytest

from app.chat.language_mentions import mentioned_language

SUPPORTED = ("ar", "cs", "de", "en", "es", "fr", "hi", "pt", "uk", "zh")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Describe this in Spanish.", "es"),
        ("describe this in spanish, please", "es"),
        ("¿Puedes describirlo en español?", "es"),
        ("Descríbelo en inglés", "en"),
        ("Beschreibe das Bild auf Deutsch, bitte", "de"),
        ("Beschreibe das Bild auf Spanisch", "es"),
        ("Décris la photo en anglais", "en"),
        ("Descreve em alemão", "de"),
        ("popiš ve španělštině", "es"),
        ("опиши українською", "uk"),
        ("हिन्दी में बताओ", "hi"),
        ("हिंदी में बताओ", "hi"),
        ("用中文描述这张照片", "zh"),
        ("请用西班牙语描述", "es"),
        ("صف الصورة بالعربية", "ar"),
        ("صف الصورة باللغة الإسبانية من فضلك", "es"),
        ("Translate from English into French", "fr"),
        ("in Brazilian Portuguese", "pt"),
        ("Caption this in pt-BR please", "pt"),
        ("Caption this in `uk`", "uk"),
        ("Caption this in es.", "es"),
        ("language: fr", "fr"),
        ("Language = German; be short", "de"),
        ("Spanish", "es"),
        ("Français !", "fr"),
        ("Describe it in Japanese", "ja"),
        ("Not in English, in Hindi", "hi"),
    ],
)
def test_languages_that_are_mentioned(text: str, code: str) -> None:
    assert mentioned_language([text], SUPPORTED) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is in it?",
        "What is in this photo?",
        "A Chinese restaurant with a Spanish flag",
        "Give me something to polish",
        "Is there a cat in a box",
        "Ponlo en la mesa",
        "in mid-air, in so-called safety",
        "The English breakfast",
        "in Spanishtown",
    ],
)
def test_words_that_are_no_wish_for_a_language(text: str) -> None:
    assert mentioned_language([text], SUPPORTED) is None


def test_the_last_text_that_mentions_one_decides() -> None:
    texts = ["You answer in German.", "Describe this in French", "thank you", "more, please"]
    assert mentioned_language(texts, SUPPORTED) == "fr"
    assert mentioned_language(texts[:1], SUPPORTED) == "de"
    assert mentioned_language([], SUPPORTED) is None


@pytest.mark.parametrize("text", ["in ", "lang: zq-qq ", "in (((", "用", "in" + " " * 1000, "in aaa-bbb "])
def test_long_texts_are_quick(text: str) -> None:
    mentioned_language(["warm up"], SUPPORTED)
    started = time.process_time()
    mentioned_language([(text * 50_000)[:50_000]], SUPPORTED)
    assert time.process_time() - started < 5
