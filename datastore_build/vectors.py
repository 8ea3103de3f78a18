"""Where an index gets its vectors from: whatever can be read block by block."""

from collections.abc import Iterator
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


def drawn_rows(count: int, of: int, seed: int) -> npt.NDArray[np.int64]:
    """min(count, of) different row numbers below `of`, in order: one rule for every source of vectors.

    An index then depends on the vectors only, and not on how they were stored.
    """
    rows = np.random.default_rng(seed).choice(of, min(count, of), replace=False)
    return np.sort(rows)


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
