"""A small deterministic text embedder for tests: hashed words, so that texts with common words are near."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class HashingEmbedder:
    def __init__(self, embedder_id: str = "hashing-256", dimension: int = 256) -> None:
        self.id = embedder_id
        self.dimension = dimension
        self.batches: list[list[str]] = []  # what embed_texts was called with

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.batches.append(list(texts))
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
                vectors[row, int.from_bytes(digest) % self.dimension] += 1.0
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        normalised: npt.NDArray[np.float32] = vectors / np.maximum(norms, 1e-12)
        return normalised
