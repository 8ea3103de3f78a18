"""Vectors and queries for the benchmark of indexes: random on the sphere, or clustered, on disk.

random: directions drawn evenly. There is no structure that an index could use: the three nearest of half a
million after the entry itself differ from the rest by chance alone. The hardest case, and no datastore of
captions is like it.
clustered: 20,000 centres drawn evenly; how many entries a centre has falls off like one over its rank (Zipf);
an entry is its centre plus noise of the same length, so two entries of a centre have a cosine of about 0.5.
Queries near entries are entries with noise added, so that the cosine to the entry is 0.7, as a photo is near
its caption. Independent queries are drawn as entries are, but are none.
"""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from datastore_build.vectors import drawn_rows

Vectors = npt.NDArray[np.float32]
Shape = Literal["random", "clustered"]

_CENTRES = 20_000
_CLUSTER_COSINE = math.sqrt(0.5)  # of an entry to its centre
_QUERY_COSINE = 0.7  # of a query to its entry
_ROWS = 16_384


class FileVectors:
    """float32 vectors in a file, a `VectorSource`: read by rows, never held as a whole."""

    def __init__(self, path: Path, dimension: int) -> None:
        self.path = path
        self.dimension = dimension
        self.count = path.stat().st_size // (4 * dimension)

    def read(self, start: int, stop: int) -> Vectors:
        size = (stop - start) * self.dimension
        values = np.fromfile(self.path, np.float32, size, offset=4 * start * self.dimension)
        return values.reshape(-1, self.dimension)

    def sample(self, count: int, seed: int) -> Vectors:
        mapped = np.memmap(self.path, np.float32, "r").reshape(-1, self.dimension)
        return np.ascontiguousarray(mapped[drawn_rows(count, self.count, seed)])


def write_vectors(path: Path, shape: Shape, count: int, dimension: int, seed: int) -> FileVectors:
    """Draws the vectors of that shape into a file."""
    drawn = _Drawing(shape, count, dimension, seed)
    with path.open("wb") as file:
        for start in range(0, count, _ROWS):
            file.write(drawn.rows(min(_ROWS, count - start)).data)
    return FileVectors(path, dimension)


def independent_queries(
    shape: Shape, vectors: FileVectors, queries: int, seed: int, own_seed: int
) -> Vectors:
    """(queries, E) drawn as the vectors were with `seed`, about the same centres."""
    return _Drawing(shape, vectors.count, vectors.dimension, seed, own_seed).rows(queries)


def near_queries(vectors: FileVectors, count: int, seed: int) -> Vectors:
    """(count, E) queries, each near an entry."""
    entries = vectors.sample(count, seed)
    noise = _normalise(np.random.default_rng(seed + 1).standard_normal(entries.shape, np.float32))
    return _mix(entries, noise, _QUERY_COSINE)


class _Drawing:
    """Draws vectors of a shape; `own_seed` changes all but the centres."""

    def __init__(
        self, shape: Shape, count: int, dimension: int, seed: int, own_seed: int | None = None
    ) -> None:
        self._random = np.random.default_rng(seed)
        self._dimension = dimension
        self._centres: Vectors | None = None
        if shape == "clustered":
            number = max(1, min(_CENTRES, count // 10))
            self._centres = _normalise(self._random.standard_normal((number, dimension), np.float32))
            weights = 1 / np.arange(1, number + 1)
            self._cumulative = np.cumsum(weights) / weights.sum()
        if own_seed is not None:
            self._random = np.random.default_rng(own_seed)

    def rows(self, count: int) -> Vectors:
        vectors = _normalise(self._random.standard_normal((count, self._dimension), np.float32))
        if self._centres is None:
            return vectors
        chosen = np.searchsorted(self._cumulative, self._random.random(count))
        return _mix(self._centres[np.minimum(chosen, len(self._centres) - 1)], vectors, _CLUSTER_COSINE)


def _mix(vectors: Vectors, noise: Vectors, cosine: float) -> Vectors:
    return _normalise(np.float32(cosine) * vectors + np.float32(math.sqrt(1 - cosine**2)) * noise)


def _normalise(vectors: Vectors) -> Vectors:
    normalised: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalised
