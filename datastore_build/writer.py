"""Entries into captions.arrow, batch by batch, and what was left out into rejects.jsonl.

The files are written into a folder it is given; publishing that folder is publish.py's work.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import pyarrow as pa

from datastore_build.digests import DigestSet
from datastore_build.sources.entries import Entry
from retrieval.captions import SCHEMA
from retrieval.manifest import CAPTIONS, REJECTS, Counts

_BATCH = 8192  # texts a record batch; an entry's texts stay together, so the last entry may exceed it


class CaptionsWriter:
    """Writes captions.arrow as entries come. Every method may raise OSError (disk full, folder gone)."""

    def __init__(self, folder: Path, source_names: Sequence[str]) -> None:
        self._sources = pa.array(list(source_names), pa.string())
        self._languages: Counter[str] = Counter()
        self._seen_texts = DigestSet(folder)
        self._repeated_texts = 0
        self._entries = self._texts = 0
        self._rows: list[tuple[int, str, str, str, int]] = []  # of the next batch, as in SCHEMA
        self._file = (folder / CAPTIONS).open("wb")
        self._captions = pa.ipc.new_file(self._file, SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def entries(self) -> int:
        """How many were added."""
        return self._entries

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            for text in entry.texts:
                self._rows.append((self._entries, entry.id, text.language, text.text, text.source))
                self._languages[text.language] += 1
                self._repeated_texts += not self._seen_texts.add(text.language, text.text)
            self._entries += 1
            if len(self._rows) >= _BATCH:
                self._write_batch()

    def finish(self) -> Counts:
        """Writes what is left."""
        self._write_batch()
        self._seen_texts = DigestSet()  # they are needed no more
        self._captions.close()
        self._file.close()
        return Counts(
            entries=self._entries,
            texts=self._texts,
            repeated_texts=self._repeated_texts,
            languages=dict(sorted(self._languages.items())),
        )

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
        # ASCII, because a reason may quote what was no valid Unicode.
        self._open().write(json.dumps({"file": file, "line": line, "reason": reason}) + "\n")

    def add_all_of(self, version: Path) -> None:
        """Those of another version, if it has any."""
        if (version / REJECTS).exists():
            with (version / REJECTS).open(encoding="ascii") as earlier:
                self._open().writelines(earlier)

    def _open(self) -> TextIO:
        if self._file is None:
            self._file = self._path.open("a", encoding="ascii")
        return self._file
