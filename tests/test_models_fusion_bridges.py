"""What every bridge must do, whatever it is built of."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.fusion.bottleneck import BottleneckBridge, BottleneckConfig
from models.fusion.cross_attention import CrossAttentionBridge, CrossAttentionConfig
from models.fusion.gated_cross_attention import GatedCrossAttentionBridge, GatedCrossAttentionConfig
from models.fusion.query_transformer import QueryTransformerBridge, QueryTransformerConfig
from models.fusion.visual_prefix import VisualPrefixBridge, VisualPrefixConfig
from models.language.decoding import LayerAttention
from models.language.xglm import XGLM, XGLMConfig

LANGUAGE = XGLMConfig(vocab_size=30, d_model=16, num_layers=4, num_heads=4, ffn_dim=32, max_positions=64)
D_MEMORY, TOKENS = 12, 6

BRIDGES: dict[str, Callable[[], nn.Module]] = {
    "cross_attention": lambda: CrossAttentionBridge(CrossAttentionConfig(4, 16, D_MEMORY, 4, reduction=2)),
    "grouped_cross_attention": lambda: CrossAttentionBridge(
        CrossAttentionConfig(4, 16, D_MEMORY, 4, reduction=2, num_kv_heads=2)
    ),
    "gated_cross_attention": lambda: GatedCrossAttentionBridge(
        GatedCrossAttentionConfig(4, 16, D_MEMORY, 4, every=2, num_latents=5, d_latent=8, resampler_layers=2)
    ),
    "query_transformer": lambda: QueryTransformerBridge(
        QueryTransformerConfig(16, D_MEMORY, 4, num_queries=3, d_query=8, depth=2)
    ),
    "visual_prefix_linear": lambda: VisualPrefixBridge(VisualPrefixConfig(16, D_MEMORY, "linear")),
    "visual_prefix_mlp": lambda: VisualPrefixBridge(VisualPrefixConfig(16, D_MEMORY, "mlp")),
    "bottleneck": lambda: BottleneckBridge(
        BottleneckConfig(4, 16, D_MEMORY, 4, num_bottlenecks=2, fusion_layer=1, d_bottleneck=8)
    ),
}


@pytest.fixture(scope="module")
def model() -> XGLM:
    torch.manual_seed(0)
    model = XGLM(LANGUAGE).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(params=sorted(BRIDGES))
def bridge(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(1)
    bridge = BRIDGES[request.param]().eval()
    for parameter in bridge.parameters():  # strong weights, gates open
        torch.nn.init.normal_(parameter, std=0.3)
    return bridge


def memory(batch: int = 2) -> Tensor:
    return torch.randn(batch, TOKENS, D_MEMORY, generator=torch.Generator().manual_seed(2))


def test_its_parameters_are_as_many_as_it_says(bridge: Any) -> None:
    assert bridge.config.num_parameters == sum(p.numel() for p in bridge.parameters())


def test_the_image_matters(bridge: Any, model: XGLM) -> None:
    ids = torch.tensor([[2, 5, 6]]).expand(2, -1)
    hidden = model(ids, bridge=bridge, bridge_state=bridge.prepare(memory()))
    assert hidden.shape == (2, 3, 16)
    assert not torch.allclose(hidden[0], hidden[1], atol=1e-3)


def test_a_later_token_changes_nothing_before_it(bridge: Any, model: XGLM) -> None:
    state = bridge.prepare(memory(1))
    one = model(torch.tensor([[2, 5, 6, 7]]), bridge=bridge, bridge_state=state)
    other = model(torch.tensor([[2, 5, 6, 8]]), bridge=bridge, bridge_state=state)
    assert torch.allclose(one[:, :3], other[:, :3], atol=1e-6)
    assert not torch.allclose(one[:, 3], other[:, 3], atol=1e-3)


def test_every_parameter_is_trained(bridge: Any, model: XGLM) -> None:
    hidden = model(torch.tensor([[2, 5, 6]]), bridge=bridge, bridge_state=bridge.prepare(memory(1)))
    hidden.square().sum().backward()
    without = [name for name, p in bridge.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # Keys have no use for a bias: it adds the same to all scores of a query.
    assert not [name for name in without if not name.endswith("kv_proj.bias")]


def test_gradients_are_those_of_finite_differences(bridge: Any, model: XGLM) -> None:
    exact, image = model.double(), memory(1).double().requires_grad_()
    try:
        bridge.double()

        def loss(image: Tensor) -> Tensor:
            hidden = exact(torch.tensor([[2, 5]]), bridge=bridge, bridge_state=bridge.prepare(image))
            summed: Tensor = hidden.sum(dim=1)
            return summed

        assert torch.autograd.gradcheck(loss, (image,), eps=1e-6, atol=1e-4)
    finally:
        model.float()


def test_rows_are_taken_with_their_image(bridge: Any, model: XGLM) -> None:
    ids = torch.tensor([[2, 5, 6], [2, 7, 8]])
    state = bridge.prepare(memory(2))
    swapped = model(ids, bridge=bridge, bridge_state=state.select(torch.tensor([1, 0])))
    fresh = model(ids, bridge=bridge, bridge_state=bridge.prepare(memory(2).flip(0)))
    assert torch.allclose(swapped, fresh, atol=1e-5)


def test_padded_visual_tokens_are_not_seen(bridge: Any) -> None:
    if isinstance(bridge, VisualPrefixBridge):
        with pytest.raises(ValueError, match="different numbers"):
            bridge.prepare(memory(1), torch.tensor([[True] * 5 + [False]]))
        return
    garbage = memory(1)
    garbage[:, 5] = 1e3
    mask = torch.tensor([[True] * 5 + [False]])
    padded, bare = bridge.prepare(garbage, mask), bridge.prepare(memory(1)[:, :5])
    hidden = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(3))
    for index in range(4):
        assert torch.allclose(
            bridge.layer(index, hidden, padded), bridge.layer(index, hidden, bare), atol=1e-5
        )
    prefixes = bridge.prefix(padded), bridge.prefix(bare)
    assert prefixes == (None, None) or torch.allclose(*prefixes, atol=1e-5)


def test_closed_gates_leave_the_language_model_as_it_is(model: XGLM) -> None:
    bridge: Any = BRIDGES["gated_cross_attention"]()
    ids = torch.tensor([[2, 5, 6]])
    with torch.no_grad():
        assert torch.equal(model(ids, bridge=bridge, bridge_state=bridge.prepare(memory(1))), model(ids))


def test_vision_reaches_text_through_the_bottlenecks_alone(model: XGLM) -> None:
    bridge: Any = BRIDGES["bottleneck"]()
    state = bridge.prepare(memory(1).requires_grad_())
    assert state.keys.shape[3] == state.values.shape[3] == 2
    hidden = torch.randn(1, 3, 16)
    assert torch.equal(bridge.layer(0, hidden, state), hidden)  # before the fusion layer
    cut = type(state)(state.keys.detach(), state.values.detach())
    read = bridge.layer(1, hidden, cut)
    assert not torch.autograd.grad(read.sum(), list(bridge.writers.parameters()), allow_unused=True)[0]


@torch.no_grad()
def test_weights_on_request_change_nothing(bridge: Any, model: XGLM) -> None:
    ids = torch.tensor([[2, 5, 6], [2, 7, 8]])
    collected: list[LayerAttention] = []
    state, _ = bridge.prepare_with_weights(memory())
    with_weights = model(ids, bridge=bridge, bridge_state=state, collected=collected)
    fast = model(ids, bridge=bridge, bridge_state=bridge.prepare(memory()))
    torch.testing.assert_close(with_weights, fast, atol=1e-5, rtol=0)
    assert len(collected) == LANGUAGE.num_layers


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_weights_are_distributions_over_what_is_offered(bridge: Any, model: XGLM, padded: bool) -> None:
    mask = torch.tensor([[True] * TOKENS, [True] * 4 + [False] * 2]) if padded else None
    if padded and isinstance(bridge, VisualPrefixBridge):
        pytest.skip("a visual prefix has no mask")
    collected: list[LayerAttention] = []
    state, origins = bridge.prepare_with_weights(memory(), mask)
    model(torch.tensor([[2, 5, 6]]).expand(2, -1), bridge=bridge, bridge_state=state, collected=collected)
    prefix = bridge.prefix(state)
    width = 3 + (0 if prefix is None else prefix.shape[1])
    looking = {index for index, layer in enumerate(collected) if layer.image is not None}
    assert looking == set(origins.layers)
    assert (prefix is None) == (origins.prefix is None)
    assert looking or origins.prefix is not None
    for index, layer in enumerate(collected):
        assert layer.own.shape == (2, 4, width, width)
        assert not layer.own.triu(1).any()  # causal
        torch.testing.assert_close(layer.own.sum(dim=-1), torch.ones(2, 4, width))
        if layer.image is not None:
            offered = origins.layers[index].shape[1]
            assert layer.image.shape == (2, 4, width, offered)
            torch.testing.assert_close(layer.image.sum(dim=-1), torch.ones(2, 4, width))
    for origin in [*origins.layers.values(), *([] if origins.prefix is None else [origins.prefix])]:
        assert origin.shape[0] == 2
        assert origin.shape[2] == TOKENS
        torch.testing.assert_close(origin.sum(dim=-1), torch.ones(2, origin.shape[1]))
        if padded and not torch.equal(origin[1], torch.eye(TOKENS)):
            assert not origin[1, :, 4:].any()  # padding is in nothing
