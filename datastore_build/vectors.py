"""Where an index gets its vectors from: whatever can be read block by block."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class VectorSource(Protocol):
    """L2-normalised vectors in the order of the entries; they can be read more than once."""

    @property
    def count(self) -> int: ...

    @property
    def dimension(self) -> int: ...

    def blocks(self, rows: int) -> Iterator[npt.NDArray[np.float32]]:
        """All vectors in order, (≤ rows, E) at a time."""

    def sample(self, count: int, seed: int) -> npt.NDArray[np.float32]:
        """(min(count, self.count), E) different vectors, drawn with the seed."""


class MemoryVectors:
    """Vectors that are held in memory, as one array or in pieces."""

    def __init__(self, dimension: int, pieces: Sequence[npt.NDArray[np.float32]]) -> None:
        self.dimension = dimension
        self.count = sum(map(len, pieces))
        self._pieces = [piece for piece in pieces if len(piece)]

    def blocks(self, rows: int) -> Iterator[npt.NDArray[np.float32]]:
        for piece in self._pieces:
            for start in range(0, len(piece), rows):
                yield piece[start : start + rows]

    def sample(self, count: int, seed: int) -> npt.NDArray[np.float32]:
        drawn = np.random.default_rng(seed).choice(self.count, min(count, self.count), replace=False)
        drawn.sort()
        starts = np.cumsum([0, *map(len, self._pieces)])
        parts = [
            piece[drawn[(drawn >= start) & (drawn < start + len(piece))] - start]
            for piece, start in zip(self._pieces, starts, strict=False)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)
