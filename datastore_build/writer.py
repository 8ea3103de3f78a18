"""Entries into captions.arrow batch by batch, and their vectors into the index.

It writes the files of one version into a folder it is given; publishing that folder is publish.py's work.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datastore_build.entries import DigestSet, Entry
from datastore_build.index_plan import IndexRequest, choose_index
from datastore_build.indexing import build_index
from datastore_build.vectors import MemoryVectors
from retrieval.captions import SCHEMA
from retrieval.manifest import CAPTIONS, REJECTS, Counts, IndexSettings

_BATCH = 8192  # texts a record batch; an entry's texts stay together, so the last entry may exceed it


class VersionWriter:
    """Writes captions.arrow as entries come; the vectors are kept in memory until the index is built.

    Every method may raise OSError (disk full, folder gone).
    """

    def __init__(self, folder: Path, dimension: int, source_names: Sequence[str]) -> None:
        self._folder = folder
        self._dimension = dimension
        self._vectors: list[npt.NDArray[np.float32]] = []
        self._entries = 0
        self._sources = pa.array(list(source_names), pa.string())
        self._languages: Counter[str] = Counter()
        self._seen_texts = DigestSet()
        self._repeated_texts = 0
        self._texts = 0
        self._rows: list[tuple[int, str, str, str, int]] = []  # of the next batch, as in SCHEMA
        self._file = (folder / CAPTIONS).open("wb")
        self._captions = pa.ipc.new_file(self._file, SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, entries: Sequence[Entry], vectors: npt.NDArray[np.float32]) -> None:
        """`vectors` is (len(entries), E) float32, L2-normalised."""
        self._vectors.append(np.ascontiguousarray(vectors, np.float32))
        for number, entry in enumerate(entries, start=self._entries):
            for text in entry.texts:
                self._rows.append((number, entry.id, text.language, text.text, text.source))
                self._languages[text.language] += 1
                self._repeated_texts += not self._seen_texts.add(text.language, text.text)
            if len(self._rows) >= _BATCH:
                self._write_batch()
        self._entries += len(entries)

    def finish(self, index: IndexRequest | None = None) -> tuple[Counts, IndexSettings]:
        """Writes what is left, chooses the index and builds it. Raises IndexBudgetError as `choose_index`."""
        self._write_batch()
        self._captions.close()
        self._file.close()
        plan = choose_index(self._entries, self._dimension, index)
        settings = build_index(MemoryVectors(self._dimension, self._vectors), plan, self._folder)
        counts = Counts(
            entries=self._entries,
            texts=self._texts,
            repeated_texts=self._repeated_texts,
            languages=dict(sorted(self._languages.items())),
        )
        return counts, settings

    def _write_batch(self) -> None:
        if not self._rows:
            return
        entries, ids, languages, texts, sources = zip(*self._rows, strict=True)
        arrays = [
            pa.array(entries, pa.int64()),
            pa.array(ids, pa.string()),
            pa.array(languages, pa.string()),
            pa.array(texts, pa.string()),
            pa.DictionaryArray.from_arrays(pa.array(sources, pa.int32()), self._sources),
        ]
        self._captions.write_batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
        self._texts += len(self._rows)
        self._rows.clear()


class RejectsFile:
    """rejects.jsonl: one object a line with file, line and reason. It exists once there is a reject."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / REJECTS
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, file: str, line: int, reason: str) -> None:
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8")
        # ASCII, because a reason may quote what was no valid Unicode.
        self._file.write(json.dumps({"file": file, "line": line, "reason": reason}) + "\n")
