"""Photos and texts as query vectors: the two parts of a bundle that this takes, without those that write."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models.vision.encoder import VisionEncoder
from models.vision.features import VisionFeatures
from retrieval.embedder import Queries, QueryEmbedder

IMAGES_AT_ONCE = 16  # encoded together: bounds the memory of activations


class PhotoEmbedder:
    """Vision encoder and embedder of one bundle.

    Attributes:
        id, dimension: the embedder's, which a datastore must have, too.
    """

    def __init__(self, vision: VisionEncoder, embedder: QueryEmbedder) -> None:
        self.id = embedder.id
        self.dimension = embedder.dimension
        self._vision = vision
        self._embedder = embedder

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Query vectors of photos, L2-normalised (B, E) float32, comparable with those of a datastore."""
        chunks = [
            self._look(images[start : start + IMAGES_AT_ONCE])[1].vectors
            for start in range(0, len(images), IMAGES_AT_ONCE)
        ]
        return np.concatenate(chunks) if chunks else np.empty((0, self.dimension), np.float32)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Query vectors of texts, as `embed_images` makes them of photos."""
        return self._embedder.embed_texts(texts)

    @torch.inference_mode()
    def _look(self, images: Sequence[Image.Image]) -> tuple[VisionFeatures, Queries]:
        features = self._vision.encode(images)
        return features, self._embedder.embed_pooled(features.pooled, features.class_logits)
