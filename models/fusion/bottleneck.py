"""A few bottleneck tokens through which all visual information must pass: MBT, made causal.

Nagrani et al., Attention Bottlenecks for Multimodal Fusion (NeurIPS 2021, section 3.2). There both modalities
write into the bottlenecks. In a causal decoder text may not: a bottleneck that a later word has changed would
tell earlier words of it. So the image alone writes, layer by layer from the fusion layer on, and text reads;
and all of it that depends on the image is computed once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.fusion.attention import attention, merge_heads, split_heads
from models.fusion.blocks import FeedForward, MultiHeadAttention, init_weights


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
        write = MultiHeadAttention.num_parameters(width, width) + FeedForward.num_parameters(width)
        write += 4 * width
        read = 2 * (d_model**2 + d_model) + 2 * (width * d_model + d_model) + 2 * d_model + 2 * width
        memory = self.d_memory * width + width + 2 * width
        return self.num_bottlenecks * width + memory + self.num_fused * (write + read)


@dataclass(frozen=True)
class BottleneckState:
    """Keys and values of the bottlenecks in every fused layer: each (layers, B, H, bottlenecks, d)."""

    keys: Tensor
    values: Tensor

    def select(self, rows: Tensor) -> "BottleneckState":
        return BottleneckState(self.keys[:, rows], self.values[:, rows])


class BottleneckBridge(nn.Module):
    """Writers from image to bottlenecks, readers from bottlenecks to text."""

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_bottleneck
        self.bottlenecks = nn.Parameter(torch.empty(config.num_bottlenecks, width).normal_(std=0.02))
        self.memory_proj = nn.Linear(config.d_memory, width)
        self.norm_memory = nn.LayerNorm(width)
        self.writers = nn.ModuleList(_Writer(width, config.num_heads) for _ in range(config.num_fused))
        self.readers = nn.ModuleList(_Reader(config) for _ in range(config.num_fused))
        init_weights(self)

    def prepare(self, memory: Tensor, mask: Tensor | None = None) -> BottleneckState:
        memory = self.norm_memory(self.memory_proj(memory))
        bottlenecks = self.bottlenecks.to(memory.dtype).expand(len(memory), -1, -1)
        if mask is not None:
            always = mask.new_ones(len(mask), bottlenecks.shape[1])
            mask = torch.cat([mask, always], dim=1)[:, None, None]
        pairs = []
        for writer, reader in zip(self.writers, self.readers, strict=True):
            assert isinstance(reader, _Reader)  # for the type checker
            bottlenecks = writer(bottlenecks, memory, mask)
            pairs.append(reader.keys_and_values(bottlenecks))
        keys, values = zip(*pairs, strict=True)
        return BottleneckState(torch.stack(keys), torch.stack(values))

    def prefix(self, state: BottleneckState) -> None:
        return None

    def layer(self, index: int, hidden_states: Tensor, state: BottleneckState) -> Tensor:
        fused = index - self.config.fusion_layer
        if fused < 0:
            return hidden_states
        read: Tensor = self.readers[fused](hidden_states, state.keys[fused], state.values[fused])
        return hidden_states + read


class _Writer(nn.Module):
    """One layer of the image's side: bottlenecks attend to the image and to each other."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm_attn = nn.LayerNorm(width)
        self.attn = MultiHeadAttention(width, width, num_heads)
        self.norm_ffn = nn.LayerNorm(width)
        self.ffn = FeedForward(width)

    def forward(self, bottlenecks: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        normalised = self.norm_attn(bottlenecks)
        attended, _ = self.attn(normalised, torch.cat([memory, normalised], dim=1), mask)
        bottlenecks = bottlenecks + attended
        fed_forward: Tensor = bottlenecks + self.ffn(self.norm_ffn(bottlenecks))
        return fed_forward


class _Reader(nn.Module):
    """One layer of the text's side: words attend to the bottlenecks of the same layer."""

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.scale = (config.d_model // config.num_heads) ** -0.5
        self.norm = nn.LayerNorm(config.d_model)
        self.norm_bottlenecks = nn.LayerNorm(config.d_bottleneck)
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.kv_proj = nn.Linear(config.d_bottleneck, 2 * config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def keys_and_values(self, bottlenecks: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.kv_proj(self.norm_bottlenecks(bottlenecks)).chunk(2, dim=-1)
        return split_heads(key, self.num_heads), split_heads(value, self.num_heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        query = split_heads(self.q_proj(self.norm(x)), self.num_heads)
        attended, _ = attention(query, keys.to(query.dtype), values.to(query.dtype), scale=self.scale)
        output: Tensor = self.out_proj(merge_heads(attended))
        return output
