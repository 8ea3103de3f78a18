"""Vectors to build an index of, without a file."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from datastore_build.vectors import drawn_rows


class MemoryVectors:
    """Vectors that are held in memory, as one array or in pieces."""

    def __init__(self, dimension: int, pieces: Sequence[npt.NDArray[np.float32]]) -> None:
        self.dimension = dimension
        self.count = sum(map(len, pieces))
        self._pieces = [piece for piece in pieces if len(piece)]

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        parts = [np.empty((0, self.dimension), np.float32)]
        for piece in self._pieces:
            parts.append(piece[max(start, 0) : max(stop, 0)])
            start, stop = start - len(piece), stop - len(piece)
        return np.concatenate(parts)

    def sample(self, count: int, seed: int) -> npt.NDArray[np.float32]:
        drawn = drawn_rows(count, self.count, seed)
        starts = np.cumsum([0, *map(len, self._pieces)])
        parts = [
            piece[drawn[(drawn >= start) & (drawn < start + len(piece))] - start]
            for piece, start in zip(self._pieces, starts, strict=False)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)
