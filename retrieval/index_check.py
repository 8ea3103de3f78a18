"""Is an index that faiss has read one of ours, and whole? Else a search could read beyond its memory.

faiss itself checks some of this, more from release to release; nothing here relies on that.
"""

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.manifest import IndexKind

_MOST = 1e4  # of centroids, rotations and parts of codes, which are all about 1 or less


def inverted_index(index: Any) -> Any:
    """The IVF index itself, without the rotation before it."""
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.downcast_index(index.index)
    return index


def is_of(kind: IndexKind, index: Any) -> bool:
    """Is this the class, and are those inside it the classes, that our build makes for the kind?"""
    if kind == "flat":
        return type(index) is faiss.IndexFlatIP
    if kind == "hnsw":
        storages = {faiss.IndexHNSWFlat: faiss.IndexFlatIP, faiss.IndexHNSWSQ: faiss.IndexScalarQuantizer}
        storage = storages.get(type(index))
        return storage is not None and type(faiss.downcast_index(index.storage)) is storage
    inner = index
    if kind == "ivf-pq":
        if type(index) is not faiss.IndexPreTransform:
            return False
        chain: Any = index.chain  # whose stubs call it a list
        if chain.size() != 1:
            return False
        if not isinstance(faiss.downcast_VectorTransform(chain.at(0)), faiss.LinearTransform):
            return False
        inner = inverted_index(index)
    expected = faiss.IndexIVFPQFastScan if kind == "ivf-pq" else faiss.IndexIVFFlat
    return type(inner) is expected and type(faiss.downcast_index(inner.quantizer)) is faiss.IndexFlatIP


def is_whole(kind: IndexKind, index: Any) -> bool:
    """Do the sizes in an index that `is_of` the kind fit each other, and are its numbers those of entries?"""
    if not index.is_trained:
        return False
    if kind == "flat":
        return _is_whole_storage(index)
    if kind == "hnsw":
        storage = faiss.downcast_index(index.storage)
        return (
            (storage.d, storage.ntotal) == (index.d, index.ntotal)
            and _is_whole_storage(storage)
            and _is_whole_graph(index.hnsw, index.ntotal)
        )
    inner = inverted_index(index)
    if kind == "ivf-pq" and not (
        _keeps_dimension(faiss.downcast_VectorTransform(index.chain.at(0)), index.d)
        and (inner.pq.d, inner.pq.M * inner.pq.dsub) == (index.d, index.d)
        and inner.pq.centroids.size() == inner.pq.ksub * index.d
        and _are_sound(faiss.vector_to_array(inner.pq.centroids))
    ):
        return False
    return _are_whole_lists(inner, index.d, index.ntotal)


def _is_whole_storage(storage: Any) -> bool:
    """Of vectors in float32, float16 or int8."""
    size = 4 * storage.d
    if isinstance(storage, faiss.IndexScalarQuantizer):
        types: Any = faiss.ScalarQuantizer
        sizes = {types.QT_8bit: (storage.d, 2 * storage.d), types.QT_fp16: (2 * storage.d, 0)}
        if storage.sq.qtype not in sizes:
            return False
        size, trained = sizes[storage.sq.qtype]
        if (storage.sq.d, storage.sq.code_size, storage.sq.trained.size()) != (storage.d, size, trained):
            return False
    return bool(storage.code_size == size and storage.codes.size() == storage.ntotal * size)


def _is_whole_graph(graph: Any, entries: int) -> bool:
    """The links of an entry lie between two offsets, those of the bottom layer first (faiss's HNSW.h)."""
    levels = faiss.vector_to_array(graph.levels)  # how many layers each entry is in
    offsets = faiss.vector_to_array(graph.offsets).astype(np.int64)
    ends = faiss.vector_to_array(graph.cum_nneighbor_per_level).astype(np.int64)
    links: npt.NDArray[np.int32] = np.empty(0, np.int32)
    if graph.neighbors.size():
        links = faiss.rev_swig_ptr(graph.neighbors.data(), graph.neighbors.size())
    if (len(levels), len(offsets)) != (entries, entries + 1) or offsets[0] != 0:
        return False
    if not entries:
        return not len(links) and graph.entry_point == -1
    if levels.min() < 1 or levels.max() >= len(ends) or ends[0] != 0 or (np.diff(ends) < 0).any():
        return False
    if (np.diff(offsets) != ends[levels]).any() or offsets[-1] != len(links):
        return False
    if links.size and not (links.min() >= -1 and links.max() < entries):
        return False
    if not 0 <= graph.entry_point < entries or not 0 <= graph.max_level < levels[graph.entry_point]:
        return False
    for layer in range(1, int(levels.max())):
        # An entry that a layer links to is in that layer itself.
        places = offsets[np.flatnonzero(levels > layer), None] + np.arange(ends[layer], ends[layer + 1])
        linked = links[places]
        if (levels[linked[linked >= 0]] <= layer).any():
            return False
    return True


def _keeps_dimension(transform: Any, dimension: int) -> bool:
    return (
        (transform.d_in, transform.d_out) == (dimension, dimension)
        and transform.A.size() == dimension**2
        and _are_sound(faiss.vector_to_array(transform.A))
        and not transform.have_bias
        and bool(transform.is_trained)
    )


def _are_sound(numbers: npt.NDArray[np.float32]) -> bool:
    """Of what unit vectors are compared with: else sums overflow, and what is no number is never found."""
    with np.errstate(invalid="ignore"):
        return bool((np.abs(numbers) < _MOST).all())


def _are_whole_lists(inverted: Any, dimension: int, entries: int) -> bool:
    quantizer, lists = faiss.downcast_index(inverted.quantizer), inverted.invlists
    if (inverted.d, quantizer.d, inverted.ntotal) != (dimension, dimension, entries):
        return False
    if (quantizer.ntotal, lists.nlist) != (inverted.nlist, inverted.nlist) or not inverted.is_trained:
        return False
    if not _is_whole_storage(quantizer) or quantizer.metric_type != faiss.METRIC_INNER_PRODUCT:
        return False
    if not _are_sound(quantizer.reconstruct_n(0, quantizer.ntotal)):
        return False
    if isinstance(inverted, faiss.IndexIVFFlat) and not (
        inverted.code_size == lists.code_size == 4 * dimension
    ):
        return False
    found = np.zeros(entries, np.bool_)  # every entry is in one list
    total = 0
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            if ids.min() < 0 or ids.max() >= entries:
                return False
            found[ids] = True
        total += size
    return bool(total == entries and found.all())
