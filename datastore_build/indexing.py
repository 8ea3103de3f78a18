"""Vectors in, index.faiss out (and vectors.bin, for a kind whose candidates are scored again).

Training takes a bounded sample and adding one block at a time, so what a build holds is the index itself: for
IVF-PQ an eighth of a byte or so per dimension and entry. The same vectors and plan give the same bytes.
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

from datastore_build.index_plan import IndexPlan
from datastore_build.index_tuning import held_out_queries, tune
from datastore_build.vectors import VectorSource, even_blocks
from retrieval.index import VectorIndex
from retrieval.index_file import inverted_index
from retrieval.manifest import INDEX, VECTORS, IndexSettings
from retrieval.stored_vectors import StoredVectors, encode

_BLOCK_BYTES = 2**26  # of vectors added at once
_TRAINING_BYTES = 2**28  # of vectors trained on, at most
_TRAINING_PER_LIST = 64
_ROTATION_TRAINING = 2**14  # vectors the rotation is trained on: each of its rounds multiplies all of them
_ROTATION_ROUNDS = 4
_KMEANS_ROUNDS = 10


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
    # Threads link a graph in the order they come to it; with one, the same vectors give the same graph.
    with _threads(1 if plan.kind == "hnsw" else None):
        index = _train(vectors, plan)
        _add(index, vectors, plan, folder)
        if plan.kind == "ivf-pq":
            _unshrink(index, _training_sample(vectors, plan))
            _search_by_inner_product(inverted_index(index))
    _write(index, folder / INDEX)
    settings = IndexSettings(
        kind=plan.kind,
        parameters=plan.parameters,
        storage=plan.storage,
        target_recall=plan.target_recall if plan.kind != "flat" else None,
        reason=plan.reason,
    )
    if plan.kind == "flat" or not vectors.count:
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


def _train(vectors: VectorSource, plan: IndexPlan) -> Any:
    dimension = vectors.dimension
    if plan.kind == "flat":
        return faiss.IndexFlatIP(dimension)
    if plan.kind == "hnsw":
        return _graph(vectors, plan)
    nlist = plan.parameters["nlist"]
    sample = _training_sample(vectors, plan)
    if plan.kind == "ivf-flat":
        quantizer = faiss.IndexFlatIP(dimension)
        index: Any = faiss.IndexIVFFlat(quantizer, dimension, nlist, faiss.METRIC_INNER_PRODUCT)
        _set_clustering(index.cp, plan.seed)
        index.cp.spherical = True  # the lists nearest to a query are told by inner product
        index.train(sample)
        _hand_over(quantizer, index)
        return index
    parts = plan.parameters["subquantizers"]
    # Codes stand for what is left of a vector without its list's centroid: least if that is the mean of the
    # list, and the list the one with the nearest mean.
    means = faiss.IndexFlatL2(dimension)
    inner = faiss.IndexIVFPQFastScan(
        means, dimension, nlist, parts, plan.parameters["bits"], faiss.METRIC_INNER_PRODUCT
    )
    _hand_over(means, inner)
    _set_clustering(inner.cp, plan.seed)
    inner.pq.cp.seed = plan.seed + 1
    inner.pq.cp.min_points_per_centroid = 1  # as in _set_clustering
    rotation = faiss.OPQMatrix(dimension, parts)
    rotation.niter = _ROTATION_ROUNDS
    rotation.max_train_points = _ROTATION_TRAINING
    rotated = faiss.ProductQuantizer(dimension, parts, plan.parameters["bits"])
    rotated.cp.min_points_per_centroid = 1
    rotation.pq = rotated
    rotation.train(sample)
    rotation.pq = None
    inner.train(rotation.apply(sample))
    index = faiss.IndexPreTransform(rotation, inner)
    _hand_over(rotation, index)
    _hand_over(inner, index)
    return index


def _training_sample(vectors: VectorSource, plan: IndexPlan) -> npt.NDArray[np.float32]:
    nlist = plan.parameters["nlist"]
    wanted = max(_TRAINING_PER_LIST * nlist, _ROTATION_TRAINING)
    rows = min(wanted, max(_TRAINING_BYTES // (4 * vectors.dimension), nlist))
    return vectors.sample(rows, plan.seed)


def _hand_over(part: Any, owner: Any) -> None:
    """Python no longer frees the part; its owner does."""
    part.this.disown()
    owner.own_fields = True


def _graph(vectors: VectorSource, plan: IndexPlan) -> Any:
    links = plan.parameters["m"]
    if plan.storage == "float32":
        index: Any = faiss.IndexHNSWFlat(vectors.dimension, links, faiss.METRIC_INNER_PRODUCT)
    else:
        types: Any = faiss.ScalarQuantizer
        encoding = types.QT_fp16 if plan.storage == "float16" else types.QT_8bit
        index = faiss.IndexHNSWSQ(vectors.dimension, encoding, links, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors.sample(_ROTATION_TRAINING, plan.seed))
    index.hnsw.efConstruction = plan.parameters["ef_construction"]
    return index


def _set_clustering(clustering: Any, seed: int) -> None:
    clustering.seed = seed + 1
    clustering.niter = _KMEANS_ROUNDS
    clustering.min_points_per_centroid = 1  # else faiss prints a warning about small datastores
    clustering.max_points_per_centroid = 2**31 - 1  # the sample is bounded already


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


def _unshrink(index: Any, sample: npt.NDArray[np.float32]) -> None:
    """Makes the scores of an IVF-PQ index right on average, once everything is encoded.

    A code is the mean of the vectors it stands for, and shorter than they are: the score of a vector that
    points the query's way would be too low, the more so the less of it its list's centroid explains. So the
    parts that codes stand for are made longer (the unbiased estimator of Gao and Long 2024, section 3.2, with
    one factor for all vectors).
    """
    inner = inverted_index(index)
    rotated = faiss.downcast_VectorTransform(index.chain.at(0)).apply(sample)
    quantizer = faiss.downcast_index(inner.quantizer)
    residuals = rotated - quantizer.reconstruct_batch(quantizer.search(rotated, 1)[1][:, 0])
    decoded = inner.pq.decode(inner.pq.compute_codes(np.ascontiguousarray(residuals)))
    kept = float((residuals * decoded).sum()) / max(float((residuals * residuals).sum()), 1e-12)
    if kept > 0:  # 0 if the centroids are the vectors themselves
        faiss.copy_array_to_vector(
            faiss.vector_to_array(inner.pq.centroids) / np.float32(kept), inner.pq.centroids
        )


def _search_by_inner_product(inner: Any) -> None:
    """Once everything is in its list, the means are compared with queries as entries are."""
    means: Any = faiss.downcast_index(inner.quantizer)
    centroids = faiss.IndexFlatIP(means.d)
    centroids.add(means.reconstruct_n(0, means.ntotal))
    inner.quantizer = centroids
    _hand_over(centroids, inner)
    means.this.own(True)  # nobody else frees them now


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
