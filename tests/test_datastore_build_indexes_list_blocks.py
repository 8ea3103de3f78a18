"""Blocks of rows, made in whatever order and merged, against an index that faiss adds all rows to itself."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from clustered_vectors import clustered
from memory_vectors import MemoryVectors

from datastore_build.engines.engine import LocalEngine, OnStep, Result, Task
from datastore_build.indexes.compressed import prepare_search, train_compressed
from datastore_build.indexes.indexing import build_index
from datastore_build.indexes.list_blocks import ListBlocks
from datastore_build.indexes.list_training import train_lists, trained_index
from datastore_build.indexes.plan import IndexPlan, choose_index
from datastore_build.noted_files import NotedFiles
from retrieval.manifest import INDEX, VECTORS, IndexChoice, IndexRequest

COUNT, DIMENSION = 2750, 30
BLOCK = 400  # rows; the last block has fewer, some lists are in no block, others in all
VALUES = clustered(COUNT, DIMENSION, clusters=25)
SOURCE = MemoryVectors(DIMENSION, [VALUES])
KINDS: list[IndexChoice] = ["ivf-flat", "ivf-pq"]

Sample = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datastore_build.indexes.indexing._BLOCK_BYTES", BLOCK * 4 * DIMENSION)
    monkeypatch.setattr("datastore_build.indexes.list_merging._GROUP_BYTES", 200 * 8)


def _plan(kind: IndexChoice, lists: int | None = None) -> IndexPlan:
    plan = choose_index(COUNT, DIMENSION, IndexRequest(kind=kind, memory_budget=2**24))
    return replace(plan, parameters=plan.parameters | {"nlist": lists}) if lists else plan


def _build(folder: Path, kind: IndexChoice, **options: Any) -> dict[str, bytes]:
    folder.mkdir()
    build_index(SOURCE, _plan(kind), folder, **options)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class ThreadedEngine:
    """Three workers at once, the last task first."""

    def run(
        self,
        open_worker: Callable[[], Callable[[Task, OnStep], Result]],
        tasks: Sequence[Task],
        *,
        folder: Path,
        on_step: OnStep,
        task_name: str = "task",
        gpu: bool = False,
    ) -> Iterator[Result]:
        workers = [open_worker() for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            done = [
                pool.submit(workers[number % 3], task, on_step) for number, task in enumerate(reversed(tasks))
            ]
            for future in done:
                yield future.result()


class CountingEngine(LocalEngine):
    """Remembers its tasks; fails after some."""

    def __init__(self, most: int | None = None) -> None:
        self.tasks: list[object] = []
        self.most = most

    def run(self, open_worker: Any, tasks: Sequence[Any], **options: Any) -> Iterator[Any]:
        self.tasks += tasks
        for number, result in enumerate(super().run(open_worker, tasks, **options)):
            if number == self.most:
                raise KeyboardInterrupt
            yield result


@pytest.mark.parametrize("lists", [None, 1, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_the_one_of_an_index_that_faiss_adds_to(
    tmp_path: Path, kind: IndexChoice, lists: int | None
) -> None:
    plan = _plan(kind, lists)
    (tmp_path / "version").mkdir()
    settings = build_index(SOURCE, plan, tmp_path / "version", work=tmp_path / "work")
    assert settings.parameters["nlist"] == plan.parameters["nlist"]
    sample = SOURCE.sample(COUNT, plan.seed)
    if kind == "ivf-pq":
        index = train_compressed(sample, plan)
    else:
        index = trained_index(NotedFiles(tmp_path / "work" / f"lists-{plan.parameters['nlist']}"))
    for start in range(0, COUNT, BLOCK):
        index.add(VALUES[start : start + BLOCK])
    if kind == "ivf-pq":
        prepare_search(index, sample)
    assert (tmp_path / "version" / INDEX).read_bytes() == faiss.serialize_index(index).tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_makes_the_blocks_in_whatever_order_the_bytes_are_the_same(
    tmp_path: Path, kind: IndexChoice
) -> None:
    local = _build(tmp_path / "local", kind)
    assert set(local) == ({INDEX, VECTORS} if kind == "ivf-pq" else {INDEX})
    assert _build(tmp_path / "threaded", kind, engine=ThreadedEngine()) == local
    assert {path.name for path in tmp_path.iterdir()} == {"local", "threaded"}  # nothing is left beside them


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_is_not_made_again_unless_it_is_damaged(tmp_path: Path, kind: IndexChoice) -> None:
    whole = _build(tmp_path / "whole", kind)
    with pytest.raises(KeyboardInterrupt):
        _build(tmp_path / "half", kind, engine=CountingEngine(4), work=tmp_path / "work")
    shutil.rmtree(tmp_path / "half")  # as --resume does
    (trained,) = (tmp_path / "work").glob("*/trained.faiss")
    content, before = (
        bytearray((trained.parent / "rows-400-800.bin").read_bytes()),
        trained.stat().st_mtime_ns,
    )
    content[77] ^= 1
    (trained.parent / "rows-400-800.bin").write_bytes(content)
    engine = CountingEngine()
    assert _build(tmp_path / "half", kind, engine=engine, work=tmp_path / "work") == whole
    assert engine.tasks == [1, 4, 5, 6]  # the fifth was made, but nobody was told
    assert trained.stat().st_mtime_ns == before


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    """In processes of their own: faiss's BLAS stays with one thread where it began with one."""
    dimension = 256
    source = MemoryVectors(dimension, [clustered(1200, dimension)])
    files = NotedFiles(tmp_path / "trained")
    train_lists(source, choose_index(1200, dimension, IndexRequest(kind="ivf-flat")), files)
    queries = source.sample(512, 1)
    made: list[bytes] = []
    for threads in (1, 3):
        shutil.copytree(files.folder, tmp_path / str(threads))
        blocks = ListBlocks(
            vectors=source,
            files=NotedFiles(tmp_path / str(threads)),
            block_rows=1200,
            code_size=0,
            storage=None,
            queries=queries,
        )
        (tmp_path / "job").write_bytes(pickle.dumps(blocks))
        tests = Path(__file__).parent
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": f"{tests}:{tests.parent}",
        }
        command = [sys.executable, "-c", _MAKE, str(tmp_path / "job")]
        subprocess.run(command, check=True, env=environment, timeout=120)
        made.append((tmp_path / str(threads) / "rows-0-1200.bin").read_bytes())
    assert made[0] == made[1]


_MAKE = """
import pathlib, pickle, sys
from datastore_build.engines.engine import LocalEngine
blocks = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
blocks.make_all(LocalEngine(), lambda rows: None)
"""


def test_what_was_made_with_a_training_that_is_lost_is_not_taken_with_another(tmp_path: Path) -> None:
    files = NotedFiles(tmp_path)
    train_lists(SOURCE, _plan("ivf-flat"), files)
    files.note("rows-0.bin", files.store("rows-0.bin", [b"codes"]))
    trained = files.whole() - {"rows-0.bin"}
    train_lists(SOURCE, _plan("ivf-flat"), files)
    assert "rows-0.bin" in files.whole()
    (tmp_path / "trained.faiss").write_bytes(b"damaged")
    train_lists(SOURCE, _plan("ivf-flat"), files)
    assert files.whole() == trained
