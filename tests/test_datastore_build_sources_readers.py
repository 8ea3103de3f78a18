import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datastore_build.sources.readers import LONGEST_LINE, open_sources
from datastore_build.sources.rows import Reject, Row
from retrieval.errors import DatastoreError


def _read(path: Path, content: bytes | str | None = None) -> list[tuple[int, Any]]:
    """(line, id and texts, or the reason) of every row."""
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    (source,) = open_sources([path])
    rows: list[tuple[int, Any]] = []
    for row in source.rows("en"):
        assert 0 <= source.progress <= 1
        rows.append((row.line, row.reason if isinstance(row, Reject) else (row.id, *row.texts)))
    assert source.progress == 1
    return rows


CAT, DOG = (1, (None, ("en", "a cat"))), (2, (None, ("de", "ein Hund")))


def test_json_lines(tmp_path: Path) -> None:
    lines = '{"text": "a cat"}\n{"text": "ein Hund", "language": "de"}\n'
    assert _read(tmp_path / "a.jsonl", lines) == [CAT, DOG]
    assert _read(tmp_path / "a.NDJSON", lines.rstrip("\n")) == [CAT, DOG]
    assert _read(tmp_path / "bom.jsonl", b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode()) == [CAT, DOG]
    assert _read(tmp_path / "a.jsonl.gz", gzip.compress(lines.encode())) == [CAT, DOG]


def test_json_lines_that_cannot_be_read_are_rejected_one_by_one(tmp_path: Path) -> None:
    lines = [
        b'{"text": "a cat"',
        b"",
        b'{"text": "\xff"}',
        b"[" * 100_000,
        b'{"text": "' + b"x" * LONGEST_LINE + b'"}',
        b'{"id": ' + b"1" * 5000 + b', "text": "a"}',
        b'["a cat"]',
        b'{"text": "a dog"}',
    ]
    rows = dict(_read(tmp_path / "a.jsonl", b"\n".join(lines)))
    assert rows[1].startswith("not JSON: ")
    assert 2 not in rows
    assert rows[3] == "the line is not valid UTF-8"
    assert rows[4] == "not JSON: nested too deeply"
    assert rows[5] == "the line is longer than 1,048,576 bytes"
    assert rows[6] == "not JSON: a number with too many digits"
    assert rows[7] == "the row is not an object but a list"
    assert rows[8] == (None, ("en", "a dog"))
    assert not any("\n" in reason for reason in rows.values() if isinstance(reason, str))


@pytest.mark.parametrize(("suffix", "comma"), [("csv", ","), ("tsv", "\t")])
def test_csv_and_tsv(tmp_path: Path, suffix: str, comma: str) -> None:
    table = 'id,Caption,lang,other\n1,a cat,,x\n\n2,"ein ""Hund""",de,\n,"two\nlines",,\n,last,,\n'
    content = table.replace(",", comma)
    expected = [
        (2, ("1", ("en", "a cat"))),
        (4, ("2", ("de", 'ein "Hund"'))),
        (5, (None, ("en", "two lines"))),
        (7, (None, ("en", "last"))),
    ]
    assert _read(tmp_path / f"a.{suffix}", content) == expected
    assert _read(tmp_path / f"a.{suffix}.gz", gzip.compress(content.encode())) == expected


def test_csv_with_a_column_per_language(tmp_path: Path) -> None:
    table = "id,texts.en,texts.pt-BR\n1,a cat,um gato\n2,a dog,\n3,,\n"
    assert _read(tmp_path / "a.csv", table) == [
        (2, ("1", ("en", "a cat"), ("pt", "um gato"))),
        (3, ("2", ("en", "a dog"))),
        (4, "the row has no text: give text, caption or texts"),
    ]


def test_csv_rows_that_cannot_be_read_are_rejected_one_by_one(tmp_path: Path) -> None:
    lines = [
        b"text,language",
        b"a, cat, en",
        b"a dog",
        b",",
        b"\xff,en",
        b'"a" cat,en',
        b"x" * 200_000 + b",en",
        b"x" * (2 * LONGEST_LINE) + b",en",
        b"a bus,en",
        b'"never closed,en',
        b"swallowed,en",
    ]
    rows = dict(_read(tmp_path / "a.csv", b"\n".join(lines)))
    assert rows[2] == "the row has 3 cells, the header 2"
    assert rows[3] == "the row has 1 cells, the header 2"
    assert rows[4] == "text is empty"
    assert rows[5] == "text is not valid UTF-8"
    assert rows[6].startswith("bad quoting: ")
    assert "field limit" in rows[7]
    assert "field limit" in rows[8]
    assert rows[9] == (None, ("en", "a bus"))
    assert rows[10].startswith("bad quoting: lines 10 to 11 read as one: ")
    assert sorted(rows) == list(range(2, 11))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id,words", "no column text or caption .*'id', 'words'"),
        ("", "no column"),
        ("text,Text", "two columns"),
    ],
)
def test_csv_headers_must_name_a_text(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(DatastoreError, match=message):
        _read(tmp_path / "a.csv", header + "\n1,a\n")


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table(
            {
                "id": [1, None, 3],
                "caption": ["a cat", "ein Hund", None],
                "lang": [None, "de", "en"],
                "x": [1, 2, 3],
            }
        ),
        path,
    )
    assert _read(path) == [
        (1, ("1", ("en", "a cat"))),
        (2, (None, ("de", "ein Hund"))),
        (3, "the row has no text: give text, caption or texts"),
    ]


@pytest.mark.parametrize(
    "kind", [pa.map_(pa.string(), pa.string()), pa.struct([("en", pa.string()), ("de", pa.string())])]
)
def test_parquet_with_texts(tmp_path: Path, kind: Any) -> None:
    rows: list[dict[str, str | None]] = [{"en": "a cat", "de": "eine Katze"}, {"en": "a dog", "de": None}]
    pq.write_table(
        pa.table(
            {"texts": pa.array([list(row.items()) for row in rows] if pa.types.is_map(kind) else rows, kind)}
        ),
        tmp_path / "a.parquet",
    )
    assert _read(tmp_path / "a.parquet") == [
        (1, (None, ("en", "a cat"), ("de", "eine Katze"))),
        (2, (None, ("en", "a dog"))),
    ]


def test_parquet_rows_that_cannot_be_read_are_rejected_one_by_one(tmp_path: Path) -> None:
    binary = pa.array([b"ok", b"\xff\xfe", b"fine"])
    broken = pa.Array.from_buffers(pa.string(), 3, binary.buffers())
    pq.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    assert _read(tmp_path / "a.parquet") == [
        (1, (None, ("en", "ok"))),
        (2, "the row is not valid UTF-8"),
        (3, (None, ("en", "fine"))),
    ]
    texts = pa.array([[("en", "a"), ("en", "b")], [("en", "c")]], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"texts": texts}), tmp_path / "b.parquet")
    assert _read(tmp_path / "b.parquet") == [
        (1, "texts has two texts in one language"),
        (2, (None, ("en", "c"))),
    ]


def test_parquet_without_a_text_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DatastoreError, match="no column text or caption"):
        _read(tmp_path / "a.parquet")


def test_coco(tmp_path: Path) -> None:
    annotations: list[Any] = [
        {"id": 48, "image_id": 318, "caption": "A cup on a table."},
        {"id": 67, "image_id": 318, "caption": ""},
        "not an annotation",
        {"id": 126, "image_id": 219, "caption": "Ein Hund", "language": "de"},
    ]
    content = json.dumps({"info": {}, "images": [], "annotations": annotations})
    expected = [
        (1, ("48", ("en", "A cup on a table."))),
        (2, "caption is empty"),
        (3, "the row is not an object but a string"),
        (4, ("126", ("de", "Ein Hund"))),
    ]
    assert _read(tmp_path / "captions.json", content) == expected
    assert _read(tmp_path / "captions.json.gz", gzip.compress(content.encode())) == expected


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"annotations": {}}', '{"text": "a"}\n{"text": "b"}', "[" * 10**5]
)
def test_other_json_is_told_from_coco(tmp_path: Path, content: str) -> None:
    with pytest.raises(DatastoreError, match=r"not COCO captions JSON.*name it \.jsonl"):
        _read(tmp_path / "a.json", content)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.parquet.gz", "a.gz", "a.jsonl.zip", ".jsonl"])
def test_unknown_kinds_are_refused_and_the_known_ones_listed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(DatastoreError, match=r"\.jsonl or \.ndjson .*\.parquet"):
        open_sources([tmp_path / name])


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match=r"cannot read .*a\.jsonl: No such file"):
        open_sources([tmp_path / "a.jsonl"])
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DatastoreError, match=r"cannot read .*Is a directory"):
        open_sources([tmp_path / "folder.csv"])


def test_damaged_files_are_named_with_the_line_reached(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"text": "a cat"}\n' * 5000)
    for name, content in [
        ("cut.jsonl.gz", packed[:-20]),
        ("no.jsonl.gz", b"no gzip"),
        ("no.parquet", b"PAR1" * 9),
    ]:
        with pytest.raises(DatastoreError, match=rf"cannot read .*{name} after (line|row) \d+: \S") as error:
            _read(tmp_path / name, content)
        assert "\n" not in str(error.value)


def test_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "a.jsonl" for folder in ("x", "y", "z")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("")
    assert [source.name for source in open_sources(paths)] == ["a.jsonl", "a.jsonl#2", "a.jsonl#3"]


def test_rows_carry_the_number_of_their_source(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"text": "x"}\n{}\n')
    sources = open_sources([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    rows = [row for source in sources for row in source.rows("en")]
    assert [(type(row), row.source, row.line) for row in rows] == [
        (Row, 0, 1),
        (Reject, 0, 2),
        (Row, 1, 1),
        (Reject, 1, 2),
    ]
