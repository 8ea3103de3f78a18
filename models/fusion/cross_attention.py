"""Low-rank cross-attention in every decoder layer: the bridge of SmallCap and PAELLA.

Ramos et al., SmallCap (CVPR 2023, section 3.1) and PAELLA (Findings of NAACL 2024, section 3): queries come
from the language model, keys and values from the image, and all are projected to d_model / r dimensions.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.fusion.attention import attention, merge_heads, split_heads
from models.fusion.blocks import init_weights
from models.fusion.bridge import Origins


@dataclass(frozen=True)
class CrossAttentionConfig:
    """Shape of the bridge."""

    num_layers: int  # decoder layers, each with a cross-attention of its own
    d_model: int  # width of the language model
    d_memory: int  # width of a visual token
    num_heads: int  # as in the language model, whatever the reduction
    reduction: int = 16  # r: inner width is d_model / r
    # PAELLA's released weights scale queries by the head width *before* reduction, SmallCap's by that after.
    query_scaling: Literal["unreduced", "reduced"] = "unreduced"
    num_kv_heads: int | None = None  # fewer than num_heads: groups of queries share keys and values (GQA)

    def __post_init__(self) -> None:
        if self.d_model % (self.reduction * self.num_heads):
            raise ValueError(
                f"d_model {self.d_model} / reduction {self.reduction} is not a multiple of "
                f"{self.num_heads} heads"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(f"{self.num_heads} heads cannot share {self.kv_heads} keys and values evenly")

    @property
    def d_inner(self) -> int:
        return self.d_model // self.reduction

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def d_kv(self) -> int:
        """Width of all heads' keys."""
        return self.d_inner // self.num_heads * self.kv_heads

    @property
    def scale(self) -> float:
        width = self.d_model if self.query_scaling == "unreduced" else self.d_inner
        return float((width // self.num_heads) ** -0.5)

    @property
    def num_parameters(self) -> int:
        """Trained parameters: four projections with bias and a layer norm, in every layer."""
        query_and_output = 2 * self.d_model * self.d_inner + self.d_inner + self.d_model
        key_and_value = 2 * (self.d_memory * self.d_kv + self.d_kv)
        return self.num_layers * (query_and_output + key_and_value + 2 * self.d_model)


@dataclass(frozen=True)
class CrossAttentionState:
    """Keys and values of all layers: each (L, B, G, N, d), G heads of keys, d = d_inner / H."""

    keys: Tensor
    values: Tensor
    mask: Tensor | None = None  # (B, 1, 1, N)

    def select(self, rows: Tensor) -> "CrossAttentionState":
        mask = None if self.mask is None else self.mask[rows]
        return CrossAttentionState(self.keys[:, rows], self.values[:, rows], mask)


class CrossAttentionBridge(nn.Module):
    """Cross-attention blocks of all decoder layers.

    Keys and values of all layers are one matrix product per image, because they read the same memory.
    """

    def __init__(self, config: CrossAttentionConfig) -> None:
        super().__init__()
        self.config = config
        layers, inner = config.num_layers, config.d_inner
        self.kv_proj = nn.Linear(config.d_memory, layers * 2 * config.d_kv)  # rows: layer, then K before V
        self.norms = nn.ModuleList(nn.LayerNorm(config.d_model) for _ in range(layers))
        self.q_projs = nn.ModuleList(nn.Linear(config.d_model, inner) for _ in range(layers))
        self.out_projs = nn.ModuleList(nn.Linear(inner, config.d_model) for _ in range(layers))
        init_weights(self)  # as in PAELLA's training

    def prepare(self, memory: Tensor, mask: Tensor | None = None) -> CrossAttentionState:
        batch, length, _ = memory.shape
        config = self.config
        projected = self.kv_proj(memory).view(
            batch, length, config.num_layers, 2, config.kv_heads, config.d_inner // config.num_heads
        )
        keys, values = projected.permute(3, 2, 0, 4, 1, 5)  # each (L, B, G, N, d)
        return CrossAttentionState(keys, values, None if mask is None else mask[:, None, None, :])

    def prepare_with_weights(
        self, memory: Tensor, mask: Tensor | None = None
    ) -> tuple[CrossAttentionState, Origins]:
        batch, tokens, _ = memory.shape
        themselves = torch.eye(tokens, device=memory.device).expand(batch, -1, -1)
        return self.prepare(memory, mask), Origins(
            layers=dict.fromkeys(range(self.config.num_layers), themselves)
        )

    def prefix(self, state: CrossAttentionState) -> None:
        return None

    def layer(self, index: int, hidden_states: Tensor, state: CrossAttentionState) -> Tensor:
        attended, _ = self._attend(index, hidden_states, state, need_weights=False)
        return hidden_states + attended

    def layer_with_weights(
        self, index: int, hidden_states: Tensor, state: CrossAttentionState
    ) -> tuple[Tensor, Tensor]:
        """As `layer`, and the attention of each word over the image: (B, H, T, N) in fp32."""
        attended, weights = self._attend(index, hidden_states, state, need_weights=True)
        assert weights is not None
        return hidden_states + attended, weights

    def _attend(
        self, index: int, hidden_states: Tensor, state: CrossAttentionState, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        query = split_heads(self.q_projs[index](self.norms[index](hidden_states)), self.config.num_heads)
        attended, weights = attention(
            query,
            self._for_all_heads(state.keys[index]).to(query.dtype),
            self._for_all_heads(state.values[index]).to(query.dtype),
            scale=self.config.scale,
            mask=state.mask,
            need_weights=need_weights,
        )
        return self.out_projs[index](merge_heads(attended)), weights

    def _for_all_heads(self, shared: Tensor) -> Tensor:
        """(B, G, N, d) → (B, H, N, d): each head its group's."""
        group = self.config.num_heads // self.config.kv_heads
        return shared if group == 1 else shared.repeat_interleave(group, dim=1)
