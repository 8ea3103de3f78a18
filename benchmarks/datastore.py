"""The index that Paellera chooses, against exact search and the index that autofaiss would choose.

    python -m benchmarks.datastore --output datastore.md
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

from benchmarks.datastore_probe import Answers, Probe
from benchmarks.datastore_report import NAMES, K, Outcome, Result, introduction, table
from benchmarks.datastore_vectors import (
    FileVectors,
    Shape,
    independent_queries,
    near_queries,
    write_vectors,
)
from datastore_build.indexes.indexing import build_index
from datastore_build.indexes.plan import IndexPlan, choose_index, parse_bytes
from datastore_build.indexes.report import describe_index
from datastore_build.indexes.truth import Truth
from retrieval.files import replacing
from retrieval.manifest import IndexRequest, IndexSettings

_SHAPES: tuple[Shape, ...] = ("random", "clustered")
_INDEXES = tuple(NAMES)
_CURVE = (1 / 8, 1 / 4, 1 / 2, 1, 2)  # times the candidates that were tuned


def main() -> None:
    options = _options()
    sections = [
        introduction(_shown(sys.argv[1:]), options.count, options.dimension, options.queries, options.rounds)
    ]
    with _scratch(options.scratch) as scratch:
        for shape in options.shapes:
            folder = scratch / f"{shape}-{options.count}x{options.dimension}-{options.seed}"
            folder.mkdir(exist_ok=True)
            sections.append(table(shape, *compare(shape, folder, options)))
    report = "\n".join(sections)
    print(report)
    if options.output is not None:
        options.output.write_text(report)


def _shown(arguments: Sequence[str]) -> list[str]:
    """The arguments without folders and files, which matter to nobody else."""
    places = {"--scratch", "--output"}
    return [
        argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
        if argument not in places and before not in places
    ]


def compare(
    shape: Shape, folder: Path, options: argparse.Namespace
) -> tuple[list[Result], dict[int, Outcome]]:
    """Builds every index over the same vectors, then searches them in turn with the same queries.

    Then searches ours with more and fewer candidates: what comes out for each number of them.
    """
    path = folder / "vectors.f32"
    if not path.exists():
        with replacing(path) as temporary:
            write_vectors(temporary, shape, options.count, options.dimension, options.seed)
    vectors = FileVectors(path, options.dimension)
    near = near_queries(vectors, options.queries, options.seed + 100)
    independent = independent_queries(shape, vectors, options.queries, options.seed, options.seed + 200)
    np.savez(folder / "queries.npz", near=near, independent=independent)
    truth = Truth.scan(vectors, np.concatenate([near, independent]), K)
    for name in options.indexes:
        if not (folder / f"{name}.json").exists():
            _build(name, vectors, folder, options)
    rounds: dict[str, list[Probe]] = {name: [] for name in options.indexes}
    for number in range(options.rounds):
        for name in options.indexes:
            _log(f"{shape}: searching {name}, round {number + 1}")
            rounds[name].append(_search(name, vectors, folder))
    results = [_result(name, folder, probes, truth) for name, probes in rounds.items()]
    return results, _curve(vectors, folder, truth, options.rounds) if "paellera" in options.indexes else {}


def _curve(vectors: FileVectors, folder: Path, truth: Truth, rounds: int) -> dict[int, Outcome]:
    path = folder / "paellera.json"
    settings = IndexSettings.model_validate_json(path.read_bytes())
    tuned = settings.search.candidates
    if tuned is None:
        return {}
    curve = {}
    for factor in _CURVE:
        candidates = max(K, round(factor * tuned))
        search = settings.search.model_copy(update={"candidates": candidates})
        other = folder / "curve.json"
        other.write_text(settings.model_copy(update={"search": search}).model_dump_json())
        _log(f"searching paellera with {candidates:,} candidates")
        probes = [_search("paellera", vectors, folder, other) for _ in range(rounds)]
        curve[candidates] = _outcome([probe["near"] for probe in probes], truth, 0)
    return curve


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


def _search(name: str, vectors: FileVectors, folder: Path, settings: Path | None = None) -> Probe:
    files = [
        folder / name,
        folder / "queries.npz",
        K,
        vectors.count,
        vectors.dimension,
        settings or folder / f"{name}.json",
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
    near = [probe["near"] for probe in probes]
    independent = [probe["independent"] for probe in probes]
    return Result(
        index=name,
        settings=IndexSettings.model_validate_json((folder / f"{name}.json").read_bytes()),
        near=_outcome(near, truth, 0),
        independent=_outcome(independent, truth, len(near[0]["found"])),
        memory=int(statistics.median(probe["memory"] for probe in probes)),
        anonymous=int(statistics.median(probe["anonymous"] for probe in probes)),
        file_bytes=sum(path.stat().st_size for path in (folder / name).iterdir()),
        build_seconds=float((folder / f"{name}.seconds").read_text()),
    )


def _outcome(rounds: Sequence[Answers], truth: Truth, first: int) -> Outcome:
    """`first`: the number that the first of these queries has in `truth`."""
    found = [np.array(entries) for entries in rounds[0]["found"]]
    hits = sum(min(K, int(truth.hits(row, entries).sum())) for row, entries in enumerate(found, first))
    return Outcome(
        recall=hits / (K * len(found)),
        median_ms=statistics.median(answers["median_ms"] for answers in rounds),
        p99_ms=statistics.median(answers["p99_ms"] for answers in rounds),
        batch_ms=statistics.median(answers["batch_ms"] for answers in rounds),
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
