"""Which texts of a captions.arrow nearly equal an earlier one in the same language?

MinHash keys go to disk and are sorted there part by part; a text is compared with the first of those it has a
key in common with. So memory holds one part and a bit for each entry, however many texts there are.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datastore_build.duplicates.entries import DuplicateEntries
from datastore_build.duplicates.minhash import ALIKE_BYTES, HASHES, KEYS, minhash_keys
from datastore_build.duplicates.sketches import Sketches
from datastore_build.mapped_captions import MappedCaptions
from datastore_build.spill import SpilledPairs
from retrieval.near_duplicates import SIMILARITY, character_trigrams, jaccard

_PART = 2**18  # pairs of numbers that are sorted at once, about; 4 MB
_MOST_PARTS = 256
_SHOWN = 10
_REMEMBERED = 1024  # texts


@dataclass(frozen=True)
class SimilarTexts:
    id: str  # of the entry
    text: str
    earlier_id: str
    earlier_text: str


@dataclass
class DuplicateSearch:
    """What was found."""

    entries: DuplicateEntries  # all of whose texts are
    texts: Counter[str] = field(default_factory=Counter)  # per language
    first: list[SimilarTexts] = field(default_factory=list)


def find_near_duplicates(
    captions: Path, folder: Path, first_entry: int, on_progress: Callable[[float], None]
) -> DuplicateSearch:
    """Looks at the entries from `first_entry` on; those before it are only compared with.

    folder: for temporary files. on_progress is given the fraction done. Raises OSError, and DatastoreError
    if the captions cannot be read.
    """
    with MappedCaptions(captions) as rows:
        result = DuplicateSearch(DuplicateEntries(folder / "duplicates.i64", rows.entries))
        if not rows.count:
            return result
        pairs = _candidates(rows, folder, lambda done: on_progress(0.8 * done))
        try:
            _compare(rows, pairs, first_entry, result, lambda done: on_progress(0.8 + 0.2 * done))
        finally:
            pairs.close()
        return result


def _candidates(rows: MappedCaptions, folder: Path, on_progress: Callable[[float], None]) -> SpilledPairs:
    """Pairs of (row, earlier row) that have a key in common and sketches alike, parted by row."""
    parts = min(-(-rows.count * KEYS // _PART), _MOST_PARTS)
    keys = SpilledPairs(folder / "keys", parts)
    try:
        sketches = Sketches(folder / "sketches.u8", HASHES)
        for start, languages, texts in rows.texts():
            hashed, sketch = minhash_keys(languages, texts)
            sketches.add(sketch)
            numbers = np.repeat(np.arange(start, start + len(texts), dtype=np.uint64), KEYS)
            pairs = np.stack([hashed.reshape(-1), numbers], axis=1)
            keys.add(_share(pairs[:, 0], parts), pairs)
            on_progress(0.8 * (start + len(texts)) / rows.count)
        candidates = SpilledPairs(folder / "candidates", parts)
        for part in keys.parts:
            pairs = keys.take(part)
            opens = np.ones(len(pairs), np.bool_)  # the first row that has a key
            opens[1:] = pairs[1:, 0] != pairs[:-1, 0]
            first = pairs[np.flatnonzero(opens)[np.cumsum(opens) - 1], 1] if len(pairs) else pairs[:, 1]
            found = np.stack([pairs[~opens, 1], first[~opens]], axis=1)
            found = found[sketches.equal_bytes(found[:, 0], found[:, 1]) >= ALIKE_BYTES]
            place = (found[:, 0] * np.uint64(parts) // np.uint64(rows.count)).astype(np.int64)
            candidates.add(place, found)
            on_progress(0.8 + 0.2 * (part + 1) / parts)
        return candidates
    finally:
        keys.close()


def _share(keys: npt.NDArray[np.uint64], parts: int) -> npt.NDArray[np.int64]:
    return ((keys >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)).astype(np.int64)


def _compare(
    rows: MappedCaptions,
    candidates: SpilledPairs,
    first_entry: int,
    result: DuplicateSearch,
    on_progress: Callable[[float], None],
) -> None:
    """Compares the texts of the candidates, in the order of the rows."""
    duplicates: dict[int, int] = {}  # of the current entry: row → earlier row that it equals
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
                if nearly_equal(earlier, trigrams) and rows.entry(earlier) not in result.entries:
                    duplicates[row] = earlier
                    result.texts[rows.value("language", row)] += 1
                    if len(result.first) < _SHOWN:
                        result.first.append(_similar(rows, row, earlier))
                    break
        on_progress((part + 1) / len(candidates.parts))
    _close(rows, current, duplicates, result)


def _close(rows: MappedCaptions, entry: int, duplicates: dict[int, int], result: DuplicateSearch) -> None:
    """The entry is through: do all of its texts equal earlier ones?"""
    if duplicates:
        row, earlier = next(iter(duplicates.items()))
        if len(duplicates) == rows.texts_of(entry, row):
            result.entries.add(entry, earlier_row=earlier, texts=len(duplicates))


def _similar(rows: MappedCaptions, row: int, earlier: int) -> SimilarTexts:
    return SimilarTexts(
        *(rows.value(column, place) for place in (row, earlier) for column in ("entry_id", "text"))
    )
