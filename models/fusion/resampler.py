"""The perceiver resampler: any number of visual tokens in, a fixed number of latents out.

Flamingo (Alayrac et al., NeurIPS 2022, section 2.2 and appendix A.1.1), after Perceiver (Jaegle et al. 2021).
"""

import torch
from torch import Tensor, nn

from models.fusion.blocks import FeedForward, MultiHeadAttention


class PerceiverResampler(nn.Module):
    """Learned latents that attend to the image and to each other."""

    def __init__(
        self, d_memory: int, d_latent: int, num_latents: int, num_layers: int, num_heads: int
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(num_latents, d_latent).normal_(std=0.02))
        self.memory_proj = nn.Linear(d_memory, d_latent)
        self.layers = nn.ModuleList(_ResamplerLayer(d_latent, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_latent)

    def forward(self, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, d_memory) → (B, num_latents, d_latent). `mask` (B, N) bool is True at real tokens."""
        memory = self.memory_proj(memory)
        latents = self.latents.to(memory.dtype).expand(len(memory), -1, -1)
        if mask is not None:
            always = mask.new_ones(len(mask), latents.shape[1])
            mask = torch.cat([mask, always], dim=1)[:, None, None]
        for layer in self.layers:
            latents = layer(latents, memory, mask)
        normalised: Tensor = self.norm(latents)
        return normalised

    @staticmethod
    def num_parameters(d_memory: int, d_latent: int, num_latents: int, num_layers: int) -> int:
        layer = (
            MultiHeadAttention.num_parameters(d_latent, d_latent)
            + FeedForward.num_parameters(d_latent)
            + 6 * d_latent
        )
        return num_latents * d_latent + d_memory * d_latent + d_latent + num_layers * layer + 2 * d_latent


class _ResamplerLayer(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm_memory = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.attn = MultiHeadAttention(width, width, num_heads)
        self.norm_ffn = nn.LayerNorm(width)
        self.ffn = FeedForward(width)

    def forward(self, latents: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        normalised = self.norm_latents(latents)
        attended, _ = self.attn(normalised, torch.cat([self.norm_memory(memory), normalised], dim=1), mask)
        latents = latents + attended
        fed_forward: Tensor = latents + self.ffn(self.norm_ffn(latents))
        return fed_forward
