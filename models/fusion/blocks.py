"""The blocks that resamplers, query transformers and bottlenecks are built of: attention and feed-forward.

Pre-norm, as in GPT-2 and later. Residual connections are the caller's.
"""

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


def init_weights(module: nn.Module) -> None:
    """N(0, 0.02) weights and zero biases of every linear layer inside."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
