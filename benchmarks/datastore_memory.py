"""What a build takes by the row: memory and CPU time of every stage, for ever more rows.

    python -m benchmarks.datastore_memory --output benchmarks/datastore_memory.md

Each size is built by a process of its own, from made-up captions and with an embedder that costs next to
nothing, so that what is measured is everything but the encoder. Memory is the process's own (RssAnon of
/proc/self/status: what the kernel cannot take back) and what is resident altogether, sampled every 20 ms.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import describe_machine, status_bytes
from datastore_build.build import build_datastore
from datastore_build.build_state import NearDuplicateChoice
from datastore_build.report import BuildProgress
from retrieval.manifest import IndexRequest

STAGES = ("reading", "comparing", "embedding", "indexing")
_ROWS = (100_000, 500_000, 1_000_000, 2_000_000)
_WORDS = 5000  # of the captions' vocabulary
_ALIKE = 0.05  # the share of captions that nearly equal one of the last thousand


class FreeEmbedder:
    """Vectors of the texts' bytes: they mean nothing and cost nothing."""

    id = "free-64"
    dimension = 64

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        padded = b"".join(text.encode()[:64].ljust(64) for text in texts)
        vectors = np.frombuffer(padded, np.uint8).reshape(len(texts), 64).astype(np.float32) - 80
        normalised: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normalised


@dataclass
class Measured:
    rows: int
    seconds: float = 0.0
    start_mb: float = 0.0  # own memory before the build
    own_mb: dict[str, float] = field(default_factory=dict)  # the most, per stage
    resident_mb: float = 0.0  # the most, mapped files too
    cpu_us: dict[str, float] = field(default_factory=dict)  # a row, per stage
    duplicates: int = 0


def captions(seed: int) -> Iterator[str]:
    """Six to fourteen words, drawn as often as a language's are; some nearly equal an earlier caption."""
    draw = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(draw.choice(letters, draw.integers(2, 10))) for _ in range(_WORDS)])
    weights = 1.0 / (np.arange(_WORDS) + 3)
    weights /= weights.sum()
    last: list[str] = []
    while True:
        drawn = words[draw.choice(_WORDS, 1000 * 14, p=weights)].reshape(1000, 14)
        lengths, alike = draw.integers(6, 15, 1000).tolist(), (draw.random(1000) < _ALIKE).tolist()
        texts = [" ".join(row[:length]) for row, length in zip(drawn.tolist(), lengths, strict=True)]
        if last:
            texts = [
                f"{last[number]}." if same else text
                for number, (text, same) in enumerate(zip(texts, alike, strict=True))
            ]
        yield from texts
        last = texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, action="append", help="of a build; may repeat")
    parser.add_argument("--near-duplicates", choices=("report", "drop", "keep"), default="report")
    parser.add_argument("--folder", type=Path, help="where the datastores are made (not in memory)")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(asdict(_build(options.child, options.rows[0], options.near_duplicates))))
        return
    results = []
    for rows in options.rows or _ROWS:
        results.append(_measure(rows, options))
        print(json.dumps(asdict(results[-1])), file=sys.stderr)
    text = report(results, sys.argv[1:])
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


def _measure(rows: int, options: argparse.Namespace) -> Measured:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        with (Path(folder) / "captions.jsonl").open("w", encoding="utf-8") as file:
            for number, text in enumerate(islice(captions(1), rows)):
                file.write(f'{{"id": "made-up-{number}", "text": "{text}"}}\n')
        command = [sys.executable, "-m", "benchmarks.datastore_memory", "--child", folder]
        command += ["--rows", str(rows), "--near-duplicates", options.near_duplicates]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return Measured(**json.loads(done.stdout))


def _build(folder: Path, rows: int, near_duplicates: NearDuplicateChoice) -> Measured:
    """Runs in a process of its own."""
    measured = Measured(rows, start_mb=status_bytes("RssAnon") / 1e6)
    stage = STAGES[0]
    began = time.process_time()

    def on_progress(progress: BuildProgress) -> None:
        nonlocal stage, began
        if progress.stage != stage:
            _close()
            stage = progress.stage

    def _close() -> None:
        nonlocal began
        now = time.process_time()
        measured.cpu_us[stage] = 1e6 * (now - began) / rows
        began = now

    with _watching(measured, lambda: stage):
        done = build_datastore(
            [folder / "captions.jsonl"],
            folder / "datastore",
            FreeEmbedder(),
            near_duplicates=near_duplicates,
            index=IndexRequest(kind="flat"),  # others keep vectors or a graph in memory
            on_progress=on_progress,
        )
    _close()
    measured.seconds = done.seconds
    measured.duplicates = done.near_duplicates.entries if done.near_duplicates else 0
    measured.resident_mb = status_bytes("VmHWM") / 1e6
    return measured


@contextmanager
def _watching(measured: Measured, stage: Any) -> Iterator[None]:
    """Keeps the most own memory that each stage takes."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            name = stage()
            measured.own_mb[name] = max(measured.own_mb.get(name, 0.0), status_bytes("RssAnon") / 1e6)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def report(results: Sequence[Measured], arguments: Sequence[str]) -> str:
    stages = " | ".join(STAGES)
    lines = [
        "# Memory and time of a build by the row",
        "",
        f"- command: `{' '.join(['python -m benchmarks.datastore_memory', *arguments])}`",
        f"- machine: {describe_machine()}",
        f"- made-up captions of 6 to 14 words, {_ALIKE:.0%} of them near duplicates; vectors of 64 dimensions"
        " that cost nothing; the exact index",
        "- own memory is what the process cannot be made to give back (RssAnon), at most, beyond what it had"
        " before the build; resident is all of it, the program and mapped files too (VmHWM)",
        "",
        f"| rows | own memory, MB: {stages} | resident, MB | CPU µs a row: {stages} | all | seconds |",
        "| ---: |" + " ---: |" * (2 * len(STAGES) + 3),
    ]
    for one in results:
        own = [f"{one.own_mb.get(stage, 0.0) - one.start_mb:.0f}" for stage in STAGES]
        cpu = [f"{one.cpu_us.get(stage, 0.0):.1f}" for stage in STAGES]
        total = f"{sum(one.cpu_us.values()):.0f}"
        cells = [f"{one.rows:,}", *own, f"{one.resident_mb:.0f}", *cpu, total, f"{one.seconds:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
