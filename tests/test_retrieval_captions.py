from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from retrieval.captions import SCHEMA, CaptionTable
from retrieval.errors import DatastoreError


def _write(path: Path, *batches: list[tuple[int, str, str, str]], schema: Any = SCHEMA) -> Path:
    sources = pa.array(["a.jsonl"])
    with pa.ipc.new_file(str(path), schema) as writer:
        for rows in batches:
            entries, ids, languages, texts = zip(*rows, strict=True)
            source = pa.DictionaryArray.from_arrays(pa.array([0] * len(rows), pa.int32()), sources)
            arrays = [
                pa.array(entries, pa.int64()),
                pa.array(ids),
                pa.array(languages),
                pa.array(texts),
                source,
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return path


FIRST = [(0, "a", "en", "a cat"), (0, "a", "de", "eine Katze"), (1, "b", "en", "a dog")]
SECOND = [(2, "c", "en", "a cup"), (3, "d", "en", "a car"), (3, "d", "fr", "une voiture")]


def test_entries_are_found_in_every_batch(tmp_path: Path) -> None:
    table = CaptionTable.open(_write(tmp_path / "c", FIRST, SECOND), entries=4, texts=6)
    assert [table.entry_id(entry) for entry in range(4)] == ["a", "b", "c", "d"]
    assert [[(text.language, text.text) for text in table.texts(entry)] for entry in range(4)] == [
        [("en", "a cat"), ("de", "eine Katze")],
        [("en", "a dog")],
        [("en", "a cup")],
        [("en", "a car"), ("fr", "une voiture")],
    ]
    assert table.texts(0)[0].source == "a.jsonl"


@pytest.mark.parametrize("entry", [-1, 4, 1000])
def test_an_entry_that_is_not_there_raises_index_error(tmp_path: Path, entry: int) -> None:
    table = CaptionTable.open(_write(tmp_path / "c", FIRST, SECOND), entries=4, texts=6)
    with pytest.raises(IndexError):
        table.texts(entry)


def test_no_entries(tmp_path: Path) -> None:
    table = CaptionTable.open(_write(tmp_path / "c"), entries=0, texts=0)
    with pytest.raises(IndexError):
        table.entry_id(0)


@pytest.mark.parametrize(
    "batches", [[SECOND], [SECOND, FIRST], [FIRST, FIRST], [[FIRST[0], FIRST[2], FIRST[1]]]]
)
def test_rows_out_of_order_are_refused(
    tmp_path: Path, batches: list[list[tuple[int, str, str, str]]]
) -> None:
    with pytest.raises(DatastoreError, match="not sorted"):
        CaptionTable.open(_write(tmp_path / "c", *batches), entries=4, texts=6)


def test_counts_must_be_those_of_the_manifest(tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match="3 texts of 2 entries"):
        CaptionTable.open(_write(tmp_path / "c", FIRST), entries=3, texts=3)


def test_other_columns_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pa.ipc.new_file(str(tmp_path / "other"), pa.schema([pa.field("text", pa.string())])):
        pass
    with pytest.raises(DatastoreError, match="columns"):
        CaptionTable.open(tmp_path / "other", entries=0, texts=0)
    whole = _write(tmp_path / "whole", FIRST).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatastoreError, match="damaged"):
        CaptionTable.open(tmp_path / "cut", entries=2, texts=3)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "c", FIRST)
    content = path.read_bytes()
    assert content.count(b"eine Katze") == 1
    path.write_bytes(content.replace(b"eine Katze", b"eine \xff\xfetze"))
    with pytest.raises(DatastoreError, match="damaged"):
        CaptionTable.open(path, entries=2, texts=3)
