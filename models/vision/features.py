"""What a vision encoder gives the rest of the model. Knows no encoder, no image and no file."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class VisionFeatures:
    """One encode of a batch of images; retrieval and generation both read from it.

    Attributes:
        tokens: (B, N, D) one vector per grid cell, row by row from the top left, in the encoder's dtype.
        pooled: (B, D) float32, the whole image in one vector.
        class_logits: (B, C) float32, the encoder's own classifier on `pooled`.
        grid: rows and columns of the N cells, if the encoder knows them.
    """

    tokens: Tensor
    pooled: Tensor
    class_logits: Tensor
    grid: tuple[int, int] | None = None
