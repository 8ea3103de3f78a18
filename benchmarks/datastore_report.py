"""The report of the benchmark of indexes, in Markdown."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import faiss

from benchmarks.machine import processor
from datastore_build.indexes.report import describe_index
from retrieval.manifest import IndexSettings

K = 4
NAMES = {
    "exact": "exact search",
    "autofaiss": "autofaiss's choice: HNSW32,Flat",
    "paellera": "Paellera, auto",
}


@dataclass(frozen=True)
class Outcome:
    """Of queries of one sort."""

    recall: float
    median_ms: float
    p99_ms: float
    batch_ms: float  # a query, in batches of 16


@dataclass(frozen=True)
class Result:
    index: str
    settings: IndexSettings
    near: Outcome
    independent: Outcome
    memory: int  # what opening and searching added to the process
    anonymous: int  # of it, what the kernel cannot drop
    file_bytes: int
    build_seconds: float  # of CPU time


def introduction(arguments: Sequence[str], count: int, dimension: int, queries: int, rounds: int) -> str:
    command = " ".join(["python -m benchmarks.datastore", *arguments])
    machine = (
        f"{processor()}, {os.cpu_count()} threads; faiss {faiss.__version__}, "
        f"Python {platform.python_version()}"
    )
    return f"""# The index of a datastore

- command: `{command}`
- machine: {machine}
- {count:,} vectors of {dimension} dimensions; `datastore_vectors.py` says how they are made
- {queries} queries near entries: entries with noise, at a cosine of 0.7, as those that tune an index; and
  {queries} independent ones, drawn as entries are
- each index is searched by a fresh process, one thread, one query at a time, and once more in batches of 16;
  medians of {rounds} rounds in which the indexes take turns
- MB resident: what opening and searching added to the process, touched pages of mapped files included
- building includes tuning; its CPU seconds are those of all threads
"""


def table(shape: str, results: Sequence[Result], curve: Mapping[int, Outcome]) -> str:
    """curve: what comes of other numbers of candidates in our index."""
    by_name = {result.index: result for result in results}
    lines = [
        f"## {shape.capitalize()}",
        "",
        f"| index | recall@{K} | ms a query, median | p99 | in batches of 16 | independent: recall@{K} | "
        "ms, median | MB resident | of them not droppable | MB on disk | build, CPU s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_row(result) for result in results),
    ]
    ours = by_name.get("paellera")
    if ours is not None:
        others = [by_name[name] for name in ("exact", "autofaiss") if name in by_name]
        lines += [_ratios(ours, other) for other in others]
    lines += ["", *(f"- {NAMES[result.index]}: {describe_index(result.settings)}" for result in results)]
    if ours is not None:
        lines += ["", _aims(ours)]
    if curve:
        lines += [
            "",
            "Ours with other numbers of candidates (queries near entries, as many rounds):",
            "",
            f"| candidates | recall@{K} | ms a query, median | in batches of 16 |",
            "| ---: | ---: | ---: | ---: |",
            *(
                f"| {candidates:,} | {one.recall:.3f} | {one.median_ms:.2f} | {one.batch_ms:.2f} |"
                for candidates, one in curve.items()
            ),
        ]
    return "\n".join([*lines, ""])


def _row(result: Result) -> str:
    return (
        f"| {NAMES[result.index]} | {result.near.recall:.3f} | {result.near.median_ms:.2f} | "
        f"{result.near.p99_ms:.2f} | {result.near.batch_ms:.2f} | {result.independent.recall:.3f} | "
        f"{result.independent.median_ms:.2f} | "
        f"{result.memory / 1e6:,.0f} | {result.anonymous / 1e6:,.0f} | {result.file_bytes / 1e6:,.0f} | "
        f"{result.build_seconds:,.0f} |"
    )


def _ratios(ours: Result, theirs: Result) -> str:
    near, independent = (ours.near, theirs.near), (ours.independent, theirs.independent)
    numbers = [
        *(
            f"{our / their:.3f}"
            for our, their in (
                (near[0].recall, near[1].recall),
                (near[0].median_ms, near[1].median_ms),
                (near[0].p99_ms, near[1].p99_ms),
                (near[0].batch_ms, near[1].batch_ms),
                (independent[0].recall, independent[1].recall),
                (independent[0].median_ms, independent[1].median_ms),
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
        (f"recall@{K} ≥ 0.95", ours.near.recall >= 0.95, f"by {0.95 - ours.near.recall:.3f}"),
        ("under 2 ms", ours.near.median_ms < 2, f"by {ours.near.median_ms - 2:.2f} ms"),
        ("under 1.3 GB", ours.memory < 1.3e9, f"by {(ours.memory - 1.3e9) / 1e6:,.0f} MB"),
    ]
    return "Aims: " + "; ".join(f"{aim}: {'met' if met else f'missed {gap}'}" for aim, met, gap in aims) + "."
