"""The vectors of a build on disk, in shards of a fixed number of entries: what is embedded once stays so.

A build that is killed loses the shard it was at, and none before it (noted_files.py). The module does not
know what the vectors are of.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from datastore_build.noted_files import NotedFiles
from datastore_build.vectors import drawn_rows

SHARD_ENTRIES = 8192

_FEW = 16  # of a shard, less than one in so many is read row by row

Vectors = npt.NDArray[np.float32]


class EmbeddingShards:
    """`count` vectors of E dimensions in a folder. Every method may raise OSError."""

    def __init__(self, folder: Path, count: int, dimension: int, shard_entries: int = SHARD_ENTRIES) -> None:
        self._files = NotedFiles(folder)
        self.folder = folder
        self.count = count
        self.dimension = dimension
        self.shard_entries = shard_entries

    @property
    def numbers(self) -> range:
        """Of all shards that there are to be."""
        return range(-(-self.count // self.shard_entries))

    def rows(self, number: int) -> range:
        """The entries of a shard."""
        start = number * self.shard_entries
        return range(start, min(start + self.shard_entries, self.count))

    def missing(self) -> list[int]:
        """The shards that are still to be written, in order. What is damaged on disk counts as missing."""
        whole = self._files.whole()
        return [number for number in self.numbers if _name(number) not in whole]

    def store(self, number: int, vectors: Vectors) -> str:
        """Brings a shard to the disk; its SHA-256, which is to be noted. The same shard may be stored twice,
        even by two processes at once. Raises ValueError for vectors of another shape than the shard's."""
        if vectors.shape != (len(self.rows(number)), self.dimension):
            raise ValueError(f"shard {number} holds {len(self.rows(number))} vectors, not {vectors.shape}")
        return self._files.store(_name(number), [np.ascontiguousarray(vectors, np.float32).data.cast("B")])

    def note(self, number: int, sha: str) -> None:
        """Into the log: this shard is stored."""
        self._files.note(_name(number), sha)

    def read(self, start: int, stop: int) -> Vectors:
        """(stop - start, E) float32: the vectors of those rows."""
        result = np.empty((stop - start, self.dimension), np.float32)
        row = start
        while row < stop:
            number, offset = divmod(row, self.shard_entries)
            taken = min(stop - row, self.shard_entries - offset)
            result[row - start : row - start + taken] = self._read(number, offset, taken)
            row += taken
        return result

    def sample(self, count: int, seed: int) -> Vectors:
        """(min(count, rows), E) float32: rows drawn without replacement, in their order."""
        drawn = drawn_rows(count, self.count, seed)
        result = np.empty((len(drawn), self.dimension), np.float32)
        for number in self.numbers:
            first, last = np.searchsorted(drawn, [self.rows(number).start, self.rows(number).stop])
            if first < last:
                result[first:last] = self._pick(number, drawn[first:last] - self.rows(number).start)
        return result

    def _pick(self, number: int, places: npt.NDArray[np.int64]) -> Vectors:
        """(n, E): the vectors at some places of a shard."""
        rows = len(self.rows(number))
        if len(places) * _FEW > rows:
            return self._read(number, 0, rows)[places]
        return np.concatenate([self._read(number, place, 1) for place in places.tolist()])

    def _read(self, number: int, offset: int, rows: int) -> Vectors:
        size = 4 * self.dimension
        path = self._files.path(_name(number))
        values = np.fromfile(path, np.float32, rows * self.dimension, offset=offset * size)
        return values.reshape(rows, self.dimension)


def _name(number: int) -> str:
    return f"shard-{number:06d}.f32"
