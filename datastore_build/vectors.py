"""Where an index gets its vectors from: whatever can be read by rows."""

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

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """(stop - start, E), contiguous: the vectors of those rows, all of which there are."""

    def sample(self, count: int, seed: int) -> npt.NDArray[np.float32]:
        """(min(count, self.count), E) different vectors, drawn with the seed."""


def drawn_rows(count: int, of: int, seed: int) -> npt.NDArray[np.int64]:
    """min(count, of) different row numbers below `of`, in order: one rule for every source of vectors.

    An index then depends on the vectors only, and not on how they were stored.
    """
    rows = np.random.default_rng(seed).choice(of, min(count, of), replace=False)
    return np.sort(rows)


def blocks(vectors: VectorSource, rows: int) -> Iterator[npt.NDArray[np.float32]]:
    """All vectors in order, exactly `rows` at a time but for the last."""
    for start in range(0, vectors.count, rows):
        yield vectors.read(start, min(start + rows, vectors.count))
