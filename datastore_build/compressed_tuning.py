"""The search settings of an IVF-PQ index: which lists a query looks into, what it scores again.

Both are margins, so that an easy query is quick and a hard one thorough: lists whose cosine is within one
margin of the best, and candidates that the k-th best could not rule out were their codes' scores too low
by the other. For each of some margins for lists, one search with many candidates tells the margin for scores
that reaches the goal, and what both cost.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from datastore_build.index_truth import Truth, Vectors
from datastore_build.vectors import VectorSource
from retrieval.approximate_search import ApproximateSearch
from retrieval.index import VectorIndex
from retrieval.manifest import IndexSettings, SearchSettings

_MOST_CANDIDATES = 2**14
_CANDIDATE_WORK = 6  # bytes of codes scanned in the time in which one byte of a stored vector is scored
_SPARE = 1.25  # queries may need more candidates than all but a hundredth of those tuned on
_WIDEN, _WIDENINGS = 1.15, 8


def tune_compressed(
    make: Callable[[IndexSettings], VectorIndex],
    settings: IndexSettings,
    truth: Truth,
    queries: Vectors,
    vectors: VectorSource,
    goal: float,
) -> IndexSettings:
    """The settings that reach a recall of `goal` on the first queries of `truth` with the least work.

    Where most lists must be searched, all are: nprobe is then nlist and there is no margin for lists.
    """
    nlist = settings.parameters["nlist"]
    most = min(_MOST_CANDIDATES, vectors.count)
    list_work = vectors.count / nlist * settings.parameters["subquantizers"] / 2
    candidate_work = _CANDIDATE_WORK * vectors.dimension * (1 if settings.storage == "int8" else 2)
    behind = _behind_the_best_list(_search(make(_at(settings, nlist, None, most, None))), queries)
    best, least = SearchSettings(nprobe=nlist, candidates=most), math.inf
    for mean_probes in _powers(nlist):
        scan_work = mean_probes * list_work
        if scan_work >= least:
            break
        # Over all queries, the margin lets in that many lists on average.
        margin = None if 2 * mean_probes >= nlist else _margin(behind, mean_probes)
        if margin is None:
            scan_work = nlist * list_work
        probes = nlist if margin is None else int((behind <= margin).sum(axis=1).max())
        search = _search(make(_at(settings, probes, margin, most, None)))
        slack, counts = _scores_needed(search, truth, queries, most, goal)
        if slack is not None and scan_work + counts.mean() * candidate_work < least:
            least = scan_work + float(counts.mean()) * candidate_work
            candidates = min(math.ceil(_SPARE * np.quantile(counts, 0.99)), most)
            best = _at(settings, probes, margin, max(candidates, truth.k), slack).search
        if margin is None:
            break
    # The stored vectors are rounded, too: what is among the candidates is not always ranked where it belongs.
    for _ in range(_WIDENINGS):
        tuned = settings.model_copy(update={"search": best})
        if truth.recall(make(tuned), queries) >= goal:
            break
        best = _widened(best, nlist, most)
    return settings.model_copy(update={"search": best})


def _behind_the_best_list(search: ApproximateSearch, queries: Vectors) -> Vectors:
    """(Q, nlist): by how much each list's cosine is below the best one's."""
    lists = search.lists
    cosines = np.stack([lists.cosines(lists.rotated(query[None])) for query in queries])
    behind: Vectors = cosines.max(axis=1, keepdims=True) - cosines
    return behind


def _margin(behind: Vectors, mean_probes: int) -> float:
    return _rounded_up(
        float(np.partition(behind, mean_probes * len(behind) - 1, axis=None)[mean_probes * len(behind) - 1])
    )


def _scores_needed(
    search: ApproximateSearch, truth: Truth, queries: Vectors, most: int, goal: float
) -> tuple[float | None, npt.NDArray[np.int64]]:
    """The margin for scores that finds enough, and how many candidates (Q,) it then scores again.

    None if the lists searched do not hold enough of the true neighbours.
    """
    needed: list[npt.NDArray[np.float32]] = []  # how much too low the true neighbours' codes score
    all_scores = []
    for number, query in enumerate(queries):
        scores, found = search.candidates(query[None], most)
        all_scores.append(scores)
        hits = scores[truth.hits(number, found)]
        needed.append(truth.least[number] - hits[: truth.k])
    needs = np.sort(np.concatenate(needed))
    enough = math.ceil(goal * truth.k * len(queries))
    if len(needs) < enough:
        return None, np.zeros(len(queries), np.int64)
    slack = _rounded_up(max(float(needs[enough - 1]), 0.0))
    counts = [int((scores >= truth.least[row] - slack).sum()) for row, scores in enumerate(all_scores)]
    return slack, np.array(counts)


def _widened(search: SearchSettings, nlist: int, most: int) -> SearchSettings:
    return SearchSettings(
        nprobe=min(math.ceil(_WIDEN * (search.nprobe or 1)), nlist),
        probe_margin=None if search.probe_margin is None else _rounded_up(_WIDEN * search.probe_margin),
        candidates=min(math.ceil(_WIDEN * (search.candidates or 1)), most),
        score_margin=None if search.score_margin is None else _rounded_up(_WIDEN * search.score_margin),
    )


def _at(
    settings: IndexSettings, nprobe: int, probe_margin: float | None, candidates: int, slack: float | None
) -> IndexSettings:
    search = SearchSettings(
        nprobe=nprobe, probe_margin=probe_margin, candidates=candidates, score_margin=slack
    )
    return settings.model_copy(update={"search": search})


def _search(index: VectorIndex) -> ApproximateSearch:
    if index.approximate is None:
        raise ValueError("an exact index has nothing to tune")
    return index.approximate


def _powers(limit: int) -> list[int]:
    """1, 2, 4, … and the limit itself."""
    return [2**power for power in range(limit.bit_length()) if 2**power < limit] + [limit]


def _rounded_up(value: float) -> float:
    """To six digits, so that a manifest reads well."""
    return math.ceil(value * 1e6) / 1e6
