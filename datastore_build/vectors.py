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


def even_blocks(vectors: VectorSource, rows: int) -> Iterator[npt.NDArray[np.float32]]:
    """All vectors in order, exactly `rows` at a time but for the last, wherever the source's blocks end.

    What is built from them then depends on the vectors only, and not on how they were stored.
    """
    held: list[npt.NDArray[np.float32]] = []
    waiting = 0
    for block in vectors.blocks(rows):
        while len(block):
            part = block[: rows - waiting]
            held.append(part)
            waiting += len(part)
            block = block[len(part) :]
            if waiting == rows:
                yield np.ascontiguousarray(np.concatenate(held) if len(held) > 1 else held[0], np.float32)
                held, waiting = [], 0
    if held:
        yield np.ascontiguousarray(np.concatenate(held), np.float32)


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
