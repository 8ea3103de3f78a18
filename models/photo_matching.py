"""How well do photos fit texts? The three parts of a bundle that tell, without those that write."""

from collections.abc import Sequence

import torch
from PIL import Image

from models.matching import CaptionMatcher
from models.vision.encoder import VisionEncoder
from retrieval.embedder import Queries, QueryEmbedder

_IMAGES_AT_ONCE = 16  # encoded together: bounds the memory of activations
_DOUBT = 0.98  # share of the matcher's logit that a wholly new photo takes; what is left keeps their order


class PhotoMatcher:
    """Vision encoder, embedder and matcher of one bundle."""

    def __init__(self, vision: VisionEncoder, embedder: QueryEmbedder, matcher: CaptionMatcher) -> None:
        self._vision = vision
        self._embedder = embedder
        self._matcher = matcher

    @torch.inference_mode()
    def match(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """How well each photo fits each of its own texts: logits, whose sigmoid is the confidence.

        The less a photo resembles the training photos, the nearer to 0 they are: it cannot be told.
        """
        logits: list[list[float]] = []
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            chunk = slice(start, start + _IMAGES_AT_ONCE)
            features = self._vision.encode(images[chunk])
            queries = self._embedder.embed_pooled(features.pooled, features.class_logits)
            logits += self._matcher.logits(features.tokens, texts[chunk], trust(queries))
        return logits


def trust(queries: Queries) -> list[float]:
    """How far the matcher is believed: of a photo unlike its training photos it knows next to nothing."""
    factors: list[float] = (1 - _DOUBT * queries.novelty).tolist()
    return factors
