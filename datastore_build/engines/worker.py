"""Entries in, vectors out: the one piece of work that a build spreads.

The worker knows neither where entries come from nor where vectors go, and holds nothing but the embedder; so
a loop on this machine and a cluster can run the same one.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from datastore_build.sources.entries import Entry


class TextEmbedder(Protocol):
    """What the build needs of retrieval.embedder.Embedder."""

    @property
    def id(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 (N, E), L2-normalised."""


@runtime_checkable
class ConcurrentEmbedder(TextEmbedder, Protocol):
    """One that may be called by several threads at once."""

    def concurrently(self) -> AbstractContextManager[int]:
        """How many threads should do so, while this lasts."""


class EmbeddingWorker:
    """One vector per entry: the L2-normalised mean of the vectors of its distinct texts."""

    def __init__(self, embedder: TextEmbedder) -> None:
        self._embedder = embedder

    def __call__(self, entries: Sequence[Entry]) -> npt.NDArray[np.float32]:
        """float32 (len(entries), E). Raises ValueError if the embedder returns anything but finite (N, E)."""
        dimension = self._embedder.dimension
        # Each text once, and texts of like length next to each other, so that the embedder pads little.
        texts = sorted(
            {text.text for entry in entries for text in entry.texts}, key=lambda text: (len(text), text)
        )
        row = {text: number for number, text in enumerate(texts)}
        embedded = self._embed(texts) if texts else np.empty((0, dimension), np.float32)
        if embedded.shape != (len(texts), dimension) or not np.isfinite(embedded).all():
            raise ValueError(
                f"the embedder {self._embedder.id} must return finite vectors of shape "
                f"({len(texts)}, {dimension}); it returned {embedded.shape}"
            )
        vectors = np.empty((len(entries), dimension), np.float32)
        for number, entry in enumerate(entries):
            distinct = list(dict.fromkeys(row[text.text] for text in entry.texts))
            mean = embedded[distinct].mean(axis=0, dtype=np.float64)
            if np.linalg.norm(mean) < 1e-6:  # texts that cancel out: let the first speak
                mean = embedded[distinct[0]].astype(np.float64)
            vectors[number] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return vectors

    def _embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(N, E), as the embedder gives them."""
        if not isinstance(self._embedder, ConcurrentEmbedder):
            return np.asarray(self._embedder.embed_texts(texts), np.float32)
        with self._embedder.concurrently() as threads, ThreadPoolExecutor(threads) as pool:
            # Every so many-th, so that all have as much to do.
            parts = [texts[number::threads] for number in range(min(threads, len(texts)))]
            embedded = np.empty((len(texts), self._embedder.dimension), np.float32)
            for number, part in enumerate(pool.map(self._embedder.embed_texts, parts)):
                embedded[number::threads] = part
            return embedded
