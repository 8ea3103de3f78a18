import pytest
import torch
from torch import Tensor

from models.fusion.rollout import as_distributions, cross_rollout, latent_rollout, rollout


def heads(*rows: list[float]) -> Tensor:
    """One row of the batch, one head: (1, 1, Q, K)."""
    return torch.tensor([[list(rows)]])


def random_attention(*shape: int, causal: bool = False, seed: int = 0) -> Tensor:
    scores = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3
    if causal:
        scores = scores.masked_fill(torch.ones(shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
    return scores.softmax(dim=-1)


def test_rollout_is_the_product_with_half_an_identity() -> None:
    first = heads([1.0, 0.0], [0.5, 0.5])
    second = heads([1.0, 0.0], [1.0, 0.0])
    torch.testing.assert_close(rollout([first]), torch.tensor([[[1.0, 0.0], [0.25, 0.75]]]))
    # Second row: half of itself, half of what position 0 holds.
    torch.testing.assert_close(rollout([first, second]), torch.tensor([[[1.0, 0.0], [0.625, 0.375]]]))


def test_positions_that_look_at_themselves_stay_themselves() -> None:
    torch.testing.assert_close(rollout([torch.eye(3).expand(2, 4, 3, 3)] * 5), torch.eye(3).expand(2, 3, 3))


def test_heads_are_averaged() -> None:
    one, other = random_attention(2, 2, 4, 4).split(1, dim=1)  # type: ignore[no-untyped-call]
    both = torch.cat([one, other], dim=1)
    torch.testing.assert_close(rollout([both]), (rollout([one]) + rollout([other])) / 2)


def test_rows_of_a_rollout_are_distributions_and_causal_ones_stay_causal() -> None:
    rolled = rollout([random_attention(2, 3, 6, 6, causal=True, seed=s) for s in range(4)])
    torch.testing.assert_close(rolled.sum(dim=-1), torch.ones(2, 6))
    assert not rolled.triu(1).any()


def test_one_layer_without_text_in_it_is_the_attention_itself() -> None:
    image = random_attention(2, 3, 5, 7)
    relevance = cross_rollout([torch.eye(5).expand(2, 3, 5, 5)], [image])
    torch.testing.assert_close(relevance, image.mean(dim=1))


def test_a_position_passes_on_what_it_has_seen() -> None:
    looks = heads([1.0, 0.0], [0.0, 1.0])  # position 0 at visual token 0, position 1 at token 1
    back = heads([1.0, 0.0], [1.0, 0.0])  # then both at position 0
    relevance = cross_rollout([torch.eye(2)[None, None], back], [looks, None])
    # Position 1 keeps half of its own, and takes half of position 0's.
    torch.testing.assert_close(relevance, torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]))


def test_two_layers_by_hand() -> None:
    own = heads([1.0, 0.0], [0.5, 0.5])
    first, second = heads([1.0, 0.0], [0.0, 1.0]), heads([0.0, 1.0], [0.0, 1.0])
    # After layer 1: [.5, 0], [0, .5]. Self-attention of layer 2: [.5, 0], [.125, .375]. Its image attention:
    # [.25, .5], [.0625, .6875]; then rows to 1.
    expected = torch.tensor([[[1 / 3, 2 / 3], [1 / 12, 11 / 12]]])
    torch.testing.assert_close(cross_rollout([own, own], [first, second]), expected)


def test_a_prefix_brings_the_image_in() -> None:
    prefix = torch.tensor([[[0.25, 0.75]]])  # one position of a soft prompt
    own = heads([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    relevance = cross_rollout([own], [None], prefix)
    torch.testing.assert_close(relevance[0, :2], prefix[0].expand(2, -1))
    torch.testing.assert_close(relevance[0, 2], torch.tensor([0.5, 0.5]))  # has seen nothing: equal weights


def test_relevance_rows_are_distributions() -> None:
    own = [random_attention(2, 3, 6, 6, causal=True, seed=s) for s in range(4)]
    image = [random_attention(2, 3, 6, 9, seed=9), None, random_attention(2, 3, 6, 9, seed=8), None]
    relevance = cross_rollout(own, image)
    assert bool((relevance >= 0).all())
    torch.testing.assert_close(relevance.sum(dim=-1), torch.ones(2, 6))


def test_a_model_that_looks_at_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="looks at the image"):
        cross_rollout([torch.eye(2)[None, None]], [None])


def test_latents_pass_on_what_they_have_seen() -> None:
    first = heads([1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0])  # two visual tokens, then two latents
    second = heads([0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0])  # both at latent 0
    one, two = latent_rollout([first, second])
    torch.testing.assert_close(one, torch.eye(2)[None])
    torch.testing.assert_close(two, torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]))


def test_zeros_become_equal_weights() -> None:
    actual = as_distributions(torch.tensor([[0.0, 0.0], [1.0, 3.0]]))
    torch.testing.assert_close(actual, torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
