"""The gated bimodal layer: single-stream and dual-stream vision-language encoders as settings of one layer.

Bugliarello et al., Multimodal Pretraining Unmasked (TACL 2021, section 4). One attention over the tokens of
both modalities has four blocks of scores: image to image, image to text, text to image, text to text. Each
has a gate, and the two modalities have one set of weights or two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.fusion.attention import attention, merge_heads, split_heads
from models.fusion.blocks import FeedForward, init_weights


@dataclass(frozen=True)
class Gates:
    """Which blocks of scores are open: from the queries' modality to the keys'."""

    vision_to_vision: bool = True
    vision_to_text: bool = True
    text_to_vision: bool = True
    text_to_text: bool = True

    def mask(self, vision: int, text: int, device: torch.device) -> Tensor:
        """(vision + text, vision + text) bool, True where a token may look."""
        open_ = torch.empty(vision + text, vision + text, dtype=torch.bool, device=device)
        open_[:vision, :vision] = self.vision_to_vision
        open_[:vision, vision:] = self.vision_to_text
        open_[vision:, :vision] = self.text_to_vision
        open_[vision:, vision:] = self.text_to_text
        return open_


ALL = Gates()
INTRA = Gates(vision_to_text=False, text_to_vision=False)
INTER = Gates(vision_to_vision=False, text_to_text=False)


def single_stream(num_layers: int) -> list[Gates]:
    """Every token looks at every other: VisualBERT, UNITER, VL-BERT."""
    return [ALL] * num_layers


def dual_stream_intra(num_layers: int) -> list[Gates]:
    """Each modality looks at itself alone."""
    return [INTRA] * num_layers


def dual_stream_inter(num_layers: int) -> list[Gates]:
    """Layers across the modalities and within them in turn: ViLBERT, LXMERT."""
    return [INTRA if index % 2 else INTER for index in range(num_layers)]


class BimodalLayer(nn.Module):
    """Attention and feed-forward over both modalities, pre-norm.

    Args:
        tied: one set of weights for both modalities instead of one for each.
    """

    def __init__(self, d_model: int, num_heads: int, gates: Gates, *, tied: bool) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {d_model}")
        self.num_heads = num_heads
        self.scale = (d_model // num_heads) ** -0.5
        self.gates = gates
        self.vision = _Stream(d_model)
        # Not the same module under two names: safetensors refuses to save weights twice.
        self.own_text = None if tied else _Stream(d_model)

    @property
    def text(self) -> "_Stream":
        """The text's weights, which are those of `vision` if they are tied."""
        return self.vision if self.own_text is None else self.own_text

    def forward(
        self, vision: Tensor, text: Tensor, mask: Tensor | None = None, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(B, N, D) and (B, T, D) → the same, and the weights (B, H, N + T, N + T) if asked for.

        Args:
            mask: (B, N + T) bool, True at real tokens.
        """
        num_vision = vision.shape[1]
        allowed = self.gates.mask(num_vision, text.shape[1], vision.device)[None, None]
        if mask is not None:
            allowed = allowed & mask[:, None, None]
        qkv = torch.cat([self.vision.project(vision), self.text.project(text)], dim=1)
        query, key, value = (split_heads(part, self.num_heads) for part in qkv.chunk(3, dim=-1))
        attended, weights = attention(
            query, key, value, scale=self.scale, mask=allowed, need_weights=need_weights
        )
        merged = merge_heads(attended)
        return self.vision(vision, merged[:, :num_vision]), self.text(text, merged[:, num_vision:]), weights


class _Stream(nn.Module):
    """The weights of one modality."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.norm_attn = nn.LayerNorm(d_model)
        self.qkv_proj = nn.Linear(d_model, 3 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.norm_ffn = nn.LayerNorm(d_model)
        self.ffn = FeedForward(d_model)

    def project(self, x: Tensor) -> Tensor:
        projected: Tensor = self.qkv_proj(self.norm_attn(x))
        return projected

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.out_proj(attended)
        fed_forward: Tensor = x + self.ffn(self.norm_ffn(x))
        return fed_forward


class BimodalEncoder(nn.Module):
    """Bimodal layers, one for each of `gates`."""

    def __init__(self, d_model: int, num_heads: int, gates: Sequence[Gates], *, tied: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BimodalLayer(d_model, num_heads, g, tied=tied) for g in gates)
        init_weights(self)

    def forward(
        self, vision: Tensor, text: Tensor, mask: Tensor | None = None, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """As `BimodalLayer`; the weights of all layers, or none."""
        collected: list[Tensor] = []
        for layer in self.layers:
            vision, text, weights = layer(vision, text, mask, need_weights=need_weights)
            if weights is not None:
                collected.append(weights)
        return vision, text, collected

    @staticmethod
    def num_parameters(d_model: int, num_layers: int, *, tied: bool) -> int:
        stream = 4 * (d_model**2 + d_model) + FeedForward.num_parameters(d_model) + 4 * d_model
        return num_layers * stream * (1 if tied else 2)
