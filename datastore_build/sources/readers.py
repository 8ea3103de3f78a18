"""The sources of a datastore: files of captions in, rows out, one at a time and in bounded memory.

A format is a function that yields numbered raw rows and says how far it is; what a usable row is, rows.py
decides. A row that cannot be read becomes a Reject; a file that cannot be read raises DatastoreError.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from datastore_build.sources.json_lists import read_lists
from datastore_build.sources.rows import FIELDS, Reject, Row, RowError, image_of, parse_row
from retrieval.errors import DatastoreError

LONGEST_LINE = 2**20  # bytes
_PARQUET_BATCH = 1024  # rows
_TEXTS_COLUMN = "texts."  # a CSV column texts.de holds the German text of the entry

# A raw row: its line, and its fields or the RowError that reading it gave.
RawRow = tuple[int, object]
Report = Callable[[float], None]  # called with the fraction of the file that was read


class Source:
    """A source file. `progress` is the fraction read so far."""

    def __init__(self, number: int, path: Path, name: str) -> None:
        self.number = number
        self.path = path
        self.name = name  # unique among the sources of a build; what the datastore keeps instead of the path
        self.progress = 0.0
        self._format = _format_of(path)
        try:
            with path.open("rb"):
                self.size = path.stat().st_size  # bytes
        except OSError as error:
            raise DatastoreError(f"cannot read {path}: {error.strerror}") from None

    def rows(self, default_language: str) -> Iterator[Row | Reject]:
        """Every row of the file, in order. Raises DatastoreError if the file cannot be read to its end."""
        line = 0
        try:
            for line, fields in self._format.read(self.path, self._set_progress):
                try:
                    if isinstance(fields, RowError):
                        raise fields
                    entry_id, texts = parse_row(fields, default_language)
                except RowError as error:
                    yield Reject(self.number, line, str(error))
                else:
                    yield Row(self.number, line, entry_id, texts, image_of(fields))
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DatastoreError(
                f"cannot read {self.path} after {self._format.unit} {line}: {reason}"
            ) from None
        self.progress = 1.0

    def _set_progress(self, fraction: float) -> None:
        self.progress = min(fraction, 1.0)


def open_sources(paths: Iterable[Path], taken: Iterable[str] = ()) -> list[Source]:
    """Checks that every path is a readable file of a known format. Raises DatastoreError.

    taken: names that other sources of the datastore have already.
    """
    names = set(taken)
    return [Source(number, path, unique_name(path.name, names)) for number, path in enumerate(paths)]


def unique_name(name: str, names: set[str]) -> str:
    """The name, with a number if it is among `names`, to which it is added."""
    unique, copy = name, 1
    while unique in names:
        copy += 1
        unique = f"{name}#{copy}"
    names.add(unique)
    return unique


def read_json_lines(path: Path, report: Report) -> Iterator[RawRow]:
    """One JSON object a line. Blank lines are no rows."""
    for number, line in _lines(path, report):
        if len(line) > LONGEST_LINE:
            yield number, RowError(f"the line is longer than {LONGEST_LINE:,} bytes")
        elif line.strip():
            try:
                yield number, json.loads(line.decode("utf-8"))
            except UnicodeDecodeError:
                yield number, RowError("the line is not valid UTF-8")
            except RecursionError:
                yield number, RowError("not JSON: nested too deeply")
            except json.JSONDecodeError as error:
                yield number, RowError(f"not JSON: {error.msg} (column {error.colno})")
            except ValueError:  # Python refuses to convert a number of thousands of digits
                yield number, RowError("not JSON: a number with too many digits")


def read_csv(path: Path, report: Report) -> Iterator[RawRow]:
    """Comma-separated values with a header, quoted as in RFC 4180."""
    return _read_delimited(path, report, ",")


def read_tsv(path: Path, report: Report) -> Iterator[RawRow]:
    """Tab-separated values with a header, quoted like CSV."""
    return _read_delimited(path, report, "\t")


def read_parquet(path: Path, report: Report) -> Iterator[RawRow]:
    """Columns id, text or caption, language or lang, texts (a map or a struct)."""
    file = pq.ParquetFile(path)
    columns = [field.name for field in file.schema_arrow if field.name in FIELDS and _is_readable(field)]
    _require_text_column(path, columns, file.schema_arrow.names)
    number = 0
    for batch in file.iter_batches(batch_size=_PARQUET_BATCH, columns=columns):
        for fields in _parquet_rows(batch):
            number += 1
            report(number / file.metadata.num_rows)
            yield number, fields


def _is_readable(field: pa.Field) -> bool:
    """A column "image" may hold the photos themselves, which are not needed here."""
    return field.name != "image" or field.type in (pa.string(), pa.large_string())


def read_coco(path: Path, report: Report) -> Iterator[RawRow]:
    """The "annotations" of a COCO captions file."""
    size = max(path.stat().st_size, 1)
    number = 0
    with _open(path) as (file, raw):
        try:
            for key, element, in_list in read_lists(file):
                if key == "annotations" and in_list:
                    number += 1
                    report(raw.tell() / size)
                    yield number, element
                elif key == "annotations":
                    break
        except ValueError as error:
            raise DatastoreError(
                f"{path} is not COCO captions JSON: {error}. For one JSON object a line, name it .jsonl"
            ) from None
    if not number:
        raise DatastoreError(
            f'{path} is not COCO captions JSON: it has no list "annotations", or it is empty. '
            "For one JSON object a line, name it .jsonl"
        )


SUPPORTED = (
    ".jsonl or .ndjson (JSON Lines), .csv, .tsv, .json (COCO captions), each also with .gz, or .parquet"
)


@dataclass(frozen=True)
class Format:
    read: Callable[[Path, Report], Iterator[RawRow]]
    unit: str = "line"  # what a row's number counts
    gzip: bool = True  # may the file be compressed as a whole?


_FORMATS = {
    ".jsonl": Format(read_json_lines),
    ".ndjson": Format(read_json_lines),
    ".csv": Format(read_csv),
    ".tsv": Format(read_tsv),
    ".parquet": Format(read_parquet, unit="row", gzip=False),
    ".json": Format(read_coco, unit="annotation"),
}


def _format_of(path: Path) -> Format:
    name = path.name.lower()
    compressed = name.endswith(".gz")
    known = _FORMATS.get(Path(name.removesuffix(".gz")).suffix)
    if known is None or (compressed and not known.gzip):
        raise DatastoreError(f"{path} is not of a kind that can be read: give {SUPPORTED}")
    return known


@contextmanager
def _open(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The file's content, unpacked if it is a .gz, and the file itself, which knows how far we are."""
    with path.open("rb") as raw:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield cast(BinaryIO, unpacked), raw
        else:
            yield raw, raw


def _parquet_rows(batch: pa.RecordBatch) -> list[object]:
    try:
        return list(batch.to_pylist(maps_as_pydicts="strict"))
    except (UnicodeDecodeError, KeyError) as error:
        if batch.num_rows > 1:  # find the row that does not convert
            return [row for number in range(batch.num_rows) for row in _parquet_rows(batch.slice(number, 1))]
        if isinstance(error, UnicodeDecodeError):
            return [RowError("the row is not valid UTF-8")]
        return [RowError("texts has two texts in one language")]


def _lines(path: Path, report: Report) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their end. Of a line over LONGEST_LINE bytes, LONGEST_LINE + 1 are given."""
    size = max(path.stat().st_size, 1)
    with _open(path) as (file, raw):
        number = 0
        while line := file.readline(LONGEST_LINE + 2):
            number += 1
            rest = line
            while len(rest) == LONGEST_LINE + 2 and not rest.endswith(b"\n"):
                rest = file.readline(LONGEST_LINE + 2)
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            report(raw.tell() / size)
            yield number, line.rstrip(b"\r\n")[: LONGEST_LINE + 1]


def _read_delimited(path: Path, report: Report, delimiter: str) -> Iterator[RawRow]:
    # Bytes that are not UTF-8 become surrogates, which rows.py refuses: one bad row, not the end of the file.
    text = (line.decode("utf-8", "surrogateescape") + "\n" for _, line in _lines(path, report))
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise DatastoreError(f"cannot read the header of {path}: {error}") from None
    texts_columns = {
        name: name.removeprefix(_TEXTS_COLUMN) for name in header if name.startswith(_TEXTS_COLUMN)
    }
    _require_text_column(path, [*(set(header) & set(FIELDS)), *texts_columns], header)
    if len(set(header)) < len(header):
        raise DatastoreError(f"{path} has two columns of one name: {', '.join(map(repr, header))}")
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines = f"lines {first} to {reader.line_num} read as one: " if reader.line_num > first else ""
            yield first, RowError(f"bad quoting: {lines}{error}")
            continue
        if not cells:
            continue  # a blank line
        if len(cells) != len(header):
            yield first, RowError(f"the row has {len(cells)} cells, the header {len(header)}")
            continue
        yield first, _fields_of_cells(dict(zip(header, cells, strict=True)), texts_columns)


def _fields_of_cells(cells: dict[str, str], texts_columns: dict[str, str]) -> dict[str, object]:
    """An empty cell is an absent value, except that an empty text is what it is."""
    fields: dict[str, object] = {name: value for name, value in cells.items() if value and name in FIELDS}
    if texts_columns:
        texts = {tag: cells[name] for name, tag in texts_columns.items() if cells[name]}
        if texts:
            fields["texts"] = texts
    elif not fields.keys() & {"text", "caption"}:
        fields["text"] = ""
    return fields


def _require_text_column(path: Path, usable: list[str], columns: Iterable[str]) -> None:
    if not any(name in ("text", "caption", "texts") or name.startswith(_TEXTS_COLUMN) for name in usable):
        found = ", ".join(map(repr, list(columns)[:10])) or "none"
        raise DatastoreError(f"{path} has no column text or caption (its columns: {found})")
