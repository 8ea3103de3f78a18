import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from models.captions import WordAttention
from models.lengths import choose, shorten, within

TEN = ("ar", "cs", "de", "en", "es", "fr", "hi", "pt", "uk", "zh")
TEXTS = {
    "ar": "كلب بني يركض فوق العشب الأخضر وفي فمه كرة حمراء، ويتبعه طفل صغير",
    "de": "Ein Kind in einem roten T-Shirt sitzt auf einer Schaukel und lacht",
    "en": "A brown dog is running over the green meadow with a red ball in its mouth",
    "es": "Un perro corre por la playa con una pelota en la boca",
    "hi": "घास पर एक भूरा कुत्ता मुँह में लाल गेंद लेकर बहुत तेज़ी से दौड़ रहा है",
    "zh": "一只棕色的狗在绿色的草地上奔跑，嘴里叼着一个红色的球",
}


@pytest.mark.parametrize(
    ("text", "most", "language", "shown"),
    [
        ("A dog runs.", 11, "en", "A dog runs."),
        ("Two dogs play. A man in a red jacket watches", 30, "en", "Two dogs play."),
        ("A dog in front of St. Mary's runs", 25, "en", "A dog in front of St."),
        ("A big brown dog, which has a ball, runs", 20, "en", "A big brown dog"),
        ("A dog, which has a red ball, runs", 20, "en", "A dog"),
        ("A man sitting on a bench", 18, "en", "A man sitting"),
        ("A man sitting on a bench", 23, "en", "A man sitting"),
        ("A man sitting on a bench.", 24, "en", "A man sitting on a bench"),
        ("Ein Hund rennt über die Wiese", 23, "de", "Ein Hund rennt"),
        ("Un chat assis sur l'herbe", 20, "fr", "Un chat assis"),
        ("एक आदमी और एक औरत", 12, "hi", "एक आदमी"),
        ("一只棕色的狗在草地上", 5, "zh", "一只棕色"),
        ("一只狗在草地上奔跑。一个男孩看着它", 14, "zh", "一只狗在草地上奔跑。"),
        ("一只iPhone手机放在桌子上", 6, "zh", "一只"),
        ("On the road", 6, "en", "On the"),
        ("Donaudampfschifffahrt", 5, "de", ""),
    ],
)
def test_where_a_caption_is_cut(text: str, most: int, language: str, shown: str) -> None:
    assert shorten(text, most, language) == shown


@pytest.mark.parametrize(("language", "text"), TEXTS.items())
def test_no_length_cuts_a_word_or_a_letter(language: str, text: str) -> None:
    clusters = regex.findall(r"\X", text)
    boundaries = {len("".join(clusters[:number])) for number in range(len(clusters) + 1)}
    for most in range(1, len(text) + 2):
        shown = shorten(text, most, language)
        assert len(shown) <= most
        assert text.startswith(shown)
        assert len(shown) in boundaries
        if shown and language != "zh":
            assert not text[len(shown) : len(shown) + 1].isalnum()
    assert shorten(text, len(text), language) == text


@given(st.text(max_size=60), st.integers(1, 60), st.sampled_from(TEN))
def test_any_text_fits_afterwards(text: str, most: int, language: str) -> None:
    shown = shorten(text, most, language)
    assert len(shown) <= most
    assert text.startswith(shown)


def test_captions_that_fit_come_before_better_ones_that_do_not() -> None:
    texts = ["A dog runs over a meadow", "A dog runs over a field", "A dog", "A dog plays"]
    assert choose(texts, 12, "en") == [(2, "A dog"), (3, "A dog plays"), (0, "A dog runs")]
    assert choose(texts, 100, "en") == list(enumerate(texts))
    assert choose(["Windmills", "Waterfalls"], 3, "en") == [(0, "")]
    assert choose(["Windmills", "A cat"], 5, "en") == [(1, "A cat")]


def test_explained_words_are_those_that_are_left() -> None:
    words = [WordAttention(word, ((1.0,),)) for word in ("A", "dog,", "a", "big", "one")]
    whole = "A dog, a big one"
    assert [word.text for word in within(words, whole, "A dog")] == ["A", "dog"]
    assert [word.text for word in within(words, whole, "A dog, a big")] == ["A", "dog,", "a", "big"]
    chinese = [WordAttention(word, ((1.0,),)) for word in ("一只", "狗")]
    assert [word.text for word in within(chinese, "一只狗", "一只")] == ["一只"]
    assert within(words, whole, "") == ()
