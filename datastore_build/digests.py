"""Which strings went by? A set that keeps eight bytes of each in a file: a build asks it for ids and texts by
the hundred million, and memory stays what it is.

An open-addressed table of digests with linear probing, read and written in place. A digest's place is its
share of the table, so a table is in the order of its digests up to probing, and a larger one is laid out in
one pass over the smaller, block by block.
"""

import hashlib
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

_HELD = 2**15  # digests that are held in memory before there is a file
_LOAD = 0.75  # the share of the places that may be taken
_LOOK = 32  # places read at once; so many in a row are seldom taken
_BLOCK = 2**16  # places laid out at once

Digests = npt.NDArray[np.uint64]


class DigestSet:
    """A set of strings: 11 to 22 bytes each on the disk, in an unnamed file that goes with the set.

    Two of a hundred million strings share a digest with a probability of 0.03 %.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: where the file is, by default where temporary files are."""
        self._folder = folder
        self._held: set[int] = set()
        self._file = -1  # its descriptor, once there are more than are held
        self._close: weakref.finalize[..., DigestSet] | None = None
        self._count = self._capacity = 0
        self._places = 0  # in the file: a few more than the capacity

    def __len__(self) -> int:
        return self._count

    def add(self, *parts: str) -> bool:
        """Adds the string made of the parts; False if it was there. Raises OSError."""
        key = "\0".join(parts).encode()
        digest = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) or 1  # 0 is an empty place
        added = self._hold(digest) if self._file < 0 else self._write(digest)
        self._count += added
        return added

    def _hold(self, digest: int) -> bool:
        if digest in self._held:
            return False
        self._held.add(digest)
        if len(self._held) >= _HELD:
            digests = np.sort(np.fromiter(self._held, np.uint64, len(self._held)))
            self._lay_out(iter([digests]), 2 * len(digests))
            self._held.clear()
        return True

    def _write(self, digest: int) -> bool:
        place = digest * self._capacity >> 64
        while True:
            found = memoryview(os.pread(self._file, 8 * _LOOK, 8 * place)).cast("Q").tolist()
            if 0 in found:
                break
            if digest in found:
                return False
            place += _LOOK
        empty = found.index(0)
        if digest in found[:empty]:
            return False
        os.pwrite(self._file, digest.to_bytes(8, "little"), 8 * (place + empty))
        if self._count + 1 > _LOAD * self._capacity:
            self._lay_out(self._sorted(), 2 * self._capacity)
        elif place + empty >= self._places - _LOOK:  # the room behind the last place is nearly taken
            self._lay_out(self._sorted(), self._capacity)
        return True

    def _sorted(self) -> Iterator[Digests]:
        """All digests of the file in order, some at a time."""
        rest, start = np.empty(0, np.uint64), 0
        while content := os.pread(self._file, 8 * _BLOCK, start):
            start += len(content)
            block = np.concatenate([rest, np.frombuffer(content, np.uint64)])
            # What stands before an empty place stays before what stands behind it.
            empty = np.flatnonzero(block == 0)
            end = int(empty[-1]) + 1 if len(empty) else 0
            rest = block[end:]
            yield np.sort(block[:end][block[:end] != 0])
        yield np.sort(rest)

    def _lay_out(self, sorted_digests: Iterator[Digests], capacity: int) -> None:
        """A new file of so many places. Behind the last there is room for what probes beyond it."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            end = 0  # places written
            for digests in sorted_digests:
                end = _append(file, digests, capacity, end)
            # Zeros are written, not left as a hole, so that a full disk is told here and in one piece.
            total = max(capacity, end) + 2 * _LOOK
            while end < total:
                end += file.write(bytes(8 * min(_BLOCK, total - end))) // 8
            file.flush()
            descriptor = os.dup(file.fileno())
        if self._close is not None:
            self._close()
        self._file, self._capacity, self._places = descriptor, capacity, total
        self._close = weakref.finalize(self, os.close, descriptor)


def _append(file: BinaryIO, digests: Digests, capacity: int, end: int) -> int:
    """Writes the places from `end` on that these digests take; the new end."""
    if not len(digests):
        return end
    steps = np.arange(len(digests))
    # floor(digest · capacity / 2⁶⁴) without 128-bit numbers: high and low half apart.
    low = (digests & np.uint64(2**32 - 1)) * np.uint64(capacity) >> np.uint64(32)
    home = ((digests >> np.uint64(32)) * np.uint64(capacity) + low >> np.uint64(32)).astype(np.int64)
    # Each comes to its home or right behind the one before it.
    taken = np.maximum(np.maximum.accumulate(home - steps), end) + steps
    places = np.zeros(int(taken[-1]) + 1 - end, np.uint64)
    places[taken - end] = digests
    file.write(places.data)
    return int(taken[-1]) + 1
