"""Wording on a made-up vocabulary, where the model would love to write gendered words."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bundle import default_bundle
from models.generation import GenerationSettings, generate
from models.language.tokenizer import Tokenizer
from models.language.xglm import XGLM, XGLMConfig
from models.neutral.lexicon import Lexicon, load_lexicons
from models.neutral.token_texts import TokenTexts
from models.neutral.wording import NeutralRows, NeutralWording

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
PIECES = [
    *SPECIAL,
    "▁a", "▁man", "man", "▁wo", "▁m", "an", "y", "▁many", "▁person", "▁child", "▁dog", ".", "▁the▁man", "s",
    "n", "▁Man", "▁people", "ner", "▁girl",
]  # fmt: skip
PROMPTS = [[2, 5, 6, 4], [2, 4], [2, 14, 9, 12]]


class Vocabulary:
    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces

    def pieces(self) -> list[str]:
        return self._pieces

    def ids(self, text: str) -> list[int]:
        return [self._pieces.index(piece) for piece in text.split()]

    def text(self, ids: tuple[int, ...]) -> str:
        return "".join(self._pieces[token] for token in ids).replace("▁", " ")


VOCABULARY = Vocabulary(PIECES)
TOKENS = TokenTexts(VOCABULARY)
ENGLISH = load_lexicons()["en"]


def refused(wording: NeutralWording, size: int, ids: list[int]) -> set[int]:
    scores = torch.zeros(size)
    wording.apply(scores, ids)
    return set((scores == -math.inf).nonzero()[:, 0].tolist())


@pytest.mark.parametrize(
    ("before", "pieces"),
    [
        ("", "▁man man ▁the▁man ▁Man ▁girl"),
        ("▁a", "▁man ▁the▁man ▁Man ▁girl"),  # "aman" is no word
        ("▁wo", "▁man man ▁the▁man ▁Man ▁girl"),
        ("▁m", "▁man an ▁the▁man ▁Man ▁girl"),
        ("▁a .", "▁man man ▁the▁man ▁Man ▁girl"),
        ("▁many", "▁man ▁the▁man ▁Man ▁girl"),
    ],
)
def test_tokens_that_would_complete_a_gendered_word_are_refused(before: str, pieces: str) -> None:
    wording = NeutralWording(TOKENS, ENGLISH)
    assert refused(wording, len(PIECES), VOCABULARY.ids(before)) == set(VOCABULARY.ids(pieces))


def test_a_line_break_ends_a_word() -> None:
    wording = NeutralWording(TokenTexts(Vocabulary(["hu\n", "▁hu", "man", "▁dog"])), ENGLISH)
    assert refused(wording, 4, [0]) == {2}
    assert refused(wording, 4, [1]) == set()  # it becomes "human"


def test_what_gendered_words_had_goes_to_words_for_anybody() -> None:
    shares = {
        "▁man": 0.4,
        "▁Man": 0.1,
        "▁girl": 0.1,
        "▁person": 0.1,
        "▁people": 0.1,
        "▁child": 0.1,
        "▁dog": 0.1,
    }
    scores = torch.full((len(PIECES),), -math.inf)
    for piece, share in shares.items():
        scores[PIECES.index(piece)] = math.log(share)
    NeutralWording(TOKENS, ENGLISH).apply(scores, [])
    left = {piece: float(scores[PIECES.index(piece)].exp()) for piece in shares}
    gone = dict.fromkeys(("▁man", "▁Man", "▁girl"), 0.0)
    assert left == pytest.approx({**gone, "▁person": 0.35, "▁people": 0.35, "▁child": 0.2, "▁dog": 0.1})


def test_a_word_that_cannot_stand_there_is_not_forced() -> None:
    scores = torch.full((len(PIECES),), -math.inf)
    for piece, share in {"▁man": 0.9, "▁person": 1e-5, "▁dog": 0.09}.items():
        scores[PIECES.index(piece)] = math.log(share)
    NeutralWording(TOKENS, ENGLISH).apply(scores, [])
    assert scores.argmax() == PIECES.index("▁dog")
    nobody = torch.full((len(PIECES),), -math.inf)
    nobody[PIECES.index("▁man")] = 0.0
    NeutralWording(TOKENS, ENGLISH).apply(nobody, [])
    assert not nobody.isnan().any()


@pytest.mark.parametrize(
    ("language", "article", "feminine", "allowed"),
    [
        ("es", "Un", "▁persona", False),
        ("es", "Una", "▁persona", True),
        ("fr", "Le", "▁personne", False),
        ("fr", "un", "▁enfant", True),
        ("pt", "um", "▁criança", False),
        ("pt", "Duas", "▁pessoas", True),
    ],
)
def test_a_word_for_anybody_does_not_follow_the_article_of_another(
    language: str, article: str, feminine: str, allowed: bool, tokenizer: Tokenizer
) -> None:
    pieces = [tokenizer.piece(token) for token in range(len(tokenizer))]
    scores = torch.full((len(pieces),), -12.0)
    scores[pieces.index(feminine)] = -3.0
    (ids,) = tokenizer.encode([article])
    NeutralWording(TokenTexts(tokenizer), load_lexicons()[language]).apply(scores, ids)
    assert (scores[pieces.index(feminine)] > -3.1) == allowed


def naive_refused(tokenizer: Tokenizer, lexicon: Lexicon, ids: list[int]) -> set[int]:
    """Tokens after which the text holds a gendered word that it did not hold before."""
    text = "".join(tokenizer.piece(token) for token in ids).replace("▁", " ")
    known = len(lexicon.gendered_in(text))
    return {
        token
        for token in range(len(tokenizer))
        if len(lexicon.gendered_in(text + tokenizer.piece(token).replace("▁", " "))) > known
    }


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(default_bundle() / "vocabulary.model")


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "A police"),
        ("de", "Ein Feuerwehr"),
        ("cs", "Malá hol"),
        ("hi", "एक और"),
        ("ar", "مجموعة من الرج"),
        ("uk", "Дві дівчин"),
        ("zh", "一个小"),
    ],
)
def test_on_a_real_vocabulary_it_refuses_what_a_look_at_every_token_finds(
    language: str, text: str, tokenizer: Tokenizer
) -> None:
    lexicon = load_lexicons()[language]
    wording = NeutralWording(TokenTexts(tokenizer), lexicon)
    (ids,) = tokenizer.encode([text])
    for length in (len(ids), len(ids) - 1):
        expected = naive_refused(tokenizer, lexicon, ids[:length])
        assert expected
        assert refused(wording, len(tokenizer), ids[:length]) == expected


@given(ids=st.lists(st.integers(4, len(PIECES) - 1), max_size=8))
@settings(max_examples=200, deadline=None)
def test_what_is_refused_never_completes_a_text_without_gendered_words(ids: list[int]) -> None:
    wording = NeutralWording(TOKENS, ENGLISH)
    kept: list[int] = []
    for token in ids:
        if token not in refused(wording, len(PIECES), kept):
            kept.append(token)
    assert ENGLISH.gendered_in(VOCABULARY.text(tuple(kept))) == []


@pytest.fixture(scope="module")
def model() -> XGLM:
    torch.manual_seed(13)  # a model that has much to say about men
    model = XGLM(
        XGLMConfig(
            vocab_size=len(PIECES), d_model=32, num_layers=2, num_heads=4, ffn_dim=64, max_positions=64
        )
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    return model


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_generated_texts_hold_no_gendered_word_and_do_not_depend_on_the_batch(
    model: XGLM, temperature: float | None
) -> None:
    settings = GenerationSettings(max_new_tokens=12, num_captions=3, temperature=temperature, top_p=1.0)
    wording = NeutralWording(TOKENS, ENGLISH)

    def texts(rows: list[NeutralWording | None] | None, prompts: list[list[int]]) -> list[list[str]]:
        neutral = None if rows is None else NeutralRows(rows)
        found = generate(model, prompts, settings, neutral=neutral)
        return [[VOCABULARY.text(one.ids) for one in row] for row in found]

    free = texts(None, PROMPTS)
    assert any(ENGLISH.gendered_in(text) for row in free for text in row)
    together = texts([wording] * 3, PROMPTS)
    assert [text for row in together for text in row if ENGLISH.gendered_in(text)] == []
    mixed = texts([wording, None, wording], PROMPTS)
    assert mixed == [together[0], free[1], together[2]]
    for row, prompt in zip(together, PROMPTS, strict=True):
        assert texts([wording], [prompt]) == [row]
