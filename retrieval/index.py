"""The vector index of a datastore version: reading it safely and searching it.

An index holds one L2-normalised float32 vector per entry; its row numbers are the entry numbers of
captions.arrow. The module knows nothing of captions.
"""

import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.errors import DatastoreError

# The first four bytes of a faiss file name the class it will build. Only what our own build writes is parsed:
# faiss knows dozens of classes, some of which read further files or allocate what the header says.
_ALLOWED_TYPES = {b"IxFI": faiss.IndexFlatIP}
_LOOP_LIMIT = 10_000

# How far beyond k is looked for entries that tie with the k-th, at first and at most. Scores count as ties if
# they are closer than faiss's float32 sums are exact.
_TIE_MARGIN, _MOST_TIES, _ROUNDING = 8, 2048, 1e-5

_MOST_RESCORED = 2**24  # numbers read from the index at once to score again: 64 MB

# faiss keeps its limits in globals.
_read_lock = threading.Lock()


class VectorIndex:
    """Inner-product search. Any number of threads may search at once; nothing changes the index."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self.entries: int = index.ntotal
        self.dimension: int = index.d

    @classmethod
    def read(cls, path: Path, *, dimension: int, entries: int) -> "VectorIndex":
        """Reads a file whose SHA-256 was verified. Raises DatastoreError if it is not what it should be."""
        with path.open("rb") as file:
            kind = _ALLOWED_TYPES.get(file.read(4))
        if kind is None:
            raise DatastoreError(
                f"{path} holds an index of a type that Paellera does not read: build it again"
            )
        with _read_lock:
            # No vector in the file can be longer than the file.
            faiss.set_deserialization_vector_byte_limit(path.stat().st_size)
            faiss.set_deserialization_loop_limit(_LOOP_LIMIT)
            try:
                index = faiss.read_index(str(path))
            except RuntimeError:
                raise DatastoreError(f"{path} is damaged: faiss cannot read it. Build it again") from None
        if type(index) is not kind or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise DatastoreError(
                f"{path} holds an index of another type than its first bytes say: build it again"
            )
        if (index.d, index.ntotal) != (dimension, entries):
            raise DatastoreError(
                f"{path} holds {index.ntotal:,} vectors of {index.d} dimensions, but its manifest says "
                f"{entries:,} of {dimension}: build it again"
            )
        return cls(index)

    def search(
        self, queries: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Scores and entry numbers, both (B, min(k, entries)), best first, ties by entry number.

        `queries` is (B, E) float32. faiss takes another path for large batches, with other rounding; scores
        are therefore computed again here, so that a query gets the same answer alone and in a batch. (Only of
        thousands of entries with one and the same score an arbitrary part may be found.)
        """
        k = min(k, self.entries)
        if k <= 0 or not len(queries):
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        queries = np.ascontiguousarray(queries, np.float32)
        fetched = min(k + _TIE_MARGIN, self.entries)
        scores, found = self._ranked(queries, fetched)
        best_scores, best = scores[:, :k], found[:, :k]
        # Of several entries with the score of the last place, chance decides which are found, unless all are.
        tied = np.flatnonzero(scores[:, k - 1] - scores[:, -1] <= _ROUNDING)
        while len(tied) and fetched < min(self.entries, _MOST_TIES):
            fetched = min(4 * fetched, self.entries, _MOST_TIES)
            scores, found = self._ranked(queries[tied], fetched)
            best_scores[tied], best[tied] = scores[:, :k], found[:, :k]
            tied = tied[scores[:, k - 1] - scores[:, -1] <= _ROUNDING]
        return best_scores, best

    def vectors(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vectors (n, E) of entries, each in [0, self.entries)."""
        entries = np.ascontiguousarray(entries, np.int64)
        if len(entries) and not 0 <= int(entries.min()) <= int(entries.max()) < self.entries:
            raise IndexError(f"entries must be in [0, {self.entries})")  # faiss would read beyond its memory
        found: npt.NDArray[np.float32] = self._index.reconstruct_batch(entries)
        return found

    def _ranked(
        self, queries: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """k found entries with their exact scores, in order."""
        scores = np.empty((len(queries), k), np.float32)
        found = np.empty((len(queries), k), np.int64)
        step = max(1, _MOST_RESCORED // (k * self.dimension))
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            _, entries = self._index.search(part, k)  # (b, k)
            vectors = self._index.reconstruct_batch(entries.reshape(-1))
            vectors = vectors.reshape(*entries.shape, self.dimension)  # (b, k, E)
            exact = np.einsum("bke,be->bk", vectors, part, dtype=np.float64).astype(np.float32)
            order = np.lexsort((entries, -exact), axis=-1)
            scores[start : start + step] = np.take_along_axis(exact, order, -1)
            found[start : start + step] = np.take_along_axis(entries, order, -1)
        return scores, found
