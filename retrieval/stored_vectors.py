"""vectors.bin: the vectors of all entries in few bytes, memory-mapped, to score an index's candidates again.

A compressed index finds candidates; which of them are truly near, these vectors tell. Only the pages of
candidates are ever read, so a datastore may be far larger than the memory. One record an entry, in the order
of the entries, without a header: float16 values, or a float32 scale and int8 values. The module knows nothing
of how candidates are found.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from retrieval.errors import DatastoreError

StoredKind = Literal["float16", "int8"]


class StoredVectors:
    """Rows of a file, scored against a query. Any number of threads may read at once."""

    def __init__(self, records: npt.NDArray[np.void], kind: StoredKind) -> None:
        """`records` is (N,) of `record_type(kind, E)`."""
        self._records = records
        self._kind = kind

    @classmethod
    def open(cls, path: Path, kind: StoredKind, *, dimension: int, entries: int) -> "StoredVectors":
        """Maps a file. Raises DatastoreError if it does not hold that many vectors."""
        layout = record_type(kind, dimension)
        size = path.stat().st_size
        if size != entries * layout.itemsize:
            raise DatastoreError(
                f"{path} has {size:,} bytes, which is not {entries:,} vectors of {dimension} dimensions in "
                f"{kind}: build it again"
            )
        if not entries:  # nothing to map
            return cls(np.empty(0, layout), kind)
        return cls(np.memmap(path, layout, "r"), kind)

    def scores(
        self, query: npt.NDArray[np.float32], entries: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Inner products (n,) of the query (E,) with the vectors of the entries (n,)."""
        records = np.take(self._records, entries)
        scores: npt.NDArray[np.float32] = records["values"].astype(np.float32) @ query
        if self._kind == "int8":
            scores *= records["scale"]
        return scores


def record_type(kind: StoredKind, dimension: int) -> np.dtype[np.void]:
    """The layout of one record."""
    if kind == "float16":
        return np.dtype([("values", "<f2", (dimension,))])
    return np.dtype([("scale", "<f4"), ("values", "i1", (dimension,))])


def encode(vectors: npt.NDArray[np.float32], kind: StoredKind) -> npt.NDArray[np.void]:
    """Vectors (n, E) as records (n,). In int8 the largest value of a vector becomes 127."""
    records = np.empty(len(vectors), record_type(kind, vectors.shape[1]))
    if kind == "float16":
        records["values"] = vectors
        return records
    scale = np.maximum(np.abs(vectors).max(axis=1), np.float32(1e-30)) / np.float32(127)
    records["scale"] = scale
    records["values"] = np.rint(vectors / scale[:, None])
    return records
