"""How many threads faiss uses, and its BLAS with it.

A matrix that is multiplied by several threads is cut up, and rounded otherwise than by one or by another
number of them. What must have the same bytes everywhere is therefore computed by single threads, several at
once, on parts of the vectors that are the same everywhere.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import faiss

Part = TypeVar("Part")
Made = TypeVar("Made")


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """faiss uses that many threads meanwhile, where this thread calls it."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def in_single_threads(make: Callable[[Part], Made], parts: Sequence[Part]) -> list[Made]:
    """What `make` makes of each part, in order: as many at once as faiss has threads, each of one thread."""
    if faiss.omp_get_max_threads() == 1:
        return [make(part) for part in parts]
    with ThreadPoolExecutor(
        min(faiss.omp_get_max_threads(), max(len(parts), 1)),
        initializer=faiss.omp_set_num_threads,
        initargs=(1,),
    ) as pool:
        return list(pool.map(make, parts))
