"""What matchers rank, and how it is scored."""

import pytest
import torch
from torch import Tensor

from evaluation.fusion_ranking import Ranking, hits, hits_with_embedder, make_ranking


def ranking(cosines: Tensor, own: Tensor) -> Ranking:
    photos, found = own.shape
    places = torch.arange(photos * found).view(photos, found)
    return Ranking(torch.arange(photos), [[4]] * (photos * found), places, cosines, own)


def test_what_is_found_is_the_nearest_of_all_and_its_own_are_known() -> None:
    owner = torch.tensor([0, 0, 2, 2, 2])  # nobody described photo 1
    cosines = torch.tensor([[0.1, 0.9, 0.5, 0.2, 0.3], [1.0] * 5, [0.8, 0.1, 0.2, 0.3, 0.7]])
    found = make_ranking([[number] for number in range(5)], owner, cosines, 3)
    assert found.photos.tolist() == [0, 2]
    assert found.found.tolist() == [[1, 2, 4], [0, 4, 3]]
    assert found.own.tolist() == [[True, False, False], [False, True, True]]
    assert found.cosines[1].tolist() == pytest.approx([0.8, 0.7, 0.3])
    assert make_ranking([[0]] * 5, owner, cosines, 20).found.shape == (2, 5)


def test_a_photo_is_found_if_its_own_caption_stands_before_all_others() -> None:
    own = torch.tensor([[False, True, True], [True, False, False], [False, False, False], [True, True, True]])
    scores = torch.tensor([[1.0, 0.0, 2.0], [1.0, 1.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert hits(scores, own).tolist() == [True, False, False, True]
    assert hits(torch.zeros(4, 3), own).tolist() == [False, False, False, True]  # ties are not luck


def test_a_weight_is_chosen_on_the_other_half() -> None:
    """Logits are right for the even photos, wrong for the odd ones; cosines the other way round."""
    photos = 40
    own = torch.zeros(photos, 3, dtype=torch.bool)
    own[:, 0] = True
    even = (torch.arange(photos) % 2 == 0)[:, None]
    right, wrong = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    rankings = {"en": ranking(torch.where(even, wrong, right), own)}
    logits = {"en": torch.where(even, right, wrong)}
    found, weights = hits_with_embedder(rankings, logits)
    # Had the weights been chosen on the photos themselves, all would be found.
    assert not found["en"].any()
    assert weights[0] == 0
    assert weights[1] > 1


def test_logits_help_where_they_know_more_and_do_not_harm_where_they_know_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    own = torch.zeros(400, 6, dtype=torch.bool)
    own[:, 2] = True

    def noisy(scale: float, share: float) -> Tensor:
        return (share * own + torch.rand(400, 6, generator=generator)) * scale

    rankings = {"en": ranking(noisy(0.1, 0.4), own), "de": ranking(noisy(0.1, 0.4), own)}
    embedder = sum(float(hits(r.cosines, r.own).float().mean()) for r in rankings.values())
    for share, gain in ((0.5, 0.05), (0.0, -0.1)):
        logits = {language: noisy(20.0, share) - 10 for language in rankings}
        found, weights = hits_with_embedder(rankings, logits)
        together = sum(float(own.float().mean()) for own in found.values())
        assert together > embedder + gain
        assert all(weight < 0.1 for weight in weights)
    assert hits_with_embedder(rankings, {language: torch.zeros(400, 6) for language in rankings})[1] == [0, 0]
