import pytest

from datastore_build.sources.language_check import LanguageCheck


@pytest.fixture(scope="module")
def check() -> LanguageCheck:
    return LanguageCheck()


@pytest.mark.parametrize(
    ("language", "text", "other"),
    [
        ("en", "Ein Hund rennt am Strand entlang und bellt.", "de"),
        ("de", "A dog runs along the beach and barks.", "en"),
        ("fr", "Кіт спить на дивані біля вікна.", "uk"),
        ("en", "一只猫在沙发上睡觉，旁边有一本书。", "zh"),
        ("de", "Ein Hund rennt am Strand entlang und bellt.", None),
        ("ar", "كلب يركض على الشاطئ", None),
        ("fil", "Isang kayumangging aso ang tumatakbo sa berdeng damo.", None),
        ("en", "Isang kayumangging aso ang tumatakbo sa berdeng damo.", "fil"),
        ("fil", "A dog runs along the beach and barks.", "en"),
        ("quz", "Huk warma wasinpi tiyachkan.", None),
        ("quz", "Ein Hund rennt am Strand entlang und bellt.", "de"),
        ("en", "pizza", None),  # who knows
        ("tlh", "A dog runs along the beach and barks.", None),  # a label that the model does not know
    ],
)
def test_what_is_plainly_another_language(
    check: LanguageCheck, language: str, text: str, other: str | None
) -> None:
    assert check.plainly_other(language, text) == other
