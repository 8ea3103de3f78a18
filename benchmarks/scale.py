"""The rates that docs/scale.md plans with, measured on one core of this machine.

    python -m benchmarks.scale [--seconds 60] [--entries 100000000]

The captions are those of the starter datastore, ten languages. The index is the one that so many entries
would have: trained on a sample of the size that is taken for them, to which a fraction of them is added; its
vectors are drawn (datastore_vectors.py, clustered). Prints Markdown.
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

import faiss
import torch

from benchmarks.datastore_vectors import write_vectors
from benchmarks.machine import processor
from datastore_build.caption_files import CaptionsFile
from datastore_build.compressed_index import train_compressed
from datastore_build.embedding import ShardJob, make_shard
from datastore_build.entries import Entry, EntryText
from datastore_build.index_plan import choose_index
from datastore_build.shards import EmbeddingShards
from datastore_build.worker import EmbeddingWorker
from datastore_build.writer import CaptionsWriter
from models.bundle import Bundle, default_bundle
from retrieval.embedder import Embedder
from retrieval.manifest import CAPTIONS, IndexRequest, live_version, read_manifest

_SHARD = 2048  # captions of a measured shard
_TRAINED_BYTES = 2**28  # of vectors that an index is trained on, at most (datastore_build/indexing.py)
_ADDED, _BLOCK = 2**17, 2**15  # vectors


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    embedder = Bundle.open(default_bundle()).load_embedder()
    with tempfile.TemporaryDirectory() as folder:
        rate, rounds, tokens = _embedding(embedder, Path(folder), options.seconds)
    captions = live_version(default_bundle() / "datastore")
    manifest = read_manifest(captions)
    print(f"- machine: {processor()}, one thread; torch {torch.__version__}, {platform.python_version()}")
    print(f"- embedding: {rate:,.0f} captions/s of a core, median of {rounds} shards of {_SHARD:,}")
    print(f"- captions: {tokens:.1f} tokens each")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"- memory of the process that embeds, at most: {peak / 1e6:,.0f} MB")
    size = manifest.files[CAPTIONS].bytes
    print(f"- captions.arrow: {size / manifest.counts.texts:,.0f} bytes a text")
    print(f"- vectors: {4 * embedder.dimension:,} bytes an entry while it is built")
    if options.entries:
        with tempfile.TemporaryDirectory() as folder:
            _index(options.entries, embedder.dimension, Path(folder))


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


def _index(entries: int, dimension: int, folder: Path) -> None:
    faiss.omp_set_num_threads(1)
    plan = choose_index(entries, dimension, IndexRequest(kind="ivf-pq"))
    vectors = write_vectors(folder / "vectors", "clustered", _TRAINED_BYTES // (4 * dimension), dimension, 0)
    sample = vectors.sample(vectors.count, 0)
    begun = time.process_time()
    index = train_compressed(sample, plan)
    trained = time.process_time()
    for start in range(0, _ADDED, _BLOCK):
        index.add(sample[start : start + _BLOCK])
    added = time.process_time()
    parts = ", ".join(f"{name} {value:,}" for name, value in plan.parameters.items())
    print(f"- index of {entries:,} entries: {plan.kind} ({parts}), {plan.memory / 1e9:,.1f} GB by plan")
    print(f"- training it on {len(sample):,} vectors: {trained - begun:,.0f} CPU seconds")
    print(f"- adding: {(added - trained) / _ADDED * 1e6:,.0f} CPU seconds a million entries")


def _single(texts: list[str], count: int) -> Iterator[Entry]:
    for number, text in zip(range(count), cycle(texts), strict=False):
        yield Entry(str(number), (EntryText("en", text, 0),))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--entries", type=int, default=0, help="Measure the index of so many, too.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
