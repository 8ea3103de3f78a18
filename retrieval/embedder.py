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
    d_hidden: int = 768  # of the image side's perceptron
    dimension: int = 384  # of the shared space


class SharedSpace(nn.Module):
    """The trained part: image and text vectors into one space.

    The text side is one linear map of centred sentence vectors: multilingual-e5 has brought the languages
    together already, and a perceptron beside it found no more. The image side is a linear map, a
    perceptron, and one vector for each ImageNet class, mixed by the classifier's probabilities (as ConSE
    does, Norouzi et al., ICLR 2014). The class vectors begin as the class names' own, so that things which
    no training photo shows, but ImageNet does, are found by name.
    """

    image_mean: Tensor
    image_scale: Tensor
    text_mean: Tensor

    def __init__(self, config: EmbedderConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("image_mean", torch.zeros(config.d_image))
        self.register_buffer("image_scale", torch.ones(()))
        self.register_buffer("text_mean", torch.zeros(config.d_text))
        self.image_linear = nn.Linear(config.d_image, config.dimension)
        self.image_up = nn.Linear(config.d_image, config.d_hidden)
        self.image_down = nn.Linear(config.d_hidden, config.dimension, bias=False)
        self.classes = nn.Parameter(torch.zeros(config.num_classes, config.dimension))
        self.text_linear = nn.Linear(config.d_text, config.dimension)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small weights; the text side begins as the identity, so that e5's own neighbourhoods are kept."""
        nn.init.normal_(self.image_linear.weight, std=0.02)
        nn.init.zeros_(self.image_linear.bias)
        nn.init.normal_(self.image_down.weight, std=0.01)
        nn.init.eye_(self.text_linear.weight)
        nn.init.zeros_(self.text_linear.bias)

    def embed_image(self, pooled: Tensor, class_logits: Tensor) -> Tensor:
        """L2-normalised (B, E) of pooled vectors (B, d_image) and class scores (B, num_classes)."""
        x = self.dropout((pooled - self.image_mean) / self.image_scale)
        seen = self.image_linear(x) + self.image_down(self.dropout(F.gelu(self.image_up(x))))
        return F.normalize(seen + class_logits.softmax(dim=-1) @ self.classes, dim=-1)

    def embed_text(self, sentences: Tensor) -> Tensor:
        """L2-normalised (..., E) of sentence vectors (..., d_text)."""
        # e5's vectors crowd around one direction; without it they have about a quarter of their length.
        return F.normalize(self.text_linear((sentences - self.text_mean) * 4), dim=-1)


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
