"""Small clustered data for the tests of indexes, with queries near it, as photos are near captions."""

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


def normalise(vectors: npt.NDArray[np.floating]) -> Vectors:
    normalised: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return normalised


def clustered(count: int, dimension: int = 32, *, clusters: int = 60, seed: int = 0) -> Vectors:
    random = np.random.default_rng(seed)
    centres = normalise(random.standard_normal((clusters, dimension)))
    noise = normalise(random.standard_normal((count, dimension)))
    return normalise(centres[random.integers(clusters, size=count)] + 0.6 * noise)


def queries_near(vectors: Vectors, count: int, *, seed: int = 1) -> Vectors:
    random = np.random.default_rng(seed)
    drawn = vectors[random.choice(len(vectors), count, replace=False)]
    return normalise(drawn + 0.7 * normalise(random.standard_normal(drawn.shape)))


def exact_neighbours(vectors: Vectors, queries: Vectors, k: int) -> npt.NDArray[np.int64]:
    nearest: npt.NDArray[np.int64] = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]
    return nearest


def recall(found: npt.NDArray[np.int64], true: npt.NDArray[np.int64]) -> float:
    return float(np.mean([np.isin(right, got).mean() for got, right in zip(found, true, strict=True)]))
