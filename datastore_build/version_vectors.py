"""The vectors of a published version, to be indexed again, and several sources of vectors as one.

An exact index ends with its vectors as they are, and those that score again are a file of their own; both are
read block by block. Graphs and whole lists are opened, and asked for their vectors.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datastore_build.vectors import VectorSource, drawn_rows
from retrieval.errors import DatastoreError
from retrieval.index import VectorIndex
from retrieval.manifest import INDEX, Manifest
from retrieval.stored_vectors import StoredVectors

Vectors = npt.NDArray[np.float32]
_BLOCK = 8192  # rows read at once to draw a sample


class VersionVectors:
    """The vectors of the entries of a version whose files were verified, without the omitted ones.

    They have the rounding of what the version keeps: none in float32, that of float16 or int8 else.
    """

    def __init__(self, version: Path, manifest: Manifest, omitted: npt.NDArray[np.int64]) -> None:
        """`omitted`: numbers of entries, sorted. Raises DatastoreError if the index is damaged."""
        self.dimension, self._stored = manifest.dimension, manifest.stored_entries
        self._read = _reader(version, manifest)
        self._kept = np.ones(self._stored, np.bool_)
        self._kept[omitted] = False
        self.count = int(self._kept.sum())

    def blocks(self, rows: int) -> Iterator[Vectors]:
        """(≤ rows, E) float32 each, in the order of the entries."""
        for start in range(0, self._stored, rows):
            stop = min(start + rows, self._stored)
            block = self._read(start, stop)[self._kept[start:stop]]
            if len(block):
                yield block

    def sample(self, count: int, seed: int) -> Vectors:
        """(min(count, rows), E) float32: rows drawn without replacement, in their order."""
        return sample_blocks(self, count, seed)


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
    for block in vectors.blocks(_BLOCK):
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

    def blocks(self, rows: int) -> Iterator[Vectors]:
        """(≤ rows, E) float32 each, in the order of the rows."""
        for part in self._parts:
            yield from part.blocks(rows)

    def sample(self, count: int, seed: int) -> Vectors:
        """(min(count, rows), E) float32: rows drawn without replacement, in their order."""
        return sample_blocks(self, count, seed)


class WatchedVectors:
    """The same vectors; `on_rows` is told how many have been read in order so far."""

    def __init__(self, vectors: VectorSource, on_rows: Callable[[int], None]) -> None:
        self._vectors = vectors
        self._on_rows = on_rows
        self.count = vectors.count
        self.dimension = vectors.dimension

    def blocks(self, rows: int) -> Iterator[Vectors]:
        done = 0
        for block in self._vectors.blocks(rows):
            yield block
            done += len(block)
            self._on_rows(done)

    def sample(self, count: int, seed: int) -> Vectors:
        return self._vectors.sample(count, seed)
