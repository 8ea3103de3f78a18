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
