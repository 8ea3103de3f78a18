"""What a vision encoder gives the rest of the model. Knows no encoder, no image and no file."""

from dataclasses import dataclass

from torch import Tensor

Region = tuple[float, float, float, float]  # left, top, right, bottom in shares of the photo's sides


@dataclass(frozen=True)
class VisionFeatures:
    """One encode of a batch of images; retrieval and generation both read from it.

    Attributes:
        tokens: (B, N, D) in the encoder's dtype: `summaries` that stand for no place, then one vector
            per grid cell, row by row from the top left, then padding.
        pooled: (B, D) float32, the whole image in one vector.
        class_logits: (B, C) float32, the encoder's own classifier on `pooled`.
        grids: rows and columns of each photo's cells.
        summaries: tokens in front of the cells, such as CLIP's class token.
        mask: (B, N) bool, True at what is not padding; None if nothing is.
        regions: what part of each photo the grid covers; None: all of it.
    """

    tokens: Tensor
    pooled: Tensor
    class_logits: Tensor
    grids: tuple[tuple[int, int], ...] = ()
    summaries: int = 0
    mask: Tensor | None = None
    regions: tuple[Region, ...] | None = None
