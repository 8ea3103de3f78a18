"""The exact index of a version, made from its vectors block by block. It holds them all in memory."""

from pathlib import Path

import faiss

from datastore_build.vectors import VectorSource
from retrieval.manifest import INDEX, IndexSettings

_BLOCK = 8192  # rows


def write_flat_index(vectors: VectorSource, folder: Path) -> IndexSettings:
    """Writes index.faiss. Raises OSError."""
    index = faiss.IndexFlatIP(vectors.dimension)
    for block in vectors.blocks(_BLOCK):
        index.add(block)
    # Through a Python file: faiss's own writer loses the error when the disk is full at the last bytes.
    with (folder / INDEX).open("wb") as file:
        # faiss's stubs leave this class out.
        writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
        faiss.write_index(index, writer)
    return IndexSettings(kind="flat")
