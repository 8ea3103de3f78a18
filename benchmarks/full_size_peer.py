"""transformers' own XGLM with PAELLA's cross-attention in its layers: what `full_size.py` compares with.

It is arranged as PAELLA's published code is: one photo at a time, `generate()` with beams as rows of the
batch, so that prompt, image and cache are there once for each beam. Its cross-attention is written here,
because transformers' is as wide as the model, reads nothing of another width, and mixes the image's keys into
the cache of the text. Keys and values of the image are computed once for each photo. Unlike in the published
code, this transformers computes scores at the last position only.
"""

from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from benchmarks.full_size_parts import BEAMS, NEW_TOKENS, Parts, Size, draw
from models.fusion.cross_attention import CrossAttentionBridge
from models.language.tokenizer import PAD


class LowRankAttention(nn.Module):
    """Cross-attention of one layer, written out as transformers' XGLM writes its own."""

    def __init__(self, bridge: CrossAttentionBridge, index: int) -> None:
        super().__init__()
        config = bridge.config
        self.num_heads, self.scaling = config.num_heads, config.scale
        self.q_proj, self.out_proj = bridge.q_projs[index], bridge.out_projs[index]
        rows = slice(2 * index * config.d_kv, 2 * (index + 1) * config.d_kv)
        keys, values = bridge.kv_proj.weight[rows].chunk(2)
        key_bias, value_bias = bridge.kv_proj.bias[rows].chunk(2)
        self.k_proj, self.v_proj = (nn.Linear(config.d_memory, config.d_kv) for _ in range(2))
        self.k_proj.load_state_dict({"weight": keys, "bias": key_bias})
        self.v_proj.load_state_dict({"weight": values, "bias": value_bias})
        self._seen: Tensor | None = None
        self._states: tuple[Tensor, Tensor] = (keys, values)

    def forward(self, hidden_states: Tensor, key_value_states: Tensor, **_: Any) -> tuple[Tensor, None]:
        if self._seen is not key_value_states:
            self._states = (
                self._heads(self.k_proj(key_value_states)),
                self._heads(self.v_proj(key_value_states)),
            )
            self._seen = key_value_states
        keys, values = self._states
        scores = self._heads(self.q_proj(hidden_states) * self.scaling) @ keys.transpose(2, 3)
        attended = (scores.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)
        return self.out_proj(attended), None

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


def drawn_reference(size: Size, bridge: CrossAttentionBridge) -> Any:
    """transformers' XGLM in float32 with the weights that `drawn_xglm` draws, and that bridge."""
    shape = size.language
    config = transformers.XGLMConfig(
        vocab_size=shape.vocab_size,
        d_model=shape.d_model,
        num_layers=shape.num_layers,
        attention_heads=shape.num_heads,
        ffn_dim=shape.ffn_dim,
        max_position_embeddings=shape.max_positions,
    )
    model: Any = transformers.XGLMForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            draw(weight, name.removeprefix("model."))
        model.model.embed_tokens.weight[shape.pad_token_id].zero_()
    # Only now: its own cross-attention, which the configuration can ask for, has other widths.
    model.config.add_cross_attention = True
    for index, layer in enumerate(model.model.layers):
        layer.encoder_attn = LowRankAttention(bridge, index)
        layer.encoder_attn_layer_norm = bridge.norms[index]
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def caption_with(model: Any, parts: Parts, photo: Image.Image) -> str:
    """A caption by transformers' `generate`, from our own prompt."""
    memory, prompt = parts.look_at(photo)
    special = parts.prompts.tokenizer.special
    ids = torch.tensor([prompt])
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        encoder_hidden_states=memory,
        num_beams=BEAMS,
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        length_penalty=0.0,
        suppress_tokens=list(special.never),
        eos_token_id=special.end,
        pad_token_id=PAD,
    )
    return parts.prompts.tokenizer.decode(written[0, len(prompt) :].tolist())
