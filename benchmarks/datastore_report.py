"""The report of the benchmark of indexes, in Markdown."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss

from datastore_build.index_report import describe_index
from retrieval.manifest import IndexSettings

K = 4
NAMES = {
    "exact": "exact search",
    "autofaiss": "autofaiss's choice: HNSW32,Flat",
    "paellera": "Paellera, auto",
}


@dataclass(frozen=True)
class Result:
    index: str
    settings: IndexSettings
    recall: float
    median_ms: float
    p99_ms: float
    memory: int  # what opening and searching added to the process
    anonymous: int  # of it, what the kernel cannot drop
    file_bytes: int
    build_seconds: float  # of CPU time


def introduction(arguments: Sequence[str], count: int, dimension: int, queries: int, rounds: int) -> str:
    command = " ".join(["python -m benchmarks.datastore", *arguments])
    machine = (
        f"{_processor()}, {os.cpu_count()} threads; faiss {faiss.__version__}, "
        f"Python {platform.python_version()}"
    )
    return f"""# The index of a datastore

- command: `{command}`
- machine: {machine}
- {count:,} vectors of {dimension} dimensions, {queries} queries; `datastore_vectors.py` says how they are
  made: queries are entries with noise, at a cosine of 0.7
- each index is searched by a fresh process, one thread, one query at a time; medians of {rounds} rounds in
  which the indexes take turns
- MB resident: what opening and searching added to the process, touched pages of mapped files included
- building includes tuning; its CPU seconds are those of all threads
"""


def table(shape: str, results: Sequence[Result]) -> str:
    by_name = {result.index: result for result in results}
    lines = [
        f"## {shape.capitalize()}",
        "",
        f"| index | recall@{K} | ms a query, median | p99 | MB resident | of them not droppable | "
        "MB on disk | build, CPU s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_row(result) for result in results),
    ]
    ours = by_name.get("paellera")
    if ours is not None:
        others = [by_name[name] for name in ("exact", "autofaiss") if name in by_name]
        lines += [_ratios(ours, other) for other in others]
    lines += ["", *(f"- {NAMES[result.index]}: {describe_index(result.settings)}" for result in results)]
    if ours is not None:
        lines += ["", _aims(ours)]
    return "\n".join([*lines, ""])


def _row(result: Result) -> str:
    return (
        f"| {NAMES[result.index]} | {result.recall:.3f} | {result.median_ms:.2f} | {result.p99_ms:.2f} | "
        f"{result.memory / 1e6:,.0f} | {result.anonymous / 1e6:,.0f} | {result.file_bytes / 1e6:,.0f} | "
        f"{result.build_seconds:,.0f} |"
    )


def _ratios(ours: Result, theirs: Result) -> str:
    numbers = [
        f"{ours.recall / theirs.recall:.2f}",
        *(
            f"{our / their:.3f}"
            for our, their in (
                (ours.median_ms, theirs.median_ms),
                (ours.p99_ms, theirs.p99_ms),
                (ours.memory, theirs.memory),
                (ours.anonymous, theirs.anonymous),
                (ours.file_bytes, theirs.file_bytes),
                (ours.build_seconds, theirs.build_seconds),
            )
        ),
    ]
    return f"| Paellera / {theirs.index} | {' | '.join(numbers)} |"


def _aims(ours: Result) -> str:
    aims = [
        (f"recall@{K} ≥ 0.95", ours.recall >= 0.95, f"by {0.95 - ours.recall:.3f}"),
        ("under 2 ms", ours.median_ms < 2, f"by {ours.median_ms - 2:.2f} ms"),
        ("under 1.3 GB", ours.memory < 1.3e9, f"by {(ours.memory - 1.3e9) / 1e6:,.0f} MB"),
    ]
    return "Aims: " + "; ".join(f"{aim}: {'met' if met else f'missed {gap}'}" for aim, met, gap in aims) + "."


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
