"""Which strings went by? A set that keeps eight bytes of each and little besides: a build asks it for ids and
texts by the hundred million.

An open-addressed table of digests with linear probing. A digest's place is its share of the table, so a table
is in the order of its digests up to probing, and a larger one is laid out with one sort and no loop.
"""

import hashlib

import numpy as np
import numpy.typing as npt

_PARTS = 64  # tables that grow one at a time: what growing needs besides is a small part of the whole
_SMALLEST = 64  # places of a table
_LOAD, _GROWTH = 0.75, 1.25


class DigestSet:
    """A set of strings: 11 to 13 bytes each.

    Two of a hundred million strings share a digest with a probability of 0.03 %.
    """

    def __init__(self) -> None:
        self._tables = [_Table() for _ in range(_PARTS)]

    def add(self, *parts: str) -> bool:
        """Adds the string made of the parts; False if it was there."""
        key = "\0".join(parts).encode()
        digest = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())
        return self._tables[digest % _PARTS].add(digest or 1)  # 0 is an empty place

    @property
    def bytes(self) -> int:
        """What the tables take."""
        return sum(table.bytes for table in self._tables)


class _Table:
    def __init__(self) -> None:
        self._count = 0
        self._lay_out(np.empty(0, np.uint64), _SMALLEST)

    @property
    def bytes(self) -> int:
        return self._places.nbytes

    def add(self, digest: int) -> bool:
        places = self._places
        place = digest * self._capacity >> 64
        while (found := places[place]) != 0:
            if found == digest:
                return False
            place += 1
        places[place] = digest
        self._count += 1
        if self._count > _LOAD * self._capacity or place == len(places) - 1:
            digests = np.asarray(places)
            self._lay_out(np.sort(digests[digests != 0]), int(_GROWTH * self._capacity))
        return True

    def _lay_out(self, digests: npt.NDArray[np.uint64], capacity: int) -> None:
        """`digests` are sorted. Behind the last place of the table there is room for what probes beyond it,
        and one that stays empty, where every search ends."""
        self._capacity = capacity
        steps = np.arange(len(digests))
        # floor(digest · capacity / 2⁶⁴) without 128-bit numbers: high and low half apart.
        low = (digests & np.uint64(2**32 - 1)) * np.uint64(capacity) >> np.uint64(32)
        home = ((digests >> np.uint64(32)) * np.uint64(capacity) + low >> np.uint64(32)).astype(np.int64)
        # Each comes to its home or right behind the one before it.
        taken = np.maximum.accumulate(home - steps) + steps
        beyond = max(int(taken[-1]) + 1 - capacity, 0) if len(taken) else 0
        table = np.zeros(capacity + beyond + 64, np.uint64)
        table[taken] = digests
        self._places = memoryview(table.data)
