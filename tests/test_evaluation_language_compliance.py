"""Captions in another language than asked for are told."""

from evaluation.language_compliance import LanguageCompliance
from retrieval.languages import XM3600_LANGUAGES

CAPTIONS = {
    "ar": "كلب بني يجري فوق العشب الأخضر.",
    "de": "Ein brauner Hund rennt über das grüne Gras.",
    "en": "A brown dog runs over the green grass.",
    "fil": "Isang kayumangging aso ang tumatakbo sa berdeng damo.",
    "no": "En brun hund løper over det grønne gresset.",
    "uk": "Коричневий собака біжить по зеленій траві.",
    "zh": "一只棕色的狗在绿色的草地上奔跑。",
}


def test_every_caption_is_in_its_own_language_and_in_no_other() -> None:
    compliance = LanguageCompliance()
    for language, text in CAPTIONS.items():
        assert [code for code in CAPTIONS if compliance.holds(text, code)] == [language]


def test_shares() -> None:
    compliance = LanguageCompliance()
    assert compliance.share([CAPTIONS["de"], CAPTIONS["en"], "12 !", ""], "de") == 0.25
    assert compliance.share([], "de") is None


def test_only_maori_cannot_be_told() -> None:
    compliance = LanguageCompliance()
    assert [code for code in XM3600_LANGUAGES if not compliance.knows(code)] == ["mi"]
    assert compliance.share(["He kurī"], "mi") is None
