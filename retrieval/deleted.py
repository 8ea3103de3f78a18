"""Deleted entries of a datastore version: they are still in its files, and no search finds them.

deleted.npy holds their numbers. The module knows how to leave them out of what an index finds, and nothing
of captions or of how an index works.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retrieval.errors import DatastoreError

_MARGIN = 32  # how many more are looked for at first, as some of the nearest may be deleted

Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


class Searchable(Protocol):
    entries: int
    dimension: int

    def search(self, queries: npt.NDArray[np.float32], k: int) -> Found: ...
    def vectors(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]: ...


def read_deleted(path: Path, *, entries: int, deleted: int) -> npt.NDArray[np.int64]:
    """The numbers in a file whose SHA-256 was verified, sorted. Raises DatastoreError if they are no such."""
    try:
        numbers = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise DatastoreError(f"{path} is damaged: build the datastore again") from None
    if not (
        isinstance(numbers, np.ndarray)
        and numbers.dtype == np.int64
        and numbers.shape == (deleted,)
        and (np.diff(numbers) > 0).all()
        and numbers[0] >= 0
        and numbers[-1] < entries
    ):
        raise DatastoreError(f"{path} does not hold the {deleted:,} entries that the manifest says")
    return numbers


class LiveIndex:
    """An index without the deleted entries; numbers of entries stay as they are."""

    def __init__(self, index: Searchable, deleted: npt.NDArray[np.int64]) -> None:
        """`deleted` is sorted, each number once."""
        self._index = index
        self._deleted = deleted
        self.entries = index.entries - len(deleted)
        self.dimension = index.dimension

    def search(self, queries: npt.NDArray[np.float32], k: int) -> Found:
        """As of the index itself: (B, min(k, entries)), best first.

        Where deleted entries crowd around a query, it is searched again with more, in the end with all.
        """
        k = min(k, self.entries)
        if k <= 0 or not len(queries):
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        entries = np.empty((len(queries), k), np.int64)
        pending = np.arange(len(queries))
        fetch = k + min(len(self._deleted), k + _MARGIN)
        while len(pending):
            found_scores, found = self._index.search(queries[pending], fetch)
            live = (found >= 0) & ~self._is_deleted(found)  # (b, fetch)
            if fetch == self._index.entries:  # an index that is not exact need not find all there are
                k = min(k, int(live.sum(axis=1).min()))
            enough = live.sum(axis=1) >= k
            # A stable sort brings the live ones to the front and keeps their order.
            order = np.argsort(~live[enough], axis=1, kind="stable")[:, :k]
            scores[pending[enough], :k] = np.take_along_axis(found_scores[enough], order, 1)
            entries[pending[enough], :k] = np.take_along_axis(found[enough], order, 1)
            pending = pending[~enough]
            fetch = min(4 * fetch, self._index.entries)
        return scores[:, :k], entries[:, :k]

    def vectors(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """As of the index itself."""
        return self._index.vectors(entries)

    def live(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those that are not deleted."""
        return entries[~self._is_deleted(entries)]

    def _is_deleted(self, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        place = np.minimum(np.searchsorted(self._deleted, entries), len(self._deleted) - 1)
        found: npt.NDArray[np.bool_] = self._deleted[place] == entries
        return found
