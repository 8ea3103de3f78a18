"""Datastores that a disk, a copy or a person has spoilt: each is a change to a good version's folder.

Where a change says `sealed`, manifest and hashes are made to fit the spoilt files, so that it is the parsers
that see them.
"""

import hashlib
import json
import os
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import faiss
import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from retrieval.captions import SCHEMA
from retrieval.manifest import IndexSettings

ENTRIES, DIMENSION = 40, 32
FILES = ("captions.arrow", "index.faiss")
P = ParamSpec("P")
Spoil = Callable[[Path], None]


@dataclass(frozen=True)
class SpoiltDatastore:
    """`harmless`: it may open all the same, and then answers as a datastore does."""

    name: str
    spoil: Spoil  # given the folder of the version
    harmless: bool = False
    of: str = "flat"  # what it was before


def spoilt_datastores(other: Path) -> Iterator[SpoiltDatastore]:
    """`other`: the folder of another good version, of as many entries with other texts."""
    yield from _damaged()
    yield from _mixed_up(other)
    yield from _odd_files()
    yield from _manifests()
    yield from _sealed_indexes()
    yield from _sealed_captions()


def seal(version: Path, /, **changes: Any) -> None:
    """Makes sizes, hashes and the hash of the whole those of the files that are there."""
    manifest = json.loads((version / "manifest.json").read_text()) | changes
    for name in manifest["files"]:
        content = (version / name).read_bytes()
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    try:
        index = IndexSettings.model_validate(manifest["index"]).content()
    except ValidationError:
        index = manifest["index"]
    whole = {
        "embedder": manifest["embedder"],
        "dimension": manifest["dimension"],
        "index": index,
        "files": {name: record["sha256"] for name, record in sorted(manifest["files"].items())},
    }
    manifest["content_sha256"] = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    (version / "manifest.json").write_text(json.dumps(manifest))


def _with(change: Callable[Concatenate[Path, P], None], *args: P.args, **options: P.kwargs) -> Spoil:
    return lambda version: change(version, *args, **options)


def _to(name: str, change: Callable[Concatenate[Path, P], None], *args: P.args, **options: P.kwargs) -> Spoil:
    """Done to a file of the version."""
    return lambda version: change(version / name, *args, **options)


def _sealed(spoil: Spoil) -> Spoil:
    """The same change, with a manifest that fits."""

    def both(version: Path) -> None:
        spoil(version)
        seal(version)

    return both


def _flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)


def _cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def _damaged() -> Iterator[SpoiltDatastore]:
    drawn = random.Random(5)
    for name in FILES:
        for number in range(20):
            position, bit = drawn.randrange(10**6), drawn.randrange(8)
            yield SpoiltDatastore(f"bit flip {number} in {name}", _to(name, _flip, position, bit))
    for number in range(20):
        position, bit = drawn.randrange(10**6), drawn.randrange(8)
        yield SpoiltDatastore(  # a date, or who made it, is covered by no hash
            f"bit flip {number} in the manifest",
            _to("manifest.json", _flip, position, bit),
            harmless=True,
        )
    for name in (*FILES, "manifest.json"):
        for share in (0.0, 0.1, 0.5, 0.9, 0.99):
            yield SpoiltDatastore(f"{name} cut to {share:.1%}", _to(name, _cut, share))
    for name in FILES:
        yield SpoiltDatastore(f"{name} with more behind it", _to(name, _append, b"\0"))
        yield SpoiltDatastore(f"{name} of zeros", _to(name, _zero))


def _append(path: Path, content: bytes) -> None:
    path.write_bytes(path.read_bytes() + content)


def _zero(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def _mixed_up(other: Path) -> Iterator[SpoiltDatastore]:
    for names in (("captions.arrow",), ("index.faiss",), ("manifest.json",), FILES):
        yield SpoiltDatastore(
            f"{' and '.join(names)} of another version",
            _with(_take, other, names),
        )
    yield SpoiltDatastore(
        "a whole other version under this name",
        _with(_take, other, [path.name for path in other.iterdir()]),
    )
    yield SpoiltDatastore("captions and index exchanged", _exchange)
    yield SpoiltDatastore("captions and index exchanged, sealed", _sealed(_exchange))


def _take(version: Path, other: Path, names: Sequence[str]) -> None:
    for name in names:
        (version / name).write_bytes((other / name).read_bytes())


def _exchange(version: Path) -> None:
    captions, index = (version / name for name in FILES)
    kept = captions.read_bytes()
    captions.write_bytes(index.read_bytes())
    index.write_bytes(kept)


def _odd_files() -> Iterator[SpoiltDatastore]:
    makers: dict[str, Spoil] = {
        "no file": lambda path: None,
        "a folder": Path.mkdir,
        "a pipe": os.mkfifo,
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    }
    for name in (*FILES, "manifest.json"):
        for what, make in makers.items():
            yield SpoiltDatastore(f"{what} in place of {name}", _to(name, _put, make))


def _put(path: Path, make: Spoil) -> None:
    path.unlink()
    make(path)


_ODD_VALUES: tuple[Any, ...] = (None, "", "x", -1, 0, 1.5, 2**31, 2**63, 10**30, [], {}, True)


def _manifests() -> Iterator[SpoiltDatastore]:
    for member in ("format_version", "dimension", "metric", "complete", "content_sha256", "index", "counts"):
        for number, value in enumerate(_ODD_VALUES):
            if (member, value) != ("complete", True):
                yield SpoiltDatastore(f"manifest: {member}, value {number}", _with(_set, **{member: value}))
    for count in ("entries", "texts"):
        for value in (0, 1, ENTRIES + 1, 2**31, 2**62, 2**64, -1, "7", None):
            yield SpoiltDatastore(f"manifest: {count} {value}", _with(_set_count, count, value))
    for dimension in (1, 16, 64, 2**20, 2**31, 2**62):
        yield SpoiltDatastore(f"manifest: dimension {dimension}, sealed", _with(seal, dimension=dimension))
    for member in ("embedder", "version"):
        for number, text in enumerate(("another", "two\nlines", "x" * 100_000, "\0", "../../etc")):
            yield SpoiltDatastore(f"manifest: {member}, text {number}, sealed", _with(seal, **{member: text}))
    contents: dict[str, bytes] = {
        "empty object": b"{}",
        "a list": b"[]",
        "a number": b"7",
        "no JSON": b"{'complete': True}",
        "nested": b"[" * 200_000,
        "nested objects": b'{"a":' * 100_000,
        "a huge number": b'{"format_version": ' + b"9" * 5000 + b"}",
        "NaN": b'{"format_version": NaN}',
        "UTF-16": '{"format_version": 1}'.encode("utf-16"),
        "no UTF-8": b'{"format_version": 1, "embedder": "\xff\xfe"}',
        "half a character": b'{"format_version": 1, "embedder": "\\ud800"}',
        "a NUL": b'{"format_version": 1}\0',
        "17 MiB of spaces": b" " * 17 * 2**20,
    }
    for name, content in contents.items():
        yield SpoiltDatastore(f"manifest: {name}", _to("manifest.json", _overwrite, content))
    for name in ("../captions.arrow", "/etc/passwd", "", ".hidden", "a/b", "a" * 300, "x\n"):
        yield SpoiltDatastore(f"manifest: a file named {name[:20]!r}", _with(_add_file, name))


def _overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _set(version: Path, /, **changes: Any) -> None:
    path = version / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _set_count(version: Path, count: str, value: Any) -> None:
    manifest = json.loads((version / "manifest.json").read_text())
    _set(version, counts=manifest["counts"] | {count: value})


def _add_file(version: Path, name: str) -> None:
    manifest = json.loads((version / "manifest.json").read_text())
    _set(version, files=manifest["files"] | {name: {"bytes": 0, "sha256": "0" * 64}})


_OTHER_INDEXES = ("HNSW8", "IVF4,Flat", "PQ4x4", "IDMap,Flat", "SQ8", "PCA16,Flat", "IVF4,PQ4x4")


def _sealed_indexes() -> Iterator[SpoiltDatastore]:
    # Of a flat index: type, dimension (int32), count (int64), two dummies, trained (1 byte), metric (int32),
    # number of floats (int64), floats.
    fields = {"dimension": (4, "<i"), "count": (8, "<q"), "metric": (33, "<i"), "floats": (37, "<Q")}
    for field, (position, form) in fields.items():
        values = (0, 1, 7, 31, 33, 2**16, 2**31 - 1) + ((2**40, 2**62, 2**63 - 1) if form != "<i" else (-1,))
        for value in values:
            if (field, value) in (("metric", 0),):  # the one that it has
                continue
            yield SpoiltDatastore(
                f"index: {field} {value}, sealed",
                _with(_patch, "index.faiss", position, struct.pack(form, value)),
            )
    for kind in _OTHER_INDEXES:
        yield SpoiltDatastore(f"index: {kind} in place of a flat one, sealed", _with(_index, kind))
    yield SpoiltDatastore("index: L2, sealed", _with(_index, "Flat", faiss.METRIC_L2))
    for magic in (b"IxZZ", b"IHNf", b"IwFl", b"IxPT", b"IxMp", b"null", b"\x80\x04\x95\0", b"IBxF", b"IxRo"):
        yield SpoiltDatastore(f"index: begins with {magic!r}, sealed", _with(_patch, "index.faiss", 0, magic))
    for share in (0.0, 0.001, 0.01, 0.5, 0.99):
        yield SpoiltDatastore(f"index: cut to {share:.1%}, sealed", _sealed(_to("index.faiss", _cut, share)))
    for filling in (np.nan, np.inf, 0.0, 1e30, 1e-42):
        yield SpoiltDatastore(f"index: vectors of {filling}, sealed", _with(_vectors, filling))
    drawn = random.Random(6)
    for number in range(12):
        position, bit = drawn.randrange(45), drawn.randrange(8)
        yield SpoiltDatastore(  # the dummies of the header mean nothing
            f"index: bit flip {number} in the header, sealed",
            _sealed(_to("index.faiss", _flip, position, bit)),
            harmless=True,
        )


def _patch(version: Path, name: str, position: int, content: bytes) -> None:
    whole = bytearray((version / name).read_bytes())
    whole[position : position + len(content)] = content
    (version / name).write_bytes(whole)
    seal(version)


def _index(version: Path, kind: str, metric: int = faiss.METRIC_INNER_PRODUCT) -> None:
    vectors = np.random.default_rng(1).standard_normal((700, DIMENSION)).astype(np.float32)
    index = faiss.index_factory(DIMENSION, kind, metric)
    index.train(vectors)
    if kind.startswith("IDMap"):
        index.add_with_ids(vectors[:ENTRIES], np.arange(ENTRIES))
    else:
        index.add(vectors[:ENTRIES])
    faiss.write_index(index, str(version / "index.faiss"))
    seal(version)


def _vectors(version: Path, value: float) -> None:
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(np.full((ENTRIES, DIMENSION), value, np.float32))
    faiss.write_index(index, str(version / "index.faiss"))
    seal(version)


def _sealed_captions() -> Iterator[SpoiltDatastore]:
    for share in (0.0, 0.01, 0.3, 0.7, 0.99):
        yield SpoiltDatastore(
            f"captions: cut to {share:.1%}, sealed",
            _sealed(_to("captions.arrow", _cut, share)),
        )
    for codec in ("zstd", "lz4"):
        yield SpoiltDatastore(f"captions: {codec}, sealed", _with(_rewrite, codec=codec))
    yield SpoiltDatastore("captions: a bomb of zstd, sealed", _bomb)
    yield SpoiltDatastore("captions: a stream and no file, sealed", _as_stream)
    for name in ("entry", "entry_id", "language", "text", "source"):
        yield SpoiltDatastore(f"captions: without {name}, sealed", _with(_without, name))
        yield SpoiltDatastore(f"captions: a missing {name}, sealed", _with(_rewrite, missing=name))
    outside, descending = b"\xff\xff\xff\x7f", b"\0\0\0\x80"
    for name in ("entry_id", "language", "text"):
        for what, word in {"point outside": outside, "go backwards": descending}.items():
            yield SpoiltDatastore(
                f"captions: offsets of {name} that {what}, sealed",
                _with(_change_offset, name, word),
            )
        yield SpoiltDatastore(
            f"captions: {name} that is no UTF-8, sealed",
            _with(_change_bytes, name),
        )
    for number in (-1, 1, 2**31 - 1):
        yield SpoiltDatastore(
            f"captions: sources that number {number}, sealed", _with(_rewrite, source=number)
        )
    for number, entries in enumerate(
        (
            range(1, ENTRIES + 1),
            range(ENTRIES, 0, -1),
            [0] * ENTRIES,
            [-1, *range(ENTRIES - 1)],
            range(0, 80, 2),
        )
    ):
        yield SpoiltDatastore(
            f"captions: entries in disorder {number}, sealed",
            _with(_rewrite, entries=tuple(entries)),
        )
    drawn = random.Random(7)
    for number in range(60):
        where, bit = drawn.random(), drawn.randrange(8)
        # Half in the schema and the first header, half in the footer: the rest is texts.
        yield SpoiltDatastore(
            f"captions: bit flip {number} in a header, sealed",
            _with(_flip_header, where, bit, bool(number % 2)),
            harmless=True,
        )
    for number, value in enumerate((0x7FFFFFFF, 0xFFFFFFFF, 0x80000000)):
        for position in range(0, 40, 4):
            yield SpoiltDatastore(
                f"captions: footer word {position}, value {number}, sealed",
                _with(_patch_footer, position, value),
                harmless=True,
            )


def _flip_header(version: Path, where: float, bit: int, front: bool) -> None:
    path = version / "captions.arrow"
    size = path.stat().st_size
    _flip(path, int(8 + where * 900) if front else int(size - 1 - where * 700), bit)
    seal(version)


def _patch_footer(version: Path, position: int, value: int) -> None:
    content = (version / "captions.arrow").read_bytes()
    (length,) = struct.unpack("<i", content[-10:-6])
    _patch(version, "captions.arrow", len(content) - 10 - length + position, struct.pack("<I", value))


def _read(version: Path) -> Any:
    return pa.ipc.open_file(str(version / "captions.arrow")).get_batch(0)


def _write(version: Path, batch: Any, codec: str | None = None) -> None:
    path = version / "captions.arrow"
    path.unlink()  # the batch may be a mapping of the old one
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_file(str(path), batch.schema, options=options) as writer:
        writer.write_batch(batch)
    seal(version)


def _as_stream(version: Path) -> None:
    batch = _read(version)
    path = version / "captions.arrow"
    path.unlink()
    with pa.ipc.new_stream(str(path), batch.schema) as writer:
        writer.write_batch(batch)
    seal(version)


def _without(version: Path, name: str) -> None:
    batch = _read(version)
    _write(version, batch.drop_columns([name]))


def _bomb(version: Path) -> None:
    """A hundred megabytes of one letter in a few kilobytes."""
    text = "a" * 100_000_000
    columns = [pa.array([0]), pa.array(["0"]), pa.array(["en"]), pa.array([text]), _sources([0])]
    _write(version, pa.RecordBatch.from_arrays(columns, schema=SCHEMA), "zstd")


def _change_offset(version: Path, column: str, word: bytes) -> None:
    """Where one of the strings begins."""
    _change_buffer(version, column, 1, lambda old: old[:40] + word + old[44:])


def _change_bytes(version: Path, column: str) -> None:
    _change_buffer(version, column, 2, lambda old: b"\xff" * len(old))


def _change_buffer(version: Path, column: str, number: int, change: Callable[[bytes], bytes]) -> None:
    """Changes a buffer inside the file: pyarrow itself would not write it."""
    old = _read(version).column(column).buffers()[number].to_pybytes()
    content = (version / "captions.arrow").read_bytes()
    assert content.count(old) >= 1
    _patch(version, "captions.arrow", content.index(old), change(old))


def _sources(numbers: list[int]) -> Any:
    indices = pa.array(numbers, pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(["a.jsonl"]), safe=False)


def _rewrite(
    version: Path,
    *,
    codec: str | None = None,
    missing: str = "",
    source: int = 0,
    entries: tuple[int, ...] | None = None,
) -> None:
    """The same rows with something wrong in a column."""
    batch = _read(version)
    columns = []
    for name in SCHEMA.names:
        column = batch.column(name)
        rows = len(column)
        if name == "entry" and entries is not None:
            column = pa.array(entries, pa.int64())
        if name == "source" and source:
            column = _sources([source] * rows)
        if name == missing:
            present = pa.py_buffer(b"\xfe" + b"\xff" * 7)  # the first row is null
            parts = column.indices if name == "source" else column
            column = pa.Array.from_buffers(parts.type, rows, [present, *parts.buffers()[1:]], 1)
            if name == "source":
                column = pa.DictionaryArray.from_arrays(column, pa.array(["a.jsonl"]))
        columns.append(column)
    _write(version, pa.RecordBatch.from_arrays(columns, schema=SCHEMA), codec)
