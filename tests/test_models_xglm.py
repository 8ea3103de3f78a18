"""Our XGLM against transformers' own, on random weights."""

import dataclasses

import pytest
import torch
from transformers import XGLMConfig as TransformersConfig
from transformers import XGLMForCausalLM

from models.fusion.cross_attention import CrossAttentionBridge, CrossAttentionConfig
from models.language.xglm import XGLM, XGLMConfig, from_transformers
from retrieval.errors import BundleError

CONFIG = XGLMConfig(vocab_size=120, d_model=48, num_layers=3, num_heads=4, ffn_dim=96, max_positions=64)


@pytest.fixture(scope="module")
def reference() -> XGLMForCausalLM:
    torch.manual_seed(0)
    model = XGLMForCausalLM(
        TransformersConfig(
            vocab_size=120,
            d_model=48,
            num_layers=3,
            attention_heads=4,
            ffn_dim=96,
            max_position_embeddings=64,
            dropout=0.0,
            attention_dropout=0.0,
        )
    )
    for parameter in model.parameters():  # the default init leaves biases at 0 and would hide a lost one
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def ours(reference: XGLMForCausalLM) -> XGLM:
    return from_transformers(reference.state_dict(), CONFIG).eval()


def causal(batch: int, length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril().expand(batch, 1, length, length)


@torch.inference_mode()
def test_logits_equal_transformers(reference: XGLMForCausalLM, ours: XGLM) -> None:
    ids = torch.randint(4, 120, (3, 17), generator=torch.Generator().manual_seed(1))
    expected = reference(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(ours.logits(ours(ids)), expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_logits_equal_transformers_with_padding(reference: XGLMForCausalLM, ours: XGLM) -> None:
    ids = torch.randint(4, 120, (2, 12), generator=torch.Generator().manual_seed(2))
    real = torch.ones(2, 12, dtype=torch.bool)
    real[0, :5] = False  # left padding, as transformers pads prompts
    ids[~real] = 1
    expected = reference(input_ids=ids, attention_mask=real.long(), use_cache=False).logits
    # A padding query must see something: itself.
    mask = causal(2, 12) & real[:, None, None, :] | torch.eye(12, dtype=torch.bool)
    actual = ours.logits(ours(ids, mask=mask))
    torch.testing.assert_close(actual[real], expected[real], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_cached_equals_uncached(ours: XGLM) -> None:
    ids = torch.randint(4, 120, (2, 15), generator=torch.Generator().manual_seed(3))
    expected = ours(ids)
    cache = ours.new_cache(batch=2, capacity=15)
    outputs = []
    for start, end in [(0, 6), (6, 7), (7, 8), (8, 15)]:
        outputs.append(
            ours(
                ids[:, start:end],
                torch.arange(start, end)[None],
                causal(2, 15)[:, :, start:end, :end],
                cache=cache,
            )
        )
        cache.advance(end - start)
    torch.testing.assert_close(torch.cat(outputs, dim=1), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_cached_equals_transformers_cached(reference: XGLMForCausalLM, ours: XGLM) -> None:
    ids = torch.randint(4, 120, (1, 9), generator=torch.Generator().manual_seed(4))
    past = reference(input_ids=ids[:, :8], use_cache=True).past_key_values
    expected = reference(input_ids=ids[:, 8:], past_key_values=past, use_cache=True).logits
    cache = ours.new_cache(batch=1, capacity=9)
    ours(ids[:, :8], mask=causal(1, 8), cache=cache)
    cache.advance(8)
    actual = ours.logits(
        ours(ids[:, 8:], torch.tensor([[8]]), torch.ones(1, 1, 1, 9, dtype=torch.bool), cache=cache)
    )
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_bfloat16_stays_near_float32(reference: XGLMForCausalLM) -> None:
    model = from_transformers(reference.state_dict(), CONFIG).eval()
    ids = torch.randint(4, 120, (2, 10), generator=torch.Generator().manual_seed(5))
    expected = model.logits(model(ids)).log_softmax(-1)
    model.to(torch.bfloat16)
    actual = model.logits(model(ids)).float().log_softmax(-1)
    assert (actual - expected).abs().mean() < 0.05


def test_a_full_cache_is_refused(ours: XGLM) -> None:
    cache = ours.new_cache(batch=1, capacity=2)
    with pytest.raises(ValueError, match="holds 2 positions, 3 are needed"):
        ours(torch.tensor([[4, 5, 6]]), mask=causal(1, 3), cache=cache)


def test_weights_that_do_not_fit_are_named(reference: XGLMForCausalLM) -> None:
    weights = dict(reference.state_dict())
    del weights["model.layers.1.fc1.bias"]
    with pytest.raises(BundleError, match=r"missing layers\.1\.fc1\.bias"):
        from_transformers(weights, CONFIG)
    weights = dict(reference.state_dict())
    del weights["model.layers.2.self_attn.k_proj.weight"]
    with pytest.raises(BundleError, match=r"lack layers\.2\.self_attn\.k_proj\.weight"):
        from_transformers(weights, CONFIG)


def test_recomputed_layers_have_the_same_gradients() -> None:
    torch.manual_seed(0)
    shape = dataclasses.replace(CONFIG, dropout=0.2, attention_dropout=0.2)
    model = XGLM(shape).requires_grad_(False).train()
    bridge = CrossAttentionBridge(CrossAttentionConfig(3, 48, 12, 4, reduction=2))
    ids = torch.randint(4, 120, (2, 9))
    called, gradients = [0], []
    model.layers[1].register_forward_pre_hook(lambda *_: called.__setitem__(0, called[0] + 1))
    for calls in (1, 3):
        state = bridge.prepare(torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(2)))
        torch.manual_seed(3)
        model(ids, mask=causal(2, 9), bridge=bridge, bridge_state=state).square().mean().backward()
        gradients.append([parameter.grad for parameter in bridge.parameters()])
        bridge.zero_grad()
        assert called[0] == calls
        model.recompute_layers()
    assert all(parameter.grad is None for parameter in model.parameters())
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept)


def test_attention_is_dropped_while_training_alone(reference: XGLMForCausalLM) -> None:
    model = from_transformers(reference.state_dict(), dataclasses.replace(CONFIG, attention_dropout=0.5))
    ids = torch.randint(4, 120, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = model.eval()(ids)
        assert torch.equal(model(ids), plain)
        dropped = torch.stack([model.train()(ids) for _ in range(2)])
    assert (dropped[0] - dropped[1]).abs().max() > 0.01
