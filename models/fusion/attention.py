"""Scaled dot-product attention, the one primitive of the fusion core.

Knows nothing of images, text or projections: heads in, heads out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, H*D) → (B, H, T, D)."""
    batch, length, width = x.shape
    return x.view(batch, length, num_heads, width // num_heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) → (B, T, H*D)."""
    batch, heads, length, width = x.shape
    return x.transpose(1, 2).reshape(batch, length, heads * width)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    mask: Tensor | None = None,
    is_causal: bool = False,
    need_weights: bool = False,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """Attend with `softmax(query @ key^T * scale) @ value` (Vaswani et al. 2017, section 3.2.1).

    Args:
        query: (B, H, Q, D).
        key: (B, H, K, D).
        value: (B, H, K, D).
        scale: factor of the scores; low-rank attention needs it apart from D.
        mask: bool, True where a query may look, broadcastable to (B, H, Q, K). Every query must see a key.
        is_causal: query i sees keys 0..i; only without `mask`.
        need_weights: also return the attention weights, by a slower way that computes them.
        dropout: share of the attention weights that is set to zero, though not in those returned.

    Returns:
        The attended values (B, H, Q, D) and, if asked for, the weights (B, H, Q, K) in fp32.
    """
    if not need_weights and not (query.requires_grad and query.device.type == "cpu"):
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, scale=scale
        )
        return attended, None
    # Training on a CPU comes here too: the backward pass of SDPA's CPU kernel takes two to three times as
    # long as these products do at a caption's lengths.
    scores = (query * scale) @ key.transpose(-1, -2)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if not need_weights:
        return F.dropout(scores.softmax(dim=-1), dropout) @ value, None
    weights = scores.float().softmax(dim=-1)
    return F.dropout(weights, dropout).to(value.dtype) @ value, weights
