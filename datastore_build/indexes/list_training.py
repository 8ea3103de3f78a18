"""The trained but empty index that rows are put into lists by: made once, kept beside the blocks.

Training takes a bounded sample. The same vectors and plan give the same bytes.
"""

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from datastore_build.indexes.compressed import (
    ROTATION_TRAINING,
    hand_over,
    list_directions,
    prepare_search,
    train_compressed,
)
from datastore_build.indexes.plan import IndexPlan
from datastore_build.noted_files import NotedFiles
from datastore_build.vectors import VectorSource
from retrieval.index_check import inverted_index
from retrieval.index_file import read_within_limits

_TRAINED, _EMPTY = "trained.faiss", "empty.faiss"
_TRAINING_BYTES = 2**28  # of vectors trained on, at most
_TRAINING_PER_LIST = 64


def train_lists(vectors: VectorSource, plan: IndexPlan, files: NotedFiles) -> int:
    """Leaves the trained index of an IVF plan among `files`, unless it is there and whole.

    Returns the size of a code in bytes, 0 for IVF-Flat. Raises OSError.
    """
    if not files.whole() >= {_TRAINED, _EMPTY}:
        files.forget()  # blocks of another training, should there be any
        sample = _training_sample(vectors, plan)
        if plan.kind == "ivf-flat":
            index = _train_whole(sample, plan)
            _keep(files, _TRAINED, index)
        else:
            index = train_compressed(sample, plan)
            _keep(files, _TRAINED, index)
            prepare_search(index, sample)
        _keep(files, _EMPTY, index)
    return 0 if plan.kind == "ivf-flat" else int(inverted_index(empty_index(files)).code_size)


def empty_index(files: NotedFiles) -> Any:
    """The index that codes are filled into, ready to be searched then. Raises OSError, DatastoreError."""
    return _read(files, _EMPTY)


def trained_index(files: NotedFiles) -> Any:
    """The index that puts rows into lists. Raises OSError, DatastoreError."""
    return _read(files, _TRAINED)


def _read(files: NotedFiles, name: str) -> Any:
    # faiss demands room for a table of 16 bytes for each value of a centroid, though it makes none of it.
    return read_within_limits(files.path(name), room=8)


def _keep(files: NotedFiles, name: str, index: Any) -> None:
    files.note(name, files.store(name, [faiss.serialize_index(index).data]))


def _training_sample(vectors: VectorSource, plan: IndexPlan) -> npt.NDArray[np.float32]:
    nlist = plan.parameters["nlist"]
    wanted = max(_TRAINING_PER_LIST * nlist, ROTATION_TRAINING)
    rows = min(wanted, max(_TRAINING_BYTES // (4 * vectors.dimension), nlist))
    return vectors.sample(rows, plan.seed)


def _train_whole(sample: npt.NDArray[np.float32], plan: IndexPlan) -> Any:
    dimension, nlist = sample.shape[1], plan.parameters["nlist"]
    quantizer = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFFlat(quantizer, dimension, nlist, faiss.METRIC_INNER_PRODUCT)
    quantizer.add(list_directions(sample, nlist, plan.seed))
    index.train(sample)
    hand_over(quantizer, index)
    return index
