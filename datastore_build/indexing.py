"""Vectors in, index.faiss out (and vectors.bin, for a kind whose candidates are scored again).

Training takes a bounded sample and adding one block at a time, so what a build holds is the index itself: for
IVF-PQ an eighth of a byte or so per dimension and entry; of an exact index, nothing.
The same vectors and plan give the same bytes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from datastore_build.compressed_index import (
    ROTATION_TRAINING,
    hand_over,
    list_directions,
    prepare_search,
    train_compressed,
)
from datastore_build.flat_index import write_flat_index
from datastore_build.index_plan import IndexPlan
from datastore_build.index_tuning import held_out_queries, tune
from datastore_build.vectors import VectorSource, even_blocks
from retrieval.index import VectorIndex
from retrieval.manifest import INDEX, VECTORS, IndexSettings
from retrieval.stored_vectors import StoredVectors, encode

_BLOCK_BYTES = 2**26  # of vectors added at once
_TRAINING_BYTES = 2**28  # of vectors trained on, at most
_TRAINING_PER_LIST = 64


def build_index(
    vectors: VectorSource,
    plan: IndexPlan,
    folder: Path,
    *,
    queries: npt.NDArray[np.float32] | None = None,
) -> IndexSettings:
    """Builds the planned index of `vectors` in `folder`, brought to the disk, and tunes its search.

    queries: (Q, E) float32, L2-normalised, like those that will be asked; half of them tune, half measure.
    Without them, entries with noise added are. Raises OSError: the folder cannot be written.
    """
    if plan.kind == "flat":
        write_flat_index(vectors, folder / INDEX)
        return _settings(plan)
    # Threads link a graph in the order they come to it; with one, the same vectors give the same graph.
    with _threads(1 if plan.kind == "hnsw" else None):
        sample = np.empty((0, 0), np.float32) if plan.kind == "hnsw" else _training_sample(vectors, plan)
        index = _train(vectors, plan, sample)
        _add(index, vectors, plan, folder)
        if plan.kind == "ivf-pq":
            prepare_search(index, sample)
        del sample
    _write(index, folder / INDEX)
    settings = _settings(plan)
    if not vectors.count:
        return settings
    stored = None
    if plan.kind == "ivf-pq" and plan.storage in ("float16", "int8"):
        stored = StoredVectors.open(
            folder / VECTORS, plan.storage, dimension=vectors.dimension, entries=vectors.count
        )
    asked = held_out_queries(vectors, plan.seed) if queries is None else queries
    with _threads(1):
        settings = tune(lambda chosen: VectorIndex(index, chosen, stored), settings, vectors, asked)
    all_lists = settings.search.probe_margin is None and settings.search.nprobe == plan.parameters.get(
        "nlist"
    )
    if plan.kind == "ivf-pq" and all_lists and plan.parameters["nlist"] > 1:
        # The vectors have no clusters that lists could keep apart. One long list is scanned faster than many.
        del index, stored
        reason = f"{plan.reason}; one list, because most of {plan.parameters['nlist']:,} had to be searched"
        single = replace(plan, parameters=plan.parameters | {"nlist": 1}, reason=reason)
        return build_index(vectors, single, folder, queries=asked)
    return settings


def _settings(plan: IndexPlan) -> IndexSettings:
    return IndexSettings(
        kind=plan.kind,
        parameters=plan.parameters,
        storage=plan.storage,
        asked=plan.asked,
        reason=plan.reason,
    )


def _train(vectors: VectorSource, plan: IndexPlan, sample: npt.NDArray[np.float32]) -> Any:
    dimension = vectors.dimension
    if plan.kind == "hnsw":
        return _graph(vectors, plan)
    nlist = plan.parameters["nlist"]
    if plan.kind == "ivf-flat":
        quantizer = faiss.IndexFlatIP(dimension)
        index: Any = faiss.IndexIVFFlat(quantizer, dimension, nlist, faiss.METRIC_INNER_PRODUCT)
        quantizer.add(list_directions(sample, nlist, plan.seed))
        index.train(sample)
        hand_over(quantizer, index)
        return index
    return train_compressed(sample, plan)


def _training_sample(vectors: VectorSource, plan: IndexPlan) -> npt.NDArray[np.float32]:
    nlist = plan.parameters["nlist"]
    wanted = max(_TRAINING_PER_LIST * nlist, ROTATION_TRAINING)
    rows = min(wanted, max(_TRAINING_BYTES // (4 * vectors.dimension), nlist))
    return vectors.sample(rows, plan.seed)


def _graph(vectors: VectorSource, plan: IndexPlan) -> Any:
    links = plan.parameters["m"]
    if plan.storage == "float32":
        index: Any = faiss.IndexHNSWFlat(vectors.dimension, links, faiss.METRIC_INNER_PRODUCT)
    else:
        types: Any = faiss.ScalarQuantizer
        encoding = types.QT_fp16 if plan.storage == "float16" else types.QT_8bit
        index = faiss.IndexHNSWSQ(vectors.dimension, encoding, links, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors.sample(ROTATION_TRAINING, plan.seed))
    index.hnsw.efConstruction = plan.parameters["ef_construction"]
    return index


def _add(index: Any, vectors: VectorSource, plan: IndexPlan, folder: Path) -> None:
    rows = max(1, _BLOCK_BYTES // (4 * vectors.dimension))
    if plan.kind != "ivf-pq" or plan.storage not in ("float16", "int8"):
        for block in even_blocks(vectors, rows):
            index.add(block)
        return
    with (folder / VECTORS).open("wb") as file:
        for block in even_blocks(vectors, rows):
            index.add(block)
            file.write(encode(block, plan.storage).data)
        file.flush()
        os.fsync(file.fileno())


def _write(index: Any, path: Path) -> None:
    # Through a Python file: faiss's own writer loses the error when the disk is full at the last bytes.
    with path.open("wb") as file:
        # faiss's stubs leave this class out.
        writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
        faiss.write_index(index, writer)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """faiss uses that many threads meanwhile; None: as many as it likes."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
