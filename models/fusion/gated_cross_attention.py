"""Gated cross-attention in every n-th decoder layer, fed by a resampler: Flamingo's bridge.

Alayrac et al., Flamingo (NeurIPS 2022, section 2.2): each block adds `tanh(gate)` times a cross-attention and
`tanh(gate)` times a feed-forward layer. Gates begin at 0, so training begins at the language model itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.fusion.blocks import FeedForward, PreparedAttention, init_weights
from models.fusion.bridge import Origins
from models.fusion.cross_attention import CrossAttentionState
from models.fusion.resampler import PerceiverResampler
from models.fusion.rollout import latent_rollout


@dataclass(frozen=True)
class GatedCrossAttentionConfig:
    """Shape of the bridge."""

    num_layers: int  # decoder layers
    d_model: int  # width of the language model
    d_memory: int  # width of a visual token
    num_heads: int
    every: int = 2  # a block in layers 0, every, 2 * every, …
    num_latents: int = 64  # what the resampler makes of any number of visual tokens
    d_latent: int = 320
    resampler_layers: int = 2
    expansion: int = 4  # of the feed-forward layers

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads or self.d_latent % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide {self.d_model} and {self.d_latent}")
        if self.every < 1:
            raise ValueError("every must be at least 1")

    @property
    def num_blocks(self) -> int:
        return -(-self.num_layers // self.every)

    @property
    def num_parameters(self) -> int:
        attended = PreparedAttention.num_parameters(self.d_model)
        attended += 2 * (self.d_latent * self.d_model + self.d_model)
        block = attended + FeedForward.num_parameters(self.d_model, self.expansion) + 2 * self.d_model + 2
        return self.num_blocks * block + PerceiverResampler.num_parameters(
            self.d_memory, self.d_latent, self.num_latents, self.resampler_layers
        )


class GatedCrossAttentionBridge(nn.Module):
    """Resampler and gated blocks."""

    def __init__(self, config: GatedCrossAttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.resampler = PerceiverResampler(
            config.d_memory, config.d_latent, config.num_latents, config.resampler_layers, config.num_heads
        )
        # All blocks read the same latents: one matrix product for the keys and values of all.
        self.kv_proj = nn.Linear(config.d_latent, config.num_blocks * 2 * config.d_model)
        self.blocks = nn.ModuleList(_GatedBlock(config) for _ in range(config.num_blocks))
        init_weights(self)

    def prepare(self, memory: Tensor, mask: Tensor | None = None) -> CrossAttentionState:
        return self._state(self.resampler(memory, mask))

    def prepare_with_weights(
        self, memory: Tensor, mask: Tensor | None = None
    ) -> tuple[CrossAttentionState, Origins]:
        latents, weights = self.resampler(memory, mask, need_weights=True)
        origins = latent_rollout(weights)[-1]
        blocks = range(0, self.config.num_layers, self.config.every)
        return self._state(latents), Origins(layers=dict.fromkeys(blocks, origins))

    def _state(self, latents: Tensor) -> CrossAttentionState:
        config = self.config
        projected = self.kv_proj(latents).view(
            len(latents), latents.shape[1], config.num_blocks, 2, config.num_heads, -1
        )
        keys, values = projected.permute(3, 2, 0, 4, 1, 5)  # each (blocks, B, H, N, d)
        return CrossAttentionState(keys, values)

    def prefix(self, state: CrossAttentionState) -> None:
        return None

    def layer(self, index: int, hidden_states: Tensor, state: CrossAttentionState) -> Tensor:
        block, rest = divmod(index, self.config.every)
        if rest:
            return hidden_states
        mixed: Tensor = self.blocks[block](hidden_states, state.keys[block], state.values[block])
        return mixed

    def layer_with_weights(
        self, index: int, hidden_states: Tensor, state: CrossAttentionState
    ) -> tuple[Tensor, Tensor | None]:
        block, rest = divmod(index, self.config.every)
        if rest:
            return hidden_states, None
        mixed: tuple[Tensor, Tensor] = self.blocks[block](
            hidden_states, state.keys[block], state.values[block], need_weights=True
        )
        return mixed


class _GatedBlock(nn.Module):
    def __init__(self, config: GatedCrossAttentionConfig) -> None:
        super().__init__()
        self.attn = PreparedAttention(config.d_model, config.num_heads)
        self.norm_ffn = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config.d_model, config.expansion)
        self.attn_gate = nn.Parameter(torch.zeros(()))
        self.ffn_gate = nn.Parameter(torch.zeros(()))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, *, need_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(B, T, D), and the weights (B, H, T, S) if asked for: as they are before the gate."""
        if need_weights:
            attended, weights = self.attn(x, keys, values, need_weights=True)
        else:
            attended, weights = self.attn(x, keys, values), None
        x = x + self.attn_gate.tanh() * attended
        fed_forward: Tensor = x + self.ffn_gate.tanh() * self.ffn(self.norm_ffn(x))
        return fed_forward if weights is None else (fed_forward, weights)
