"""Which earlier entries is an entry of a datastore near to? Asked of its index, or compared with all of them.

An approximate index is searched, one entry after the other. Of an exact index each entry is compared with
those before it, many at once, for that is what its search would do anyway, twice.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from retrieval.datastore import Datastore

NEAREST = 10  # looked at for each entry

_SEARCHED = 256  # entries searched for at once
_COMPARED, _EARLIER = 1024, 16_384  # entries compared at once, and with how many
_ROUNDING = 1e-5  # of float32 sums; what is that near to the limit is computed again

Entries = npt.NDArray[np.int64]
Near = list[tuple[int, float]]  # earlier entries with their cosines, best first, ties by entry


class EarlierEntries:
    """What each entry of a datastore is near to, without entries that are given up meanwhile."""

    def __init__(self, store: Datastore, similarity: float) -> None:
        """similarity: the least cosine."""
        self._store = store
        self._similarity = similarity
        self._given_up = np.zeros(store.stored, np.bool_)

    def give_up(self, entry: int) -> None:
        """Nothing is near to this entry from now on."""
        self._given_up[entry] = True

    def near(self) -> Iterator[tuple[int, Near, float]]:
        """Every entry in order, what it is near to (of the ten nearest at least), and the share of all work
        done then."""
        store = self._store
        exact = store.manifest.index.kind == "flat"
        step = _COMPARED if exact else _SEARCHED
        for start in range(0, store.stored, step):
            entries = store.live(np.arange(start, min(start + step, store.stored), dtype=np.int64))
            done = min((start + step) / store.stored, 1.0)
            found = self._compared(entries) if exact else self._searched(entries)
            for entry, near in zip(entries.tolist(), found, strict=True):
                left = [(earlier, cosine) for earlier, cosine in near if not self._given_up[earlier]]
                yield entry, left, done**2 if exact else done

    def _searched(self, entries: Entries) -> list[Near]:
        if not len(entries):
            return []
        found = self._store.search(self._store.vectors(entries), NEAREST)
        return [
            [(hit.entry, hit.score) for hit in hits if hit.entry < entry and hit.score >= self._similarity]
            for entry, hits in zip(entries.tolist(), found, strict=True)
        ]

    def _compared(self, entries: Entries) -> list[Near]:
        """The ten nearest of those before these entries, and all near ones among these entries themselves:
        which of them will be given up, nobody knows yet."""
        if not len(entries):
            return []
        vectors = self._store.vectors(entries)  # (n, E)
        before: list[Near] = [[] for _ in entries]
        first = int(entries[0])
        for start in range(0, first, _EARLIER):
            numbers = np.arange(start, min(start + _EARLIER, first), dtype=np.int64)
            others = self._store.live(numbers[~self._given_up[numbers]])
            if len(others):
                self._add_near(vectors, others, before, np.ones((1, len(others)), np.bool_), NEAREST)
        found = [sorted(near, key=_nearness)[:NEAREST] for near in before]
        self._add_near(vectors, entries, found, np.tri(len(entries), k=-1, dtype=np.bool_), None)
        return [sorted(near, key=_nearness) for near in found]

    def _add_near(
        self,
        vectors: npt.NDArray[np.float32],
        others: Entries,
        found: list[Near],
        earlier: npt.NDArray[np.bool_],
        most: int | None,
    ) -> None:
        """Adds to what is found for vectors (n, E) those of the others (m,) that are near to them.

        earlier: (n or 1, m), which of the others count. most: of them for a vector.
        """
        theirs = self._store.vectors(others)  # (m, E)
        cosines = vectors @ theirs.T  # (n, m)
        near = (cosines >= self._similarity - _ROUNDING) & earlier
        if most is not None:
            crowded = np.flatnonzero(near.sum(axis=1) > most)
            for row in crowded.tolist():
                columns = np.flatnonzero(near[row])
                near[row, columns[np.argsort(-cosines[row, columns], kind="stable")[most:]]] = False
        for row, column in np.argwhere(near).tolist():
            cosine = float(np.dot(vectors[row].astype(np.float64), theirs[column]))
            if np.float32(cosine) >= self._similarity:
                found[row].append((int(others[column]), cosine))


def _nearness(pair: tuple[int, float]) -> tuple[float, int]:
    """Best first, ties by entry."""
    return -pair[1], pair[0]
