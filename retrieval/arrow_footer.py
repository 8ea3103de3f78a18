"""Is any record batch of an Arrow file compressed? Asked before Arrow reads a batch.

Arrow allocates what a compressed buffer says it will have, and pyarrow cannot be told not to; a small file
could take all memory. The footer names every batch, and each batch's header says whether it is compressed.
These are flatbuffers, of which just enough is read here.

Format: https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format, with File.fbs and Message.fbs.
"""

import struct
from pathlib import Path
from typing import BinaryIO

from retrieval.files import open_regular

_MAGIC = b"ARROW1"
_LARGEST_HEADER = 64 * 2**20  # bytes of a footer or of a batch's header; a batch has a few hundred
_BLOCK_BYTES = 24  # int64 offset, int32 length of the header, padding, int64 length of the body
_FOOTER_DICTIONARIES, _FOOTER_BATCHES = 2, 3  # fields of the table Footer
_MESSAGE_KIND, _MESSAGE_HEADER = 1, 2  # of Message
_KIND_DICTIONARY, _KIND_BATCH = 2, 3
_DICTIONARY_DATA = 1  # of DictionaryBatch
_BATCH_COMPRESSION = 3  # of RecordBatch


def has_compressed_batch(path: Path) -> bool:
    """Raises ValueError if the file is not laid out as an Arrow file, and OSError."""
    with open_regular(path) as file:
        try:
            return any(_is_compressed(header) for header in _headers(file))
        except struct.error:
            raise ValueError("a header points outside itself") from None


def _headers(file: BinaryIO) -> list[bytes]:
    """The flatbuffer of each batch and dictionary that the footer names."""
    size = file.seek(0, 2)
    tail = 4 + len(_MAGIC)
    file.seek(max(size - tail, 0))
    footer_bytes, magic = struct.unpack(f"<i{len(_MAGIC)}s", file.read(tail))
    if magic != _MAGIC or not 0 < footer_bytes <= min(size - tail, _LARGEST_HEADER):
        raise ValueError("it does not end as an Arrow file does")
    file.seek(size - tail - footer_bytes)
    footer = file.read(footer_bytes)
    table = _root(footer)
    headers = []
    for field in (_FOOTER_DICTIONARIES, _FOOTER_BATCHES):
        start, count = _vector(footer, table, field)
        if count * _BLOCK_BYTES > len(footer):
            raise ValueError("its footer names more batches than it has room for")
        for block in range(start, start + count * _BLOCK_BYTES, _BLOCK_BYTES):
            offset, length = struct.unpack_from("<qi", footer, block)
            if not (0 <= offset <= size and 8 <= length <= min(size - offset, _LARGEST_HEADER)):
                raise ValueError("its footer names a batch outside the file")
            file.seek(offset)
            prefix = file.read(length)
            # Files of Arrow before 0.15 lack the first four bytes, which are all set.
            headers.append(prefix[8:] if prefix[:4] == b"\xff\xff\xff\xff" else prefix[4:])
    return headers


def _is_compressed(header: bytes) -> bool:
    message = _root(header)
    kind_at, table_at = (_field(header, message, field) for field in (_MESSAGE_KIND, _MESSAGE_HEADER))
    if not kind_at or not table_at:
        raise ValueError("a batch has no header")
    kind = header[kind_at] if kind_at < len(header) else 0
    table = _follow(header, table_at)
    if kind == _KIND_DICTIONARY:
        data = _field(header, table, _DICTIONARY_DATA)
        if not data:
            raise ValueError("a dictionary has no values")
        table = _follow(header, data)
    elif kind != _KIND_BATCH:
        raise ValueError("its footer names what is no batch")
    return bool(_field(header, table, _BATCH_COMPRESSION))


def _root(buffer: bytes) -> int:
    return _follow(buffer, 0)


def _follow(buffer: bytes, at: int) -> int:
    """Where the offset that stands at a place points to."""
    return at + _unsigned(buffer, at)


def _field(buffer: bytes, table: int, number: int) -> int:
    """The place of a table's field, 0 if it is absent."""
    (distance,) = struct.unpack_from("<i", buffer, table)
    vtable = table - distance
    if vtable < 0:
        raise ValueError("a header points outside itself")
    (vtable_bytes,) = struct.unpack_from("<H", buffer, vtable)
    entry = 4 + 2 * number
    if entry + 2 > vtable_bytes:
        return 0
    (offset,) = struct.unpack_from("<H", buffer, vtable + entry)
    return table + offset if offset else 0


def _vector(buffer: bytes, table: int, number: int) -> tuple[int, int]:
    """Where the first element of a vector is, and how many there are."""
    at = _field(buffer, table, number)
    if not at:
        return 0, 0
    start = _follow(buffer, at)
    return start + 4, _unsigned(buffer, start)


def _unsigned(buffer: bytes, at: int) -> int:
    value: int
    (value,) = struct.unpack_from("<I", buffer, at)
    return value
