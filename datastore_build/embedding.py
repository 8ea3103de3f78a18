"""The second stage of a build: the staged entries into vectors, shard by shard.

A shard depends on its entries alone, so shards can be made in any order, again, and anywhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from datastore_build.caption_files import CaptionsFile
from datastore_build.entries import Entry
from datastore_build.shards import EmbeddingShards

_WINDOW = 512  # texts embedded at once: enough to sort by length, few enough for a lively progress bar

Window = list[Entry]
Worker = Callable[[Sequence[Entry]], npt.NDArray[np.float32]]


def embed_shards(
    shards: EmbeddingShards,
    captions: CaptionsFile,
    first: int,
    worker: Worker,
    on_entries: Callable[[int, int], None],
) -> int:
    """Makes the shards that are missing; the number of entries embedded.

    first: the entry that is row 0 of the shards. on_entries is told, after each window, how many entries have
    a vector by now and how many texts were embedded in this run. Raises OSError and what the worker raises.
    """
    missing = shards.missing()
    done = shards.count - sum(len(shards.rows(number)) for number in missing)
    embedded = texts = 0
    for number in missing:
        rows = shards.rows(number)
        vectors = np.empty((len(rows), shards.dimension), np.float32)
        filled = 0
        entries = captions.read(first + rows.start, first + rows.stop)
        for window, block in embed_locally(worker, windows(entries)):
            vectors[filled : filled + len(window)] = block
            filled += len(window)
            texts += sum(len(entry.texts) for entry in window)
            on_entries(done + filled, texts)
        shards.write(number, vectors[:filled])
        done += filled
        embedded += filled
    return embedded


def embed_locally(
    worker: Worker, batches: Iterable[Window]
) -> Iterator[tuple[Window, npt.NDArray[np.float32]]]:
    """The local engine: one worker, one window after the other, in order."""
    for window in batches:
        yield window, worker(window)


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
