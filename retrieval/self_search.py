"""Does a datastore find its own entries? A quick sign that its index works."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retrieval.errors import DatastoreError

if TYPE_CHECKING:
    from retrieval.datastore import Datastore

_ROUNDING = 1e-3  # scores closer than this are those of the same vector
_FOUND_AMONG = 10  # nearest neighbours

# The share of entries that must find themselves. Only exact search promises all of them.
_EXACT, _APPROXIMATE = 1.0, 0.8


def check_self_search(store: "Datastore", sample: int, seed: int = 0) -> float:
    """Searches for up to `sample` entries' own vectors; the share of those that are found.

    An entry is found if it is among the ten nearest, or these are as near as it is: several entries may have
    one vector. Raises DatastoreError: too few are, or a vector is not finite or not L2-normalised.
    """
    if not len(store):
        return 1.0
    entries = store.live(_drawn(store.stored, sample, seed))
    if not len(entries):  # all of them deleted
        return 1.0
    vectors = store.vectors(entries)
    check_vectors(store, entries, vectors)
    own = np.einsum("ne,ne->n", vectors, vectors)
    found = 0
    for entry, score, hits in zip(
        entries.tolist(), own.tolist(), store.search(vectors, _FOUND_AMONG), strict=True
    ):
        found += any(hit.entry == entry for hit in hits) or hits[-1].score >= score - _ROUNDING
    share = found / len(entries)
    least = _EXACT if store.manifest.index.kind == "flat" else _APPROXIMATE
    if share < least:
        raise DatastoreError(
            f"{store.folder}: of {len(entries):,} entries searched for only {found:,} were found: "
            "build it again"
        )
    return share


def check_vectors(
    store: "Datastore", entries: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]
) -> None:
    """Raises DatastoreError for a vector (of `vectors`, (n, E)) that no embedder makes."""
    squares = np.einsum("ne,ne->n", vectors, vectors, dtype=np.float64)
    # What a quantising index gives back is a little shorter or longer than what was put in.
    tolerance = 1e-2 if store.manifest.index.kind == "flat" else 0.5
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~(np.abs(squares - 1.0) <= tolerance))
    if len(bad):
        entry = int(entries[bad[0]])
        state = "L2-normalised" if np.isfinite(squares[bad[0]]) else "finite"
        raise DatastoreError(
            f"{store.folder}: the vector of entry {entry:,} ({store.entry_id(entry)[:80]!r}) is not {state}: "
            "build it again"
        )


def _drawn(entries: int, sample: int, seed: int) -> npt.NDArray[np.int64]:
    if entries <= sample:
        return np.arange(entries, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(entries, sample, replace=False, shuffle=False))
