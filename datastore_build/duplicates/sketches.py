"""A few bytes of every text, in a file: enough to tell in no time that two texts are not alike."""

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt


class Sketches:
    """They are added in the order of the rows, then compared. Every method may raise OSError."""

    def __init__(self, path: Path, width: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._width = path, width
        self._path.write_bytes(b"")
        self._mapped: mmap.mmap | None = None

    def add(self, sketches: npt.NDArray[np.uint8]) -> None:
        """(N, width)."""
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(sketches).data)

    def equal_bytes(
        self, rows: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.int64]:
        """In how many places the sketches of two rows are equal, for N pairs of rows."""
        if self._mapped is None:
            with self._path.open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        table = np.frombuffer(self._mapped, np.uint8).reshape(-1, self._width)
        equal: npt.NDArray[np.int64] = (table[rows.astype(np.int64)] == table[others.astype(np.int64)]).sum(
            axis=1
        )
        self._mapped.madvise(mmap.MADV_DONTNEED)  # as in mapped_captions.py
        return equal
