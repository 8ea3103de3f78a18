"""How far must an approximate index look? Measured on held-out queries against exact search.

Recall grows with every setting, so the least that reaches the target is searched for: for HNSW and IVF-Flat
in one setting, for IVF-PQ in two, of which one search with many candidates answers for all numbers of them.
Half of the queries tune; the other half measures what is kept in the manifest. Between settings that reach
the target a count of work decides and not the clock: the same vectors always get the same settings.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from datastore_build.vectors import VectorSource
from retrieval.index import VectorIndex
from retrieval.manifest import IndexSettings, Measurement, SearchSettings

NEIGHBOURS = 4  # k: as many captions as go into a prompt

_QUERIES = 512
_QUERY_COSINE = 0.7  # of a made query to the entry it was made from: near, as a photo is to its captions
_TRUTH = 64  # true neighbours kept, so that entries which tie with the k-th count as found
_TIE = 1e-6
_BLOCK_BYTES = 2**26
_MOST_CANDIDATES = 2**14
_CANDIDATE_STEP = 16
_MOST_EF = 2**12
_CANDIDATE_WORK = 8  # bytes of codes scanned in the time in which one byte of a stored vector is scored

Vectors = npt.NDArray[np.float32]
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


class Truth:
    """What exact search finds for some queries."""

    def __init__(self, scores: Vectors, entries: npt.NDArray[np.int64], k: int) -> None:
        """scores, entries: (Q, K) of the K ≥ k nearest, best first."""
        self.k = k
        least = scores[:, k - 1 : k] - _TIE
        self._right = [row[near] for row, near in zip(entries, scores >= least, strict=True)]

    @classmethod
    def scan(cls, vectors: VectorSource, queries: Vectors, k: int = NEIGHBOURS) -> "Truth":
        """Reads all vectors once, a block at a time."""
        k = min(k, vectors.count)
        kept = min(_TRUTH, vectors.count)
        scores = np.full((len(queries), kept), -np.inf, np.float32)
        entries = np.zeros((len(queries), kept), np.int64)
        first = 0
        for block in vectors.blocks(max(1, _BLOCK_BYTES // (4 * max(vectors.dimension, len(queries))))):
            found = queries @ block.T  # (Q, rows)
            best = np.argpartition(-found, min(kept, len(block)) - 1, axis=1)[:, :kept]
            scores = np.concatenate([scores, np.take_along_axis(found, best, 1)], axis=1)
            entries = np.concatenate([entries, best + first], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :kept]
            scores, entries = np.take_along_axis(scores, order, 1), np.take_along_axis(entries, order, 1)
            first += len(block)
        return cls(scores, entries, k)

    def hits(self, query: int, found: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of the entries found for a query belong to its k nearest, or tie with the last of them."""
        return np.isin(found, self._right[query])

    def recall(self, index: VectorIndex, queries: Vectors, first: int = 0) -> float:
        """Share of the k nearest that the index finds; `queries` are those from number `first` on."""
        _, found = index.search(queries, self.k)
        hits = sum(
            min(self.k, int(self.hits(first + row, entries).sum())) for row, entries in enumerate(found)
        )
        return hits / (self.k * len(queries))


def tune(make: Make, settings: IndexSettings, vectors: VectorSource, queries: Vectors) -> IndexSettings:
    """The settings with the least search that reaches `settings.target_recall`, and what it measures.

    make: the index with given settings. If the target is out of reach, the most that is tried is taken; the
    measurement tells.
    """
    truth = Truth.scan(vectors, queries)
    half = max(1, len(queries) // 2)
    tuning, measuring = queries[:half], queries[half:] if len(queries) > 1 else queries
    target = settings.target_recall or 1.0
    # One standard error more, so that other queries reach the target as well.
    goal = min(target + math.sqrt(target * (1 - target) / (truth.k * half)), (1 + target) / 2)
    if settings.kind == "ivf-pq":
        settings = _tune_compressed(make, settings, truth, tuning, vectors, goal)
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


def _tune_compressed(
    make: Make, settings: IndexSettings, truth: Truth, queries: Vectors, vectors: VectorSource, goal: float
) -> IndexSettings:
    """The pair of nprobe and candidates that reaches the goal with the least work."""
    nlist = settings.parameters["nlist"]
    most = min(_MOST_CANDIDATES, vectors.count)
    list_work = vectors.count / nlist * settings.parameters["subquantizers"] / 2
    candidate_work = _CANDIDATE_WORK * vectors.dimension * (1 if settings.storage == "int8" else 2)

    def at(nprobe: int, candidates: int) -> IndexSettings:
        search = SearchSettings(nprobe=nprobe, candidates=max(min(candidates, most), truth.k))
        return settings.model_copy(update={"search": search})

    best, least, nprobe = (nlist, most), math.inf, 1
    while True:
        needed = _candidates_needed(make(at(nprobe, most)), truth, queries, most, goal)
        if needed is not None and nprobe * list_work + needed * candidate_work < least:
            best, least = (nprobe, needed), nprobe * list_work + needed * candidate_work
        if nprobe >= nlist or 2 * nprobe * list_work >= least:
            break
        nprobe = min(2 * nprobe, nlist)
    # The stored vectors are rounded, so what is among the candidates is not always ranked where it belongs.
    nprobe, candidates = best
    while truth.recall(make(at(nprobe, candidates)), queries) < goal and (nprobe, candidates) != (
        nlist,
        most,
    ):
        nprobe, candidates = min(nprobe * 5 // 4 + 1, nlist), min(candidates * 5 // 4 + 1, most)
    return at(nprobe, candidates)


def _candidates_needed(
    index: VectorIndex, truth: Truth, queries: Vectors, most: int, goal: float
) -> int | None:
    """How many candidates must be scored again; None if the lists searched do not hold enough."""
    if index.approximate is None:
        raise ValueError("an exact index has no candidates")
    found_after = np.zeros(most)  # hits among the first n + 1 candidates, over all queries
    for number, query in enumerate(queries):
        found = index.approximate.candidates(query[None], most)
        hits = np.minimum(np.cumsum(truth.hits(number, found)), truth.k)
        found_after[: len(hits)] += hits
        found_after[len(hits) :] += hits[-1] if len(hits) else 0
    enough = np.flatnonzero(found_after >= goal * truth.k * len(queries))
    if not len(enough):
        return None
    return min(-(-(int(enough[0]) + 1) // _CANDIDATE_STEP) * _CANDIDATE_STEP, most)


def _milliseconds(index: VectorIndex, query: Vectors, k: int) -> float:
    started = time.perf_counter()
    index.search(query, k)
    return 1000 * (time.perf_counter() - started)
