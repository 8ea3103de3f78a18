"""The vectors of a published version, to be indexed again, and several sources of vectors as one.

An exact index ends with its vectors as they are, and those that score again are a file of their own; both are
read block by block. Graphs and whole lists are opened, and asked for their vectors.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datastore_build.vectors import VectorSource, blocks, drawn_rows
from retrieval.errors import DatastoreError
from retrieval.index import VectorIndex
from retrieval.manifest import INDEX, Manifest
from retrieval.stored_vectors import StoredVectors

Vectors = npt.NDArray[np.float32]
_BLOCK = 8192  # rows read at once to draw a sample


class VersionVectors:
    """The vectors of the entries of a version whose files were verified, without the omitted ones.

    They have the rounding of what the version keeps: none in float32, that of float16 or int8 else. It can be
    sent to another process that sees the same files; each opens them when it first reads.
    """

    def __init__(self, version: Path, manifest: Manifest, omitted: npt.NDArray[np.int64]) -> None:
        """`omitted`: numbers of entries, sorted."""
        self.dimension = manifest.dimension
        self.count = manifest.stored_entries - len(omitted)
        self._version, self._manifest, self._omitted = version.resolve(), manifest, omitted
        self._kept_before = omitted - np.arange(len(omitted))  # how many entries are kept before each omitted
        self._read: Callable[[int, int], Vectors] | None = None

    def read(self, start: int, stop: int) -> Vectors:
        """(stop - start, E) float32, in the order of the entries. Raises DatastoreError if the index is
        damaged."""
        if self._read is None:
            self._read = _reader(self._version, self._manifest)
        if stop <= start:
            return np.empty((0, self.dimension), np.float32)
        first, last = (self._number(row) for row in (start, stop - 1))
        kept = np.ones(last + 1 - first, np.bool_)
        omitted = self._omitted[slice(*np.searchsorted(self._omitted, [first, last]))]
        kept[omitted - first] = False
        vectors = self._read(first, last + 1)
        return vectors if len(omitted) == 0 else vectors[kept]

    def sample(self, count: int, seed: int) -> Vectors:
        """(min(count, rows), E) float32: rows drawn without replacement, in their order."""
        return sample_blocks(self, count, seed)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_read": None}  # open files stay here

    def _number(self, row: int) -> int:
        """Of the entry that is this row once the omitted ones are left out."""
        return row + int(np.searchsorted(self._kept_before, row, side="right"))


def _reader(version: Path, manifest: Manifest) -> Callable[[int, int], Vectors]:
    """What reads the vectors of the entries from one number up to another. Raises DatastoreError."""
    path, stored, dimension = version / INDEX, manifest.stored_entries, manifest.dimension
    kind = manifest.index.kind
    if kind == "flat":
        # faiss writes the vectors last.
        offset = path.stat().st_size - 4 * stored * dimension
        if offset < 0:
            raise DatastoreError(f"{path} is damaged: it is too short for its vectors")

        def read(start: int, stop: int) -> Vectors:
            place, size = offset + 4 * start * dimension, (stop - start) * dimension
            return np.fromfile(path, np.float32, size, offset=place).reshape(-1, dimension)

        return read
    if kind == "ivf-pq":
        vectors = StoredVectors.of_version(
            version, manifest.index.storage, dimension=dimension, entries=stored
        )
        return lambda start, stop: vectors.vectors(np.arange(start, stop, dtype=np.int64))
    index = VectorIndex.read(path, dimension=dimension, entries=stored, settings=manifest.index)
    return lambda start, stop: index.vectors(np.arange(start, stop, dtype=np.int64))


def sample_blocks(vectors: VectorSource, count: int, seed: int) -> Vectors:
    """What `sample` promises, for vectors that are only read in order."""
    drawn = drawn_rows(count, vectors.count, seed)
    parts, start = [np.empty((0, vectors.dimension), np.float32)], 0
    for block in blocks(vectors, _BLOCK):
        first, last = np.searchsorted(drawn, [start, start + len(block)])
        parts.append(block[drawn[first:last] - start])
        start += len(block)
    return np.concatenate(parts)


class JoinedVectors:
    """Several sources of vectors one after the other, as one."""

    def __init__(self, parts: Sequence[VectorSource]) -> None:
        self._parts = parts
        self.count = sum(part.count for part in parts)
        self.dimension = parts[0].dimension

    def read(self, start: int, stop: int) -> Vectors:
        """(stop - start, E) float32, in the order of the rows."""
        read, before = [np.empty((0, self.dimension), np.float32)], 0
        for part in self._parts:
            first, last = max(start - before, 0), min(stop - before, part.count)
            if first < last:
                read.append(part.read(first, last))
            before += part.count
        return read[1] if len(read) == 2 else np.concatenate(read)

    def sample(self, count: int, seed: int) -> Vectors:
        """(min(count, rows), E) float32: rows drawn without replacement, in their order."""
        return sample_blocks(self, count, seed)
