"""The exact index of a version, written to its file block by block: no more than one block is in memory."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from datastore_build.vectors import VectorSource, blocks

_BLOCK_BYTES = 2**22  # of vectors


def write_flat_index(
    vectors: VectorSource, path: Path, on_rows: Callable[[int], None] = lambda done: None
) -> None:
    """Byte for byte what faiss writes of an IndexFlatIP, brought to the disk. Raises OSError.

    on_rows is told how many vectors are written.
    """
    written = 0
    with path.open("wb") as file:
        file.write(_header(vectors.count, vectors.dimension))
        for block in blocks(vectors, max(_BLOCK_BYTES // (4 * vectors.dimension), 1)):
            file.write(np.ascontiguousarray(block, "<f4").data)
            written += len(block)
            on_rows(written)
        file.flush()
        os.fsync(file.fileno())
    if written != vectors.count:
        raise ValueError(f"{vectors.count} vectors were announced, {written} came")


def _header(count: int, dimension: int) -> bytes:
    """What stands in the file before the vectors.

    An empty index's file, in which two numbers are set: how many vectors there are (an int64 behind the four
    letters of the kind and the dimension), and how many float32 values follow (the last eight bytes).
    """
    # faiss's stubs leave this class out.
    writer: Any = faiss.VectorIOWriter()
    faiss.write_index(faiss.IndexFlatIP(dimension), writer)
    empty: bytes = faiss.vector_to_array(writer.data).tobytes()
    values = count * dimension
    return b"".join([empty[:8], count.to_bytes(8, "little"), empty[16:-8], values.to_bytes(8, "little")])
