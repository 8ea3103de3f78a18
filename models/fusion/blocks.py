"""The blocks that resamplers, query transformers and bottlenecks are built of.

Pre-norm, as in GPT-2 and later.
"""

import torch
from torch import Tensor, nn

from models.fusion.attention import attention, merge_heads, split_heads


class MultiHeadAttention(nn.Module):
    """Queries of one sequence over keys and values of another (Vaswani et al. 2017, section 3.2.2)."""

    def __init__(self, d_model: int, d_memory: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (d_model // num_heads) ** -0.5
        self.q_proj = nn.Linear(d_model, d_model)
        self.kv_proj = nn.Linear(d_memory, 2 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(
        self, x: Tensor, memory: Tensor, mask: Tensor | None = None, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `x` (B, Q, D) to `memory` (B, N, M).

        Args:
            mask: bool, True where a query may look, broadcastable to (B, 1, Q, N).

        Returns:
            (B, Q, D) and, if asked for, the weights (B, H, Q, N) in fp32.
        """
        query = split_heads(self.q_proj(x), self.num_heads)
        key, value = (split_heads(part, self.num_heads) for part in self.kv_proj(memory).chunk(2, dim=-1))
        attended, weights = attention(
            query, key, value, scale=self.scale, mask=mask, need_weights=need_weights
        )
        return self.out_proj(merge_heads(attended)), weights

    @staticmethod
    def num_parameters(d_model: int, d_memory: int) -> int:
        return 2 * (d_model * d_model + d_model) + 2 * (d_memory * d_model + d_model)


class FeedForward(nn.Module):
    """Two layers with a GELU between, `expansion` times as wide inside."""

    def __init__(self, d_model: int, expansion: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, expansion * d_model)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(expansion * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc2(self.act(self.fc1(x)))
        return output

    @staticmethod
    def num_parameters(d_model: int, expansion: int = 4) -> int:
        return 2 * expansion * d_model * d_model + expansion * d_model + d_model


class TransformerLayer(nn.Module):
    """Attention of a sequence to itself and, if there is one, to a memory; then feed-forward."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.norm_attn = nn.LayerNorm(d_model)
        self.attn = MultiHeadAttention(d_model, d_model, num_heads)
        self.norm_ffn = nn.LayerNorm(d_model)
        self.ffn = FeedForward(d_model)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        memory: Tensor | None = None,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(B, T, D) → the same, and if asked for the weights (B, H, T, N + T) in fp32.

        Args:
            mask: (B, N + T) bool, True at real tokens, those of the memory first.
            memory: (B, N, D), already normalised.
        """
        normalised = self.norm_attn(x)
        seen = normalised if memory is None else torch.cat([memory, normalised], dim=1)
        visible = None if mask is None else mask[:, None, None]
        attended, weights = self.attn(normalised, seen, visible, need_weights=need_weights)
        x = x + attended
        fed_forward: Tensor = x + self.ffn(self.norm_ffn(x))
        return (fed_forward, weights) if need_weights else fed_forward

    @staticmethod
    def num_parameters(d_model: int) -> int:
        return (
            MultiHeadAttention.num_parameters(d_model, d_model)
            + FeedForward.num_parameters(d_model)
            + 4 * d_model
        )


class PreparedAttention(nn.Module):
    """What text adds of keys and values that were prepared once per image."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (d_model // num_heads) ** -0.5
        self.norm = nn.LayerNorm(d_model)
        self.q_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, *, need_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(B, T, D) of words (B, T, D), keys and values (B, H, N, D / H).

        The weights (B, H, T, N) in fp32 follow if asked for.
        """
        query = split_heads(self.q_proj(self.norm(x)), self.num_heads)
        attended, weights = attention(
            query,
            keys.to(query.dtype),
            values.to(query.dtype),
            scale=self.scale,
            need_weights=need_weights,
        )
        output: Tensor = self.out_proj(merge_heads(attended))
        if not need_weights:
            return output
        assert weights is not None
        return output, weights

    @staticmethod
    def num_parameters(d_model: int) -> int:
        return 2 * (d_model**2 + d_model) + 2 * d_model


def with_own(mask: Tensor | None, count: int) -> Tensor | None:
    """A memory's mask (B, N) with `count` more tokens behind it that are always seen: (B, N + count)."""
    return None if mask is None else torch.cat([mask, mask.new_ones(len(mask), count)], dim=1)


def init_weights(module: nn.Module) -> None:
    """N(0, 0.02) weights and zero biases of every linear layer inside."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
