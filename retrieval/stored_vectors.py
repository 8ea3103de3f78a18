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
from retrieval.manifest import VECTORS, StorageKind

StoredKind = Literal["float16", "int8"]

_BYTES_AT_ONCE = 2**19  # of float32: they stay in a core's cache
_HALF_SCALE = np.float32(2.0**112)


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

    @classmethod
    def of_version(
        cls, version: Path, storage: StorageKind | None, *, dimension: int, entries: int
    ) -> "StoredVectors":
        """As `open`, for a version whose manifest says `storage`. Raises DatastoreError."""
        if storage not in ("float16", "int8"):
            raise DatastoreError(
                f"{version}: its manifest does not say how {VECTORS} is stored: build it again"
            )
        return cls.open(version / VECTORS, storage, dimension=dimension, entries=entries)

    def scores(
        self, query: npt.NDArray[np.float32], entries: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Inner products (n,) of the query (E,) with the vectors of entries (n,) that exist."""
        scores = np.empty(len(entries), np.float32)
        if self._kind == "float16":
            # Now and not after: processors are slow at products too small to be normalised.
            query = query * _HALF_SCALE
        step = min(max(1, _BYTES_AT_ONCE // (4 * len(query))), max(1, len(entries)))
        records = np.empty(step, self._records.dtype)
        wide = np.empty((step, len(query)), np.float32)
        for start in range(0, len(entries), step):
            part = scores[start : start + step]
            number = len(part)
            # To clip, because numpy takes a slower way where it must look for numbers that are out of bounds.
            np.take(self._records, entries[start : start + step], out=records[:number], mode="clip")
            if self._kind == "int8":
                np.copyto(wide[:number], records["values"][:number])
                np.matmul(wide[:number], query, out=part)
                part *= records["scale"][:number]
            else:
                np.matmul(widen(records["values"][:number]), query, out=part)
        return scores

    def vectors(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vectors (n, E) of entries (n,), as they are stored."""
        records = np.take(self._records, entries)
        vectors: npt.NDArray[np.float32] = records["values"].astype(np.float32)
        if self._kind == "int8":
            vectors *= records["scale"][:, None]
        return vectors


def widen(halves: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """float16 as float32, each divided by 2**112; numpy's own conversion takes ten times as long.

    Sign, exponent and mantissa move to their places in a float32. The exponent is then too small by the
    difference of the two biases, 127 - 15, also for numbers too small to be normalised. Not for infinities.
    """
    bits = halves.view(np.int16).astype(np.int32)  # copies of the sign fill the upper half
    bits <<= 13
    bits &= np.int32(-0x70002000)  # 0x8FFFE000: sign, five bits of exponent, ten of mantissa
    return bits.view(np.float32)


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
