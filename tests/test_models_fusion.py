import math

import pytest
import torch

from models.fusion.attention import attention
from models.fusion.cross_attention import CrossAttentionBridge, CrossAttentionConfig


def random_bridge(reduction: int = 2, query_scaling: str = "unreduced") -> CrossAttentionBridge:
    torch.manual_seed(0)
    config = CrossAttentionConfig(3, 32, 20, 4, reduction, query_scaling)  # type: ignore[arg-type]
    bridge = CrossAttentionBridge(config).eval()
    for parameter in bridge.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return bridge


@pytest.mark.parametrize("masked", ["none", "causal", "some"])
def test_every_way_to_attend_gives_the_same(masked: str) -> None:
    query, key, value = torch.randn(3, 2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    mask = (
        torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1)) > 0.5 if masked == "some" else None
    )
    if mask is not None:
        mask = mask | torch.eye(6, dtype=torch.bool)
    causal = masked == "causal"
    fast, nothing = attention(query, key, value, scale=0.3, mask=mask, is_causal=causal)
    shown, weights = attention(query, key, value, scale=0.3, mask=mask, is_causal=causal, need_weights=True)
    trained, _ = attention(query.requires_grad_(), key, value, scale=0.3, mask=mask, is_causal=causal)
    assert nothing is None
    assert weights is not None
    torch.testing.assert_close(shown, fast)
    torch.testing.assert_close(trained.detach(), fast)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 6))
    if causal:
        assert not weights.triu(1).any()


@pytest.mark.parametrize(
    ("layers", "width", "reduction", "parameters"),
    [  # PAELLA's published sizes: XGLM-564M and 2.9B over CLIP ViT-B/32
        (24, 1024, 16, 5_583_360),
        (48, 2048, 16, 34_916_352),
        (24, 1024, 1, 88_227_840),
    ],
)
def test_parameters_are_those_of_paella(layers: int, width: int, reduction: int, parameters: int) -> None:
    config = CrossAttentionConfig(layers, width, 768, 16, reduction)
    assert config.num_parameters == parameters
    with torch.device("meta"):
        bridge = CrossAttentionBridge(config)
    assert sum(p.numel() for p in bridge.parameters()) == parameters


@pytest.mark.parametrize("query_scaling", ["unreduced", "reduced"])
def test_a_layer_is_the_formula(query_scaling: str) -> None:
    """Against the formula written out for one head and one query at a time."""
    bridge = random_bridge(reduction=2, query_scaling=query_scaling)
    memory, hidden = torch.randn(1, 5, 20), torch.randn(1, 3, 32)
    head = 4  # d_model 32 / reduction 2 / 4 heads
    factor = (8 if query_scaling == "unreduced" else 4) ** -0.5
    with torch.no_grad():
        state = bridge.prepare(memory)
        actual = bridge.layer(1, hidden, state)
        rows = bridge.kv_proj.weight.view(3, 2, 16, 20), bridge.kv_proj.bias.view(3, 2, 16)
        keys = memory[0] @ rows[0][1, 0].t() + rows[1][1, 0]
        values = memory[0] @ rows[0][1, 1].t() + rows[1][1, 1]
        for position in range(3):
            query = bridge.q_projs[1](bridge.norms[1](hidden[0, position])) * factor
            attended = []
            for h in range(4):
                part = slice(h * head, (h + 1) * head)
                scores = [math.exp(float(query[part] @ key[part])) for key in keys]
                weights = torch.tensor([score / sum(scores) for score in scores])
                attended.append(weights @ values[:, part])
            expected = hidden[0, position] + bridge.out_projs[1](torch.cat(attended))
            torch.testing.assert_close(actual[0, position], expected)


def test_masked_memory_is_as_if_it_were_not_there() -> None:
    bridge = random_bridge()
    memory, hidden = torch.randn(2, 6, 20), torch.randn(2, 3, 32)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    with torch.no_grad():
        with_mask = bridge.layer(0, hidden, bridge.prepare(memory, mask))
        without = bridge.layer(0, hidden, bridge.prepare(memory[:, :4]))
    torch.testing.assert_close(with_mask, without)


def test_selected_images_are_those_images() -> None:
    bridge = random_bridge()
    memory, hidden = torch.randn(3, 6, 20), torch.randn(4, 2, 32)
    rows = torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        selected = bridge.layer(2, hidden, bridge.prepare(memory).select(rows))
        repeated = bridge.layer(2, hidden, bridge.prepare(memory[rows]))
    torch.testing.assert_close(selected, repeated)


def test_attention_weights_on_request() -> None:
    bridge = random_bridge()
    state = bridge.prepare(torch.randn(2, 6, 20))
    hidden = torch.randn(2, 3, 32)
    with torch.no_grad():
        mixed, weights = bridge.layer_with_weights(0, hidden, state)
        torch.testing.assert_close(mixed, bridge.layer(0, hidden, state))
    assert weights.shape == (2, 4, 3, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 3))


def test_a_reduction_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="reduction 3"):
        CrossAttentionConfig(2, 32, 20, 4, reduction=3)
