"""Learned queries that read the image and become a soft prompt: the bridge of BLIP-2 and mBLIP.

Li et al., BLIP-2 (ICML 2023, section 3.1); Geigle et al., mBLIP (2023). Queries attend to each other and to
the visual tokens, and are projected to the width of the language model, in front of whose text they stand.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.fusion.blocks import FeedForward, MultiHeadAttention, init_weights
from models.fusion.bridge import Origins
from models.fusion.rollout import cross_rollout
from models.fusion.soft_prompt import PrefixState, SoftPromptBridge


@dataclass(frozen=True)
class QueryTransformerConfig:
    """Shape of the bridge."""

    d_model: int  # width of the language model
    d_memory: int  # width of a visual token
    num_heads: int
    num_queries: int = 32
    d_query: int = 320
    depth: int = 2  # layers of the query transformer
    expansion: int = 4

    def __post_init__(self) -> None:
        if self.d_query % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide {self.d_query}")

    @property
    def num_parameters(self) -> int:
        layer = (
            MultiHeadAttention.num_parameters(self.d_query, self.d_query)
            + MultiHeadAttention.num_parameters(self.d_query, self.d_memory)
            + FeedForward.num_parameters(self.d_query, self.expansion)
            + 6 * self.d_query
        )
        output = 2 * self.d_query + self.d_query * self.d_model + self.d_model
        return self.num_queries * self.d_query + 2 * self.d_memory + self.depth * layer + output


class QueryTransformerBridge(SoftPromptBridge):
    """The query transformer and its output projection."""

    def __init__(self, config: QueryTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.queries = nn.Parameter(torch.empty(config.num_queries, config.d_query).normal_(std=0.02))
        self.norm_memory = nn.LayerNorm(config.d_memory)
        self.layers = nn.ModuleList(_QueryLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.d_query)
        self.out_proj = nn.Linear(config.d_query, config.d_model)
        init_weights(self)

    def prepare(self, memory: Tensor, mask: Tensor | None = None) -> PrefixState:
        return self._prepare(memory, mask, need_weights=False)[0]

    def prepare_with_weights(self, memory: Tensor, mask: Tensor | None = None) -> tuple[PrefixState, Origins]:
        state, among_queries, to_memory = self._prepare(memory, mask, need_weights=True)
        return state, Origins(prefix=cross_rollout(among_queries, to_memory))

    def _prepare(
        self, memory: Tensor, mask: Tensor | None, *, need_weights: bool
    ) -> tuple[PrefixState, list[Tensor], list[Tensor]]:
        """The state, and if asked for each layer's weights among queries and from these to the image."""
        memory = self.norm_memory(memory)
        queries = self.queries.to(memory.dtype).expand(len(memory), -1, -1)
        seen = None if mask is None else mask[:, None, None]
        among_queries, to_memory = [], []
        for layer in self.layers:
            queries, own, image = layer(queries, memory, seen, need_weights=need_weights)
            among_queries.append(own)
            to_memory.append(image)
        return PrefixState(self.out_proj(self.norm(queries))), among_queries, to_memory


class _QueryLayer(nn.Module):
    def __init__(self, config: QueryTransformerConfig) -> None:
        super().__init__()
        width = config.d_query
        self.norm_self = nn.LayerNorm(width)
        self.self_attn = MultiHeadAttention(width, width, config.num_heads)
        self.norm_cross = nn.LayerNorm(width)
        self.cross_attn = MultiHeadAttention(width, config.d_memory, config.num_heads)
        self.norm_ffn = nn.LayerNorm(width)
        self.ffn = FeedForward(width, config.expansion)

    def forward(
        self, queries: Tensor, memory: Tensor, mask: Tensor | None, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The queries (B, S, D), and if asked for their weights (B, H, S, S) and (B, H, S, N)."""
        normalised = self.norm_self(queries)
        attended, among_queries = self.self_attn(normalised, normalised, need_weights=need_weights)
        queries = queries + attended
        attended, to_memory = self.cross_attn(
            self.norm_cross(queries), memory, mask, need_weights=need_weights
        )
        queries = queries + attended
        return queries + self.ffn(self.norm_ffn(queries)), among_queries, to_memory
