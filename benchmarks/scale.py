"""The rates that docs/scale.md plans with, measured on one core of this machine.

    python -m benchmarks.scale [--seconds 60] [--entries 100000000 [--kind ivf-pq] [--dimension 1024]]

The captions are those of the starter datastore, ten languages; with --seconds 0 none are embedded. The index
is the one that so many entries would have: trained on a sample of the size that is taken for them, which is
then put into its lists; its vectors are drawn (datastore_vectors.py, clustered). Prints Markdown.
"""

import argparse
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import faiss
import torch

from benchmarks.datastore_vectors import write_vectors
from benchmarks.machine import processor
from datastore_build.embedding import ShardJob, make_shard
from datastore_build.engines.engine import LocalEngine
from datastore_build.engines.worker import EmbeddingWorker
from datastore_build.indexes.list_blocks import ListBlocks
from datastore_build.indexes.list_merging import fill_lists
from datastore_build.indexes.list_training import empty_index, train_lists
from datastore_build.indexes.plan import choose_index
from datastore_build.indexes.tuning import held_out_queries
from datastore_build.noted_files import NotedFiles
from datastore_build.shards import EmbeddingShards
from datastore_build.sources.caption_files import CaptionsFile
from datastore_build.sources.entries import Entry, EntryText
from datastore_build.writer import CaptionsWriter
from models.bundle import Bundle, default_bundle
from retrieval.embedder import Embedder
from retrieval.manifest import CAPTIONS, IndexChoice, IndexRequest, live_version, read_manifest

_SHARD = 2048  # captions of a measured shard
# Of vectors: trained on at most (datastore_build/indexes/list_training.py), and in a block (indexing.py).
_TRAINED_BYTES, _BLOCK_BYTES = 2**28, 2**26


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    print(f"- machine: {processor()}, one thread; torch {torch.__version__}, {platform.python_version()}")
    embedder = Bundle.open(default_bundle()).load_embedder()
    if options.seconds:
        _measure_embedding(embedder, options.seconds)
    if options.entries:
        with tempfile.TemporaryDirectory() as folder:
            _index(options.kind, options.entries, options.dimension or embedder.dimension, Path(folder))


def _measure_embedding(embedder: Embedder, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rate, rounds, tokens = _embedding(embedder, Path(folder), seconds)
    captions = live_version(default_bundle() / "datastore")
    manifest = read_manifest(captions)
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


def _index(kind: IndexChoice, entries: int, dimension: int, folder: Path) -> None:
    faiss.omp_set_num_threads(1)
    plan = replace(choose_index(entries, dimension, IndexRequest(kind=kind)), storage=None)
    vectors = write_vectors(folder / "vectors", "clustered", _TRAINED_BYTES // (4 * dimension), dimension, 0)
    files = NotedFiles(folder / "lists")
    begun = time.process_time()
    code_size = train_lists(vectors, plan, files)
    trained = time.process_time()
    blocks = ListBlocks(
        vectors=vectors,
        files=files,
        block_rows=_BLOCK_BYTES // (4 * dimension),
        code_size=code_size,
        storage="int8" if kind == "ivf-pq" else None,
        queries=held_out_queries(vectors, 0),
    )
    drawn = time.process_time()
    blocks.make_all(LocalEngine(), lambda rows: None)
    made = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    fill_lists(empty_index(files), blocks, lambda rows: None)
    filled = time.process_time()
    size = sum(files.path(path.name).stat().st_size for path in files.folder.glob("rows-*"))
    parts = ", ".join(f"{name} {value:,}" for name, value in plan.parameters.items())
    print(f"- index of {entries:,} entries of {dimension:,} dimensions: {kind} ({parts})")
    print(f"  - {plan.memory / 1e9:,.1f} GB by plan")
    print(f"  - training it on {vectors.count:,} vectors: {trained - begun:,.0f} CPU seconds")
    print(f"  - making blocks: {(made - drawn) / vectors.count * 1e6:,.1f} CPU seconds a million entries")
    print(f"  - blocks: {size / vectors.count:,.0f} bytes an entry while it is built")
    print(f"  - filling lists: {(filled - made) / vectors.count * 1e6:,.2f} CPU seconds a million entries")
    print(f"  - memory of the process that makes blocks, at most: {peak / 1e6:,.0f} MB", flush=True)


def _single(texts: list[str], count: int) -> Iterator[Entry]:
    for number, text in zip(range(count), cycle(texts), strict=False):
        yield Entry(str(number), (EntryText("en", text, 0),))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--entries", type=int, default=0, help="Measure the index of so many, too.")
    parser.add_argument("--kind", choices=("ivf-flat", "ivf-pq"), default="ivf-pq")
    parser.add_argument("--dimension", type=int, default=0, help="Of its vectors; 0: the embedder's.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
