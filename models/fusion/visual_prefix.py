"""Visual tokens projected into the language model's width, in front of the text.

One linear layer as in Frozen (Tsimpoukelli et al., NeurIPS 2021), LLaVA (Liu et al., NeurIPS 2023) and
PaliGemma (Beyer et al. 2024), or two with a GELU between as in LLaVA-1.5 (Liu et al., CVPR 2024).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.fusion.blocks import init_weights
from models.fusion.bridge import Origins
from models.fusion.soft_prompt import PrefixState, SoftPromptBridge


@dataclass(frozen=True)
class VisualPrefixConfig:
    """Shape of the bridge."""

    d_model: int  # width of the language model
    d_memory: int  # width of a visual token
    projection: Literal["linear", "mlp"] = "linear"

    @property
    def num_parameters(self) -> int:
        first = self.d_memory * self.d_model + self.d_model
        return first + (self.d_model**2 + self.d_model if self.projection == "mlp" else 0)


class VisualPrefixBridge(SoftPromptBridge):
    """The projection. Padded visual tokens are refused: a prefix has no mask."""

    def __init__(self, config: VisualPrefixConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [nn.Linear(config.d_memory, config.d_model)]
        if config.projection == "mlp":
            layers += [nn.GELU(), nn.Linear(config.d_model, config.d_model)]
        self.projection = nn.Sequential(*layers)
        init_weights(self)

    def prepare(self, memory: Tensor, mask: Tensor | None = None) -> PrefixState:
        if mask is not None and not bool(mask.all()):
            raise ValueError("a visual prefix cannot hold images of different numbers of tokens")
        return PrefixState(self.projection(memory))

    def prepare_with_weights(self, memory: Tensor, mask: Tensor | None = None) -> tuple[PrefixState, Origins]:
        batch, tokens, _ = memory.shape
        themselves = torch.eye(tokens, device=memory.device).expand(batch, -1, -1)
        return self.prepare(memory, mask), Origins(prefix=themselves)
