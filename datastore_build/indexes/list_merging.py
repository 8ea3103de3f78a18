"""Blocks of rows into the lists of an index: as if the rows had been added one after the other.

The index that comes out has the same bytes as one that faiss itself added the rows to, whoever made the
blocks and in whatever order. Memory holds that index and a few of its lists once more.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from datastore_build.indexes.list_blocks import ListBlocks
from retrieval.index_check import inverted_index

_GROUP_BYTES = 2**26  # of codes that are sorted at once, at least
_MOST_GROUPS = 32  # how often each block is read from

OnRows = Callable[[int], None]


def fill_lists(index: Any, blocks: ListBlocks, on_rows: OnRows) -> None:
    """Adds the rows of all blocks to an empty index. on_rows is told how many are added. Raises OSError."""
    if blocks.code_size:
        _fill_compressed(index, blocks, on_rows)
    else:
        _fill_whole(index, blocks, on_rows)


def _fill_whole(index: Any, blocks: ListBlocks, on_rows: OnRows) -> None:
    """Of an IVF-Flat index: the vectors themselves, in order."""
    for number in blocks.numbers:
        rows = blocks.rows(number)
        vectors = blocks.vectors.read(rows.start, rows.stop)
        entries = np.arange(rows.start, rows.stop, dtype=np.int64)
        lists = blocks.read(number, "lists").astype(np.int64)
        pointers = [faiss.swig_ptr(array) for array in (vectors, entries, lists)]
        index.add_core(len(rows), *pointers, None)
        on_rows(rows.stop)


def _fill_compressed(index: Any, blocks: ListBlocks, on_rows: OnRows) -> None:
    """Of an IVF-PQ index: its codes, a group of lists after the other.

    faiss would pack codes that come later behind those of a list only with its own encoding of the vectors,
    so a list is filled at once.
    """
    inner = inverted_index(index)
    lists: Any = faiss.downcast_InvertedLists(inner.invlists)
    sizes = np.zeros(inner.nlist, np.int64)
    for number in blocks.numbers:
        sizes += np.bincount(blocks.read(number, "lists"), minlength=inner.nlist)
    done = 0
    for first, stop in _groups(sizes, blocks.code_size):
        entries, codes = _of_lists(blocks, first, stop)
        starts = np.cumsum([0, *sizes[first:stop]])
        for number, (start, end) in enumerate(pairwise(starts.tolist()), first):
            if start < end:
                packed = _packed(lists.packer, codes[start:end])
                lists.add_entries(
                    number, end - start, faiss.swig_ptr(entries[start:end]), faiss.swig_ptr(packed)
                )
        done += len(entries)
        on_rows(done)
    inner.ntotal = index.ntotal = done


def _groups(sizes: npt.NDArray[np.int64], code_size: int) -> Iterator[tuple[int, int]]:
    """Lists that follow each other and together have about as many rows as are sorted at once."""
    most = max(_GROUP_BYTES // code_size, int(sizes.sum()) // _MOST_GROUPS)
    first = rows = 0
    for number, size in enumerate(sizes.tolist()):
        if rows and rows + size > most:
            yield first, number
            first, rows = number, 0
        rows += size
    yield first, len(sizes)


def _of_lists(
    blocks: ListBlocks, first: int, stop: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """The entries (n,) of some lists and their codes (n, bytes), by list and then by entry."""
    lists, entries, codes = [], [], []
    for number in blocks.numbers:
        start, end = blocks.places_of_lists(number, first, stop)
        lists.append(blocks.read(number, "lists", start, end))
        entries.append(blocks.read(number, "places", start, end).astype(np.int64) + blocks.rows(number).start)
        codes.append(blocks.read(number, "codes", start, end))
    order = np.argsort(np.concatenate(lists), kind="stable")
    return np.concatenate(entries)[order], np.concatenate(codes)[order]


def _packed(packer: Any, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Codes (n, bytes) as faiss scans them: a block of so many together, the last one filled up."""
    number = -(-len(codes) // packer.nvec)
    filled = np.zeros((number, packer.nvec, packer.code_size), np.uint8)
    filled.reshape(-1, packer.code_size)[: len(codes)] = codes
    packed = np.zeros((number, packer.block_size), np.uint8)
    for block, place in zip(filled, packed, strict=True):
        packer.pack_all(faiss.swig_ptr(block), faiss.swig_ptr(place))
    return packed.reshape(-1)
