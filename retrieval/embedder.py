"""One space for photos and captions: what makes "captions near this image" a nearest-neighbour search.

Two frozen encoders and a small trained projection on each side. Knows nothing of datastores or files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from retrieval.e5 import E5Encoder, Prefix

TEXT_PREFIX: Prefix = "passage: "  # multilingual-e5 wants a prefix; one for all keeps captions comparable


@dataclass(frozen=True)
class EmbedderConfig:
    """Shape of the projections."""

    d_image: int = 1280  # pooled vector of the vision encoder
    num_classes: int = 1000  # of the vision encoder's classifier
    d_text: int = 384  # sentence vector of the text encoder
    d_hidden: int = 1024
    dimension: int = 384  # of the shared space


class Projection(nn.Module):
    """A linear map and a two-layer perceptron side by side, summed."""

    def __init__(self, d_input: int, d_hidden: int, d_output: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_input)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(d_input, d_output)
        self.up = nn.Linear(d_input, d_hidden)
        self.down = nn.Linear(d_hidden, d_output, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.norm(x))
        projected: Tensor = self.linear(x) + self.down(self.dropout(F.gelu(self.up(x))))
        return projected


class SharedSpace(nn.Module):
    """The trained part: image and text vectors into one space.

    The image side also mixes one vector for each class by the classifier's probabilities (as ConSE does,
    Norouzi et al., ICLR 2014). These vectors begin as the class names' own, so that things which no training
    photo shows, but ImageNet does, are found by name.
    """

    def __init__(self, config: EmbedderConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.image = Projection(config.d_image, config.d_hidden, config.dimension, dropout)
        self.classes = nn.Parameter(torch.zeros(config.num_classes, config.dimension))
        self.text = Projection(config.d_text, config.d_hidden, config.dimension, dropout)

    def embed_image(self, pooled: Tensor, class_logits: Tensor) -> Tensor:
        """L2-normalised (B, E) of pooled vectors (B, d_image) and class scores (B, num_classes)."""
        mixed = self.image(pooled) + class_logits.softmax(dim=-1) @ self.classes
        return F.normalize(mixed, dim=-1)

    def embed_text(self, sentences: Tensor) -> Tensor:
        """L2-normalised (N, E) of sentence vectors (N, d_text)."""
        return F.normalize(self.text(sentences), dim=-1)


class Embedder:
    """Captions and photos to vectors of one space.

    Args:
        id: names encoder and weights; a datastore built with another id is refused.
        load_encoder: loads the text encoder, at the first caption: photos alone never need it.
        space: the trained projections.
    """

    def __init__(self, id: str, load_encoder: Callable[[], E5Encoder], space: SharedSpace) -> None:
        self.id = id
        self.dimension = space.config.dimension
        self._load_encoder = load_encoder
        self._space = space.eval()

    @cached_property
    def _encoder(self) -> E5Encoder:
        return self._load_encoder()

    @torch.inference_mode()
    def embed_texts(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """L2-normalised vectors (N, E) of captions in any language, in the given order.

        Args:
            progress: called with the captions done so far and their total.
        """
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        vectors = self._encoder.encode(texts, prefix=TEXT_PREFIX, progress=progress)
        embedded: NDArray[np.float32] = self._space.embed_text(vectors).numpy()
        return embedded

    @torch.inference_mode()
    def embed_pooled(self, pooled: Tensor, class_logits: Tensor) -> NDArray[np.float32]:
        """L2-normalised vectors (B, E) of the vision encoder's pooled vectors and class scores."""
        embedded: NDArray[np.float32] = self._space.embed_image(
            pooled.float().cpu(), class_logits.float().cpu()
        ).numpy()
        return embedded
