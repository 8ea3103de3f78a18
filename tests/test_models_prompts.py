import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
import regex

from models.bundle import default_bundle
from models.language.special_tokens import NO_TOKEN
from models.language.tokenizer import EOS, Tokenizer
from models.prompts.builder import MAX_NEIGHBOUR_TOKENS, PromptBuilder, load_templates
from retrieval.errors import BundleError
from retrieval.languages import XM3600_LANGUAGES, autonym

SCRIPTS = {  # those not named here are written in Latin
    "ar": "Arab", "bn": "Beng", "el": "Grek", "fa": "Arab", "he": "Hebr", "hi": "Deva", "ja": "Jpan",
    "ko": "Hang", "ru": "Cyrl", "te": "Telu", "th": "Thai", "uk": "Cyrl", "zh": "Hani",
}  # fmt: skip
LETTERS = {"Jpan": r"[\p{Han}\p{Hiragana}\p{Katakana}]"}  # of a script with several
# Letters that a language has and its neighbours of the same script lack.
OWN_LETTERS = {"fa": "پچژگی", "ja": "のるもい", "ru": "ыэё", "uk": "іїєґ"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(default_bundle() / "vocabulary.model")


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> PromptBuilder:
    return PromptBuilder(tokenizer, load_templates())


def split(ids: list[int], separator: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == separator:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


@pytest.mark.parametrize("language", sorted(load_templates()))
def test_a_prompt_is_opening_neighbours_closing(
    language: str, prompts: PromptBuilder, tokenizer: Tokenizer
) -> None:
    template = load_templates()[language]
    neighbours = ["A dog: it runs.", "Ein Hund läuft."]
    ids = prompts.build(language, neighbours)
    assert ids[0] == EOS
    parts = split(ids[1:], tokenizer.separator_id)
    assert [tokenizer.decode(part) for part in parts] == [template.opening, *neighbours, template.closing]


def test_every_language_of_xm3600_has_a_prompt_of_two_parts() -> None:
    templates = load_templates()
    assert sorted(templates) == sorted(XM3600_LANGUAGES)
    for language, template in templates.items():
        for part in (template.opening, template.closing):
            assert part == " ".join(part.split()), language
            assert regex.fullmatch(r"[^:：{}%]+[:：]", part), (
                language
            )  # one colon, at the end; nothing to fill in


@pytest.mark.parametrize("language", XM3600_LANGUAGES)
def test_a_prompt_is_written_in_its_language(language: str) -> None:
    template = load_templates()[language]
    script = SCRIPTS.get(language, "Latn")
    expected = LETTERS.get(script, rf"\p{{Script={script}}}")
    text = template.opening + template.closing
    letters = regex.findall(r"\p{L}", text)
    assert letters
    assert all(regex.fullmatch(expected, letter) for letter in letters), text
    assert any(letter in OWN_LETTERS.get(language, text) for letter in letters)
    # The closing names the language by its own name, of which endings may differ: "suomi", "suomeksi".
    stem = autonym(language).casefold()[:4]
    assert stem in template.closing.casefold()


def test_no_two_languages_share_a_part() -> None:
    parts = Counter(
        part for template in load_templates().values() for part in (template.opening, template.closing)
    )
    assert [part for part, times in parts.items() if times > 1] == []


def test_the_prompts_that_the_compact_bundle_was_trained_with_stay_as_they_are() -> None:
    """A letter changed here makes its captions worse, which no other test would notice."""
    templates = load_templates()
    ten = {
        language: {"closing": templates[language].closing, "opening": templates[language].opening}
        for language in ("ar", "cs", "de", "en", "es", "fr", "hi", "pt", "uk", "zh")
    }
    text = json.dumps(ten, ensure_ascii=False, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "2b0fa576ec8addc46fc963f0a2115ddab82f7a613ce0f0a43c52a392be481479"
    )


def test_without_neighbours_only_the_closing_is_left(prompts: PromptBuilder, tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(prompts.build("de", [])) == load_templates()["de"].closing


def test_continuations_are_the_neighbours_and_their_ends(
    prompts: PromptBuilder, tokenizer: Tokenizer
) -> None:
    neighbours = ["A dog runs.", "Two cats."]
    first, second = tokenizer.encode(neighbours)
    prompt = prompts.build("en", neighbours)
    continuations = prompts.continuations(prompt)
    assert len(continuations) == len(prompt)
    assert [token for token in continuations if token != NO_TOKEN] == [*first, EOS, *second, EOS]
    for place, token in enumerate(continuations):
        assert token in (NO_TOKEN, EOS) or token == prompt[place + 1]


def test_without_neighbours_nothing_is_continued(prompts: PromptBuilder) -> None:
    assert set(prompts.continuations(prompts.build("de", []))) == {NO_TOKEN}


def test_long_neighbours_are_cut(prompts: PromptBuilder, tokenizer: Tokenizer) -> None:
    parts = split(prompts.build("en", ["a dog and " * 60])[1:], tokenizer.separator_id)
    assert len(parts[1]) == MAX_NEIGHBOUR_TOKENS


@pytest.mark.parametrize(
    "text",
    ["A dog runs.", "कुत्ता दौड़ता है।", "一只狗在跑，很快。", "كلب يركض.", "L'été 🎈 42", "Žluťoučký kůň"],
)
def test_text_survives_the_tokenizer(text: str, tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "vocabulary.model"
    broken.write_bytes(b"no protobuf at all")
    with pytest.raises(BundleError, match=r"vocabulary\.model"):
        Tokenizer(broken)
