"""Vectors in, index.faiss out (and vectors.bin, for a kind whose candidates are scored again).

Training takes a bounded sample and adding one block at a time, so what a build holds is the index itself: for
IVF-PQ an eighth of a byte or so per dimension and entry; of an exact index, nothing. The blocks of lists are
made by an engine's workers, on one machine or many (list_blocks.py). The same vectors and plan give the same
bytes, whoever makes them.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from datastore_build.engines.engine import Engine, LocalEngine
from datastore_build.indexes.faiss_threads import faiss_threads
from datastore_build.indexes.flat import write_flat_index
from datastore_build.indexes.graph import link_graph
from datastore_build.indexes.list_blocks import ListBlocks
from datastore_build.indexes.list_merging import fill_lists
from datastore_build.indexes.list_training import empty_index, train_lists
from datastore_build.indexes.plan import IndexPlan
from datastore_build.indexes.truth import NEIGHBOURS, Truth, merge_nearest
from datastore_build.indexes.tuning import held_out_queries, tune
from datastore_build.noted_files import NotedFiles
from datastore_build.vectors import VectorSource
from retrieval.index import VectorIndex
from retrieval.manifest import INDEX, VECTORS, IndexSettings
from retrieval.stored_vectors import StoredVectors

_BLOCK_BYTES = 2**26  # of vectors put into lists at once

Queries = npt.NDArray[np.float32]
OnStage = Callable[[str, float | None], None]  # the stage, and the fraction of it done, None if unknown


def build_index(
    vectors: VectorSource,
    plan: IndexPlan,
    folder: Path,
    *,
    queries: Queries | None = None,
    engine: Engine | None = None,
    work: Path | None = None,
    on_stage: OnStage | None = None,
) -> IndexSettings:
    """Builds the planned index of `vectors` in `folder`, brought to the disk, and tunes its search.

    queries: (Q, E) float32, L2-normalised, like those that will be asked; half of them tune, half measure.
    Without them, entries with noise added are. engine: what puts rows into lists, by default this process.
    work: a folder in which what is made on the way is kept, and taken up again if it is there already; it
    must be of the same vectors and plan. Without it nothing is kept. Raises OSError: a folder cannot be
    written; and what the engine raises.
    """
    report = on_stage or _quiet
    build = _Build(vectors, plan, folder, engine or LocalEngine(), report)
    if plan.kind == "flat":
        write_flat_index(vectors, folder / INDEX, build.rows_of("indexing"))
        return _settings(plan)
    if plan.kind == "hnsw":
        return _build_graph(build, queries)
    with _kept(work, folder) as kept:
        return _build_lists(build, kept.resolve(), queries)


@dataclass(frozen=True)
class _Build:
    vectors: VectorSource
    plan: IndexPlan
    folder: Path
    engine: Engine
    report: OnStage

    def rows_of(self, stage: str) -> Callable[[int], None]:
        return lambda done: self.report(stage, done / max(self.vectors.count, 1))


def _build_graph(build: _Build, queries: Queries | None) -> IndexSettings:
    vectors, plan = build.vectors, build.plan
    # Threads link a graph in the order they come to it; with one, the same vectors give the same graph.
    with faiss_threads(1):
        index = link_graph(vectors, plan, build.rows_of("linking"))
    _write(index, build.folder / INDEX)
    if not vectors.count:
        return _settings(plan)
    build.report("tuning", None)
    asked = held_out_queries(vectors, plan.seed) if queries is None else queries
    with faiss_threads(1):
        truth = Truth.scan(vectors, asked)
    return _tuned(build, plan, index, truth, asked)


def _build_lists(build: _Build, kept: Path, queries: Queries | None) -> IndexSettings:
    vectors, plan = build.vectors, build.plan
    asked = held_out_queries(vectors, plan.seed) if queries is None else queries
    index, blocks = _filled(build, plan, kept, asked)
    truth = Truth(
        reduce(lambda *parts: merge_nearest(parts), blocks.nearest()), min(NEIGHBOURS, vectors.count)
    )
    _write_records(blocks, build.folder / VECTORS)
    settings = _tuned(build, plan, index, truth, asked)
    nlist = plan.parameters["nlist"]
    all_lists = settings.search.probe_margin is None and settings.search.nprobe == nlist
    if plan.kind == "ivf-flat" or not all_lists or nlist == 1:
        return settings
    # The vectors have no clusters that lists could keep apart. One long list is scanned faster than many.
    del index
    reason = f"{plan.reason}; one list, because most of {nlist:,} had to be searched"
    single = replace(plan, parameters=plan.parameters | {"nlist": 1}, reason=reason)
    index, _ = _filled(build, single, kept, None)
    return _tuned(build, single, index, truth, asked)


def _filled(build: _Build, plan: IndexPlan, kept: Path, queries: Queries | None) -> tuple[Any, ListBlocks]:
    """The index, also on the disk, and the blocks that it is of.

    queries: to be compared with all vectors; without them the vectors are not rounded either, for both was
    done before.
    """
    vectors = build.vectors
    files = NotedFiles(kept / f"lists-{plan.parameters['nlist']}")
    build.report("training", None)
    code_size = train_lists(vectors, plan, files)
    storage = plan.storage if plan.kind == "ivf-pq" and queries is not None else None
    blocks = ListBlocks(
        vectors=vectors,
        files=files,
        block_rows=max(1, _BLOCK_BYTES // (4 * vectors.dimension)),
        code_size=code_size,
        storage=None if storage == "float32" else storage,
        queries=queries,
    )
    blocks.make_all(build.engine, build.rows_of("adding"))
    index = empty_index(files)
    fill_lists(index, blocks, build.rows_of("writing"))
    _write(index, build.folder / INDEX)
    return index, blocks


def _tuned(build: _Build, plan: IndexPlan, index: Any, truth: Truth, queries: Queries) -> IndexSettings:
    build.report("tuning", None)
    vectors, stored = build.vectors, None
    if plan.kind == "ivf-pq" and plan.storage in ("float16", "int8"):
        stored = StoredVectors.open(
            build.folder / VECTORS, plan.storage, dimension=vectors.dimension, entries=vectors.count
        )
    with faiss_threads(1):
        return tune(
            lambda chosen: VectorIndex(index, chosen, stored), _settings(plan), vectors, queries, truth
        )


def _settings(plan: IndexPlan) -> IndexSettings:
    return IndexSettings(
        kind=plan.kind,
        parameters=plan.parameters,
        storage=plan.storage,
        asked=plan.asked,
        reason=plan.reason,
    )


def _write_records(blocks: ListBlocks, path: Path) -> None:
    """vectors.bin, if there is to be one."""
    if blocks.storage is None:
        return
    with path.open("wb") as file:
        for number in blocks.numbers:
            file.write(blocks.read(number, "records").data)
        file.flush()
        os.fsync(file.fileno())


def _write(index: Any, path: Path) -> None:
    # Through a Python file: faiss's own writer loses the error when the disk is full at the last bytes.
    with path.open("wb") as file:
        # faiss's stubs leave this class out.
        writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
        faiss.write_index(index, writer)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _kept(work: Path | None, folder: Path) -> Iterator[Path]:
    """The folder of what is made on the way."""
    if work is not None:
        yield work
        return
    with tempfile.TemporaryDirectory(dir=folder.resolve().parent, prefix=".blocks-") as temporary:
        yield Path(temporary)


def _quiet(stage: str, fraction: float | None) -> None:
    pass
