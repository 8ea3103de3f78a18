"""The search settings of an IVF-PQ index: which lists a query looks into, what it scores again.

Lists are taken by a margin, so that an easy query is quick and a hard one thorough: those whose cosine is
that near to the best list's. For each of some margins, one search with many candidates tells how many of them
are needed to reach the goal, and what both cost.
"""

import math
from collections.abc import Callable

import numpy as np

from datastore_build.indexes.truth import Truth, Vectors
from datastore_build.vectors import VectorSource
from retrieval.approximate_search import ApproximateSearch
from retrieval.index import VectorIndex
from retrieval.manifest import IndexSettings, SearchSettings

_MOST_CANDIDATES = 2**14
_CANDIDATE_STEP = 16
_CANDIDATE_WORK = 6  # bytes of codes scanned in the time in which one byte of a stored vector is scored
_WIDEN, _WIDENINGS = 1.25, 8


def tune_compressed(
    make: Callable[[IndexSettings], VectorIndex],
    settings: IndexSettings,
    truth: Truth,
    queries: Vectors,
    vectors: VectorSource,
    goal: float,
) -> IndexSettings:
    """The settings that reach a recall of `goal` on the first queries of `truth` with the least work.

    Where most lists must be searched, all are: nprobe is then nlist and there is no margin.
    """
    nlist = settings.parameters["nlist"]
    most = min(_MOST_CANDIDATES, vectors.count)
    list_work = vectors.count / nlist * settings.parameters["subquantizers"] / 2
    candidate_work = _CANDIDATE_WORK * vectors.dimension * (1 if settings.storage == "int8" else 2)
    behind = _behind_the_best_list(_search(make(_at(settings, nlist, None, most))), queries)
    best, least = _at(settings, nlist, None, most), math.inf
    for mean_probes in _steps(nlist):
        # Over all queries, the margin lets in that many lists on average.
        margin = None if 2 * mean_probes >= nlist else _margin(behind, mean_probes)
        scan_work = (nlist if margin is None else mean_probes) * list_work
        if scan_work >= least:
            break
        probes = nlist if margin is None else int((behind <= margin).sum(axis=1).max())
        needed = _candidates_needed(
            _search(make(_at(settings, probes, margin, most))), truth, queries, most, goal
        )
        if needed is not None and scan_work + needed * candidate_work < least:
            best, least = _at(settings, probes, margin, needed), scan_work + needed * candidate_work
        if margin is None:
            break
    # The stored vectors are rounded, so what is among the candidates is not always ranked where it belongs.
    for _ in range(_WIDENINGS):
        if truth.recall(make(best), queries) >= goal:
            break
        best = _widened(best, nlist, most)
    return best


def _behind_the_best_list(search: ApproximateSearch, queries: Vectors) -> Vectors:
    """(Q, nlist): by how much each list's cosine is below the best one's."""
    lists = search.lists
    cosines = np.stack([lists.cosines(lists.rotated(query[None])) for query in queries])
    behind: Vectors = cosines.max(axis=1, keepdims=True) - cosines
    return behind


def _margin(behind: Vectors, mean_probes: int) -> float:
    last = mean_probes * len(behind) - 1
    return _rounded_up(float(np.partition(behind, last, axis=None)[last]))


def _candidates_needed(
    search: ApproximateSearch, truth: Truth, queries: Vectors, most: int, goal: float
) -> int | None:
    """How many candidates must be scored again; None if the lists searched do not hold enough."""
    found_after = np.zeros(most)  # hits among the first n + 1 candidates, over all queries
    for number, query in enumerate(queries):
        _, found = search.candidates(query[None], most)
        hits = np.minimum(np.cumsum(truth.hits(number, found)), truth.k)
        found_after[: len(hits)] += hits
        found_after[len(hits) :] += hits[-1] if len(hits) else 0
    enough = np.flatnonzero(found_after >= goal * truth.k * len(queries))
    if not len(enough):
        return None
    return min(-(-(int(enough[0]) + 1) // _CANDIDATE_STEP) * _CANDIDATE_STEP, most)


def _widened(settings: IndexSettings, nlist: int, most: int) -> IndexSettings:
    search = settings.search
    return _at(
        settings,
        min(math.ceil(_WIDEN * (search.nprobe or 1)), nlist),
        None if search.probe_margin is None else _rounded_up(_WIDEN * search.probe_margin),
        min(math.ceil(_WIDEN * (search.candidates or 1)), most),
    )


def _at(settings: IndexSettings, nprobe: int, margin: float | None, candidates: int) -> IndexSettings:
    search = SearchSettings(nprobe=nprobe, probe_margin=margin, candidates=candidates)
    return settings.model_copy(update={"search": search})


def _search(index: VectorIndex) -> ApproximateSearch:
    if index.approximate is None:
        raise ValueError("an exact index has nothing to tune")
    return index.approximate


def _steps(limit: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, … and the limit itself."""
    steps = {2**power for power in range(limit.bit_length())} | {
        3 * 2**power for power in range(limit.bit_length())
    }
    return [*sorted(step for step in steps if step < limit), limit]


def _rounded_up(value: float) -> float:
    """To six digits, so that a manifest reads well."""
    return math.ceil(value * 1e6) / 1e6
