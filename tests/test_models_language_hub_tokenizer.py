from pathlib import Path

import pytest
from hub_tokenizers import byte_level, xglm

from models.language.hub_tokenizer import HubTokenizer
from models.language.special_tokens import NO_TOKEN
from models.language.words import group_words
from models.neutral.lexicon import load_lexicons
from models.neutral.token_texts import TokenTexts
from models.neutral.wording import NeutralWording
from models.prompts.builder import PromptBuilder, Template
from retrieval.errors import BundleError

SIZE = 400


@pytest.fixture(params=["gpt2", "llama3", "xglm"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> HubTokenizer:
    match request.param:
        case "gpt2":
            folder = byte_level(tmp_path)
        case "llama3":
            folder = byte_level(tmp_path, start="<|begin|>")
        case _:
            folder = xglm(tmp_path)
    return HubTokenizer(folder, SIZE)


@pytest.mark.parametrize(
    "text",
    ["A cat sits on a mat.", "Two dogs run: fast!", "कुत्ता दौड़ता है।", "一只猫。", "Eine Katze schläft."],
)
def test_texts_come_back(tokenizer: HubTokenizer, text: str) -> None:
    (ids,) = tokenizer.encode([f"  {text}\n"])
    assert tokenizer.decode(ids) == text
    assert tokenizer.count([text]) == [len(ids)]
    assert not set(ids) & set(tokenizer.special.never)
    words = group_words([tokenizer.piece(token) for token in ids])
    assert sum(len(word) for word in words) == len(ids)


def test_all_pieces_at_once_are_those_one_by_one(tokenizer: HubTokenizer) -> None:
    assert tokenizer.pieces() == [tokenizer.piece(token) for token in range(SIZE)]


def test_no_text_is_no_tokens(tokenizer: HubTokenizer) -> None:
    assert tokenizer.encode([]) == []
    assert tokenizer.encode(["", " \n "]) == [[], []]


def test_each_family_begins_and_separates_in_its_own_way(tmp_path: Path) -> None:
    gpt2 = HubTokenizer(byte_level(tmp_path / "gpt2"), SIZE)
    llama = HubTokenizer(byte_level(tmp_path / "llama", start="<|begin|>"), SIZE)
    lines = HubTokenizer(xglm(tmp_path / "xglm"), SIZE)
    assert gpt2.special.start == ()
    assert len(llama.special.start) == 1
    assert lines.special.start == (2,)
    assert gpt2.special.separator is not None
    assert gpt2.decode([gpt2.special.separator]) == ""
    assert lines.special.separator is None
    assert lines.special.end == 2


def test_special_tokens_in_a_text_are_text(tokenizer: HubTokenizer) -> None:
    special = {tokenizer.special.end, *tokenizer.special.start, *tokenizer.special.never}
    for name in ("<|end|>", "<|other|>", "<|begin|>", "</s>", "<pad>"):
        (ids,) = tokenizer.encode([f"A cat {name} sits."])
        # 3 is <unk>, as which XGLM's vocabulary here reads the signs that it lacks.
        assert not set(ids) & (special - {3})


def test_tokens_without_a_text_are_never_generated(tokenizer: HubTokenizer) -> None:
    assert SIZE - 1 in tokenizer.special.never
    assert tokenizer.special.end not in tokenizer.special.never
    assert len(tokenizer) == SIZE


def test_a_full_stop_may_end_a_caption(tmp_path: Path) -> None:
    tokenizer = HubTokenizer(xglm(tmp_path), SIZE, end=".")
    (ids,) = tokenizer.encode(["A cat sits on a mat."])
    assert ids[-1] == tokenizer.special.end
    assert 2 in tokenizer.special.never
    with pytest.raises(BundleError, match="no token of this vocabulary"):
        HubTokenizer(tmp_path, SIZE, end="zebra")


def test_prompts_are_put_together(tokenizer: HubTokenizer) -> None:
    prompts = PromptBuilder(tokenizer, {"en": Template("Similar images show:", "A caption:")})
    neighbours = ["A cat sits on a mat.", "Two dogs run: fast!"]
    prompt = prompts.build("en", neighbours)
    special = tokenizer.special
    assert tuple(prompt[: len(special.start)]) == special.start
    encoded = tokenizer.encode(neighbours)
    continued = [token for token in prompts.continuations(prompt) if token != NO_TOKEN]
    if special.separator is None:
        assert tokenizer.decode(prompt) == " ".join(["Similar images show:", *neighbours, "A caption:"])
        assert continued == []
    else:
        assert prompt.count(special.separator) == 3
        assert continued == [*encoded[0], special.end, *encoded[1], special.end]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no tokenizer"):
        HubTokenizer(tmp_path, SIZE)
    byte_level(tmp_path)
    with pytest.raises(BundleError, match="tokens, the language model 100"):
        HubTokenizer(tmp_path, 100)


def test_a_neutral_wording_is_found_among_rows_that_belong_to_no_token(tmp_path: Path) -> None:
    for folder in (byte_level(tmp_path / "gpt2"), xglm(tmp_path / "xglm")):
        vocabulary = HubTokenizer(folder, 1000)
        assert vocabulary.piece(999) == ""
        NeutralWording(TokenTexts(vocabulary), load_lexicons()["en"])
