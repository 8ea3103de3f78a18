"""A few bottleneck tokens through which all visual information must pass: MBT, made causal.

Nagrani et al., Attention Bottlenecks for Multimodal Fusion (NeurIPS 2021, section 3.2). There both modalities
write into the bottlenecks. In a causal decoder text may not: a bottleneck that a later word has changed would
tell earlier words of it. So the image alone writes, layer by layer from the fusion layer on, and text reads;
and all of it that depends on the image is computed once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.fusion.attention import split_heads
from models.fusion.blocks import PreparedAttention, TransformerLayer, init_weights, with_own
from models.fusion.bridge import Origins
from models.fusion.cross_attention import CrossAttentionState
from models.fusion.rollout import latent_rollout


@dataclass(frozen=True)
class BottleneckConfig:
    """Shape of the bridge."""

    num_layers: int  # decoder layers
    d_model: int  # width of the language model
    d_memory: int  # width of a visual token
    num_heads: int
    num_bottlenecks: int = 4  # B
    fusion_layer: int = 2  # L_f: the first layer that fuses
    d_bottleneck: int = 320

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads or self.d_bottleneck % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide {self.d_model} and {self.d_bottleneck}")
        if not 0 <= self.fusion_layer < self.num_layers:
            raise ValueError(f"there is no layer {self.fusion_layer} of {self.num_layers} to fuse from")

    @property
    def num_fused(self) -> int:
        return self.num_layers - self.fusion_layer

    @property
    def num_parameters(self) -> int:
        width, d_model = self.d_bottleneck, self.d_model
        write = TransformerLayer.num_parameters(width)
        read = PreparedAttention.num_parameters(d_model) + 2 * (width * d_model + d_model) + 2 * width
        memory = self.d_memory * width + width + 2 * width
        return self.num_bottlenecks * width + memory + self.num_fused * (write + read)


class BottleneckBridge(nn.Module):
    """Writers from image to bottlenecks, readers from bottlenecks to text."""

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_bottleneck
        self.bottlenecks = nn.Parameter(torch.empty(config.num_bottlenecks, width).normal_(std=0.02))
        self.memory_proj = nn.Linear(config.d_memory, width)
        self.norm_memory = nn.LayerNorm(width)
        fused = range(config.num_fused)
        self.writers = nn.ModuleList(TransformerLayer(width, config.num_heads) for _ in fused)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in fused)
        self.kv_projs = nn.ModuleList(nn.Linear(width, 2 * config.d_model) for _ in fused)
        self.readers = nn.ModuleList(PreparedAttention(config.d_model, config.num_heads) for _ in fused)
        init_weights(self)

    def prepare(self, memory: Tensor, mask: Tensor | None = None) -> CrossAttentionState:
        return self._prepare(memory, mask, need_weights=False)[0]

    def prepare_with_weights(
        self, memory: Tensor, mask: Tensor | None = None
    ) -> tuple[CrossAttentionState, Origins]:
        state, weights = self._prepare(memory, mask, need_weights=True)
        # Each layer reads the bottlenecks as its own writer left them.
        fused = enumerate(latent_rollout(weights), start=self.config.fusion_layer)
        return state, Origins(layers=dict(fused))

    def _prepare(
        self, memory: Tensor, mask: Tensor | None, *, need_weights: bool
    ) -> tuple[CrossAttentionState, list[Tensor]]:
        """The state, and if asked for the weights (B, H, S, N + S) of each writer."""
        memory = self.norm_memory(self.memory_proj(memory))
        bottlenecks = self.bottlenecks.to(memory.dtype).expand(len(memory), -1, -1)
        mask = with_own(mask, bottlenecks.shape[1])
        projected, collected = [], []
        for writer, norm, kv_proj in zip(self.writers, self.norms, self.kv_projs, strict=True):
            if need_weights:
                bottlenecks, weights = writer(bottlenecks, mask, memory=memory, need_weights=True)
                collected.append(weights)
            else:
                bottlenecks = writer(bottlenecks, mask, memory=memory)
            projected.append(kv_proj(norm(bottlenecks)))
        keys, values = (
            torch.stack([split_heads(part, self.config.num_heads) for part in parts])
            for parts in zip(*(both.chunk(2, dim=-1) for both in projected), strict=True)
        )
        return CrossAttentionState(keys, values), collected

    def prefix(self, state: CrossAttentionState) -> None:
        return None

    def layer(self, index: int, hidden_states: Tensor, state: CrossAttentionState) -> Tensor:
        fused = index - self.config.fusion_layer
        if fused < 0:
            return hidden_states
        read: Tensor = self.readers[fused](hidden_states, state.keys[fused], state.values[fused])
        return hidden_states + read

    def layer_with_weights(
        self, index: int, hidden_states: Tensor, state: CrossAttentionState
    ) -> tuple[Tensor, Tensor | None]:
        fused = index - self.config.fusion_layer
        if fused < 0:
            return hidden_states, None
        read, weights = self.readers[fused](
            hidden_states, state.keys[fused], state.values[fused], need_weights=True
        )
        return hidden_states + read, weights
