"""The entries that are duplicates: in a file, with a bit of memory for each entry that there is."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_RECORD = struct.Struct("<3q")
_READ = 4096  # records read at once


@dataclass(frozen=True)
class DuplicateEntry:
    entry: int
    earlier_row: int  # one that a text of it nearly equals
    texts: int  # how many it has


class DuplicateEntries:
    """They are added in ascending order. Every method may raise OSError."""

    def __init__(self, path: Path, entries: int) -> None:
        """`entries`: how many there are, duplicates or not."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._path.write_bytes(b"")
        self._waiting = bytearray()  # to be written
        self._bits = np.zeros(-(-entries // 8), np.uint8)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, entry: int) -> bool:
        return bool(self._bits[entry >> 3] >> (entry & 7) & 1)

    def __iter__(self) -> Iterator[DuplicateEntry]:
        self._write()
        with self._path.open("rb") as file:
            while content := file.read(_READ * _RECORD.size):
                for record in _RECORD.iter_unpack(content):
                    yield DuplicateEntry(*record)

    def add(self, entry: int, *, earlier_row: int, texts: int) -> None:
        self._waiting += _RECORD.pack(entry, earlier_row, texts)
        self._bits[entry >> 3] |= 1 << (entry & 7)
        self._count += 1
        if len(self._waiting) >= _READ * _RECORD.size:
            self._write()

    def _write(self) -> None:
        with self._path.open("ab") as file:
            file.write(self._waiting)
        self._waiting.clear()
