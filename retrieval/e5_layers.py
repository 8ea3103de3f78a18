"""The pieces of multilingual-e5-small's network: embedding tables and the BERT layer.

Everything works on packed batches: sequences laid end to end without padding, so no token is computed in
vain and no attention mask is needed; attention runs over runs of sequences of equal length. Knows nothing
of text, of files or of pooling.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DenseEmbedding", "E5Config", "E5Layer", "PackedBatch", "Q4Embedding"]

# Below this many tokens plain batched products beat SDPA's CPU kernel about three times: it works through
# one small (L, L) problem at a time. Above it the (L, L) scores would fill the memory.
_SHORT = 64


@dataclass(frozen=True)
class E5Config:
    """Shape of the network; the defaults are multilingual-e5-small's."""

    vocabulary_size: int = 250037
    hidden_size: int = 384
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 1536
    max_positions: int = 512  # tokens of one window, <s> and </s> included
    layer_norm_eps: float = 1e-12


@dataclass(frozen=True)
class PackedBatch:
    """A batch of sequences laid end to end, no padding; those of equal length are neighbours."""

    token_ids: Tensor  # (T,) int64
    positions: Tensor  # (T,) int64, from 0 in every sequence
    groups: tuple[tuple[int, int], ...]  # (sequences, tokens of each), in the order of the tokens


class Q4Embedding(nn.Module):
    """An embedding table kept in its 4-bit blocks (54 MB instead of 384); rows are dequantised when used."""

    blocks: Tensor  # (rows, hidden / 32 · 18) uint8

    def __init__(self, blocks: Tensor) -> None:
        super().__init__()
        self.register_buffer("blocks", blocks, persistent=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Ids (T,) → float32 rows (T, hidden)."""
        unique, inverse = torch.unique(token_ids, return_inverse=True)
        blocks = self.blocks[unique].view(len(unique), -1, 18)  # (U, hidden / 32, 18)
        scales = blocks[..., :2].contiguous().view(torch.float16)  # (U, hidden / 32, 1)
        packed = blocks[..., 2:]
        values = torch.cat([packed & 0x0F, packed >> 4], dim=-1)  # byte j holds values j and j + 16
        rows = (values.float() - 8) * scales.float()
        return rows.flatten(1)[inverse]


class DenseEmbedding(nn.Module):
    """An embedding table in the dtype of its file, from which it stays memory-mapped."""

    table: Tensor  # (rows, hidden)

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Ids (T,) → float32 rows (T, hidden)."""
        return self.table[token_ids].float()


class E5Layer(nn.Module):
    """A post-norm BERT layer on packed sequences. The query weights carry the attention's scaling."""

    def __init__(self, config: E5Config) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.layer_norm_eps
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(size, 3 * size)
        self.attention_output = nn.Linear(size, size)
        self.attention_norm = nn.LayerNorm(size, eps)
        self.intermediate = nn.Linear(size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, size)
        self.output_norm = nn.LayerNorm(size, eps)

    def forward(self, hidden_states: Tensor, groups: Sequence[tuple[int, int]]) -> Tensor:
        """(T, H) → (T, H)."""
        qkv = self.qkv(hidden_states)  # (T, 3H)
        parts = qkv.split([count * length for count, length in groups])
        context = [self._attend(part, *group) for part, group in zip(parts, groups, strict=True)]
        attended = self.attention_output(torch.cat(context) if len(context) > 1 else context[0])
        hidden_states = self.attention_norm(hidden_states + attended)
        expanded = F.gelu(self.intermediate(hidden_states))
        normed: Tensor = self.output_norm(hidden_states + self.output(expanded))
        return normed

    def _attend(self, qkv: Tensor, count: int, length: int) -> Tensor:
        heads = self.num_heads
        split = qkv.view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (3, B, heads, L, D)
        if length > _SHORT:
            query, key, value = split
            context = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # (B, heads, L, D)
        else:
            query, key, value = split.reshape(3, count * heads, length, -1)  # (B·heads, L, D) each
            # The softmax in float32 is quicker than in bfloat16, besides being more exact.
            weights = torch.bmm(query, key.mT).float().softmax(-1).to(value.dtype)  # (B·heads, L, L)
            context = torch.bmm(weights, value).view(count, heads, length, -1)
        return context.transpose(1, 2).reshape(count * length, -1)
