"""The second stage of a build: the staged entries into vectors, shard by shard.

A shard depends on its entries alone, so shards can be made in any order, again, and anywhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datastore_build.engines.engine import Engine, OnStep
from datastore_build.engines.worker import EmbeddingWorker, TextEmbedder
from datastore_build.shards import EmbeddingShards
from datastore_build.sources.caption_files import CaptionsFile
from datastore_build.sources.entries import Entry

_WINDOW = 512  # texts embedded at once: enough to sort by length, few enough for a lively progress bar

Window = list[Entry]


@dataclass(frozen=True)
class MadeShard:
    """What a worker tells of a shard that is on the disk."""

    number: int
    sha256: str
    entries: int
    texts: int


@dataclass(frozen=True)
class ShardJob:
    """All that a worker needs to make shards. It can be sent to another machine that sees the same files."""

    shards: EmbeddingShards
    captions: CaptionsFile
    first: int  # the entry that is row 0 of the shards
    embedder: TextEmbedder

    def open_worker(self) -> Callable[[int, OnStep], MadeShard]:
        worker = EmbeddingWorker(self.embedder)

        def make(number: int, on_step: OnStep) -> MadeShard:
            return make_shard(self, worker, number, on_step)

        return make


def embed_shards(job: ShardJob, engine: Engine, on_entries: Callable[[int, int], None]) -> int:
    """Makes the shards that are missing; the number of entries embedded.

    on_entries is told how many entries have a vector by now and how many texts were embedded in this run.
    Raises OSError, and what the engine and its workers raise.
    """
    shards = job.shards
    missing = shards.missing()
    done = shards.count - sum(len(shards.rows(number)) for number in missing)
    embedded = texts = 0

    def on_step(entries: int, of_texts: int) -> None:
        on_entries(done + entries, texts + of_texts)

    for made in engine.run(
        job.open_worker, missing, folder=shards.folder, on_step=on_step, task_name="shard", gpu=True
    ):
        shards.note(made.number, made.sha256)
        done += made.entries
        embedded += made.entries
        texts += made.texts
        on_entries(done, texts)
    return embedded


def make_shard(
    job: ShardJob,
    worker: Callable[[Sequence[Entry]], npt.NDArray[np.float32]],
    number: int,
    on_step: OnStep,
) -> MadeShard:
    """Embeds the entries of one shard and writes it: the piece of work that every engine does.

    on_step is told, after each window, how many entries and texts of the shard are embedded. Raises OSError
    and what the worker raises.
    """
    rows = job.shards.rows(number)
    vectors = np.empty((len(rows), job.shards.dimension), np.float32)
    filled = texts = 0
    for window in windows(job.captions.read(job.first + rows.start, job.first + rows.stop)):
        vectors[filled : filled + len(window)] = worker(window)
        filled += len(window)
        texts += sum(len(entry.texts) for entry in window)
        on_step(filled, texts)
    sha256 = job.shards.store(number, vectors[:filled])
    return MadeShard(number, sha256, filled, texts)


def windows(entries: Iterable[Entry]) -> Iterator[Window]:
    """Entries in groups of about _WINDOW texts."""
    window: Window = []
    texts = 0
    for entry in entries:
        window.append(entry)
        texts += len(entry.texts)
        if texts >= _WINDOW:
            yield window
            window, texts = [], 0
    if window:
        yield window
