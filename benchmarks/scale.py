"""The rates that docs/scale.md plans with, measured on one core of this machine.

    python -m benchmarks.scale [--seconds 60]

The captions are those of the starter datastore, ten languages. Prints Markdown.
"""

import argparse
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import torch

from datastore_build.caption_files import CaptionsFile
from datastore_build.embedding import ShardJob, make_shard
from datastore_build.entries import Entry, EntryText
from datastore_build.shards import EmbeddingShards
from datastore_build.worker import EmbeddingWorker
from datastore_build.writer import CaptionsWriter
from models.bundle import Bundle, default_bundle
from retrieval.embedder import Embedder
from retrieval.manifest import CAPTIONS, live_version, read_manifest

_SHARD = 2048  # captions of a measured shard


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    embedder = Bundle.open(default_bundle()).load_embedder()
    with tempfile.TemporaryDirectory() as folder:
        rate, rounds, tokens = _embedding(embedder, Path(folder), options.seconds)
    captions = live_version(default_bundle() / "datastore")
    manifest = read_manifest(captions)
    print(f"- machine: {_processor()}, one thread; torch {torch.__version__}, {platform.python_version()}")
    print(f"- embedding: {rate:,.0f} captions/s of a core, median of {rounds} shards of {_SHARD:,}")
    print(f"- captions: {tokens:.1f} tokens each")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"- memory of the process that embeds, at most: {peak / 1e6:,.0f} MB")
    size = manifest.files[CAPTIONS].bytes
    print(f"- captions.arrow: {size / manifest.counts.texts:,.0f} bytes a text")
    print(f"- vectors: {4 * embedder.dimension:,} bytes an entry while it is built")


def _embedding(embedder: Embedder, folder: Path, seconds: float) -> tuple[float, int, float]:
    """Captions a second, how many shards that is the median of, tokens a caption."""
    starter = CaptionsFile(live_version(default_bundle() / "datastore") / CAPTIONS)
    texts = [text.text for entry in starter.read() for text in entry.texts]
    with CaptionsWriter(folder, ["starter"]) as writer:
        writer.add(_single(texts, _SHARD * -(-len(texts) // _SHARD)))
        writer.finish()
    captions = CaptionsFile(folder / CAPTIONS)
    shards = EmbeddingShards(folder / "shards", captions.entries, embedder.dimension, _SHARD)
    job = ShardJob(shards, captions, 0, embedder)
    worker = EmbeddingWorker(embedder)
    make_shard(job, worker, 0, lambda *_: None)  # loads the encoder
    rates = []
    until = time.monotonic() + seconds
    for number in cycle(shards.numbers):
        begun = time.process_time()
        make_shard(job, worker, number, lambda *_: None)
        rates.append(_SHARD / (time.process_time() - begun))
        if time.monotonic() > until and len(rates) >= len(shards.numbers):
            break
    tokens = embedder.encoder.tokenizer.encode(texts)
    return statistics.median(rates), len(rates), sum(map(len, tokens)) / len(texts)


def _single(texts: list[str], count: int) -> Iterator[Entry]:
    for number, text in zip(range(count), cycle(texts), strict=False):
        yield Entry(str(number), (EntryText("en", text, 0),))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
