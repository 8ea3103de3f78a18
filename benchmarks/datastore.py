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
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.datastore_report import NAMES, K, Result, introduction, table
from benchmarks.datastore_vectors import FileVectors, Shape, Vectors, near_queries, write_vectors
from datastore_build.index_plan import IndexPlan, IndexRequest, choose_index, parse_bytes
from datastore_build.index_report import describe_index
from datastore_build.index_tuning import Truth
from datastore_build.indexing import build_index

_SHAPES: tuple[Shape, ...] = ("random", "clustered")
_INDEXES = tuple(NAMES)
_NAMES = {
    "exact": "exact search",
    "autofaiss": "autofaiss's choice: HNSW32,Flat",
    "paellera": "Paellera, auto",
}


def main() -> None:
    options = _options()
    sections = [introduction(sys.argv[1:], options.count, options.dimension, options.queries)]
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for shape in options.shapes:
            folder = Path(scratch) / shape
            folder.mkdir()
            results = compare(shape, folder, options)
            sections.append(table(shape, results))
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    path.unlink()
    report = "\n".join(sections)
    print(report)
    if options.output is not None:
        options.output.write_text(report)


def compare(shape: Shape, folder: Path, options: argparse.Namespace) -> list[Result]:
    """Builds and measures every index over the same vectors with the same queries."""
    vectors = write_vectors(folder / "vectors.f32", shape, options.count, options.dimension, options.seed)
    queries = near_queries(vectors, options.queries, options.seed + 100)
    np.save(folder / "queries.npy", queries)
    truth = Truth.scan(vectors, queries, K)
    return [
        measure(name, plan_of(name, options), vectors, queries, truth, folder) for name in options.indexes
    ]


def plan_of(name: str, options: argparse.Namespace) -> IndexPlan:
    if name == "exact":
        return choose_index(options.count, options.dimension, IndexRequest("flat"))
    if name == "paellera":
        request = IndexRequest(
            memory_budget=options.memory_budget, target_ms=options.target_ms, target_recall=0.95
        )
        return choose_index(options.count, options.dimension, request)
    plan = choose_index(options.count, options.dimension, IndexRequest("hnsw"))
    parameters = {"m": 32, "ef_construction": 40}  # faiss's own, which autofaiss leaves as they are
    return IndexPlan("hnsw", NAMES[name], plan.memory, parameters, "float32")


def measure(
    name: str, plan: IndexPlan, vectors: FileVectors, queries: Vectors, truth: Truth, folder: Path
) -> Result:
    _log(f"{name}: building {plan.kind}")
    target = folder / name
    target.mkdir()
    started = time.monotonic()
    settings = build_index(vectors, plan, target)
    seconds = time.monotonic() - started
    _log(f"{name}: {seconds:.0f} s; {describe_index(settings)}")
    settings_file = folder / f"{name}.json"
    settings_file.write_text(settings.model_dump_json())
    arguments = [target, folder / "queries.npy", K, vectors.count, vectors.dimension, settings_file]
    probe = subprocess.run(
        [sys.executable, "-m", "benchmarks.datastore_probe", *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=True,
    )
    document = json.loads(probe.stdout)
    hits = sum(int(truth.hits(row, np.array(found)).sum()) for row, found in enumerate(document["found"]))
    result = Result(
        index=name,
        settings=settings,
        recall=hits / (K * len(queries)),
        median_ms=document["median_ms"],
        p99_ms=document["p99_ms"],
        memory=document["memory"],
        anonymous=document["anonymous"],
        file_bytes=sum(path.stat().st_size for path in target.iterdir()),
        build_seconds=seconds,
    )
    _log(f"{result}")
    for path in target.iterdir():
        path.unlink()
    return result


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
    parser.add_argument("--scratch", type=Path, default=None, help="a folder with room for 6 GB")
    parser.add_argument("--output", type=Path, default=None)
    return parser.parse_args()


if __name__ == "__main__":
    main()
