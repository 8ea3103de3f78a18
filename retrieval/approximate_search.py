"""Searching an approximate index: how far to look, and scoring candidates again.

Queries are searched one at a time: faiss takes other paths for batches, with other rounding, and a query must
get the same answer alone and in a batch. Only the codes of a single long list are scanned for several queries
together; their scores are sums of whole numbers, which come out the same. No setting of the index is changed;
how far a search looks goes with it as a parameter, so threads do not disturb each other.
"""

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.errors import DatastoreError
from retrieval.index_check import inverted_index
from retrieval.list_probing import Found, ListProber
from retrieval.manifest import IndexKind, SearchSettings
from retrieval.stored_vectors import StoredVectors

_WIDEN = 4  # how much farther is looked if fewer than k were found


class ApproximateSearch:
    """An HNSW, IVF-Flat or IVF-PQ index with its search settings.

    In IVF-PQ a query decides how much work it is: lists are searched whose centroid is nearly as near as the
    nearest. The best candidates are then scored again.
    """

    def __init__(
        self, index: Any, kind: IndexKind, settings: SearchSettings, vectors: StoredVectors | None
    ) -> None:
        """`vectors`: those that score candidates again; without them the index's own scores count."""
        self._index = index
        self._kind = kind
        self._settings = settings
        self._vectors = vectors
        self._lists = ListProber(index) if kind == "ivf-pq" else None
        if kind == "hnsw":
            self._most = max(1, index.ntotal)
            self._effort = min(settings.ef_search or 1, self._most)
        else:
            self._most = inverted_index(index).nlist
            self._effort = min(settings.nprobe or 1, self._most)
        self._parameters = self._make_parameters(self._effort)

    def search(self, queries: npt.NDArray[np.float32], k: int) -> Found:
        """Scores and entries (B, k), best first, ties by entry number; k is at most the number of entries."""
        scores = np.empty((len(queries), k), np.float32)
        entries = np.empty((len(queries), k), np.int64)
        for row, (found_scores, found) in enumerate(self._found_each(queries, k)):
            if self._vectors is not None:
                found_scores = self._vectors.scores(queries[row], found)
            order = np.lexsort((found, -found_scores))[:k]
            scores[row], entries[row] = found_scores[order], found[order]
        return scores, entries

    @property
    def lists(self) -> ListProber:
        """Of an IVF-PQ index. Raises ValueError for others."""
        if self._lists is None:
            raise ValueError(f"an index of kind {self._kind} has no compressed lists")
        return self._lists

    def vectors(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vectors (n, E) of entries (n,), with the rounding of those that are kept."""
        if self._vectors is not None:
            return self._vectors.vectors(entries)
        found: npt.NDArray[np.float32] = self._index.reconstruct_batch(entries)
        return found

    def candidates(self, query: npt.NDArray[np.float32], count: int) -> Found:
        """Up to `count` entries the index itself finds for a query (1, E), with its scores, best first."""
        return self._looked_up(query, count, self._effort, self._settings.probe_margin)

    def _found_each(self, queries: npt.NDArray[np.float32], k: int) -> Iterator[Found]:
        """For each query at least k entries near it."""
        if self._lists is not None and self._lists.nlist == 1:
            yield from self._lists.search_together(queries, self._fetched(k))
            return
        for row in range(len(queries)):
            yield self._found(queries[row : row + 1], k)

    def _fetched(self, k: int) -> int:
        """How many candidates are asked for."""
        if self._vectors is None:
            return k
        return int(min(max(self._settings.candidates or 1, 2 * k), self._index.ntotal))

    def _found(self, query: npt.NDArray[np.float32], k: int) -> Found:
        """At least k entries near a query (1, E), with the index's scores, best first."""
        fetched = self._fetched(k)
        effort = max(self._effort, k) if self._kind == "hnsw" else self._effort
        margin = self._settings.probe_margin
        while True:
            scores, found = self._looked_up(query, fetched, effort, margin)
            if len(found) >= k:
                return scores, found
            if effort >= self._most and margin is None:
                break
            effort, margin = min(_WIDEN * effort, self._most), None
        if self._kind != "hnsw":
            raise DatastoreError(f"an index of kind {self._kind} does not find its entries: build it again")
        # In a graph some entries may be linked from nowhere.
        scores, found = faiss.downcast_index(self._index.storage).search(query, k)
        return scores[0], found[0]

    def _looked_up(
        self, query: npt.NDArray[np.float32], count: int, effort: int, margin: float | None
    ) -> Found:
        if self._lists is not None:
            return self._lists.search(query, count, most=effort, margin=margin)
        parameters = self._parameters if effort == self._effort else self._make_parameters(effort)
        scores, found = self._index.search(query, count, params=parameters)
        hit = found[0] >= 0
        return scores[0][hit], found[0][hit]

    def _make_parameters(self, effort: int) -> Any:
        classes: Any = faiss  # whose stubs leave the arguments out
        if self._kind == "hnsw":
            return classes.SearchParametersHNSW(efSearch=effort)
        return classes.SearchParametersIVF(nprobe=effort)
