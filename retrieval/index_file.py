"""Reading index.faiss safely: only the classes that our own build writes, by their names in the file.

faiss knows dozens of classes, nested in each other; some of them read further files or allocate what a header
says. So the file is walked through before faiss parses it, from name to name, and what came out is checked
after (index_check.py). The module knows nothing of searching.
"""

import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import faiss

from retrieval.errors import DatastoreError
from retrieval.index_check import is_of, is_whole
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
    index = read_within_limits(path)
    if not is_of(kind, index) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise DatastoreError(
            f"{path} holds an index of another type than its first bytes say: build it again"
        )
    if (index.d, index.ntotal) != (dimension, entries):
        raise DatastoreError(
            f"{path} holds {index.ntotal:,} vectors of {index.d} dimensions, but its manifest says "
            f"{entries:,} of {dimension}: build it again"
        )
    if not is_whole(kind, index):
        raise DatastoreError(f"{path} is damaged: its parts do not fit together. Build it again")
    if kind == "ivf-flat":
        index.make_direct_map()  # which list has the vector of an entry
    return index


def read_within_limits(path: Path, room: int = 1) -> Any:
    """What faiss makes of a file of ours. Of nothing in it more is allocated than `room` times its length.

    Raises OSError, and DatastoreError: it is damaged.
    """
    size = room * path.stat().st_size
    with _read_lock:
        # No vector in the file can be longer than the file.
        faiss.set_deserialization_vector_byte_limit(size)
        faiss.set_deserialization_loop_limit(_LOOP_LIMIT)
        try:
            return faiss.read_index(str(path))
        except RuntimeError:
            raise DatastoreError(f"{path} is damaged: faiss cannot read it. Build it again") from None


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
        nlist = self._ivf_header()
        # Are codes of what a centroid leaves? Their size, codes a block, parts with padding, ways to search.
        residual, size, block, padded, way, other_way = struct.unpack("<?QiQiQ", self._read(33))
        dimension, parts, bits = struct.unpack("<QQQ", self._read(24))
        even = parts + parts % 2
        if (residual, size, block, padded, way, other_way, bits) != (True, even // 2, 32, even, 0, 0, 4):
            raise self._damaged()
        if not 1 <= parts <= dimension or dimension % parts:
            raise self._damaged()
        self._vector(4)
        self._name(b"ilbl")
        sizes = struct.unpack("<QQQQ", self._read(32))  # of lists, a code, a block in codes and in bytes
        if sizes != (nlist, sizes[1], block, 16 * even):
            raise self._damaged()
        for _ in range(nlist):
            entries, length = self._vector(8), self._vector(1)
            if length != -(-entries // block) * 16 * even:
                raise self._damaged()

    def _ivf_header(self) -> int:
        """The number of lists."""
        self._header()
        nlist, _ = struct.unpack("<QQ", self._read(16))  # and nprobe
        if not 1 <= nlist <= _LOOP_LIMIT:
            raise self._damaged()
        self._flat()
        (direct_map,) = self._read(1)
        if direct_map or self._vector(8):
            raise self._damaged()
        return int(nlist)

    def _header(self) -> None:
        """Dimension, count, two unused, trained; the metric must be the inner product."""
        self._skip(4 + 8 + 16 + 1)
        (metric,) = struct.unpack("<i", self._read(4))
        if metric != faiss.METRIC_INNER_PRODUCT:
            raise self._foreign()

    def _vector(self, item_size: int) -> int:
        """How many items it has."""
        (count,) = struct.unpack("<Q", self._read(8))
        self._skip(count * item_size)
        return int(count)

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
