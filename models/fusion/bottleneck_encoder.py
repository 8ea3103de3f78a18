"""Modalities that exchange information through a few bottleneck tokens alone.

The Multimodal Bottleneck Transformer, Nagrani et al. (NeurIPS 2021, section 3.2). Up to the fusion layer each
modality keeps to itself; from there on its tokens also see the bottlenecks, which every modality updates.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.fusion.blocks import TransformerLayer, init_weights, with_own

Update = Literal["symmetric", "sequential"]


class BottleneckEncoder(nn.Module):
    """Transformer encoders of n modalities, joined by bottlenecks.

    Args:
        fusion_layer: L_f, the first layer that sees the bottlenecks; `num_layers` never fuses.
        update: `symmetric` takes the mean of what the modalities make of the bottlenecks (their equation 9),
            `sequential` lets one modality after the other update them.
    """

    def __init__(
        self,
        modalities: int,
        d_model: int,
        num_heads: int,
        num_layers: int,
        *,
        fusion_layer: int,
        num_bottlenecks: int = 4,
        update: Update = "symmetric",
    ) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {d_model}")
        if not 0 <= fusion_layer <= num_layers:
            raise ValueError(f"there is no layer {fusion_layer} of {num_layers} to fuse from")
        self.fusion_layer = fusion_layer
        self.update = update
        self.bottlenecks = nn.Parameter(torch.empty(num_bottlenecks, d_model).normal_(std=0.02))
        self.layers = nn.ModuleList(
            nn.ModuleList(TransformerLayer(d_model, num_heads) for _ in range(modalities))
            for _ in range(num_layers)
        )
        init_weights(self)

    def forward(
        self,
        inputs: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None = None,
        *,
        need_weights: bool = False,
    ) -> tuple[list[Tensor], Tensor] | tuple[list[Tensor], Tensor, list[list[Tensor]]]:
        """Encode a sequence (B, N_m, D) of each modality; `masks` (B, N_m) bool are True at real tokens.

        Returns:
            The encoded sequences, and the bottlenecks (B, S, D). If asked for, also the weights
            [layer][modality] in fp32: (B, H, N_m, N_m), and where a layer fuses (B, H, N_m + S, N_m + S), the
            bottlenecks last.
        """
        sequences = list(inputs)
        masks = masks or [None] * len(sequences)
        bottlenecks = self.bottlenecks.to(sequences[0].dtype).expand(len(sequences[0]), -1, -1)
        collected: list[list[Tensor]] = []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, nn.ModuleList)  # for the type checker
            into: list[Tensor] | None = [] if need_weights else None
            if into is not None:
                collected.append(into)

            if index < self.fusion_layer:
                sequences = [
                    _run(one, x, mask, into) for one, x, mask in zip(layer, sequences, masks, strict=True)
                ]
                continue
            updates = []
            for number, (one, mask) in enumerate(zip(layer, masks, strict=True)):
                length = sequences[number].shape[1]
                whole = torch.cat([sequences[number], bottlenecks], dim=1)
                joined = _run(one, whole, with_own(mask, bottlenecks.shape[1]), into)
                sequences[number] = joined[:, :length]
                updates.append(joined[:, length:])
                if self.update == "sequential":
                    bottlenecks = updates[-1]
            if self.update == "symmetric":
                bottlenecks = torch.stack(updates).mean(dim=0)
        return (sequences, bottlenecks, collected) if need_weights else (sequences, bottlenecks)

    def joint_weights(self, weights: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The weights of `forward` over all modalities and then the bottlenecks as one sequence.

        Returns:
            (B, H, L, L) of each layer in turn, rows sum to 1, 0 where nothing looks; with sequential updates
            of each modality of each fusing layer in turn. A row that such a step leaves as it is looks at
            itself, so that `rollout` may multiply them.
        """
        shared = len(self.bottlenecks)
        fuses = [index >= self.fusion_layer for index in range(len(weights))]
        lengths = [own.shape[-1] - shared * fuses[-1] for own in weights[-1]]
        total = sum(lengths) + shared
        *places, behind = torch.split(torch.arange(total), [*lengths, shared])
        joint = []
        for layer, fused in zip(weights, fuses, strict=True):
            parts = list(zip(places, layer, strict=True))
            in_turn = [[part] for part in parts] if fused and self.update == "sequential" else [parts]
            joint += [_joint(step, behind if fused else behind[:0], total) for step in in_turn]
        return joint

    @staticmethod
    def num_parameters(modalities: int, d_model: int, num_layers: int, num_bottlenecks: int) -> int:
        layers = modalities * num_layers * TransformerLayer.num_parameters(d_model)
        return num_bottlenecks * d_model + layers


def _run(layer: nn.Module, x: Tensor, mask: Tensor | None, weights: list[Tensor] | None) -> Tensor:
    """The layer's output; its weights are added to the list, if there is one."""
    if weights is None:
        encoded: Tensor = layer(x, mask)
    else:
        encoded, own = layer(x, mask, need_weights=True)
        weights.append(own)
    return encoded


def _joint(parts: Sequence[tuple[Tensor, Tensor]], bottlenecks: Tensor, total: int) -> Tensor:
    """The weights of some modalities in one layer, over a sequence of `total` places: (B, H, total, total).

    Args:
        parts: of each modality its places in the sequence, and its weights.
        bottlenecks: their places, if the layer fuses.
    """
    like = parts[0][1]
    joint = torch.eye(total).to(like).repeat(*like.shape[:2], 1, 1)
    updates = []
    for own, weights in parts:
        seen = torch.cat([own, bottlenecks])
        rows = joint.new_zeros(*like.shape[:2], len(seen), total)
        rows[..., seen] = weights
        joint[:, :, own] = rows[:, :, : len(own)]
        updates.append(rows[:, :, len(own) :])
    joint[:, :, bottlenecks] = torch.stack(updates).mean(dim=0)
    return joint
