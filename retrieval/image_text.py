"""Photos and captions in the space of models that were trained to compare them: CLIP, SigLIP.

The image side is the captioner's own image encoder; the text side is whatever writes into the same space
(models/text/). Vectors are L2-normalised, and captions go into a datastore as they are.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from retrieval.embedder import Queries
from retrieval.errors import BundleError

_TEXTS_AT_ONCE = 128


class TextTower(Protocol):
    """The text side of an image-text model."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N, E) of one or more texts, of any length."""
        ...


class ImageTextEmbedder:
    """As `retrieval.embedder.Embedder`, for models of the Hub.

    Args:
        id: names repositories and revisions; a datastore built with another id is refused.
        dimension: of the vectors.
        load_tower: loads the text side, at the first caption: photos alone never need it.
    """

    def __init__(self, id: str, dimension: int, load_tower: Callable[[], TextTower]) -> None:
        self.id = id
        self.dimension = dimension
        self._load_tower = load_tower

    @torch.inference_mode()
    def embed_texts(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """L2-normalised vectors (N, E) of captions, in the given order.

        Args:
            progress: called with the captions done so far and their total.

        Raises:
            BundleError: the text side cannot be loaded, or has another dimension.
        """
        vectors = [np.empty((0, self.dimension), dtype=np.float32)]
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            chunk = texts[start : start + _TEXTS_AT_ONCE]
            vectors.append(self._normalised(self._tower.encode(chunk)))
            if progress is not None:
                progress(start + len(chunk), len(texts))
        return np.concatenate(vectors)

    def embed_pooled(self, pooled: Tensor, class_logits: Tensor) -> Queries:
        """Photos, from the image encoder's pooled vectors; none of them counts as unlike the training photos.

        Raises:
            BundleError: the vectors have another dimension.
        """
        return Queries(self._normalised(pooled), np.zeros(len(pooled), dtype=np.float32))

    @cached_property
    def _tower(self) -> TextTower:
        return self._load_tower()

    def _normalised(self, vectors: Tensor) -> NDArray[np.float32]:
        if vectors.shape[1] != self.dimension:
            raise BundleError(
                f"the embedder {self.id} has {self.dimension} dimensions, a vector here {vectors.shape[1]}: "
                "image encoder and text encoder must share one space"
            )
        normalised: NDArray[np.float32] = F.normalize(vectors.float().cpu(), dim=-1).numpy()
        return normalised
