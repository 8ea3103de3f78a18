"""A text embedder for tests that gives "caption 17" the 17th of some vectors made before."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from clustered_vectors import clustered

DIMENSION = 32


class NumberedEmbedder:
    id = "numbered-32"
    dimension = DIMENSION

    def __init__(self, count: int = 2000) -> None:
        self.vectors = clustered(count, DIMENSION)
        self.embedded = 0  # texts

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.embedded += len(texts)
        return self.vectors[[int(text.split()[-1]) for text in texts]]
