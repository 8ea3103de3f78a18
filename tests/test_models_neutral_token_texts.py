"""Which tokens a lexicon concerns: found quickly, and the same as when every token is looked at."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bundle import default_bundle
from models.language.tokenizer import Tokenizer
from models.neutral.lexicon import Lexicon, load_lexicons
from models.neutral.token_texts import FoldedTokens, TokenTexts
from models.neutral.wording import NeutralWording

LEXICONS = load_lexicons()


class Written:
    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces

    def pieces(self) -> list[str]:
        return self._pieces


class EveryToken(FoldedTokens):
    """Leaves nothing out, and folds piece by piece."""

    def __init__(self, pieces: list[str], lexicon: Lexicon) -> None:
        self.texts = [lexicon.fold(piece.replace("▁", " ")) for piece in pieces]

    def with_words(self, *_: frozenset[str]) -> list[int]:
        return list(range(len(self.texts)))

    def with_characters(self, _: frozenset[str]) -> list[int]:
        return list(range(len(self.texts)))


class NaiveTexts(TokenTexts):
    def folded(self, lexicon: Lexicon) -> FoldedTokens:
        return EveryToken(self._pieces, lexicon)


def same(pieces: list[str], lexicon: Lexicon, contexts: list[list[int]]) -> bool:
    quick = NeutralWording(TokenTexts(Written(pieces)), lexicon)
    naive = NeutralWording(NaiveTexts(Written(pieces)), lexicon)
    for context in contexts:
        scores = torch.linspace(-9, -1, len(pieces)).log_softmax(0)
        expected = scores.clone()
        quick.apply(scores, context)
        naive.apply(expected, context)
        if not torch.equal(scores, expected):
            return False
    return True


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(default_bundle() / "vocabulary.model")


def test_all_pieces_at_once_are_those_one_by_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.pieces() == [tokenizer.piece(token) for token in range(len(tokenizer))]


@pytest.mark.parametrize("language", LEXICONS)
def test_the_wording_is_that_of_looking_at_every_token(language: str, tokenizer: Tokenizer) -> None:
    lexicon = LEXICONS[language]
    words = sorted(lexicon.gendered | lexicon.masculine)
    contexts = tokenizer.encode([word[: len(word) - 1] or word for word in words[::7]])
    assert same(tokenizer.pieces(), lexicon, [[], *contexts])


LETTERS = st.sampled_from("abmnwoe éÉमर्द子人男女\n\0\t▁.'-1\u0301\u064b")
PIECES = st.text(LETTERS, max_size=6)


@given(
    st.lists(PIECES, min_size=1, max_size=8),
    st.sampled_from(sorted(LEXICONS)),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_whatever_the_pieces_are(strange: list[str], language: str, data: st.DataObject) -> None:
    lexicon = LEXICONS[language]
    people = data.draw(st.lists(st.sampled_from(sorted(lexicon.people)), min_size=1, max_size=6))
    cuts = data.draw(st.lists(st.integers(0, 4), min_size=len(people), max_size=len(people)))
    pieces = [*strange, *people, *(f"▁{word}" for word in people)]
    pieces += [word[:cut] for word, cut in zip(people, cuts, strict=True)]
    pieces += [word[cut:] for word, cut in zip(people, cuts, strict=True)]
    pieces += [f"{odd}{word}" for odd, word in zip(strange, people, strict=False)]
    assert same(pieces, lexicon, [[], *([token] for token in range(len(pieces)))])
