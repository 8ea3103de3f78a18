"""Reading index.faiss safely: only the classes that our own build writes, by their names in the file.

faiss knows dozens of classes, nested in each other; some of them read further files or allocate what a header
says. So the file's names are walked through before faiss parses it, and what came out is checked after.
The module knows nothing of searching.
"""

import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np

from retrieval.errors import DatastoreError
from retrieval.manifest import IndexKind

_LOOP_LIMIT = 2**24  # the lists of an IVF index are read in a loop

# faiss keeps its limits in globals.
_read_lock = threading.Lock()


def read_index_file(path: Path, kind: IndexKind, *, dimension: int, entries: int) -> Any:
    """The faiss index in a file whose SHA-256 was verified.

    Raises DatastoreError: another type of index, damaged, or another size than the manifest says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        _Skeleton(file, size, path).walk(kind)
    with _read_lock:
        # No vector in the file can be longer than the file.
        faiss.set_deserialization_vector_byte_limit(size)
        faiss.set_deserialization_loop_limit(_LOOP_LIMIT)
        try:
            index: Any = faiss.read_index(str(path))
        except RuntimeError:
            raise DatastoreError(f"{path} is damaged: faiss cannot read it. Build it again") from None
    if not _is_of(kind, index) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise DatastoreError(
            f"{path} holds an index of another type than its first bytes say: build it again"
        )
    if (index.d, index.ntotal) != (dimension, entries):
        raise DatastoreError(
            f"{path} holds {index.ntotal:,} vectors of {index.d} dimensions, but its manifest says "
            f"{entries:,} of {dimension}: build it again"
        )
    if not _holds_entries(kind, index):
        raise DatastoreError(f"{path} is damaged: it names entries that do not exist. Build it again")
    return index


def inverted_index(index: Any) -> Any:
    """The IVF index itself, without the rotation before it."""
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.downcast_index(index.index)
    return index


class _Skeleton:
    """Walks from name to name. Each is the four bytes before what faiss writes of an object."""

    def __init__(self, file: BinaryIO, size: int, path: Path) -> None:
        self._file = file
        self._size = size
        self._path = path

    def walk(self, kind: IndexKind) -> None:
        steps: dict[IndexKind, Callable[[], None]] = {
            "flat": self._flat,
            "hnsw": self._hnsw,
            "ivf-flat": self._ivf_flat,
            "ivf-pq": self._ivf_pq,
        }
        steps[kind]()

    def _flat(self) -> None:
        self._name(b"IxFI")
        self._header()
        self._vector(4)

    def _hnsw(self) -> None:
        name = self._name(b"IHNf", b"IHNs")
        self._header()
        for item_size in (8, 4, 4, 8, 4):  # of levels: odds, counts; of entries: levels, offsets, neighbours
            self._vector(item_size)
        self._skip(5 * 4)
        if name == b"IHNf":
            self._flat()
        else:
            self._name(b"IxSQ")

    def _ivf_flat(self) -> None:
        self._name(b"IwFl")
        self._ivf_header()
        self._name(b"ilar")

    def _ivf_pq(self) -> None:
        self._name(b"IxPT")
        self._header()
        (transforms,) = struct.unpack("<i", self._read(4))
        if transforms != 1:
            raise self._foreign()
        self._name(b"LTra")
        self._skip(1)
        self._vector(4)
        self._vector(4)
        self._skip(4 + 4 + 1)
        self._name(b"IwPf")
        self._ivf_header()
        self._skip(1 + 8 + 4 + 8 + 4 + 8)  # residual, size of a code, blocks, padding, two ways to search
        self._skip(3 * 8)  # of the product quantizer: dimension, parts, bits
        self._vector(4)
        self._name(b"ilbl")

    def _ivf_header(self) -> None:
        self._header()
        self._skip(2 * 8)  # nlist, nprobe
        self._flat()
        self._skip(1)
        self._vector(8)

    def _header(self) -> None:
        """Dimension, count, two unused, trained; the metric must be the inner product."""
        self._skip(4 + 8 + 16 + 1)
        (metric,) = struct.unpack("<i", self._read(4))
        if metric != faiss.METRIC_INNER_PRODUCT:
            raise self._foreign()

    def _vector(self, item_size: int) -> None:
        (count,) = struct.unpack("<Q", self._read(8))
        self._skip(count * item_size)

    def _name(self, *allowed: bytes) -> bytes:
        name = self._read(4)
        if name not in allowed:
            raise self._foreign()
        return name

    def _skip(self, size: int) -> None:
        # Checked here, because a file may be sought beyond its end.
        if self._file.tell() + size > self._size:
            raise self._damaged()
        self._file.seek(size, 1)

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise self._foreign() if self._file.tell() < 4 else self._damaged()
        return data

    def _foreign(self) -> DatastoreError:
        return DatastoreError(
            f"{self._path} holds an index of a type that Paellera does not read: build it again"
        )

    def _damaged(self) -> DatastoreError:
        return DatastoreError(f"{self._path} is damaged: it is cut short. Build it again")


def _is_of(kind: IndexKind, index: Any) -> bool:
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
        inner = inverted_index(index)
    expected = faiss.IndexIVFPQFastScan if kind == "ivf-pq" else faiss.IndexIVFFlat
    return (
        type(inner) is expected
        and type(faiss.downcast_index(inner.quantizer)) is faiss.IndexFlatIP
        and (inner.ntotal, inner.quantizer.ntotal) == (index.ntotal, inner.nlist)
    )


def _holds_entries(kind: IndexKind, index: Any) -> bool:
    """Is every number by which the index names an entry the number of one?"""
    if kind == "flat":
        return True
    if kind == "hnsw":
        if index.storage.ntotal != index.ntotal:
            return False
        links = index.hnsw.neighbors
        neighbours = faiss.rev_swig_ptr(links.data(), links.size()) if links.size() else np.empty(0, np.int32)
        return bool(((neighbours >= -1) & (neighbours < max(index.ntotal, 1))).all())
    lists = inverted_index(index).invlists
    total = 0
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            if ids.min() < 0 or ids.max() >= index.ntotal:
                return False
        total += size
    return bool(total == index.ntotal)
