"""The index that Paellera chooses, against exact search and the index that autofaiss would choose.

    python -m benchmarks.datastore --output benchmarks/datastore.md
    python -m benchmarks.datastore --count 50000

By default 566,747 vectors of 1024 dimensions (the captions of COCO in CLIP's largest space), random on the
sphere and clustered. autofaiss takes HNSW32,Flat there, by its own chooser; it is built with the same faiss
and tuned to the same recall by the same tuner. Each index is searched by a fresh process on one core.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.datastore_probe import Probe
from benchmarks.datastore_report import NAMES, K, Result, introduction, table
from benchmarks.datastore_vectors import FileVectors, Shape, near_queries, write_vectors
from datastore_build.index_plan import IndexPlan, choose_index, parse_bytes
from datastore_build.index_report import describe_index
from datastore_build.index_truth import Truth
from datastore_build.indexing import build_index
from retrieval.files import replacing
from retrieval.manifest import IndexRequest, IndexSettings

_SHAPES: tuple[Shape, ...] = ("random", "clustered")
_INDEXES = tuple(NAMES)
_NAMES = {
    "exact": "exact search",
    "autofaiss": "autofaiss's choice: HNSW32,Flat",
    "paellera": "Paellera, auto",
}


def main() -> None:
    options = _options()
    sections = [introduction(sys.argv[1:], options.count, options.dimension, options.queries, options.rounds)]
    with _scratch(options.scratch) as scratch:
        for shape in options.shapes:
            folder = scratch / f"{shape}-{options.count}x{options.dimension}-{options.seed}"
            folder.mkdir(exist_ok=True)
            sections.append(table(shape, compare(shape, folder, options)))
    report = "\n".join(sections)
    print(report)
    if options.output is not None:
        options.output.write_text(report)


def compare(shape: Shape, folder: Path, options: argparse.Namespace) -> list[Result]:
    """Builds every index over the same vectors, then searches them in turn with the same queries."""
    path = folder / "vectors.f32"
    if not path.exists():
        with replacing(path) as temporary:
            write_vectors(temporary, shape, options.count, options.dimension, options.seed)
    vectors = FileVectors(path, options.dimension)
    queries = near_queries(vectors, options.queries, options.seed + 100)
    np.save(folder / "queries.npy", queries)
    truth = Truth.scan(vectors, queries, K)
    for name in options.indexes:
        if not (folder / f"{name}.json").exists():
            _build(name, vectors, folder, options)
    rounds: dict[str, list[Probe]] = {name: [] for name in options.indexes}
    for number in range(options.rounds):
        for name in options.indexes:
            _log(f"{shape}: searching {name}, round {number + 1}")
            rounds[name].append(_search(name, vectors, folder))
    return [_result(name, folder, probes, truth) for name, probes in rounds.items()]


def _build(name: str, vectors: FileVectors, folder: Path, options: argparse.Namespace) -> None:
    plan = plan_of(name, options)
    _log(f"building {name}: {plan.kind}")
    (folder / name).mkdir(exist_ok=True)
    started = time.process_time()
    settings = build_index(vectors, plan, folder / name)
    seconds = time.process_time() - started  # of all threads: not what else the machine did
    _log(f"{seconds:.0f} CPU seconds; {describe_index(settings)}")
    (folder / f"{name}.seconds").write_text(f"{seconds}")
    with replacing(folder / f"{name}.json") as temporary:
        temporary.write_text(settings.model_dump_json())


def _search(name: str, vectors: FileVectors, folder: Path) -> Probe:
    files = [
        folder / name,
        folder / "queries.npy",
        K,
        vectors.count,
        vectors.dimension,
        folder / f"{name}.json",
    ]
    probe = subprocess.run(
        [sys.executable, "-m", "benchmarks.datastore_probe", *map(str, files)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=True,
    )
    measured: Probe = json.loads(probe.stdout)
    return measured


def _result(name: str, folder: Path, probes: Sequence[Probe], truth: Truth) -> Result:
    """Medians of the rounds."""
    found = [np.array(entries) for entries in probes[0]["found"]]
    return Result(
        index=name,
        settings=IndexSettings.model_validate_json((folder / f"{name}.json").read_bytes()),
        recall=sum(min(K, int(truth.hits(row, row_found).sum())) for row, row_found in enumerate(found))
        / (K * len(found)),
        median_ms=statistics.median(probe["median_ms"] for probe in probes),
        p99_ms=statistics.median(probe["p99_ms"] for probe in probes),
        memory=int(statistics.median(probe["memory"] for probe in probes)),
        anonymous=int(statistics.median(probe["anonymous"] for probe in probes)),
        file_bytes=sum(path.stat().st_size for path in (folder / name).iterdir()),
        build_seconds=float((folder / f"{name}.seconds").read_text()),
    )


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """A folder that is named is kept, and what is in it from before is used again."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)


def plan_of(name: str, options: argparse.Namespace) -> IndexPlan:
    if name == "exact":
        return choose_index(options.count, options.dimension, IndexRequest(kind="flat"))
    if name == "paellera":
        request = IndexRequest(
            memory_budget=options.memory_budget, target_ms=options.target_ms, target_recall=0.95
        )
        return choose_index(options.count, options.dimension, request)
    plan = choose_index(options.count, options.dimension, IndexRequest(kind="hnsw"))
    parameters = {"m": 32, "ef_construction": 40}  # faiss's own, which autofaiss leaves as they are
    return IndexPlan("hnsw", NAMES[name], plan.memory, parameters, "float32")


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=566_747)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-budget", type=parse_bytes, default=None)
    parser.add_argument("--target-ms", type=float, default=2.0)
    parser.add_argument("--shapes", nargs="+", choices=_SHAPES, default=_SHAPES)
    parser.add_argument("--indexes", nargs="+", choices=_INDEXES, default=_INDEXES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=None, help="kept, and what it holds is used again")
    parser.add_argument("--output", type=Path, default=None)
    return parser.parse_args()


if __name__ == "__main__":
    main()
