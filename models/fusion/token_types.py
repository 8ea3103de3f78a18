"""Token-type embeddings: one vector a modality, added to all of its tokens.

VLMo (Bao et al., NeurIPS 2022) adds them before the encoders. Added after pretrained encoders at full size
they spoil the features; EMKUM adds them there through one LayerScale (Touvron et al., ICCV 2021) that both
modalities share and that begins near zero (its equations 4 and 5), so that they come in as far as they help.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_INITIAL_SCALE = 1e-5


class TokenTypes(nn.Module):
    """Adds a learned vector to each modality's tokens.

    Args:
        scaled: through a LayerScale shared by the modalities.
    """

    def __init__(self, modalities: int, d_model: int, *, scaled: bool) -> None:
        super().__init__()
        self.types = nn.Parameter(torch.empty(modalities, d_model).normal_(std=0.02))
        self.layer_scale = nn.Parameter(torch.full((d_model,), _INITIAL_SCALE)) if scaled else None

    def forward(self, sequences: Sequence[Tensor]) -> list[Tensor]:
        """One sequence (B, N_m, D) of each modality → the same."""
        if len(sequences) != len(self.types):
            raise ValueError(f"{len(sequences)} sequences for {len(self.types)} modalities")
        return [self.add(x, modality) for modality, x in enumerate(sequences)]

    def add(self, x: Tensor, modality: int) -> Tensor:
        """One modality's sequence (B, N, D) → the same."""
        added = self.types[modality] if self.layer_scale is None else self.layer_scale * self.types[modality]
        return x + added.to(x.dtype)
