from pathlib import Path

import pytest

from models.bundle import default_bundle
from models.language.special_tokens import NO_TOKEN
from models.language.tokenizer import EOS, Tokenizer
from models.prompts.builder import MAX_NEIGHBOUR_TOKENS, PromptBuilder, load_templates
from retrieval.errors import BundleError


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
