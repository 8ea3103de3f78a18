"""Vectors of many captions on disk, shard by shard: a killed run goes on with the first that is missing.

A shard is there once it is whole. Knows no photo.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.embedder import QueryEmbedder
from retrieval.files import replacing

SHARD_CAPTIONS = 8192


class CaptionVectors:
    """The shards of a folder.

    Args:
        folder: exists; what is in it is of these texts and this embedder.
        texts: the captions, in the order of the rows.
    """

    def __init__(self, folder: Path, texts: Sequence[str], shard_captions: int = SHARD_CAPTIONS) -> None:
        self._folder = folder
        self._texts = texts
        self._shard_captions = shard_captions

    def embed(self, embedder: QueryEmbedder, progress: Callable[[int], None] = lambda _: None) -> int:
        """Embed what is missing. Returns how many captions that were.

        Args:
            progress: called with the captions done so far, those of earlier runs among them.
        """
        embedded = 0
        for number, start in enumerate(range(0, len(self._texts), self._shard_captions)):
            texts = self._texts[start : start + self._shard_captions]
            if not self._path(number).exists():

                def advance(done: int, _: int, start: int = start) -> None:
                    progress(start + done)

                vectors = embedder.embed_texts(texts, advance)
                with replacing(self._path(number)) as temporary, temporary.open("wb") as file:
                    np.save(file, vectors)
                embedded += len(texts)
            progress(start + len(texts))
        return embedded

    @property
    def shards(self) -> int:
        return -(-len(self._texts) // self._shard_captions)

    def read(self, first: int, count: int) -> NDArray[np.float32]:
        """The vectors of `count` shards from `first` on, fewer at the end."""
        paths = [self._path(number) for number in range(first, min(first + count, self.shards))]
        return np.concatenate([np.load(path, allow_pickle=False) for path in paths])

    def _path(self, number: int) -> Path:
        return self._folder / f"captions-{number:05d}.npy"
