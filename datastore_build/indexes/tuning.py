"""How far must an approximate index look? Measured on held-out queries against exact search.

Recall grows with every setting, so the least that reaches the target is searched for: for HNSW and IVF-Flat
here, in one setting; for IVF-PQ, which has more, in compressed_tuning.py. Half of the queries tune; the other
half measures what is kept in the manifest. Between settings that reach the target a count of work decides and
not the clock: the same vectors always get the same settings.
"""

import math
import time
from collections.abc import Callable

import numpy as np

from datastore_build.indexes.compressed_tuning import tune_compressed
from datastore_build.indexes.truth import Truth, Vectors
from datastore_build.vectors import VectorSource
from retrieval.index import VectorIndex
from retrieval.manifest import IndexSettings, Measurement, SearchSettings

_QUERIES = 512
_QUERY_COSINE = 0.7  # of a made query to the entry it was made from: near, as a photo is to its captions
_MOST_EF = 2**12

Make = Callable[[IndexSettings], VectorIndex]


def held_out_queries(vectors: VectorSource, seed: int) -> Vectors:
    """(≤ 512, E) queries: entries drawn with the seed, with noise until the cosine to the entry is 0.7."""
    entries = vectors.sample(_QUERIES, seed + 1)
    random = np.random.default_rng(seed + 2)
    entries = entries[random.permutation(len(entries))]
    noise = random.standard_normal(entries.shape, np.float32)
    noise /= np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-12)
    queries = _QUERY_COSINE * entries + math.sqrt(1 - _QUERY_COSINE**2) * noise
    normalised: Vectors = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
    return normalised


def tune(
    make: Make, settings: IndexSettings, vectors: VectorSource, queries: Vectors, truth: Truth
) -> IndexSettings:
    """The settings with the least search that reaches `settings.asked.target_recall`, and what it measures.

    make: the index with given settings. truth: what exact search finds for the queries. If the target is out
    of reach, the most that is tried is taken; the measurement tells.
    """
    half = max(1, len(queries) // 2)
    tuning, measuring = queries[:half], queries[half:] if len(queries) > 1 else queries
    target = settings.asked.target_recall
    # One standard error more, so that other queries reach the target as well.
    goal = min(target + math.sqrt(target * (1 - target) / (truth.k * half)), (1 + target) / 2)
    if settings.kind == "ivf-pq":
        settings = tune_compressed(make, settings, truth, tuning, vectors, goal)
    else:
        settings = _tune_ladder(make, settings, truth, tuning, vectors, goal)
    index = make(settings)
    recall = truth.recall(index, measuring, len(queries) - len(measuring))
    times = [_milliseconds(index, query[None], truth.k) for query in measuring]
    measured = Measurement(
        queries=len(measuring),
        k=truth.k,
        recall=round(recall, 4),
        median_ms=round(float(np.median(times)), 3),
        p99_ms=round(float(np.quantile(times, 0.99)), 3),
    )
    return settings.model_copy(update={"measured": measured})


def _tune_ladder(
    make: Make, settings: IndexSettings, truth: Truth, queries: Vectors, vectors: VectorSource, goal: float
) -> IndexSettings:
    """Doubles the one setting until the goal is reached, then halves the last step a few times."""

    def at(effort: int) -> IndexSettings:
        name = "ef_search" if settings.kind == "hnsw" else "nprobe"
        return settings.model_copy(update={"search": SearchSettings.model_validate({name: effort})})

    def reaches(effort: int) -> bool:
        return truth.recall(make(at(effort)), queries) >= goal

    most = min(_MOST_EF, vectors.count) if settings.kind == "hnsw" else settings.parameters["nlist"]
    effort = min(4 * truth.k if settings.kind == "hnsw" else 1, most)
    too_small = 0
    while not reaches(effort):
        if effort >= most:
            return at(most)
        too_small, effort = effort, min(2 * effort, most)
    while effort - too_small > max(1, effort // 8):
        middle = (too_small + effort) // 2
        if reaches(middle):
            effort = middle
        else:
            too_small = middle
    return at(effort)


def _milliseconds(index: VectorIndex, query: Vectors, k: int) -> float:
    started = time.perf_counter()
    index.search(query, k)
    return 1000 * (time.perf_counter() - started)
