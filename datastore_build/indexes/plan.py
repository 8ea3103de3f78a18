"""Which index for a datastore: decided by its size, the memory it may take and the time a query may take.

Estimates only; nothing is measured or built here. How far the index then looks is tuned on the vectors
themselves (index_tuning.py).
"""

import math
import re
from dataclasses import dataclass, field

from retrieval.errors import DatastoreError
from retrieval.manifest import IndexKind, IndexRequest, StorageKind
from retrieval.stored_vectors import StoredKind, record_type

DEFAULT_BUDGET = 2**30  # bytes for auto: what a service can spare beside a language model
DEFAULT_TARGET_MS = 10.0  # for auto: a tenth of what a caption takes

_SMALL = 10_000  # entries up to which anything but exact search is not worth its training
_FEWEST_TRAINED = 256  # vectors; of fewer no lists and codes can be learned
_SCAN_RATE = 8e6  # bytes of vectors that one core multiplies in a millisecond
_LARGEST_GRAPH = 1_000_000  # entries; linking more takes a core more than an hour
_LINKS = 32  # of an entry in the HNSW graph, twice that at the bottom
_EF_CONSTRUCTION = 80
_VALUES_PER_CODE = 4  # dimensions that share one 4-bit code
_MOST_LISTS = 2**16

_NOTHING_ASKED = IndexRequest()

_SUFFIXES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class IndexBudgetError(DatastoreError):
    """The index that was asked for does not fit into the memory that it may take."""


@dataclass(frozen=True)
class IndexPlan:
    """An index to build."""

    kind: IndexKind
    reason: str
    memory: int  # bytes it takes once opened, about; without the pages of vectors.bin, which may be dropped
    parameters: dict[str, int] = field(default_factory=dict)
    storage: StorageKind | None = None  # of an HNSW index's vectors, or of those that score again
    asked: IndexRequest = _NOTHING_ASKED
    seed: int = 0


def choose_index(count: int, dimension: int, request: IndexRequest | None = None) -> IndexPlan:
    """The index for `count` vectors of `dimension`.

    Raises IndexBudgetError: the kind asked for, or for `auto` every kind, needs more memory than it may take.
    """
    request = request or _NOTHING_ASKED
    if request.kind == "auto":
        return _automatic(count, dimension, request)
    kind, reason = request.kind, "as asked for"
    if kind in ("ivf-flat", "ivf-pq") and count < _FEWEST_TRAINED:
        kind, reason = "flat", f"{count:,} vectors are too few to train an index of kind {request.kind}"
    plan = _PLANS[kind](count, dimension, request, request.memory_budget, reason)
    _check_budget(plan, count, dimension, request.memory_budget)
    return plan


def parse_bytes(text: str) -> int:
    """ "800M", "2G", "1.5 GiB" or "123456" in bytes; K, M, G, T are powers of 1024. Raises ValueError."""
    match = re.fullmatch(
        r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE | re.ASCII
    )
    size = int(float(match[1]) * _SUFFIXES[match[2].upper()]) if match else 0
    if size <= 0:
        raise ValueError(f"{text!r} is not a size in bytes such as 800M or 2G")
    return size


def describe_bytes(size: int) -> str:
    """ "2.5 GB", with the power of 1024 that leaves a readable number."""
    value, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.3g} {unit}"


def _automatic(count: int, dimension: int, request: IndexRequest) -> IndexPlan:
    budget = request.memory_budget or DEFAULT_BUDGET
    target_ms = request.target_ms or DEFAULT_TARGET_MS
    size = f"{count:,} vectors of {dimension} dimensions"
    exact = _flat(count, dimension, request, budget, "")
    scan_ms = exact.memory / _SCAN_RATE
    limit = f"the budget of {describe_bytes(budget)}"
    if exact.memory <= budget and (count <= _SMALL or scan_ms <= target_ms):
        reason = (
            f"{size} are few enough for exact search: {describe_bytes(exact.memory)}, about {scan_ms:.3g} ms"
        )
        return _flat(count, dimension, request, budget, reason)
    why = (
        f"{size}: exact search would take {describe_bytes(exact.memory)} and about {scan_ms:.3g} ms "
        f"({limit} and {target_ms:g} ms)"
    )
    graph = _hnsw(count, dimension, request, budget, f"{why}; a graph fits and is the quickest")
    if count <= _LARGEST_GRAPH and graph.storage != "int8" and graph.memory <= budget:
        return graph
    lists = _ivf_flat(
        count, dimension, request, budget, f"{why}; too many for a graph, and whole vectors in lists fit"
    )
    if count > _LARGEST_GRAPH and lists.memory <= budget:
        return lists
    plan = _ivf_pq(
        count, dimension, request, budget, f"{why}; compressed lists, scored again from vectors on disk, fit"
    )
    _check_budget(plan, count, dimension, budget)
    return plan


def _check_budget(plan: IndexPlan, count: int, dimension: int, budget: int | None) -> None:
    if budget is not None and plan.memory > budget:
        raise IndexBudgetError(
            f"an index of kind {plan.kind} for {count:,} vectors of {dimension} dimensions takes about "
            f"{describe_bytes(plan.memory)}, more than the {describe_bytes(budget)} of --memory-budget"
            + ("" if plan.kind == "ivf-pq" else ": allow more, or take --index auto")
        )


def _flat(count: int, dimension: int, request: IndexRequest, budget: int | None, reason: str) -> IndexPlan:
    return IndexPlan("flat", reason, 4 * count * dimension, asked=request)


def _hnsw(count: int, dimension: int, request: IndexRequest, budget: int | None, reason: str) -> IndexPlan:
    links = count * (2 * _LINKS * 4 + _LINKS * 4 // (_LINKS - 1) + 12)  # bottom, layers above, bookkeeping
    sizes: dict[StorageKind, int] = {
        "float32": links + 4 * count * dimension,
        "float16": links + 2 * count * dimension,
        "int8": links + count * dimension,
    }
    fitting = [storage for storage, size in sizes.items() if budget is None or size <= budget]
    storage = fitting[0] if fitting else "int8"
    return IndexPlan(
        "hnsw",
        reason,
        sizes[storage],
        {"m": _LINKS, "ef_construction": _EF_CONSTRUCTION},
        storage,
        request,
    )


def _ivf_flat(
    count: int, dimension: int, request: IndexRequest, budget: int | None, reason: str
) -> IndexPlan:
    nlist = _lists(count)
    memory = count * (4 * dimension + 16) + 4 * nlist * dimension  # 16: its number, and where it is
    return IndexPlan(
        "ivf-flat",
        reason,
        memory,
        {"nlist": nlist},
        None,
        request,
    )


def _ivf_pq(count: int, dimension: int, request: IndexRequest, budget: int | None, reason: str) -> IndexPlan:
    nlist = _lists(count)
    parts = _subquantizers(dimension)
    code = (parts + 1) // 2
    # Lists are padded to blocks of 32 codes, by half a block on average.
    memory = (count + 16 * nlist) * code + 8 * count + 4 * dimension * (nlist + dimension)
    stored: StoredKind = "int8"
    whole = count * record_type("float16", dimension).itemsize
    if budget is None or memory + whole <= budget:
        stored = "float16"
    return IndexPlan(
        "ivf-pq",
        reason,
        memory,
        {"nlist": nlist, "subquantizers": parts, "bits": 4},
        stored,
        request,
    )


def _lists(count: int) -> int:
    """About √N lists, a power of two; more for many vectors, whose lists would otherwise grow long."""
    if count < 2:
        return 1
    power = round(math.log2(math.sqrt(count)) + (1 if count > _LARGEST_GRAPH else 0))
    return min(1 << power, _MOST_LISTS)


def _subquantizers(dimension: int) -> int:
    """Into how many equal parts a vector is cut: of about four dimensions, and the number must divide."""
    most = max(1, dimension // _VALUES_PER_CODE)
    return next(parts for parts in range(most, 0, -1) if dimension % parts == 0)


_PLANS = {"flat": _flat, "hnsw": _hnsw, "ivf-flat": _ivf_flat, "ivf-pq": _ivf_pq}
