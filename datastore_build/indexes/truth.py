"""What exact search finds, to hold an approximate index against."""

from collections.abc import Iterable
from typing import Self

import faiss
import numpy as np
import numpy.typing as npt

from datastore_build.vectors import VectorSource, blocks
from retrieval.index import VectorIndex

NEIGHBOURS = 4  # k: as many captions as go into a prompt
KEPT = 64  # true neighbours remembered, so that entries which tie with the k-th count as found

_TIE = 1e-6
_BLOCK_BYTES = 2**24  # of vectors looked at at once

Vectors = npt.NDArray[np.float32]
Nearest = tuple[Vectors, npt.NDArray[np.int64]]  # scores, entries: (Q, K), best first


class Truth:
    """What exact search finds for some queries."""

    def __init__(self, nearest: Nearest, k: int) -> None:
        """nearest: the K ≥ k nearest of all entries."""
        self.k = k
        scores, entries = nearest
        least = scores[:, k - 1 : k] - _TIE
        self._right = [row[near] for row, near in zip(entries, scores >= least, strict=True)]

    @classmethod
    def scan(cls, vectors: VectorSource, queries: Vectors, k: int = NEIGHBOURS) -> Self:
        """Reads all vectors once, a block at a time."""
        first = 0
        parts: list[Nearest] = []
        for block in blocks(vectors, max(1, _BLOCK_BYTES // (4 * vectors.dimension))):
            parts = [merge_nearest([*parts, nearest(queries, block, first)])]
            first += len(block)
        return cls(parts[0], min(k, vectors.count))

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


def nearest(queries: Vectors, vectors: Vectors, first: int) -> Nearest:
    """Of queries (Q, E) among vectors (n, E), the first of which is the entry `first`: (Q, min(KEPT, n))."""
    kept = min(KEPT, len(vectors))
    scores, entries = faiss.knn(queries, vectors, kept, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, entries + first


def merge_nearest(parts: Iterable[Nearest]) -> Nearest:
    """Those of several parts of the entries, which are in order, as one: (Q, at most KEPT)."""
    all_scores, all_entries = zip(*parts, strict=True)
    scores, entries = np.concatenate(all_scores, axis=1), np.concatenate(all_entries, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :KEPT]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(entries, order, 1)
