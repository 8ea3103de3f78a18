"""How well do photos fit texts? The three parts of a bundle that tell, without those that write."""

from collections.abc import Sequence

from PIL import Image

from models.matching import CaptionMatcher
from models.photo_embedding import IMAGES_AT_ONCE, PhotoEmbedder
from models.vision.encoder import VisionEncoder
from retrieval.embedder import Queries, QueryEmbedder

_DOUBT = 0.98  # share of the matcher's logit that a wholly new photo takes; what is left keeps their order


class PhotoMatcher(PhotoEmbedder):
    """Vision encoder, embedder and matcher of one bundle."""

    def __init__(self, vision: VisionEncoder, embedder: QueryEmbedder, matcher: CaptionMatcher) -> None:
        super().__init__(vision, embedder)
        self._matcher = matcher

    def match(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """How well each photo fits each of its own texts: logits, whose sigmoid is the confidence.

        The less a photo resembles the training photos, the nearer to 0 they are: it cannot be told.
        """
        logits: list[list[float]] = []
        for start in range(0, len(images), IMAGES_AT_ONCE):
            chunk = slice(start, start + IMAGES_AT_ONCE)
            features, queries = self._look(images[chunk])
            logits += self._matcher.logits(features.tokens, texts[chunk], trust(queries))
        return logits


def trust(queries: Queries) -> list[float]:
    """How far the matcher is believed: of a photo unlike its training photos it knows next to nothing."""
    factors: list[float] = (1 - _DOUBT * queries.novelty).tolist()
    return factors
