import torch

from models.language.special_tokens import NO_TOKEN
from models.neighbour_cache import Copying, NeighbourCache

VOCABULARY = 8


def cache(weights: list[float]) -> NeighbourCache:
    hidden = torch.eye(4)[None].repeat(2, 1, 1)  # each place of a prompt unlike the others
    return NeighbourCache(Copying([[NO_TOKEN, 5, 6, 6], [NO_TOKEN, NO_TOKEN]], weights), hidden)


def log_uniform(batch: int, width: int) -> torch.Tensor:
    return torch.full((batch, width, VOCABULARY), 1 / VOCABULARY).log()


def test_what_followed_the_most_alike_place_gains_most() -> None:
    hidden = torch.eye(4)[None].repeat(2, 1, 1)
    mixed = cache([0.5, 0.5]).mix(hidden, log_uniform(2, 4)).exp()
    assert torch.allclose(mixed.sum(dim=-1), torch.ones(2, 4))
    assert mixed[0, 1].argmax() == 5
    assert mixed[0, 2].argmax() == 6
    assert mixed[0, 0, 6] > mixed[0, 0, 5] > mixed[0, 0, 0]  # alike to none: two places offer 6, one offers 5
    assert torch.equal(mixed[1], log_uniform(2, 4)[1].exp())  # no neighbours


def test_a_weight_of_nothing_changes_nothing() -> None:
    own = torch.randn(2, 1, VOCABULARY).log_softmax(dim=-1)
    assert torch.equal(cache([0.0, 0.0]).mix(torch.randn(2, 1, 4), own), own)


def test_kept_rows_keep_what_is_theirs() -> None:
    hidden, own = torch.randn(2, 1, 4), log_uniform(2, 1)
    whole = cache([0.5, 0.5])
    expected = whole.mix(hidden, own)
    kept = torch.tensor([0])
    whole.keep(kept)
    assert torch.equal(whole.mix(hidden[kept], own[kept]), expected[kept])
