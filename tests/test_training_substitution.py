import random

import pytest

from models.bundle import default_bundle
from models.language.tokenizer import Tokenizer
from training.substitution import Captions, WordSubstitution

COLOURS, THINGS = ("red", "blue", "old"), ("dog", "boat", "bicycle", "skateboarder")
TEXTS = [f"A {colour} {thing} in the park." for colour in COLOURS for thing in THINGS]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(default_bundle() / "vocabulary.model")


@pytest.fixture(scope="module")
def substitution(tokenizer: Tokenizer) -> WordSubstitution:
    # "a", "in", "the" and "park" are the most frequent words of these texts.
    return WordSubstitution({"en": {"photo": tokenizer.encode(TEXTS)}}, tokenizer, frequent=4, least=1)


def words(tokenizer: Tokenizer, captions: Captions) -> list[list[str]]:
    return [tokenizer.decode(caption).removesuffix(".").split() for caption in captions]


def test_a_shared_word_is_replaced_on_both_sides(
    tokenizer: Tokenizer, substitution: WordSubstitution
) -> None:
    learnt = tokenizer.encode(["A red skateboarder in the park."])
    neighbours = tokenizer.encode(["A red boat.", "An old skateboarder."])
    replaced = set()
    for seed in range(30):
        new_learnt, new_neighbours = substitution.apply("en", learnt, neighbours, random.Random(seed))
        ((_, colour, thing, *rest),) = words(tokenizer, new_learnt)
        assert rest == ["in", "the", "park"]
        # The two shared words are the same ones on both sides, whole; the others stay as they were.
        assert words(tokenizer, new_neighbours) == [["A", colour, "boat"], ["An", "old", thing]]
        assert {colour, thing} <= {*COLOURS, *THINGS}
        replaced.add((colour != "red", thing != "skateboarder"))
    assert (True, True) in replaced
    assert len(replaced) > 1


def test_without_neighbours_nothing_changes(tokenizer: Tokenizer, substitution: WordSubstitution) -> None:
    learnt = tokenizer.encode(TEXTS[:2])
    assert substitution.apply("en", learnt, [], random.Random(0)) == (learnt, [])


def test_vowel_signs_belong_to_their_word(tokenizer: Tokenizer) -> None:
    texts = ["एक बिल्ली है।", "एक कॉफ़ी है।", "एक रॉकेट है।"]
    substitution = WordSubstitution(
        {"hi": {"photo": tokenizer.encode(texts)}}, tokenizer, frequent=2, least=1
    )
    learnt = tokenizer.encode(texts[:1])
    for seed in range(10):
        ((_, noun, _),) = words(tokenizer, substitution.apply("hi", learnt, learnt, random.Random(seed))[0])
        assert noun in {"बिल्ली", "कॉफ़ी", "रॉकेट"}
