"""A captions.arrow to be read here and there: by memory map, but without its pages adding up in memory.

Pages that were read stay in a process as long as nothing else needs them, so a build that looks at every row
would seem to need as much memory as the file has bytes. Here they are let go again after a while; the
system still has them at hand.
"""

import mmap
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval.errors import DatastoreError

_BATCHES = 512  # record batches known at once; each takes a few KB
_LOOKS = 4096  # batches asked for until pages are let go


class MappedCaptions:
    """The rows of a captions.arrow by number. Raises DatastoreError if the file cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looks = 0
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._reader: Any = pa.ipc.open_file(pa.py_buffer(self._map))
            self._starts = [0]  # first row of each batch, and the number of rows
            self.first_entries: list[int] = []  # of each batch
            self.entries = 0
            for number in range(self._reader.num_record_batches):
                column = self._reader.get_batch(number).column("entry")
                self._starts.append(self._starts[-1] + len(column))
                self.first_entries.append(column[0].as_py())
                self.entries = column[-1].as_py() + 1
                self._looked()
        except (pa.ArrowException, OSError, ValueError, LookupError) as error:
            raise DatastoreError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
        self.count = self._starts[-1]
        self._batch = lru_cache(maxsize=_BATCHES)(self._get_batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batch.cache_clear()
        del self._reader, self._map  # the mapping goes with the last array that shows it

    def texts(self) -> Iterator[tuple[int, list[str], list[str]]]:
        """First row, languages and texts, a batch at a time."""
        for number, start in enumerate(self._starts[:-1]):
            batch = self._get_batch(number)
            yield start, batch.column("language").to_pylist(), batch.column("text").to_pylist()
            self._map.madvise(mmap.MADV_DONTNEED)

    def value(self, column: str, row: int) -> str:
        """entry_id, language or text of a row."""
        batch, place = self._find(row)
        value: str = batch.column(column)[place].as_py()
        return value

    def entry(self, row: int) -> int:
        """The number of the entry that a row belongs to."""
        batch, place = self._find(row)
        number: int = batch.column("entry")[place].as_py()
        return number

    def texts_of(self, entry: int, row: int) -> int:
        """How many texts an entry has; `row` is one of them, and all are in one batch."""
        batch, _ = self._find(row)
        numbers: npt.NDArray[np.int64] = batch.column("entry").to_numpy()
        first, last = np.searchsorted(numbers, [entry, entry + 1])
        return int(last - first)

    def _find(self, row: int) -> tuple[Any, int]:
        """The batch that holds a row, and its place in it."""
        number = bisect_right(self._starts, row) - 1
        self._looked()
        return self._batch(number), row - self._starts[number]

    def _looked(self) -> None:
        self._looks += 1
        if self._looks % _LOOKS == 0:
            self._map.madvise(mmap.MADV_DONTNEED)

    def _get_batch(self, number: int) -> Any:
        try:
            return self._reader.get_batch(number)
        except (pa.ArrowException, OSError) as error:
            raise DatastoreError(f"cannot read {self._path}: {str(error).splitlines()[0]}") from None
