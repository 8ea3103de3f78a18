"""Rows into lists and codes, a block at a time: the part of an IVF index's making that workers share.

A block depends on its rows and on the trained index alone, and not on the number of threads, so blocks can be
made in any order, again, and anywhere. While a worker has the vectors of a block at hand, it also rounds them
for vectors.bin and compares them with the queries that the search will be tuned on, so that they are read
once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from datastore_build.engines.engine import Engine, OnStep
from datastore_build.indexes.faiss_threads import in_single_threads
from datastore_build.indexes.list_training import trained_index
from datastore_build.indexes.truth import KEPT, Nearest, merge_nearest, nearest
from datastore_build.noted_files import NotedFiles
from datastore_build.vectors import VectorSource
from retrieval.index_check import inverted_index
from retrieval.stored_vectors import StoredKind, encode, record_type

Vectors = npt.NDArray[np.float32]

_PART_ROWS = 4096  # of a block, that one thread works on at once

# Of each row, sorted by list and then by row: its list, its place in the block, its code. IVF-Flat has no
# codes, and its rows are in order. Then: for vectors.bin, and for the truth.
Field = Literal["lists", "places", "codes", "records", "scores", "entries"]


@dataclass(frozen=True)
class MadeBlock:
    """What a worker tells of a block that is on the disk."""

    number: int
    sha256: str
    rows: int


@dataclass(frozen=True)
class ListBlocks:
    """The blocks of an index, and all that a worker needs to make them. It can be sent to another machine
    that sees the same files."""

    vectors: VectorSource
    files: NotedFiles  # among which is the trained index
    block_rows: int
    code_size: int  # bytes; 0: of an IVF-Flat index, whose codes are the vectors
    storage: StoredKind | None  # of the records for vectors.bin, if any
    queries: Vectors | None  # (Q, E), if their nearest entries are wanted

    @property
    def numbers(self) -> range:
        """Of all blocks that there are to be."""
        return range(-(-self.vectors.count // self.block_rows))

    def rows(self, number: int) -> range:
        """The entries of a block."""
        start = number * self.block_rows
        return range(start, min(start + self.block_rows, self.vectors.count))

    def make_all(self, engine: Engine, on_rows: Callable[[int], None]) -> None:
        """Makes the blocks that are missing. on_rows is told how many rows are in blocks by now.

        Raises OSError, and what the engine and its workers raise.
        """
        whole = self.files.whole()
        missing = [number for number in self.numbers if self._name(number) not in whole]
        done = self.vectors.count - sum(len(self.rows(number)) for number in missing)
        on_rows(done)
        for made in engine.run(
            self.open_worker, missing, folder=self.files.folder, on_step=_no_step, task_name="block"
        ):
            self.files.note(self._name(made.number), made.sha256)
            done += made.rows
            on_rows(done)

    def open_worker(self) -> Callable[[int, OnStep], MadeBlock]:
        index = trained_index(self.files)

        def make(number: int, on_step: OnStep) -> MadeBlock:
            return self._make(index, number)

        return make

    def read(self, number: int, field: Field, first: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """The rows of a field of a block, all or some. Raises OSError."""
        offset = 0
        for name, dtype, shape in self._fields(len(self.rows(number))):
            if name == field:
                width = prod(shape[1:])
                stop = shape[0] if stop is None else stop
                values = np.fromfile(
                    self.files.path(self._name(number)),
                    dtype,
                    (stop - first) * width,
                    offset=offset + first * width * dtype.itemsize,
                )
                return values.reshape(stop - first, *shape[1:])
            offset += prod(shape) * dtype.itemsize
        raise KeyError(field)

    def places_of_lists(self, number: int, first: int, stop: int) -> tuple[int, int]:
        """Where the rows of some lists begin and end in a block that is sorted by list."""
        # Mapped: what is looked up by halving touches few pages.
        lists = np.memmap(self.files.path(self._name(number)), "<i4", "r", shape=(len(self.rows(number)),))
        start, end = np.searchsorted(lists, np.array([first, stop], "<i4")).tolist()
        return start, end

    def nearest(self) -> Iterator[Nearest]:
        """What `queries` are nearest to, in each block."""
        for number in self.numbers:
            yield self.read(number, "scores"), self.read(number, "entries")

    def _fields(self, rows: int) -> Iterator[tuple[Field, np.dtype[Any], tuple[int, ...]]]:
        """Those of a block, in the order of its file."""
        yield "lists", np.dtype("<i4"), (rows,)
        if self.code_size:
            yield "places", np.dtype("<i4"), (rows,)
            yield "codes", np.dtype("u1"), (rows, self.code_size)
        if self.storage is not None:
            yield "records", record_type(self.storage, self.vectors.dimension), (rows,)
        if self.queries is not None:
            shape = (len(self.queries), min(KEPT, rows))
            yield "scores", np.dtype("<f4"), shape
            yield "entries", np.dtype("<i8"), shape

    def _name(self, number: int) -> str:
        rows = self.rows(number)
        return f"rows-{rows.start}-{rows.stop}.bin"

    def _make(self, index: Any, number: int) -> MadeBlock:
        """Raises OSError."""
        rows = self.rows(number)
        vectors = self.vectors.read(rows.start, rows.stop)
        made: dict[Field, npt.NDArray[Any]] = {}
        parts = [vectors[start : start + _PART_ROWS] for start in range(0, len(vectors), _PART_ROWS)]
        if self.code_size:
            listed = in_single_threads(lambda part: encoded(index, part), parts)
            lists, codes = (np.concatenate(column) for column in zip(*listed, strict=True))
            places = np.argsort(lists, kind="stable")
            made |= {"lists": lists[places], "places": places, "codes": codes[places]}
        else:
            found = in_single_threads(lambda part: index.quantizer.search(part, 1)[1][:, 0], parts)
            made["lists"] = np.concatenate(found)
        if self.storage is not None:
            made["records"] = encode(vectors, self.storage)
        if self.queries is not None:
            made["scores"], made["entries"] = self._compared(self.queries, vectors, rows.start)
        contents = [
            np.ascontiguousarray(made[name], dtype).reshape(shape).view("u1").data
            for name, dtype, shape in self._fields(len(rows))
        ]
        return MadeBlock(number, self.files.store(self._name(number), contents), len(rows))

    def _compared(self, queries: Vectors, vectors: Vectors, first: int) -> Nearest:
        starts = range(0, len(vectors), _PART_ROWS)
        return merge_nearest(
            in_single_threads(
                lambda start: nearest(queries, vectors[start : start + _PART_ROWS], first + start), starts
            )
        )


def encoded(index: Any, vectors: Vectors) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Which list of an IVF-PQ index each vector belongs to (n,), and its code (n, bytes)."""
    listed = index.sa_encode(vectors)
    of_list = inverted_index(index).coarse_code_size()  # bytes, the least significant first
    lists = np.zeros(len(vectors), np.int64)
    for place in range(of_list):
        lists |= listed[:, place].astype(np.int64) << (8 * place)
    return lists, listed[:, of_list:]


def _no_step(done: int, of: int) -> None:
    pass
