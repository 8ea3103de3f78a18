"""Captions in many languages as one Arrow table: a row a caption, a column a language, nothing where a
translation is missing.

COCO in 36 languages is twenty million texts. As Python strings they would take several times their bytes; a
table takes their bytes and eight more each, can be mapped from a file, and is then shared by all processes.
Knows no file of captions.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.errors import InvalidRequestError
from retrieval.files import replacing
from training.at_size.rejects import Rejects

_ID, _PHOTO = "caption_id", "photo"  # columns; no code of a language is that long
_FINGERPRINT, _REPORT = b"paellera.fingerprint", b"paellera.report"


class CaptionData:
    """Captions by language and id. A caption id is one English caption; its translations have the same id.

    Attributes:
        languages: those asked for, in that order.
        caption_ids: (N,) int64, one for each row.
        photos: (N,) the photo of each row, as a place in `image_ids`.
        image_ids: photos with captions.
        report: lines that say what was read and what was left out.
    """

    def __init__(self, table: pa.Table, image_ids: Sequence[str], report: Sequence[str]) -> None:
        self._table = table
        self.image_ids = list(image_ids)
        self.report = list(report)
        self.languages = [name for name in table.column_names if name not in (_ID, _PHOTO)]
        self.caption_ids: NDArray[np.int64] = table[_ID].to_numpy()
        self.photos: NDArray[np.int32] = table[_PHOTO].to_numpy()
        # One chunk each, looked up once: a caption is then found in about a microsecond.
        self._columns = {language: table[language].chunk(0) for language in self.languages}
        self._order = np.argsort(self.caption_ids, kind="stable")

    def __len__(self) -> int:
        return len(self.caption_ids)

    def count(self, language: str) -> int:
        """How many captions there are in a language."""
        column = self._columns[language]
        return len(column) - int(column.null_count)

    def rows(self, language: str) -> NDArray[np.int32]:
        """The rows that have a text in a language."""
        valid = self._columns[language].is_valid().to_numpy(zero_copy_only=False)
        return np.flatnonzero(valid).astype(np.int32)

    def text(self, language: str, row: int) -> str | None:
        """The text of a row, None if that language has none."""
        text: str | None = self._columns[language][row].as_py()
        return text

    def rows_of(self, caption_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """The rows of caption ids, of any shape; -1 for ids that are not here."""
        if not len(self):
            return np.full(caption_ids.shape, -1, dtype=np.int32)
        place = np.searchsorted(self.caption_ids, caption_ids, sorter=self._order)
        row = self._order[np.minimum(place, len(self) - 1)]
        return np.where(self.caption_ids[row] == caption_ids, row, -1).astype(np.int32)

    def save(self, path: Path, fingerprint: str) -> None:
        """Write a file that `open_captions` maps; whole or not at all, also if several processes do so."""
        metadata = {
            _FINGERPRINT: fingerprint.encode(),
            _REPORT: "\n".join(self.report).encode(),
            b"paellera.image_ids": "\n".join(self.image_ids).encode(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        table = self._table.replace_schema_metadata(metadata)
        with replacing(path, unique=True) as temporary, pa.ipc.new_file(str(temporary), table.schema) as file:
            file.write_table(table)


def open_captions(path: Path, fingerprint: str) -> CaptionData | None:
    """What `CaptionData.save` wrote, memory-mapped; None if there is no file or it was made of other data.

    Raises:
        InvalidRequestError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        metadata = table.schema.metadata or {}
        if metadata.get(_FINGERPRINT) != fingerprint.encode():
            return None
        report = metadata[_REPORT].decode().split("\n")
        image_ids = metadata[b"paellera.image_ids"].decode().split("\n")
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} is damaged: delete it, and it is made again") from error
    return CaptionData(table, image_ids, report)


class CaptionTableBuilder:
    """Takes texts in any order.

    Args:
        caption_ids: of the rows.
        photos: the photo of each row, as a place in `image_ids`.
        languages: the columns.
    """

    def __init__(
        self,
        caption_ids: Sequence[int],
        photos: Sequence[int],
        image_ids: Sequence[str],
        languages: Sequence[str],
    ) -> None:
        self._caption_ids = caption_ids
        self._photos = photos
        self._image_ids = image_ids
        self._columns = {language: _Column(len(caption_ids)) for language in languages}

    def has(self, language: str, row: int) -> bool:
        """Is there a text?"""
        return bool(self._columns[language].start[row] >= 0)

    def add(self, language: str, row: int, text: str) -> None:
        """A text in a place that has none."""
        self._columns[language].add(row, text)

    def finish(self, rejects: Rejects) -> CaptionData:
        """The table; its report has a line for each language and each reason of `rejects`."""
        columns = {
            _ID: pa.array(self._caption_ids, pa.int64()),
            _PHOTO: pa.array(self._photos, pa.int32()),
        }
        report = [f"{len(self._image_ids):,} photos, {len(self._caption_ids):,} captions"]
        for language in list(self._columns):
            columns[language] = self._columns.pop(language).finish()
            report.append(f"{language}: {len(columns[language]) - columns[language].null_count:,} captions")
        return CaptionData(pa.table(columns), self._image_ids, [*report, *rejects.lines()])


class _Column:
    """Texts in the order in which they came, and where each row's is."""

    def __init__(self, rows: int) -> None:
        self.start = np.full(rows, -1, dtype=np.int64)
        self._length = np.zeros(rows, dtype=np.int64)
        self._bytes = bytearray()

    def add(self, row: int, text: str) -> None:
        encoded = text.encode()
        self.start[row] = len(self._bytes)
        self._length[row] = len(encoded)
        self._bytes += encoded

    def finish(self) -> pa.Array:
        view = memoryview(self._bytes)
        ends = (self.start + self._length).tolist()
        starts = self.start.tolist()
        ordered = b"".join(view[start:end] for start, end in zip(starts, ends, strict=True) if start >= 0)
        offsets = np.zeros(len(starts) + 1, dtype=np.int64)
        np.cumsum(self._length, out=offsets[1:])
        present = np.packbits(self.start >= 0, bitorder="little")
        buffers = [pa.py_buffer(present), pa.py_buffer(offsets), pa.py_buffer(ordered)]
        return pa.Array.from_buffers(pa.large_string(), len(starts), buffers)
