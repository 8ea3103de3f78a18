"""captions.arrow: the texts of a datastore version, memory-mapped.

One row per text, sorted by entry; the rows of an entry never cross from one record batch to the next, so an
entry is found with two binary searches and read without touching the rest of the file. The module knows
nothing of vectors.
"""

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval.arrow_footer import has_compressed_batch
from retrieval.errors import DatastoreError

SCHEMA = pa.schema(
    [
        pa.field("entry", pa.int64(), nullable=False),  # row of the index
        pa.field("entry_id", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True)
class CaptionText:
    language: str
    text: str
    source: str


class CaptionTable:
    """Entry number → id and texts. Any number of threads may read at once."""

    def __init__(self, batches: list[Any]) -> None:
        """`batches`: record batches of SCHEMA, none of them empty, entries counting up from 0."""
        self._batches = batches
        self._entries: list[npt.NDArray[np.int64]] = [batch.column("entry").to_numpy() for batch in batches]
        self._first = [int(entries[0]) for entries in self._entries]  # first entry of each batch

    @classmethod
    def open(cls, path: Path, *, entries: int, texts: int) -> "CaptionTable":
        """Maps a file whose SHA-256 was verified. Raises DatastoreError if it does not fit the manifest."""
        batches = []
        next_entry = rows = 0
        try:
            if has_compressed_batch(path):
                raise DatastoreError(f"{path} is compressed, which Paellera does not read: build it again")
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            if not reader.schema.equals(SCHEMA):
                raise DatastoreError(f"{path} does not have the columns of a datastore: build it again")
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                # Arrow trusts offsets and UTF-8 when it reads a value: check them once, here.
                batch.validate(full=True)
                if not batch.num_rows:
                    continue
                if any(map(_has_nulls, batch.columns)):
                    raise DatastoreError(f"{path} has rows with something missing: build it again")
                column = batch.column("entry").to_numpy()
                steps = np.diff(column)
                if column[0] != next_entry or ((steps != 0) & (steps != 1)).any():
                    raise DatastoreError(f"{path} is not sorted by entry: build it again")
                next_entry = int(column[-1]) + 1
                rows += batch.num_rows
                batches.append(batch)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DatastoreError(f"{path} is damaged: {reason[:200]}") from None
        if (next_entry, rows) != (entries, texts):
            raise DatastoreError(
                f"{path} holds {rows:,} texts of {next_entry:,} entries, but its manifest says {texts:,} of "
                f"{entries:,}: build it again"
            )
        return cls(batches)

    def entry_id(self, entry: int) -> str:
        batch, start, _ = self._rows(entry)
        value: str = batch.column("entry_id")[start].as_py()
        return value

    def texts(self, entry: int) -> list[CaptionText]:
        """The texts of an entry, in the order they had in the source. Raises IndexError."""
        batch, start, stop = self._rows(entry)
        columns = (batch.column(name)[start:stop].to_pylist() for name in ("language", "text", "source"))
        return [CaptionText(*row) for row in zip(*columns, strict=True)]

    def _rows(self, entry: int) -> tuple[Any, int, int]:
        """The batch that holds an entry, and its rows in it."""
        number = bisect_right(self._first, entry) - 1
        if number >= 0:
            start, stop = np.searchsorted(self._entries[number], [entry, entry + 1])
            if start < stop:
                return self._batches[number], int(start), int(stop)
        raise IndexError(f"no entry {entry}")


def _has_nulls(column: Any) -> bool:
    """A schema may say that there are none, and a file have some all the same."""
    return bool(column.null_count) or (
        pa.types.is_dictionary(column.type) and bool(column.dictionary.null_count)
    )
