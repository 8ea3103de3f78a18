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
_FIRST_RESCORED = 64  # candidates scored again before it is asked whether more are worth it

Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


class ApproximateSearch:
    """An HNSW, IVF-Flat or IVF-PQ index with its search settings.

    In IVF-PQ a query decides how much work it is: lists are searched whose centroid is nearly as near as the
    nearest, and candidates are scored again until those left, even were their codes' scores too low by the
    margin, could not be among the k nearest (as in RaBitQ: Gao and Long 2024, section 4).
    """

    def __init__(
        self, index: Any, kind: IndexKind, settings: SearchSettings, vectors: StoredVectors | None
    ) -> None:
        """`vectors`: those that score candidates again; without them the index's own scores count."""
        self._index = index
        self._kind = kind
        self._settings = settings
        self._vectors = vectors
        if kind == "hnsw":
            self._effort, self._most = settings.ef_search or 1, index.ntotal
        else:
            inner = inverted_index(index)
            self._quantizer = faiss.downcast_index(inner.quantizer)
            self._effort, self._most = min(settings.nprobe or 1, inner.nlist), inner.nlist
        if kind == "ivf-pq":
            self._rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        self._parameters: dict[int, Any] = {}  # made once for each effort, as that takes as long as a list

    def search(self, queries: npt.NDArray[np.float32], k: int) -> Found:
        """Scores and entries (B, k), best first, ties by entry number; k is at most the number of entries."""
        scores = np.empty((len(queries), k), np.float32)
        entries = np.empty((len(queries), k), np.int64)
        for row in range(len(queries)):
            found_scores, found = self._found(queries[row : row + 1], k)
            if self._vectors is not None:
                found_scores, found = self._rescored(self._vectors, queries[row], k, found_scores, found)
            order = np.lexsort((found, -found_scores))[:k]
            scores[row], entries[row] = found_scores[order], found[order]
        return scores, entries

    def candidates(self, query: npt.NDArray[np.float32], count: int) -> Found:
        """Up to `count` entries the index itself finds for a query (1, E), with their scores, best first."""
        scores, found = self._index.search(query, count, params=self._of_effort(self._probes(query)))
        hit = found[0] >= 0
        return scores[0][hit], found[0][hit]

    def list_scores(self, query: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """Inner products (count,) of a query (1, E) with an IVF-PQ index's nearest centroids, best first."""
        scores, _ = self._quantizer.search(self._rotation.apply(query), count)
        return scores[0]  # type: ignore[no-any-return]

    def _probes(self, query: npt.NDArray[np.float32]) -> int:
        """The effort a query needs, as far as can be told beforehand."""
        margin = self._settings.probe_margin
        if margin is None or self._effort == 1:
            return self._effort
        scores = self.list_scores(query, self._effort)
        return int(np.count_nonzero(scores >= scores[0] - margin))

    def _found(self, query: npt.NDArray[np.float32], k: int) -> Found:
        """At least k entries near a query (1, E), with the index's scores, best first."""
        fetched = k
        if self._vectors is not None:
            fetched = min(max(self._settings.candidates or 1, 2 * k), self._index.ntotal)
        effort = max(self._effort, k) if self._kind == "hnsw" else self._probes(query)
        while True:
            scores, found = self._index.search(query, fetched, params=self._of_effort(effort))
            hit = found[0] >= 0
            if np.count_nonzero(hit) >= k:
                return scores[0][hit], found[0][hit]
            if effort >= self._most:
                break
            effort = min(_WIDEN * effort, self._most)
        # Only in a graph, where some entries may be linked from nowhere.
        scores, found = faiss.downcast_index(self._index.storage).search(query, k)
        return scores[0], found[0]

    def _rescored(
        self,
        vectors: StoredVectors,
        query: npt.NDArray[np.float32],
        k: int,
        scores: npt.NDArray[np.float32],
        found: npt.NDArray[np.int64],
    ) -> Found:
        """The candidates that may be among the k nearest, scored again; given best first by the index."""
        margin = self._settings.score_margin
        if margin is None:
            return vectors.scores(query, found), found
        exact = np.empty(len(found), np.float32)
        done, end = 0, max(_FIRST_RESCORED, k)
        while done < min(end, len(found)):
            exact[done:end] = vectors.scores(query, found[done:end])
            done = min(end, len(found))
            least = np.partition(exact[:done], -k)[-k] - margin
            worthwhile = int(np.searchsorted(-scores, -least, side="right"))
            end = min(worthwhile, 4 * done)
        return exact[:done], found[:done]

    def _of_effort(self, effort: int) -> Any:
        if effort not in self._parameters:
            self._parameters[effort] = self._make_parameters(effort)
        return self._parameters[effort]

    def _make_parameters(self, effort: int) -> Any:
        classes: Any = faiss  # whose stubs leave the arguments out
        if self._kind == "hnsw":
            return classes.SearchParametersHNSW(efSearch=effort)
        lists = classes.SearchParametersIVF(nprobe=effort)
        if self._kind == "ivf-flat":
            return lists
        return classes.SearchParametersPreTransform(index_params=lists)
