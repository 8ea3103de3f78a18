"""Searching an exact or IVF-Flat index on a graphics card, where faiss is built for one and finds one.

The card holds the vectors in float16 and only finds candidates. They are scored again from the index in
memory, so what is answered is what the CPU would answer. Graphs and compressed lists are not searched there:
faiss has no such graph for cards, and no codes of four bits.
"""

import threading
from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.errors import DatastoreError
from retrieval.manifest import IndexKind

Device = Literal["cpu", "gpu", "auto"]

MOST = 2048  # neighbours that faiss finds on a card at once

_KINDS: tuple[IndexKind, ...] = ("flat", "ivf-flat")

Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


class NoGpuError(DatastoreError):
    """The index shall be searched on a graphics card, and that cannot be."""


def gpu_count() -> int:
    """How many cards faiss can use: none, if it is built without."""
    faiss_: Any = faiss  # the names depend on how it was built
    if not hasattr(faiss_, "StandardGpuResources") or not hasattr(faiss_, "index_cpu_to_gpu"):
        return 0
    return int(faiss_.get_num_gpus())


def on_gpu(device: Device, kind: IndexKind) -> bool:
    """Shall an index of the kind be searched on a card? Raises NoGpuError if it must and cannot."""
    if device == "cpu":
        return False
    if device == "auto":
        return kind in _KINDS and gpu_count() > 0
    if not gpu_count():
        raise NoGpuError(
            "no graphics card to search on: faiss reports none (faiss-cpu is built without). Install "
            "faiss-gpu, or set the index device to cpu"
        )
    if kind not in _KINDS:
        raise NoGpuError(
            f"an index of kind {kind} is not searched on a graphics card: build the datastore with --index "
            "flat or ivf-flat, or set the index device to cpu"
        )
    return True


class GpuSearch:
    """A copy of an index on the first card."""

    def __init__(self, index: Any, nprobe: int | None = None) -> None:
        """`nprobe`: how many lists are searched, of an IVF index."""
        faiss_: Any = faiss
        self._resources = faiss_.StandardGpuResources()
        options = faiss_.GpuClonerOptions()
        options.useFloat16 = True
        self._index = faiss_.index_cpu_to_gpu(self._resources, 0, index, options)
        self._parameters = None if nprobe is None else faiss_.SearchParametersIVF(nprobe=nprobe)
        self._lock = threading.Lock()  # searches share the card's scratch memory

    def search(self, queries: npt.NDArray[np.float32], k: int) -> Found:
        """Scores in float16 and entries (B, k), -1 where there are no more; k is at most MOST."""
        with self._lock:
            found: Found = self._index.search(queries, k, params=self._parameters)
        return found
