"""The perceiver resampler: any number of visual tokens in, a fixed number of latents out.

Flamingo (Alayrac et al., NeurIPS 2022, section 2.2 and appendix A.1.1), after Perceiver (Jaegle et al. 2021).
"""

import torch
from torch import Tensor, nn

from models.fusion.blocks import TransformerLayer, with_own


class PerceiverResampler(nn.Module):
    """Learned latents that attend to the image and to each other."""

    def __init__(
        self, d_memory: int, d_latent: int, num_latents: int, num_layers: int, num_heads: int
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(num_latents, d_latent).normal_(std=0.02))
        self.memory_proj = nn.Linear(d_memory, d_latent)
        self.memory_norms = nn.ModuleList(nn.LayerNorm(d_latent) for _ in range(num_layers))
        self.layers = nn.ModuleList(TransformerLayer(d_latent, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_latent)

    def forward(
        self, memory: Tensor, mask: Tensor | None = None, *, need_weights: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """(B, N, d_memory) → (B, S, d_latent) of S latents.

        Args:
            mask: (B, N) bool, True at real tokens.
            need_weights: also return each layer's weights (B, H, S, N + S) in fp32.
        """
        memory = self.memory_proj(memory)
        latents = self.latents.to(memory.dtype).expand(len(memory), -1, -1)
        mask = with_own(mask, latents.shape[1])
        collected: list[Tensor] = []
        for norm, layer in zip(self.memory_norms, self.layers, strict=True):
            if need_weights:
                latents, weights = layer(latents, mask, memory=norm(memory), need_weights=True)
                collected.append(weights)
            else:
                latents = layer(latents, mask, memory=norm(memory))
        normalised: Tensor = self.norm(latents)
        return (normalised, collected) if need_weights else normalised

    @staticmethod
    def num_parameters(d_memory: int, d_latent: int, num_latents: int, num_layers: int) -> int:
        layer = TransformerLayer.num_parameters(d_latent) + 2 * d_latent
        return num_latents * d_latent + d_memory * d_latent + d_latent + num_layers * layer + 2 * d_latent
