"""Decoders in the Hub's format: tiny ones with random weights, held against naive readings of them."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from models.fusion.cross_attention import CrossAttentionBridge, CrossAttentionConfig
from models.fusion.visual_prefix import VisualPrefixBridge, VisualPrefixConfig
from models.generation import GenerationSettings, Hypothesis, generate
from models.language.hub import HubLanguageModel, load_hub_language_model
from retrieval.errors import BundleError

LAYERS, WIDTH, HEADS, VOCABULARY = 4, 32, 4, 40
END = 2
PROMPTS = [[3, 5, 6, 7, 8, 9, 10, 31, 32], [4, 11], [5, 12, 13, 14], [6, 30, 31, 32, 33]]
SETTINGS = GenerationSettings(max_new_tokens=7, min_new_tokens=2, beams=3)

_COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": END, "pad_token_id": 1}
_ROTARY = {
    **_COMMON,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _ROTARY),
    "qwen3": ("Qwen3Config", {**_ROTARY, "head_dim": 16}),
    # A window shorter than the prompts, and one layer in four that sees everything.
    "gemma3": (
        "Gemma3TextConfig",
        {
            **_ROTARY,
            "head_dim": 8,
            "sliding_window": 4,
            "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        },
    ),
    "gemma2": (
        "Gemma2Config",
        {**_ROTARY, "head_dim": 8, "sliding_window": 4, "final_logit_softcapping": 2.0},
    ),
    "bloom": ("BloomConfig", {**_COMMON, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS}),
    "gpt2": (
        "GPT2Config",
        {**_COMMON, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 128},
    ),
    "smollm3": ("SmolLM3Config", _ROTARY),
    "opt": (
        "OPTConfig",
        {
            **_COMMON,
            "hidden_size": WIDTH,
            "word_embed_proj_dim": WIDTH,
            "ffn_dim": 64,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": 128,
        },
    ),
    "olmo2": ("Olmo2Config", _ROTARY),  # norms behind the blocks
    "cohere": ("CohereConfig", {**_ROTARY, "logit_scale": 0.25}),  # both blocks side by side
}


def tiny(name: str) -> Any:
    """A causal language model of transformers with strong random weights."""
    class_name, settings = _CONFIGS[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, class_name)(**settings))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.25)
    return model.eval()


@pytest.fixture(scope="module", params=sorted(_CONFIGS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HubLanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    tiny(request.param).save_pretrained(folder)
    return load_hub_language_model(folder)


def random_bridge(kind: str = "cross_attention") -> Any:
    torch.manual_seed(1)
    bridge: nn.Module = (
        CrossAttentionBridge(CrossAttentionConfig(LAYERS, WIDTH, 12, HEADS, reduction=2))
        if kind == "cross_attention"
        else VisualPrefixBridge(VisualPrefixConfig(WIDTH, 12))
    )
    for parameter in bridge.parameters():
        nn.init.normal_(parameter, std=0.3)
    return bridge.eval()


@pytest.fixture(scope="module", params=["cross_attention", "visual_prefix"])
def bridge(request: pytest.FixtureRequest) -> Any:
    return random_bridge(request.param)


def memory(rows: int) -> Tensor:
    return torch.randn(rows, 5, 12, generator=torch.Generator().manual_seed(2))


def naive_search(
    model: HubLanguageModel, bridge: Any, state: Any, prompt: list[int], settings: GenerationSettings
) -> list[Hypothesis]:
    """Beam search that reads every sequence from its first token: no cache, no batch, no padding."""
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[Hypothesis] = []
    for _ in range(settings.max_new_tokens):
        candidates = []
        for score, ids in running:
            hidden = model(torch.tensor([prompt + ids]), bridge=bridge, bridge_state=state)
            scores = model.logits(hidden)[0, -1].float().log_softmax(-1)
            scores[list(settings.never)] = -torch.inf
            if len(ids) < settings.min_new_tokens:
                scores[settings.end] = -torch.inf
            candidates += [(score + float(scores[token]), [*ids, token]) for token in range(VOCABULARY)]
        candidates.sort(key=lambda item: item[0], reverse=True)
        for score, ids in candidates[: settings.width]:
            if ids[-1] == settings.end:
                finished.append(Hypothesis(tuple(ids[:-1]), score, finished=True))
        going_on = [item for item in candidates[: 2 * settings.width] if item[1][-1] != settings.end]
        running = going_on[: settings.width]
    finished.sort(key=lambda hypothesis: hypothesis.log_probability, reverse=True)
    cut = [Hypothesis(tuple(ids), score, finished=False) for score, ids in running]
    return (finished + cut)[: settings.num_captions]


@torch.inference_mode()
@pytest.mark.parametrize("beams", [1, 3])
def test_cached_and_batched_equals_naive_and_alone(model: HubLanguageModel, bridge: Any, beams: int) -> None:
    settings = dataclasses.replace(SETTINGS, beams=beams, num_captions=beams)
    state = bridge.prepare(memory(len(PROMPTS)))
    together = generate(model, PROMPTS, settings, bridge=bridge, bridge_state=state)
    for row, prompt in enumerate(PROMPTS[:2]):  # the longest and the shortest
        one = state.select(torch.tensor([row]))
        expected = naive_search(model, bridge, one, prompt, settings)
        (alone,) = generate(model, [prompt], settings, bridge=bridge, bridge_state=one)
        for found in (together[row], alone):
            assert [h.ids for h in found] == [h.ids for h in expected]
            for mine, naive in zip(found, expected, strict=True):
                assert mine.log_probability == pytest.approx(naive.log_probability, abs=2e-3)


@torch.inference_mode()
def test_without_a_bridge_it_is_the_model_itself(model: HubLanguageModel) -> None:
    inner: Any = model.model
    ids = torch.tensor([PROMPTS[0]])
    torch.testing.assert_close(model.logits(model(ids)), inner(ids).logits, atol=1e-4, rtol=1e-4)
    # The hooks are still there for the next image, and nobody else's business.
    greedy = dataclasses.replace(SETTINGS, beams=1, min_new_tokens=0, never=(0, 1))
    (ours,) = generate(model, [PROMPTS[0]], greedy)
    theirs = inner.generate(
        ids, do_sample=False, max_new_tokens=7, eos_token_id=END, pad_token_id=1, suppress_tokens=[0, 1]
    )[0, ids.shape[1] :].tolist()
    assert list(ours[0].ids) == (theirs[: theirs.index(END)] if END in theirs else theirs)


@torch.inference_mode()
def test_prompts_hidden_states_come_padded_on_the_right(model: HubLanguageModel, bridge: Any) -> None:
    state = bridge.prepare(memory(len(PROMPTS)))
    read = model.start(PROMPTS, width=1, max_new_tokens=1, bridge=bridge, bridge_state=state)
    for row, prompt in enumerate(PROMPTS):
        alone = model(torch.tensor([prompt]), bridge=bridge, bridge_state=state.select(torch.tensor([row])))
        torch.testing.assert_close(read.hidden_states[row, : len(prompt)], alone[0], atol=1e-3, rtol=1e-3)


def test_where_the_image_enters() -> None:
    inside = {name: HubLanguageModel(tiny(name)).bridged_inside for name in _CONFIGS}
    assert inside == {name: name != "cohere" for name in _CONFIGS}
    post_norm = transformers.OPTConfig(**{**_CONFIGS["opt"][1], "do_layer_norm_before": False})
    odd = HubLanguageModel(transformers.OPTForCausalLM(post_norm).eval())
    assert not odd.bridged_inside


@torch.inference_mode()
def test_the_image_enters_between_attention_and_feed_forward() -> None:
    """GPT-2 can be built with cross-attention of its own, exactly there: it says what must come out."""
    settings = {**_CONFIGS["gpt2"][1], "add_cross_attention": True}
    torch.manual_seed(0)
    reference = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings)).eval()
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.25)
    plain = transformers.GPT2LMHeadModel(transformers.GPT2Config(**_CONFIGS["gpt2"][1])).eval()
    plain.load_state_dict(reference.state_dict(), strict=False)
    bridge = CrossAttentionBridge(
        CrossAttentionConfig(LAYERS, WIDTH, WIDTH, HEADS, reduction=1, query_scaling="reduced")
    ).eval()
    rows = []
    for index, block in enumerate(reference.transformer.h):
        bridge.norms[index].load_state_dict(block.ln_cross_attn.state_dict())
        for linear, theirs in (
            (bridge.q_projs[index], block.crossattention.q_attn),
            (bridge.out_projs[index], block.crossattention.c_proj),
        ):
            linear.load_state_dict({"weight": theirs.weight.t(), "bias": theirs.bias})
        rows.append((block.crossattention.c_attn.weight.t(), block.crossattention.c_attn.bias))
    bridge.kv_proj.load_state_dict(
        {"weight": torch.cat([weight for weight, _ in rows]), "bias": torch.cat([bias for _, bias in rows])}
    )
    seen = torch.randn(1, 5, WIDTH)
    ids = torch.tensor([PROMPTS[0]])
    model = HubLanguageModel(plain)
    ours = model.logits(model(ids, bridge=bridge, bridge_state=bridge.prepare(seen)))
    torch.testing.assert_close(ours, reference(ids, encoder_hidden_states=seen).logits, atol=1e-4, rtol=1e-4)


def test_other_kinds_of_layers_are_refused() -> None:
    model = tiny("llama")
    model.config.layer_types = ["linear_attention", "full_attention"] * 2
    with pytest.raises(BundleError, match="layers of linear_attention"):
        HubLanguageModel(model)
    model = transformers.LlamaModel(transformers.LlamaConfig(**_CONFIGS["llama"][1]))
    with pytest.raises(BundleError, match="no head over a vocabulary"):
        HubLanguageModel(model)


def test_bfloat16_finds_the_same_places() -> None:
    assert HubLanguageModel(tiny("llama").to(torch.bfloat16)).bridged_inside


def test_what_is_no_language_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no causal language model"):
        load_hub_language_model(tmp_path)
    tiny("llama").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(BundleError, match="no causal language model"):
        load_hub_language_model(tmp_path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny("llama").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BundleError, match=r"lack model\.layers\.1\.mlp\.up_proj"):
        load_hub_language_model(tmp_path)


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "cohere", "opt"])
def test_recomputed_layers_have_the_same_gradients(name: str, bridge: Any) -> None:
    """With dropout, and with a backward pass in a thread of its own, as GPUs have it."""
    ids = torch.tensor([PROMPTS[0], PROMPTS[0][::-1]])
    gradients, calls = [], []
    for recomputed in (False, True):
        model = HubLanguageModel(tiny(name)).requires_grad_(False).train()
        parts: Any = model
        attention = next(
            module for part, module in parts.named_modules() if part.endswith(("attn", "attention"))
        )
        called = [0]
        attention.register_forward_hook(lambda *_, called=called: called.__setitem__(0, called[0] + 1))
        if recomputed:
            model.recompute_layers()
        state = bridge.prepare(memory(2))
        torch.manual_seed(3)
        hidden = model(ids, bridge=bridge, bridge_state=state)
        with ThreadPoolExecutor(1) as other:
            other.submit(hidden.square().mean().backward).result()
        gradients.append([parameter.grad.clone() for parameter in bridge.parameters()])
        bridge.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())
        calls.append(called[0])
    assert calls == [1, 2]
    assert any(gradient.abs().max() > 0 for gradient in gradients[0])
    for kept, recomputed_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed_gradient, kept)
