"""A fresh process that opens one index and searches: how long a query takes, and what memory that costs.

    python -m benchmarks.datastore_probe FOLDER QUERIES.npz K COUNT DIMENSION SETTINGS.json

Prints one JSON object. One thread; queries one at a time, as a service of one user asks them, and then in
batches, as a busy one has them. Memory is this process's proportional set size after all queries, less what
it was before the index was opened: the pages of memory-mapped files that were touched count.
"""

import json
import sys
import time
from pathlib import Path
from typing import TypedDict

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.index import VectorIndex
from retrieval.manifest import INDEX, IndexSettings

_WARM_UP = 20
_BATCH, _BATCHES = 16, 5  # as many queries as the service asks together at most, and how often


class Answers(TypedDict):
    """Of queries of one sort."""

    median_ms: float
    p99_ms: float
    batch_ms: float  # a query, asked in batches
    found: list[list[int]]


class Probe(TypedDict):
    """What the process prints."""

    near: Answers
    independent: Answers
    memory: int  # bytes that opening and searching added
    anonymous: int  # of them, those that the kernel cannot drop


def main() -> None:
    folder, queries_file, k, count, dimension, settings_file = sys.argv[1:]
    faiss.omp_set_num_threads(1)
    queries = np.load(queries_file)
    np.ones((64, 64), np.float32) @ np.ones((64, 64), np.float32)  # the linear algebra sets up its buffers
    before = proportional_memory()
    index = VectorIndex.read(
        Path(folder) / INDEX,
        dimension=int(dimension),
        entries=int(count),
        settings=IndexSettings.model_validate_json(Path(settings_file).read_bytes()),
    )
    near, independent = (_ask(index, queries[sort], int(k)) for sort in ("near", "independent"))
    after = proportional_memory()
    document: Probe = {
        "near": near,
        "independent": independent,
        "memory": after["Pss"] - before["Pss"],
        "anonymous": after["Pss_Anon"] - before["Pss_Anon"],
    }
    print(json.dumps(document))


def _ask(index: VectorIndex, queries: npt.NDArray[np.float32], k: int) -> Answers:
    index.search(queries[:_WARM_UP], k)
    times, found = [], []
    for query in queries:
        started = time.perf_counter()
        _, entries = index.search(query[None], k)
        times.append(1000 * (time.perf_counter() - started))
        found.append(entries[0].tolist())
    starts = range(0, len(queries) - _BATCH + 1, _BATCH)[:_BATCHES]
    batches = [queries[start : start + _BATCH] for start in starts]
    batch_times = []
    for batch in batches:
        started = time.perf_counter()
        index.search(batch, k)
        batch_times.append(1000 * (time.perf_counter() - started) / len(batch))
    return {
        "median_ms": float(np.median(times)),
        "p99_ms": float(np.quantile(times, 0.99)),
        "batch_ms": float(np.median(batch_times)) if batch_times else float(np.median(times)),
        "found": found,
    }


def proportional_memory() -> dict[str, int]:
    """Bytes of this process by the kernel's roll-up: Pss and the anonymous part of it among them."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return {name.rstrip(":"): 1024 * int(size) for name, size, *_ in fields}


if __name__ == "__main__":
    main()
