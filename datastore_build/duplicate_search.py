"""Which texts of a captions.arrow nearly equal an earlier one in the same language?

MinHash keys go to disk and are sorted there part by part; a text is compared with the first of those it has a
key in common with. So memory holds one part and 16 bytes for each duplicate, however many texts there are.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datastore_build.minhash import KEYS, minhash_keys
from datastore_build.spill import SpilledPairs
from retrieval.errors import DatastoreError
from retrieval.near_duplicates import SIMILARITY, character_trigrams, jaccard

_PART = 2**18  # pairs of numbers that are sorted at once, about; 4 MB
_MOST_PARTS = 256
_SHOWN = 10
_REMEMBERED = 4096  # texts


@dataclass(frozen=True)
class SimilarTexts:
    id: str  # of the entry
    text: str
    earlier_id: str
    earlier_text: str


@dataclass
class DuplicateSearch:
    """What was found."""

    texts: Counter[str] = field(default_factory=Counter)  # per language
    entries: "array[int]" = field(default_factory=lambda: array("q"))  # all of whose texts are, ascending
    earlier: "array[int]" = field(
        default_factory=lambda: array("q")
    )  # for each, the entry that a text equals
    first: list[SimilarTexts] = field(default_factory=list)

    def is_duplicate(self, entry: int) -> bool:
        place = bisect_left(self.entries, entry)
        return place < len(self.entries) and self.entries[place] == entry


def find_near_duplicates(
    captions: Path, folder: Path, first_entry: int, on_progress: Callable[[float], None]
) -> DuplicateSearch:
    """Looks at the entries from `first_entry` on; those before it are only compared with.

    folder: for temporary files. on_progress is given the fraction done. Raises OSError, and DatastoreError
    if the captions cannot be read.
    """
    try:
        with pa.memory_map(str(captions)) as mapped:
            rows = _Rows(pa.ipc.open_file(mapped))
            if not rows.count:
                return DuplicateSearch()
            pairs = _candidates(rows, folder, lambda done: on_progress(0.7 * done))
            try:
                return _compare(rows, pairs, first_entry, lambda done: on_progress(0.7 + 0.3 * done))
            finally:
                pairs.close()
    except pa.ArrowException as error:
        raise DatastoreError(f"cannot read {captions}: {str(error).splitlines()[0]}") from None


def _candidates(rows: "_Rows", folder: Path, on_progress: Callable[[float], None]) -> SpilledPairs:
    """Pairs of (row, earlier row) that have a key in common, parted by row."""
    parts = min(-(-rows.count * KEYS // _PART), _MOST_PARTS)
    keys = SpilledPairs(folder / "keys", parts)
    try:
        for start, languages, texts in rows.texts():
            hashed = minhash_keys(languages, texts)
            numbers = np.repeat(np.arange(start, start + len(texts), dtype=np.uint64), KEYS)
            pairs = np.stack([hashed.reshape(-1), numbers], axis=1)
            keys.add(_share(pairs[:, 0], parts), pairs)
            on_progress(0.8 * (start + len(texts)) / rows.count)
        parts_of_rows = min(-(-rows.count * KEYS // _PART), _MOST_PARTS)
        candidates = SpilledPairs(folder / "candidates", parts_of_rows)
        for part in keys.parts:
            pairs = keys.take(part)
            opens = np.ones(len(pairs), np.bool_)  # the first row that has a key
            opens[1:] = pairs[1:, 0] != pairs[:-1, 0]
            first = pairs[np.flatnonzero(opens)[np.cumsum(opens) - 1], 1] if len(pairs) else pairs[:, 1]
            found = np.stack([pairs[~opens, 1], first[~opens]], axis=1)
            place = (found[:, 0] * np.uint64(parts_of_rows) // np.uint64(rows.count)).astype(np.int64)
            candidates.add(place, found)
            on_progress(0.8 + 0.2 * (part + 1) / parts)
        return candidates
    finally:
        keys.close()


def _share(keys: npt.NDArray[np.uint64], parts: int) -> npt.NDArray[np.int64]:
    return ((keys >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)).astype(np.int64)


def _compare(
    rows: "_Rows", candidates: SpilledPairs, first_entry: int, on_progress: Callable[[float], None]
) -> DuplicateSearch:
    """Compares the texts of the candidates, in the order of the rows."""
    result = DuplicateSearch()
    duplicates: dict[int, int] = {}  # of the current entry: row → entry that it equals
    current = -1

    @lru_cache(maxsize=_REMEMBERED)  # the first text with a key is asked for again and again
    def trigrams_of(row: int) -> frozenset[str]:
        return character_trigrams(rows.value("text", row))

    def nearly_equal(earlier: int, trigrams: frozenset[str]) -> bool:
        others = trigrams_of(earlier)
        alike = min(len(trigrams), len(others)) >= SIMILARITY * max(len(trigrams), len(others))
        return alike and jaccard(trigrams, others) >= SIMILARITY

    for part in candidates.parts:
        pairs = candidates.take(part).astype(np.int64)
        bounds = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
        for start, stop in pairwise([*bounds.tolist(), len(pairs)]):
            row = int(pairs[start, 0])
            entry = rows.entry(row)
            if entry < first_entry:
                continue
            if entry != current:
                _close(rows, current, duplicates, result)
                current, duplicates = entry, {}
            trigrams = character_trigrams(rows.value("text", row))
            for earlier in pairs[start:stop, 1].tolist():
                # What will be left out itself is no reason to leave out another.
                if nearly_equal(earlier, trigrams) and not result.is_duplicate(rows.entry(earlier)):
                    duplicates[row] = rows.entry(earlier)
                    result.texts[rows.value("language", row)] += 1
                    if len(result.first) < _SHOWN:
                        result.first.append(SimilarTexts(*rows.id_and_text(row), *rows.id_and_text(earlier)))
                    break
        on_progress((part + 1) / len(candidates.parts))
    _close(rows, current, duplicates, result)
    return result


def _close(rows: "_Rows", entry: int, duplicates: dict[int, int], result: DuplicateSearch) -> None:
    """The entry is through: do all of its texts equal earlier ones?"""
    if duplicates and len(duplicates) == rows.texts_of(entry, next(iter(duplicates))):
        result.entries.append(entry)
        result.earlier.append(next(iter(duplicates.values())))


class _Rows:
    """The rows of a captions.arrow by number."""

    def __init__(self, reader: Any) -> None:
        self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._entries = [batch.column("entry").to_numpy() for batch in self._batches]
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + batch.num_rows)
        self.count = self._starts[-1]

    def texts(self) -> Iterator[tuple[int, list[str], list[str]]]:
        """First row, languages and texts, a batch at a time."""
        for start, batch in zip(self._starts, self._batches, strict=False):
            yield start, batch.column("language").to_pylist(), batch.column("text").to_pylist()

    def entry(self, row: int) -> int:
        batch, place = self._find(row)
        return int(self._entries[batch][place])

    def value(self, column: str, row: int) -> str:
        batch, place = self._find(row)
        value: str = self._batches[batch].column(column)[place].as_py()
        return value

    def id_and_text(self, row: int) -> tuple[str, str]:
        return self.value("entry_id", row), self.value("text", row)

    def texts_of(self, entry: int, row: int) -> int:
        """How many texts an entry has; `row` is one of them, and all are in one batch."""
        batch, _ = self._find(row)
        first, last = np.searchsorted(self._entries[batch], [entry, entry + 1])
        return int(last - first)

    def _find(self, row: int) -> tuple[int, int]:
        """The batch that holds a row, and its place in it."""
        number = bisect_right(self._starts, row) - 1
        return number, row - self._starts[number]
