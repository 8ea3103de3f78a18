"""Making an HNSW index: every vector is linked to those near it (Malkov and Yashunin 2016), one after the
other, so the work is not shared."""

from collections.abc import Callable
from typing import Any

import faiss

from datastore_build.indexes.compressed import ROTATION_TRAINING
from datastore_build.indexes.plan import IndexPlan
from datastore_build.vectors import VectorSource, blocks

_BLOCK_BYTES = 2**26  # of vectors added at once


def link_graph(vectors: VectorSource, plan: IndexPlan, on_rows: Callable[[int], None]) -> Any:
    """The graph of all vectors, in memory. on_rows is told how many are linked."""
    links = plan.parameters["m"]
    if plan.storage == "float32":
        index: Any = faiss.IndexHNSWFlat(vectors.dimension, links, faiss.METRIC_INNER_PRODUCT)
    else:
        types: Any = faiss.ScalarQuantizer
        encoding = types.QT_fp16 if plan.storage == "float16" else types.QT_8bit
        index = faiss.IndexHNSWSQ(vectors.dimension, encoding, links, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors.sample(ROTATION_TRAINING, plan.seed))
    index.hnsw.efConstruction = plan.parameters["ef_construction"]
    for block in blocks(vectors, max(1, _BLOCK_BYTES // (4 * vectors.dimension))):
        index.add(block)
        on_rows(index.ntotal)
    return index
