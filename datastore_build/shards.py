"""The vectors of a build on disk, in shards of a fixed number of entries: what is embedded once stays so.

A shard is written under a temporary name, brought to the disk and renamed; then a line with its SHA-256 goes
into a log. A build that is killed loses the shard it was at, and none before it. Any process that sees the
folder may store shards; the log is written by one alone. The module does not know what the vectors are of.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datastore_build.vectors import drawn_rows
from retrieval.disk import sync
from retrieval.files import replacing

SHARD_ENTRIES = 8192

_LOG = "shards.jsonl"

Vectors = npt.NDArray[np.float32]


class EmbeddingShards:
    """`count` vectors of E dimensions in a folder. Every method may raise OSError."""

    def __init__(self, folder: Path, count: int, dimension: int, shard_entries: int = SHARD_ENTRIES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.count = count
        self.dimension = dimension
        self.shard_entries = shard_entries

    @property
    def numbers(self) -> range:
        """Of all shards that there are to be."""
        return range(-(-self.count // self.shard_entries))

    def rows(self, number: int) -> range:
        """The entries of a shard."""
        start = number * self.shard_entries
        return range(start, min(start + self.shard_entries, self.count))

    def missing(self) -> list[int]:
        """The shards that are still to be written, in order. What is damaged on disk counts as missing."""
        done = {number for number, sha in self._read_log().items() if self._intact(number, sha)}
        return [number for number in self.numbers if number not in done]

    def store(self, number: int, vectors: Vectors) -> str:
        """Brings a shard to the disk; its SHA-256, which is to be noted. The same shard may be stored twice,
        even by two processes at once. Raises ValueError for vectors of another shape than the shard's."""
        if vectors.shape != (len(self.rows(number)), self.dimension):
            raise ValueError(f"shard {number} holds {len(self.rows(number))} vectors, not {vectors.shape}")
        content = np.ascontiguousarray(vectors, np.float32).data
        with replacing(self._path(number), unique=True) as path:
            path.write_bytes(content)
        sync(self.folder)
        return hashlib.sha256(content).hexdigest()

    def note(self, number: int, sha: str) -> None:
        """Into the log: this shard is stored."""
        with (self.folder / _LOG).open("a", encoding="ascii") as log:
            log.write(json.dumps({"shard": number, "sha256": sha}) + "\n")
            log.flush()
            os.fsync(log.fileno())

    def blocks(self, rows: int) -> Iterator[Vectors]:
        """(≤ rows, E) float32 each, in the order of the rows."""
        for start in range(0, self.count, rows):
            stop = min(start + rows, self.count)
            parts = []
            while start < stop:
                number, offset = divmod(start, self.shard_entries)
                taken = min(stop - start, self.shard_entries - offset)
                parts.append(self._read(number, offset, taken))
                start += taken
            yield parts[0] if len(parts) == 1 else np.concatenate(parts)

    def sample(self, count: int, seed: int) -> Vectors:
        """(min(count, rows), E) float32: rows drawn without replacement, in their order."""
        drawn = drawn_rows(count, self.count, seed)
        result = np.empty((len(drawn), self.dimension), np.float32)
        for number in self.numbers:
            first, last = np.searchsorted(drawn, [self.rows(number).start, self.rows(number).stop])
            if first < last:
                shard = self._read(number, 0, len(self.rows(number)))
                result[first:last] = shard[drawn[first:last] - self.rows(number).start]
        return result

    def _read(self, number: int, offset: int, rows: int) -> Vectors:
        size = 4 * self.dimension
        values = np.fromfile(self._path(number), np.float32, rows * self.dimension, offset=offset * size)
        return values.reshape(rows, self.dimension)

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.f32"

    def _intact(self, number: int, sha: str) -> bool:
        try:
            with self._path(number).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha
        except OSError:
            return False

    def _read_log(self) -> dict[int, str]:
        try:
            lines = (self.folder / _LOG).read_text("ascii", "replace").splitlines(keepends=True)
        except FileNotFoundError:
            return {}
        done: dict[int, str] = {}
        for line in lines:
            try:
                record = json.loads(line)
                done[int(record["shard"])] = str(record["sha256"])
            except (ValueError, TypeError, KeyError):
                continue  # cut short when the build was killed
        if lines and not lines[-1].endswith("\n"):
            with (self.folder / _LOG).open("a", encoding="ascii") as log:
                log.write("\n")  # so that the next line does not become part of it
        return done
