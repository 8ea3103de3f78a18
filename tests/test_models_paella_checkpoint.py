"""Checkpoints in the layouts of PAELLA and SmallCap, held against their formulas written out plainly."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from models.fusion.cross_attention import CrossAttentionBridge
from models.language.xglm import XGLM, XGLMConfig
from models.paella_checkpoint import PaellaCheckpoint, read_paella_checkpoint
from retrieval.errors import BundleError

LAYERS, D, HEADS, MEMORY, REDUCTION = 2, 32, 4, 12, 4
INNER = D // REDUCTION
LANGUAGE = XGLMConfig(
    vocab_size=40, d_model=D, num_layers=LAYERS, num_heads=HEADS, ffn_dim=64, max_positions=64
)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape) * 0.3


def paella_weights(prefix: str = "decoder.model.") -> dict[str, Tensor]:
    torch.manual_seed(3)
    weights = {}
    for layer in range(LAYERS):
        block = f"{prefix}layers.{layer}.encoder_attn"
        for part, (rows, columns) in {
            "q_proj": (INNER, D), "k_proj": (INNER, MEMORY), "v_proj": (INNER, MEMORY), "out_proj": (D, INNER)
        }.items():  # fmt: skip
            weights[f"{block}.{part}.weight"], weights[f"{block}.{part}.bias"] = (
                drawn(rows, columns),
                drawn(rows),
            )
        weights[f"{block}_layer_norm.weight"], weights[f"{block}_layer_norm.bias"] = 1 + drawn(D), drawn(D)
    return weights


def smallcap_weights(prefix: str = "decoder.transformer.") -> dict[str, Tensor]:
    torch.manual_seed(4)
    weights = {}
    for layer in range(LAYERS):
        block = f"{prefix}h.{layer}."
        for part, (rows, columns) in {
            "c_attn": (MEMORY, 2 * INNER), "q_attn": (D, INNER), "c_proj": (INNER, D)
        }.items():  # fmt: skip
            weights[f"{block}crossattention.{part}.weight"] = drawn(rows, columns)
            weights[f"{block}crossattention.{part}.bias"] = drawn(columns)
        weights[f"{block}crossattention.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()
        weights[f"{block}ln_cross_attn.weight"], weights[f"{block}ln_cross_attn.bias"] = (
            1 + drawn(D),
            drawn(D),
        )
    return weights


def plain_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(q k / scale) v, head by head and word by word."""
    mixed = torch.zeros(len(query), INNER)
    width = INNER // HEADS
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        for word in range(len(query)):
            scores = torch.stack([query[word, part] @ one / scale for one in key[:, part]])
            mixed[word, part] = (scores.exp() / scores.exp().sum()) @ value[:, part]
    return mixed


def paella_block(weights: dict[str, Tensor], layer: int, x: Tensor, memory: Tensor) -> Tensor:
    """What PAELLA adds in a layer: queries over the root of D / H, whatever the reduction."""
    block = f"decoder.model.layers.{layer}.encoder_attn"
    normed = F.layer_norm(x, (D,), weights[f"{block}_layer_norm.weight"], weights[f"{block}_layer_norm.bias"])
    q, k, v = (
        given @ weights[f"{block}.{part}_proj.weight"].t() + weights[f"{block}.{part}_proj.bias"]
        for part, given in (("q", normed), ("k", memory), ("v", memory))
    )
    mixed = plain_attention(q, k, v, math.sqrt(D // HEADS))
    return x + mixed @ weights[f"{block}.out_proj.weight"].t() + weights[f"{block}.out_proj.bias"]


def smallcap_block(weights: dict[str, Tensor], layer: int, x: Tensor, memory: Tensor) -> Tensor:
    """What SmallCap adds in a layer: (input, output) matrices, scores over the root of the reduced width."""
    block = f"decoder.transformer.h.{layer}."
    attn = f"{block}crossattention."
    normed = F.layer_norm(
        x, (D,), weights[f"{block}ln_cross_attn.weight"], weights[f"{block}ln_cross_attn.bias"]
    )
    q = normed @ weights[f"{attn}q_attn.weight"] + weights[f"{attn}q_attn.bias"]
    both = memory @ weights[f"{attn}c_attn.weight"] + weights[f"{attn}c_attn.bias"]
    mixed = plain_attention(q, both[:, :INNER], both[:, INNER:], math.sqrt(INNER // HEADS))
    return x + mixed @ weights[f"{attn}c_proj.weight"] + weights[f"{attn}c_proj.bias"]


def bridge_of(checkpoint: PaellaCheckpoint) -> CrossAttentionBridge:
    bridge = CrossAttentionBridge(checkpoint.config(LAYERS, D, HEADS)).eval()
    bridge.load_state_dict(checkpoint.weights)
    return bridge


def plain_xglm(model: XGLM, ids: list[int], weights: dict[str, Tensor], memory: Tensor) -> Tensor:
    """Logits (T, V) of XGLM with PAELLA's blocks, by the formulas: one text, no batch, no cache."""
    given: dict[str, Tensor] = dict(model.state_dict())
    angles = torch.arange(2, 2 + len(ids))[:, None] / 10000 ** (torch.arange(D // 2) / (D // 2 - 1))
    x = given["embed_tokens.weight"][ids] * math.sqrt(D) + torch.cat([angles.sin(), angles.cos()], dim=1)
    width = D // HEADS

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (D,), given[f"{name}.weight"], given[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ given[f"{name}.weight"].t() + given[f"{name}.bias"]

    for layer in range(LAYERS):
        name = f"layers.{layer}"
        q, k, v = linear(norm(x, f"{name}.self_attn_layer_norm"), f"{name}.qkv_proj").chunk(3, dim=1)
        mixed = torch.zeros(len(ids), D)
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            for word in range(len(ids)):
                scores = q[word, part] @ k[: word + 1, part].t() / math.sqrt(width)
                mixed[word, part] = scores.softmax(dim=0) @ v[: word + 1, part]
        x = x + linear(mixed, f"{name}.out_proj")
        x = paella_block(weights, layer, x, memory)
        hidden = linear(norm(x, f"{name}.final_layer_norm"), f"{name}.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + linear(hidden, f"{name}.fc2")
    return norm(x, "layer_norm") @ given["embed_tokens.weight"].t()


@torch.inference_mode()
def test_paella_in_xglm_gives_the_logits_of_its_formula(tmp_path: Path) -> None:
    weights = paella_weights()
    save_file(weights, tmp_path / "model.safetensors")
    checkpoint = read_paella_checkpoint(tmp_path)
    assert (checkpoint.family, checkpoint.left_over) == ("paella", {})
    torch.manual_seed(5)
    model = XGLM(LANGUAGE).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    bridge = bridge_of(checkpoint)
    memory, ids = torch.randn(1, 5, MEMORY), [2, 7, 8, 30, 4]
    state = bridge.prepare(memory)
    ours = model.logits(model(torch.tensor([ids]), bridge=bridge, bridge_state=state))[0]
    torch.testing.assert_close(ours, plain_xglm(model, ids, weights, memory[0]), atol=1e-3, rtol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_smallcap_adds_what_its_formula_says(tmp_path: Path, suffix: str) -> None:
    weights = smallcap_weights()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".bin":
        torch.save(weights, path)
    else:
        save_file({name: weight.contiguous() for name, weight in weights.items()}, path)
    checkpoint = read_paella_checkpoint(path)
    assert checkpoint.family == "smallcap"
    bridge = bridge_of(checkpoint)
    x, memory = torch.randn(1, 3, D), torch.randn(1, 5, MEMORY)
    state = bridge.prepare(memory)
    for layer in range(LAYERS):
        expected = smallcap_block(weights, layer, x[0], memory[0])
        torch.testing.assert_close(bridge.layer(layer, x, state)[0], expected, atol=1e-4, rtol=1e-4)


def test_what_is_not_used_is_reported(tmp_path: Path) -> None:
    frozen = {
        "decoder.model.embed_tokens.weight": drawn(4, 2),
        "decoder.model.layers.0.fc1.weight": drawn(4, 2),
        "decoder.model.layers.1.fc1.weight": drawn(4, 2),
        "encoder.vision_model.post_layernorm.weight": drawn(4),
    }
    torch.save({"state_dict": paella_weights() | frozen}, tmp_path / "last.ckpt")
    checkpoint = read_paella_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint.left_over == {
        "decoder.model.embed_tokens": 1,
        "decoder.model.layers": 2,
        "encoder.vision_model.post_layernorm": 1,
    }
    assert len(checkpoint.weights) == 2 + 6 * LAYERS


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("it ran",)


def test_code_in_a_pickle_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Harmful()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BundleError, match="as weights and nothing else"):
        read_paella_checkpoint(tmp_path)
    assert "it ran" not in capsys.readouterr().out


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    def refuse(weights: dict[str, Tensor], message: str) -> None:
        save_file(weights, tmp_path / "model.safetensors")
        with pytest.raises(BundleError, match=message):
            read_paella_checkpoint(tmp_path)

    with pytest.raises(BundleError, match="has neither"):
        read_paella_checkpoint(tmp_path)
    refuse({"model.layers.0.fc1.weight": drawn(2)}, "no cross-attention under")
    whole = paella_weights()
    refuse({name: weight for name, weight in whole.items() if "0.encoder_attn" not in name}, "layers with")
    refuse(
        {name: weight for name, weight in whole.items() if "1.encoder_attn.v_proj.b" not in name},
        "lacks v.bias",
    )
    refuse(
        whole | {name: weight.contiguous() for name, weight in smallcap_weights().items()}, "both PAELLA's"
    )
    narrow = {"decoder.model.layers.1.encoder_attn.k_proj.weight": drawn(INNER, MEMORY - 1)}
    refuse(whole | narrow, "different shapes")
    (tmp_path / "notes.txt").write_text("weights")
    with pytest.raises(BundleError, match="is no checkpoint"):
        read_paella_checkpoint(tmp_path / "notes.txt")
    save_file(whole, tmp_path / "model.safetensors")
    checkpoint = read_paella_checkpoint(tmp_path)
    with pytest.raises(BundleError, match="2 layers, the language model has 3"):
        checkpoint.config(3, D, HEADS)
    with pytest.raises(BundleError, match="32 dimensions, the language model has 64"):
        checkpoint.config(2, 64, HEADS)
    with pytest.raises(BundleError, match="impossible"):
        checkpoint.config(2, D, 3)
