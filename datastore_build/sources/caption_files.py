"""captions.arrow read in order, a batch at a time: what a build has staged, or what a version holds.

Serving reads the file by memory map (retrieval/captions.py); here it is read and let go again, so that
memory does not grow with the file.
"""

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from datastore_build.mapped_captions import MappedCaptions
from datastore_build.sources.entries import Entry, EntryText
from retrieval.errors import DatastoreError


class CaptionsFile:
    """The entries of a captions.arrow. Raises DatastoreError if the file cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with MappedCaptions(path) as captions:
            self._first_entries = captions.first_entries  # of each record batch
            self.entries = captions.entries
        self._batches = range(len(self._first_entries))

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """The entries start ≤ n < stop. Sources are numbers in the file's own dictionary."""
        stop = self.entries if stop is None else stop
        for batch in self._read_batches(start, stop):
            numbers, ids, languages, texts, sources = batch
            row = 0
            while row < len(numbers):
                number, first = numbers[row], row
                while row < len(numbers) and numbers[row] == number:
                    row += 1
                if start <= number < stop:
                    values = zip(languages[first:row], texts[first:row], sources[first:row], strict=True)
                    yield Entry(ids[first], tuple(EntryText(*value) for value in values))

    def source_names(self) -> list[str]:
        """What the numbers of sources stand for."""
        try:
            with pa.OSFile(str(self._path)) as file:
                reader = pa.ipc.open_file(file)
                if not reader.num_record_batches:
                    return []
                names: list[str] = reader.get_batch(0).column("source").dictionary.to_pylist()
                return names
        except (pa.ArrowException, OSError) as error:
            raise DatastoreError(f"cannot read {self._path}: {str(error).splitlines()[0]}") from None

    def _read_batches(
        self, start: int, stop: int
    ) -> Iterator[tuple[list[int], list[str], list[str], list[str], list[int]]]:
        """entry, entry_id, language, text and source of the batches that hold these entries."""
        if start >= stop:
            return
        first = max(bisect_right(self._first_entries, start) - 1, 0)
        try:
            with pa.OSFile(str(self._path)) as file:
                reader = pa.ipc.open_file(file)
                for number in self._batches[first:]:
                    if self._first_entries[number] >= stop:
                        return
                    batch = reader.get_batch(number)
                    columns = [batch.column(name) for name in ("entry", "entry_id", "language", "text")]
                    entries, ids, languages, texts = (column.to_pylist() for column in columns)
                    yield entries, ids, languages, texts, batch.column("source").indices.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DatastoreError(f"cannot read {self._path}: {str(error).splitlines()[0]}") from None
