"""What exact search finds, to hold an approximate index against."""

from typing import Self

import numpy as np
import numpy.typing as npt

from datastore_build.vectors import VectorSource
from retrieval.index import VectorIndex

NEIGHBOURS = 4  # k: as many captions as go into a prompt

_KEPT = 64  # true neighbours remembered, so that entries which tie with the k-th count as found
_TIE = 1e-6
_BLOCK_BYTES = 2**26

Vectors = npt.NDArray[np.float32]


class Truth:
    """What exact search finds for some queries."""

    def __init__(self, scores: Vectors, entries: npt.NDArray[np.int64], k: int) -> None:
        """scores, entries: (Q, K) of the K ≥ k nearest, best first."""
        self.k = k
        least = scores[:, k - 1 : k] - _TIE
        self._right = [row[near] for row, near in zip(entries, scores >= least, strict=True)]

    @classmethod
    def scan(cls, vectors: VectorSource, queries: Vectors, k: int = NEIGHBOURS) -> Self:
        """Reads all vectors once, a block at a time."""
        k = min(k, vectors.count)
        kept = min(_KEPT, vectors.count)
        scores = np.full((len(queries), kept), -np.inf, np.float32)
        entries = np.zeros((len(queries), kept), np.int64)
        first = 0
        for block in vectors.blocks(max(1, _BLOCK_BYTES // (4 * max(vectors.dimension, len(queries))))):
            found = queries @ block.T  # (Q, rows)
            best = np.argpartition(-found, min(kept, len(block)) - 1, axis=1)[:, :kept]
            scores = np.concatenate([scores, np.take_along_axis(found, best, 1)], axis=1)
            entries = np.concatenate([entries, best + first], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :kept]
            scores, entries = np.take_along_axis(scores, order, 1), np.take_along_axis(entries, order, 1)
            first += len(block)
        return cls(scores, entries, k)

    def hits(self, query: int, found: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of the entries found for a query belong to its k nearest, or tie with the last of them."""
        return np.isin(found, self._right[query])

    def recall(self, index: VectorIndex, queries: Vectors, first: int = 0) -> float:
        """Share of the k nearest that the index finds; `queries` are those from number `first` on."""
        _, found = index.search(queries, self.k)
        hits = sum(
            min(self.k, int(self.hits(first + row, entries).sum())) for row, entries in enumerate(found)
        )
        return hits / (self.k * len(queries))
