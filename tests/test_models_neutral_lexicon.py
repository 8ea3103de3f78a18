import tomllib
from collections import Counter
from importlib import resources

import pytest
import regex

from models.bundle import default_bundle
from models.manifest import read_manifest
from models.neutral.lexicon import load_lexicons
from models.neutral.neighbours import neutral_first
from retrieval.datastore import Neighbour

LEXICONS = load_lexicons()
SCRIPTS = {"ar": "Arabic", "hi": "Devanagari", "uk": "Cyrillic", "zh": "Han"}


def test_every_language_of_the_compact_bundle_has_words() -> None:
    assert sorted(LEXICONS) == sorted(read_manifest(default_bundle()).languages)


@pytest.mark.parametrize("language", sorted(LEXICONS))
def test_a_lexicon_is_consistent(language: str) -> None:
    lexicon = LEXICONS[language]
    for group in lexicon.groups:
        assert len(group.gendered) >= 5
        assert len(group.anybody) >= 2
    assert not lexicon.gendered & lexicon.other
    assert not any(lexicon.gendered & group.anybody for group in lexicon.groups)
    for word in lexicon.gendered:
        assert "".join(lexicon.gendered_in(f"… {word}.")) == word
    for word in lexicon.people - lexicon.gendered:
        assert lexicon.gendered_in(word) == []
        assert lexicon.people_in(word)
    assert lexicon.feminine <= lexicon.people - lexicon.gendered
    assert bool(lexicon.feminine) == bool(lexicon.masculine)
    script = SCRIPTS.get(language, "Latin")
    assert all(regex.fullmatch(rf"[\p{{Script={script}}}\p{{M}}]+", word) for word in lexicon.gendered)


def test_no_word_is_listed_twice() -> None:
    text = resources.files("models.neutral").joinpath("words.toml").read_text(encoding="utf-8")
    for language, entry in tomllib.loads(text).items():
        names = ("gendered", "young", "person", "child", "other")
        counts = Counter(word for name in names for word in set(entry[name].split()))
        shared = {"persona", "personas"} if language == "es" else set()  # for children, too
        assert {word for word, times in counts.items() if times > 1} == shared, language
        for name in names:
            assert len(entry[name].split()) == len(set(entry[name].split())), (language, name)


@pytest.mark.parametrize(
    ("language", "text", "gendered", "people"),
    [
        ("en", "A man's hat, many mangoes, a HERd and Her dog.", ["man", "her"], ["man", "her"]),
        ("en", "Two people and a child look on.", [], ["people", "child"]),
        ("de", "Junge Leute und ein junger Mann: der Junge lacht.", ["Junge", "Mann", "Junge"], None),
        ("de", "Die Mannschaft und ihre jungen Fans.", [], []),
        ("es", "Dos niños y una niña con su señora.", ["niña", "señora"], ["niños", "niña", "señora"]),
        ("fr", "Une fillette près d'hommes assis.", ["fillette", "hommes"], None),
        ("cs", "Žena se dívá na muže s dítětem.", ["žena", "muže"], ["žena", "muže", "dítětem"]),
        ("uk", "Хлопчик у синій сорочці, двоє людей.", ["хлопчик"], ["хлопчик", "людей"]),
        ("ar", "رجلًا والمرأة، وأشخاص على رجليه", ["رجلا", "والمرأة"], ["رجلا", "والمرأة", "وأشخاص"]),
        ("hi", "लड़कियाँ और बच्चे बालकनी में", ["लड़कियाँ"], ["लड़कियाँ", "बच्चे"]),
        ("zh", "一个男人弹吉他，其他人和他们的机器人在看。", ["男"], ["男", "人", "人"]),
    ],
)  # fmt: skip
def test_words_are_found_in_sentences(
    language: str, text: str, gendered: list[str], people: list[str] | None
) -> None:
    lexicon = LEXICONS[language]
    assert lexicon.gendered_in(text) == [lexicon.fold(word) for word in gendered]
    if people is not None:
        assert lexicon.people_in(text) == [lexicon.fold(word) for word in people]


def test_neutral_neighbours_come_first_but_not_those_that_are_not_read() -> None:
    texts = {
        "A man with a dog.": 0.9,
        "A person on a bench.": 0.6,
        "Ein Mann am Meer.": 0.5,
        "Ein Kind.": 0.4,
        "Dogs.": 0.1,
    }
    found = [
        Neighbour(text, text, "de" if text.startswith("Ein") else "en", score)
        for text, score in texts.items()
    ]
    order = [neighbour.text for neighbour in neutral_first(found, 0.3)]
    assert order == [
        "A person on a bench.",
        "Ein Kind.",
        "A man with a dog.",
        "Ein Mann am Meer.",
        "Dogs.",
    ]
