"""The vector index of a datastore version: searching it, exactly or approximately.

An index holds one L2-normalised float32 vector per entry, or what compression leaves of it; its row numbers
are the entry numbers of captions.arrow. The module knows nothing of captions.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.approximate_search import ApproximateSearch
from retrieval.gpu_search import MOST, Device, GpuSearch, on_gpu
from retrieval.index_file import read_index_file
from retrieval.manifest import IndexSettings
from retrieval.stored_vectors import StoredVectors

_EXACT = IndexSettings(kind="flat")

# How far beyond k is looked for entries that tie with the k-th, at first and at most. Scores count as ties if
# they are closer than faiss's float32 sums are exact.
_TIE_MARGIN, _MOST_TIES, _ROUNDING = 8, 2048, 1e-5

_HALF_ROUNDING = 1e-3  # as _ROUNDING, of scores in float16

_MOST_RESCORED = 2**24  # numbers read from the index at once to score again: 64 MB


class VectorIndex:
    """Inner-product search. Any number of threads may search at once; nothing changes the index."""

    def __init__(
        self,
        index: Any,
        settings: IndexSettings = _EXACT,
        vectors: StoredVectors | None = None,
        device: Device = "cpu",
    ) -> None:
        """`vectors`: of a kind that scores its candidates again. Raises NoGpuError."""
        self._index = index
        self.entries: int = index.ntotal
        self.dimension: int = index.d
        self.approximate = (
            None
            if settings.kind == "flat"
            else ApproximateSearch(index, settings.kind, settings.search, vectors)
        )
        self._gpu: GpuSearch | None = None
        if on_gpu(device, settings.kind) and self.entries:
            nprobe = None if settings.kind == "flat" else settings.search.nprobe or 1
            self._gpu = GpuSearch(index, nprobe)

    @classmethod
    def read(
        cls,
        path: Path,
        *,
        dimension: int,
        entries: int,
        settings: IndexSettings = _EXACT,
        device: Device = "cpu",
    ) -> "VectorIndex":
        """Reads files whose SHA-256 was verified. Raises DatastoreError if they are not what they should be.

        `settings` are the manifest's. Stored vectors of a kind that has them lie beside the index. device:
        where it is searched; NoGpuError, a DatastoreError, says why it cannot be there.
        """
        index = read_index_file(path, settings.kind, dimension=dimension, entries=entries)
        if settings.kind != "ivf-pq":
            return cls(index, settings, device=device)
        vectors = StoredVectors.of_version(
            path.parent, settings.storage, dimension=dimension, entries=entries
        )
        return cls(index, settings, vectors, device)

    def search(
        self, queries: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Scores and entry numbers, both (B, min(k, entries)), best first, ties by entry number.

        `queries` is (B, E) float32. A query gets the same answer alone and in a batch. In exact search faiss
        takes another path for large batches, with other rounding; scores are therefore computed again here.
        (Only of thousands of entries with one and the same score an arbitrary part may be found.)
        """
        k = min(k, self.entries)
        if k <= 0 or not len(queries):
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        queries = np.ascontiguousarray(queries, np.float32)
        if self._gpu is not None and k + _TIE_MARGIN <= MOST:
            answer = self._found(self._gpu, queries, k, _HALF_ROUNDING)
            if answer is not None:
                return answer
        if self.approximate is not None:
            return self.approximate.search(queries, k)
        answer = self._found(self._index, queries, k, _ROUNDING)
        if answer is None:
            raise RuntimeError("exact search found too few entries")
        return answer

    def _found(
        self, finder: Any, queries: npt.NDArray[np.float32], k: int, rounding: float
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] | None:
        """The k best of what `finder` finds; None if that is less. rounding: of the finder's scores."""
        fetched = min(k + _TIE_MARGIN, self.entries)
        ranked = self._ranked(finder, queries, fetched)
        if ranked is None:
            return None
        scores, found = ranked
        best_scores, best = scores[:, :k], found[:, :k]
        # Of several entries with the score of the last place, chance decides which are found, unless all are.
        tied = np.flatnonzero(scores[:, k - 1] - scores[:, -1] <= rounding)
        while len(tied) and fetched < min(self.entries, _MOST_TIES):
            fetched = min(4 * fetched, self.entries, _MOST_TIES)
            ranked = self._ranked(finder, queries[tied], fetched)
            if ranked is None:
                return None
            scores, found = ranked
            best_scores[tied], best[tied] = scores[:, :k], found[:, :k]
            tied = tied[scores[:, k - 1] - scores[:, -1] <= rounding]
        return best_scores, best

    def vectors(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vectors (n, E) of entries, each in [0, self.entries), as the index keeps them."""
        entries = np.ascontiguousarray(entries, np.int64)
        if len(entries) and not 0 <= int(entries.min()) <= int(entries.max()) < self.entries:
            raise IndexError(f"entries must be in [0, {self.entries})")  # faiss would read beyond its memory
        if self.approximate is not None:
            return self.approximate.vectors(entries)
        found: npt.NDArray[np.float32] = self._index.reconstruct_batch(entries)
        return found

    def _ranked(
        self, finder: Any, queries: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] | None:
        """k found entries with their exact scores, in order; None if there are fewer."""
        scores = np.empty((len(queries), k), np.float32)
        found = np.empty((len(queries), k), np.int64)
        step = max(1, _MOST_RESCORED // (k * self.dimension))
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            _, entries = finder.search(part, k)  # (b, k)
            if entries.min() < 0:
                return None
            vectors = self._index.reconstruct_batch(entries.reshape(-1))
            vectors = vectors.reshape(*entries.shape, self.dimension)  # (b, k, E)
            exact = np.einsum("bke,be->bk", vectors, part, dtype=np.float64).astype(np.float32)
            order = np.lexsort((entries, -exact), axis=-1)
            scores[start : start + step] = np.take_along_axis(exact, order, -1)
            found[start : start + step] = np.take_along_axis(entries, order, -1)
        return scores, found
