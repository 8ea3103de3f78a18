"""A datastore's entries in two dimensions: principal component analysis of their vectors.

Of many entries a part is drawn at random, always the same. Knows nothing of how a map looks.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.datastore import Datastore

_BLOCK = 4096  # vectors read at once


@dataclass(frozen=True)
class Projection:
    """Where entries lie.

    Attributes:
        entries: (N,) their numbers, ascending.
        positions: (N, 2) float32 in [-1, 1], the first axis with the most variance.
        explained: the share of the variance that the two axes hold.
    """

    entries: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float32]
    explained: float


def project(store: Datastore, most_texts: int, seed: int = 0) -> Projection:
    """Entries with about `most_texts` texts together, all of them if there are no more, on a plane."""
    entries = _drawn(store, most_texts, seed)
    if not len(entries):
        return Projection(entries, np.empty((0, 2), np.float32), 0.0)
    blocks = [entries[start : start + _BLOCK] for start in range(0, len(entries), _BLOCK)]
    mean = sum(store.vectors(block).sum(axis=0, dtype=np.float64) for block in blocks) / len(entries)
    covariance = np.zeros((store.dimension, store.dimension))
    for block in blocks:
        centred = store.vectors(block) - mean
        covariance += centred.T @ centred
    variances, axes = np.linalg.eigh(covariance)  # ascending
    if store.dimension == 1:
        variances, axes = np.append(0.0, variances), np.hstack([np.zeros((1, 1)), axes])
    plane = axes[:, [-1, -2]]
    # An axis may point either way: the same way each time.
    plane = plane * np.where(plane[np.abs(plane).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    positions = np.concatenate([(store.vectors(block) - mean) @ plane for block in blocks])
    largest = float(np.abs(positions).max())
    total = float(variances.sum())
    return Projection(
        entries,
        (positions / (largest or 1.0)).astype(np.float32),
        float(variances[-2:].sum()) / total if total > 0 else 0.0,
    )


def _drawn(store: Datastore, most_texts: int, seed: int) -> npt.NDArray[np.int64]:
    texts = store.manifest.counts.texts
    if texts <= most_texts:
        return store.live(np.arange(store.stored, dtype=np.int64))
    count = max(1, len(store) * most_texts // texts)
    # A few more, for those that are deleted.
    most = min(store.stored, count * store.stored // len(store))
    drawn = np.random.default_rng(seed).choice(store.stored, most, replace=False, shuffle=False)
    return store.live(np.sort(drawn))
