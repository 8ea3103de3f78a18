"""Teach two heads to copy: a loss on where they look, beside the loss on what the model says.

A captioner must repeat words of its prompt that it has hardly seen. Transformers do so with an induction
circuit: a head that looks at the previous token, and in a later layer one that looks behind an earlier
occurrence of the present token, at what came next (Olsson et al. 2022, "In-context Learning and Induction
Heads"). By itself it forms only after far more text than we have: 2,000 steps of the recipe left no trace of
one. Telling the heads where to look makes it in a few hundred (guided attention: Deshpande and Narasimhan,
Findings of EMNLP 2020).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.fusion.attention import split_heads
from models.language.xglm import XGLM, DecoderLayer
from training.sequences import Batch


@dataclass(frozen=True)
class Patterns:
    """Where to look: (B, T, T) bool, row i the keys that are right for token i; some rows are empty."""

    previous: Tensor
    induction: Tensor


def copying_patterns(batch: Batch) -> Patterns:
    """The patterns of both heads for a batch."""
    visible = batch.mask[:, 0]  # (B, T, T)
    # In a tree of captions the token before is not always the column before, but it is always one position
    # back and visible.
    previous = visible & (batch.positions[:, None, :] == batch.positions[:, :, None] - 1)
    before = torch.where(previous.any(dim=2), batch.input_ids.gather(1, previous.int().argmax(dim=2)), -1)
    induction = visible & (before[:, None, :] == batch.input_ids[:, :, None])
    return Patterns(previous, induction)


class AttentionGuide:
    """The loss of the first head of layer 0 (previous token) and of layer 1 (induction).

    Args:
        model: with at least two layers; its forward pass leaves here what the loss needs.
    """

    def __init__(self, model: XGLM) -> None:
        self._layers: list[DecoderLayer] = [model.layers[0], model.layers[1]]  # type: ignore[list-item]
        self._projections: dict[int, Tensor] = {}  # of each layer, (B, T, 3D)
        for index, layer in enumerate(self._layers):
            layer.qkv_proj.register_forward_hook(
                lambda _, __, output, index=index: self._projections.update({index: output})
            )

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log share of attention on the right keys, after a forward pass over this batch."""
        patterns = copying_patterns(batch)
        losses = [
            self._head_loss(index, batch.mask[:, 0], pattern)
            for index, pattern in enumerate((patterns.previous, patterns.induction))
        ]
        self._projections.clear()
        return torch.stack(losses).sum()

    def _head_loss(self, index: int, visible: Tensor, pattern: Tensor) -> Tensor:
        layer = self._layers[index]
        parts = self._projections[index].chunk(3, dim=-1)
        query, key, _ = (split_heads(part, layer.num_heads)[:, 0] for part in parts)
        scores = (query @ key.transpose(1, 2)).float() * layer.scale
        rows = pattern.any(dim=2)
        if not rows.any():
            return torch.zeros(())
        scores, visible, pattern = scores[rows], visible[rows], pattern[rows]  # (n, T)
        everywhere = scores.masked_fill(~visible, -torch.inf).logsumexp(dim=1)
        right = scores.masked_fill(~pattern, -torch.inf).logsumexp(dim=1)
        loss: Tensor = (everywhere - right).mean()
        return loss
