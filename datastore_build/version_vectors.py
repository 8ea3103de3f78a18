"""The vectors of a published version, to be indexed again, and several sources of vectors as one.

Today every version has an exact index, which ends with its vectors as they are; they are read from there by
memory map.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datastore_build.vectors import VectorSource
from retrieval.errors import DatastoreError
from retrieval.manifest import INDEX, Manifest

Vectors = npt.NDArray[np.float32]
_BLOCK = 8192  # rows read at once to draw a sample


class VersionVectors:
    """The vectors of the entries of a version whose files were verified, without the omitted ones."""

    def __init__(self, version: Path, manifest: Manifest, omitted: npt.NDArray[np.int64]) -> None:
        """`omitted`: numbers of entries, sorted. Raises DatastoreError if the index keeps no vectors."""
        if manifest.index.kind != "flat":
            raise DatastoreError(f"{version} has an index without its vectors: build the datastore again")
        path, stored = version / INDEX, manifest.stored_entries
        self.dimension = manifest.dimension
        # faiss writes the vectors last.
        offset = path.stat().st_size - 4 * stored * self.dimension
        if offset < 0:
            raise DatastoreError(f"{path} is damaged: it is too short for its vectors")
        self._path, self._offset, self._stored = path, offset, stored
        self._kept = np.ones(stored, np.bool_)
        self._kept[omitted] = False
        self.count = int(self._kept.sum())

    def blocks(self, rows: int) -> Iterator[Vectors]:
        """(≤ rows, E) float32 each, in the order of the entries."""
        for start in range(0, self._stored, rows):
            taken = min(rows, self._stored - start)
            place = self._offset + 4 * start * self.dimension
            values = np.fromfile(self._path, np.float32, taken * self.dimension, offset=place)
            block = values.reshape(taken, self.dimension)[self._kept[start : start + taken]]
            if len(block):
                yield block

    def sample(self, count: int, seed: int) -> Vectors:
        """(min(count, rows), E) float32: rows drawn without replacement, in their order."""
        return sample_blocks(self, count, seed)


def sample_blocks(vectors: VectorSource, count: int, seed: int) -> Vectors:
    """What `sample` promises, for vectors that are only read in order."""
    count = min(count, vectors.count)
    drawn = np.sort(np.random.default_rng(seed).choice(vectors.count, count, replace=False))
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
