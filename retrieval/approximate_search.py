"""Searching an approximate index: how far to look, and scoring candidates again.

Queries are searched one at a time: faiss takes other paths for batches, with other rounding, and a query must
get the same answer alone and in a batch. No setting of the index is changed; how far a search looks goes with
it as a parameter, so threads do not disturb each other.
"""

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.index_file import inverted_index
from retrieval.manifest import IndexKind, SearchSettings
from retrieval.stored_vectors import StoredVectors

_WIDEN = 4  # how much farther is looked if fewer than k were found

Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


class ApproximateSearch:
    """An HNSW, IVF-Flat or IVF-PQ index with its search settings."""

    def __init__(
        self, index: Any, kind: IndexKind, settings: SearchSettings, vectors: StoredVectors | None
    ) -> None:
        """`vectors`: those that score candidates again; without them the index's own scores count."""
        self._index = index
        self._kind = kind
        self._vectors = vectors
        self._candidates = settings.candidates or 1
        if kind == "hnsw":
            self._effort, self._most = settings.ef_search or 1, index.ntotal
        else:
            nlist = inverted_index(index).nlist
            self._effort, self._most = min(settings.nprobe or 1, nlist), nlist
        self._parameters = self._make_parameters(self._effort)

    def search(self, queries: npt.NDArray[np.float32], k: int) -> Found:
        """Scores and entries (B, k), best first, ties by entry number; k is at most the number of entries."""
        scores = np.empty((len(queries), k), np.float32)
        entries = np.empty((len(queries), k), np.int64)
        for row in range(len(queries)):
            found_scores, found = self._found(queries[row : row + 1], k)
            if self._vectors is not None:
                found_scores = self._vectors.scores(queries[row], found)
            order = np.lexsort((found, -found_scores))[:k]
            scores[row], entries[row] = found_scores[order], found[order]
        return scores, entries

    def candidates(self, query: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
        """Entries (≤ count,) that the index itself finds for a query (1, E), best first."""
        _, found = self._index.search(query, count, params=self._parameters)
        return found[0][found[0] >= 0]  # type: ignore[no-any-return]

    def _found(self, query: npt.NDArray[np.float32], k: int) -> Found:
        """At least k entries near a query (1, E), with the index's scores."""
        fetched = k if self._vectors is None else min(max(self._candidates, 2 * k), self._index.ntotal)
        effort = max(self._effort, k) if self._kind == "hnsw" else self._effort
        while True:
            parameters = self._parameters if effort == self._effort else self._make_parameters(effort)
            scores, found = self._index.search(query, fetched, params=parameters)
            hit = found[0] >= 0
            if np.count_nonzero(hit) >= k:
                return scores[0][hit], found[0][hit]
            if effort >= self._most:
                break
            effort = min(_WIDEN * effort, self._most)
        # Only in a graph, where some entries may be linked from nowhere.
        scores, found = faiss.downcast_index(self._index.storage).search(query, k)
        return scores[0], found[0]

    def _make_parameters(self, effort: int) -> Any:
        classes: Any = faiss  # whose stubs leave the arguments out
        if self._kind == "hnsw":
            return classes.SearchParametersHNSW(efSearch=effort)
        lists = classes.SearchParametersIVF(nprobe=effort)
        if self._kind == "ivf-flat":
            return lists
        return classes.SearchParametersPreTransform(index_params=lists)
