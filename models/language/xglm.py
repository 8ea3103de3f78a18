"""XGLM, the multilingual decoder (Lin et al., EMNLP 2022), as one readable file.

Written for captioning: SDPA, one fused matrix for queries, keys and values, a cache that beams share, logits
only where they are asked for, and a place in every layer for a bridge from the image. It reads the weights of
transformers' `XGLMForCausalLM` by name. It does not know how prompts are built nor how tokens are chosen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.fusion.attention import attention, merge_heads, split_heads
from models.fusion.bridge import Bridge, BridgeState
from models.language.cache import KeyValueCache
from models.language.decoding import LayerAttention
from models.language.tree import TokenTree
from models.weights import load_weights
from retrieval.errors import BundleError

_POSITION_OFFSET = 2  # positions 0 and 1 of the table belong to <s> and <pad> in fairseq's numbering


@dataclass(frozen=True)
class XGLMConfig:
    """Shape of the decoder; names as in transformers where both have them."""

    vocab_size: int = 256008
    d_model: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    ffn_dim: int = 4096
    max_positions: int = 2048
    pad_token_id: int = 1
    eos_token_id: int = 2
    scale_embedding: bool = True  # multiply embeddings by sqrt(d_model)
    dropout: float = 0.0  # on embeddings and block outputs, while training
    attention_dropout: float = 0.0  # on the weights of self-attention, while training

    @property
    def head_width(self) -> int:
        return self.d_model // self.num_heads


def sinusoidal_positions(count: int, width: int, padding_index: int) -> Tensor:
    """The fixed position table (count, width): sines in the first half, cosines in the second."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
    angles = torch.arange(count, dtype=torch.float32)[:, None] * frequencies[None, :]
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    if width % 2:
        table = F.pad(table, (0, 1))
    table[padding_index] = 0
    return table


class DecoderLayer(nn.Module):
    """Pre-norm: self-attention, then the bridge if there is one, then the feed-forward block."""

    def __init__(self, config: XGLMConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.scale = config.head_width**-0.5
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.qkv_proj = nn.Linear(config.d_model, 3 * config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, config.ffn_dim)
        self.fc2 = nn.Linear(config.ffn_dim, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.attention_dropout = config.attention_dropout

    def forward(
        self,
        index: int,
        x: Tensor,
        mask: Tensor | None,
        bridge: Bridge[Any] | None,
        bridge_state: BridgeState | None,
        cache: KeyValueCache | None,
        collected: "list[LayerAttention] | None" = None,
    ) -> Tensor:
        qkv = self.qkv_proj(self.self_attn_layer_norm(x))  # (B, T, 3D)
        query, key, value = (split_heads(part, self.num_heads) for part in qkv.chunk(3, dim=-1))
        if cache is not None:
            key, value = cache.append(index, key, value)
        attended, own = attention(
            query,
            key,
            value,
            scale=self.scale,
            mask=mask,
            is_causal=mask is None,
            need_weights=collected is not None,
            dropout=self.attention_dropout if self.training else 0.0,
        )
        x = x + self.dropout(self.out_proj(merge_heads(attended)))
        image = None
        if bridge is not None and bridge_state is not None:
            if collected is None:
                x = bridge.layer(index, x, bridge_state)
            else:
                x, image = bridge.layer_with_weights(index, x, bridge_state)
        if collected is not None:
            assert own is not None
            collected.append(LayerAttention(own, image))
        hidden = F.gelu(self.fc1(self.final_layer_norm(x)))
        fed_forward: Tensor = x + self.dropout(self.fc2(hidden))
        return fed_forward


class XGLM(nn.Module):
    """The decoder with its tied head."""

    positions: Tensor

    def __init__(self, config: XGLMConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, padding_idx=config.pad_token_id)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self._recomputes_layers = False
        self.reset_positions()
        self.embedding_scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.reset_parameters()

    def reset_positions(self) -> None:
        """Compute the table of positions, on the CPU in float32 unless another device is the default."""
        table = sinusoidal_positions(
            self.config.max_positions + _POSITION_OFFSET, self.config.d_model, self.config.pad_token_id
        )
        self.register_buffer("positions", table, persistent=False)

    def reset_parameters(self) -> None:
        """N(0, 0.02) weights and zero biases, as XGLM is initialised."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.embed_tokens.weight[self.config.pad_token_id].zero_()

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        bridge: Bridge[Any] | None = None,
        bridge_state: BridgeState | None = None,
        cache: KeyValueCache | None = None,
        collected: list[LayerAttention] | None = None,
    ) -> Tensor:
        """Run the decoder.

        Args:
            input_ids: (B, T) int64.
            positions: (B, T) int64, place of each token in its sentence; 0..T-1 by default.
            mask: bool, True where token i may look at key j, broadcastable to (B, 1, T, K), K counting cached
                positions too, a bridge's prefix among them. None is causal, and allowed only without a cache.
            bridge, bridge_state: how the image enters, and what was prepared of it for each row.
            cache: past keys and values; the caller advances it.
            collected: a list to which every layer adds what it looked at. Slower; the result is the same.

        Returns:
            Hidden states (B, T, D) after the last layer norm; `logits` turns those wanted into scores.

        Raises:
            ValueError: a cache without a mask.
        """
        if cache is not None and mask is None:
            raise ValueError("decoding with a cache needs an explicit mask")
        if positions is None:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
        x = self.embed_tokens(input_ids) * self.embedding_scale
        prefix = None if bridge is None or bridge_state is None else bridge.prefix(bridge_state)
        length = 0 if prefix is None else prefix.shape[1]
        if length:
            positions = positions + length
        if prefix is not None and (cache is None or cache.length == 0):
            x = torch.cat([prefix.to(x.dtype), x], dim=1)
            own = torch.arange(length, device=x.device)[None, :]
            positions = torch.cat([own.expand(len(positions), -1), positions], dim=1)
            mask = None if mask is None else _with_prefix(mask, length)
        x = self.dropout(x + self.positions[positions + _POSITION_OFFSET].to(x.dtype))
        for index, layer in enumerate(self.layers):
            inputs = (index, x, mask, bridge, bridge_state, cache, collected)
            if self._recomputes_layers and torch.is_grad_enabled():
                x = checkpoint(layer, *inputs, use_reentrant=False)
            else:
                x = layer(*inputs)
        normalised: Tensor = self.layer_norm(x[:, -input_ids.shape[1] :])
        return normalised

    def recompute_layers(self) -> None:
        """Train with less memory: compute each layer once more in the backward pass, the bridge included."""
        self._recomputes_layers = True

    @property
    def dtype(self) -> torch.dtype:
        return self.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        width: int,
        max_new_tokens: int,
        bridge: Bridge[Any] | None = None,
        bridge_state: BridgeState | None = None,
    ) -> TokenTree:
        """Read prompts, to be continued by `width` sequences each (models/language/decoding.py)."""
        return TokenTree(
            self,
            prompts,
            width=width,
            max_new_tokens=max_new_tokens,
            bridge=bridge,
            bridge_state=bridge_state,
        )

    def watch(
        self, input_ids: Tensor, *, bridge: Bridge[Any], bridge_state: BridgeState
    ) -> list[LayerAttention]:
        """What each layer looks at when it reads sequences (models/language/decoding.py)."""
        layers: list[LayerAttention] = []
        self(input_ids, bridge=bridge, bridge_state=bridge_state, collected=layers)
        return layers

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Scores over the vocabulary (..., V) of hidden states (..., D)."""
        return F.linear(hidden_states, self.embed_tokens.weight)

    def new_cache(self, batch: int, capacity: int) -> KeyValueCache:
        """An empty cache for `batch` rows of up to `capacity` positions."""
        weight = self.embed_tokens.weight
        return KeyValueCache(
            num_layers=self.config.num_layers,
            batch=batch,
            num_heads=self.config.num_heads,
            capacity=capacity,
            head_width=self.config.head_width,
            dtype=weight.dtype,
            device=weight.device,
        )


def _with_prefix(mask: Tensor, length: int) -> Tensor:
    """The mask (B, 1, T, T) of a text with a causal prefix in front that all of it sees."""
    batch, heads, queries, keys = mask.shape
    whole = mask.new_ones(batch, heads, length + queries, length + keys)
    whole[..., :length, :] = torch.ones(length, length + keys, dtype=torch.bool, device=mask.device).tril()
    whole[..., length:, length:] = mask
    return whole


def from_transformers(weights: Mapping[str, Tensor], config: XGLMConfig) -> XGLM:
    """Build the decoder from the state dict of transformers' `XGLMForCausalLM`.

    Raises:
        BundleError: a weight is missing, left over, or of another shape; the message names it.
    """
    renamed = {name.removeprefix("model."): weight for name, weight in weights.items()}
    renamed.pop("lm_head.weight", None)  # tied to embed_tokens
    renamed = {name: weight for name, weight in renamed.items() if not name.startswith("embed_positions.")}
    for index in range(config.num_layers):
        prefix = f"layers.{index}."
        for kind in ("weight", "bias"):
            parts = [f"{prefix}self_attn.{name}_proj.{kind}" for name in "qkv"]
            missing = [name for name in parts if name not in renamed]
            if missing:
                raise BundleError(f"the language model's weights lack {missing[0]}")
            renamed[f"{prefix}qkv_proj.{kind}"] = torch.cat([renamed.pop(name) for name in parts])
            out = f"{prefix}self_attn.out_proj.{kind}"
            if out in renamed:
                renamed[f"{prefix}out_proj.{kind}"] = renamed.pop(out)
    with torch.device("meta"):  # billions of weights are not drawn to be overwritten
        model = XGLM(config)
    load_weights(model, renamed, "language model", assign=True)
    model.reset_positions()
    return model
