"""Spoilt datastores whose index is approximate, each with manifest and hashes that fit: the parsers see them.

Graphs, lists and codes are full of numbers that say where to read next; any of them may be wrong.
"""

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hostile.datastores import Spoil, SpoiltDatastore, seal
from retrieval.manifest import INDEX, VECTORS, IndexRequest

ENTRIES = 300  # of fewer than 256 no lists are trained

# What to build, each as a good datastore to be spoilt.
REQUESTS = {
    "hnsw": IndexRequest(kind="hnsw"),
    "hnsw of int8": IndexRequest(kind="hnsw", memory_budget=95_000),
    "ivf-flat": IndexRequest(kind="ivf-flat"),
    "ivf-pq": IndexRequest(kind="ivf-pq"),
    "ivf-pq of int8": IndexRequest(kind="ivf-pq", memory_budget=25_000),
}
_HEADERS = 420  # bytes of index.faiss in which most of the numbers stand that say how much there is


def spoilt_approximate(goods: dict[str, Path]) -> Iterator[SpoiltDatastore]:
    """`goods`: the folder of a good version of each of REQUESTS."""
    for number, (of, good) in enumerate(goods.items()):
        random_bits = random.Random(number)
        size = (good / INDEX).stat().st_size
        for share in (0.0, 0.002, 0.02, 0.3, 0.9, 0.999):
            yield _spoilt(of, f"index cut to {share:.1%}", _changed(INDEX, _cut(share)), harmless=False)
        for place in ("a header", "the index"):
            for flip in range(30):
                position = random_bits.randrange(_HEADERS if place == "a header" else size)
                change = _changed(INDEX, _flipped(position, random_bits.randrange(8)))
                yield _spoilt(of, f"bit flip {flip} in {place}", change)
        for position in range(4, _HEADERS, 7):
            value = random_bits.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1))
            yield _spoilt(of, f"{value} at {position} of the index", _changed(INDEX, _word(position, value)))
        for other, folder in goods.items():
            if other.split()[0] != of.split()[0]:
                taken = (folder / INDEX).read_bytes()
                yield _spoilt(of, f"index of {other}", _changed(INDEX, _replaced(taken)), harmless=False)
        for name, search in _SEARCHES.items():
            yield _spoilt(of, f"search with {name}", _settings(search=search))
        yield _spoilt(of, "no search settings", _settings(search={}))
    for of in ("ivf-pq", "ivf-pq of int8"):
        yield from _spoilt_vectors(of)


_SEARCHES: dict[str, dict[str, Any]] = {
    "a huge ef": {"ef_search": 10**15},
    "huge numbers of lists and candidates": {"nprobe": 10**18, "candidates": 10**18},
    "a huge margin": {"nprobe": 3, "probe_margin": 1e300, "candidates": 5},
    "no margin at all": {"nprobe": 10**6, "probe_margin": 0.0, "candidates": 1},
}


def _spoilt_vectors(of: str) -> Iterator[SpoiltDatastore]:
    changes: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda whole: b"",
        "cut": lambda whole: whole[:-1],
        "with more behind": lambda whole: whole + b"\0",
        "of zeros": lambda whole: b"\0" * len(whole),
        "of ones": lambda whole: b"\xff" * len(whole),
        "of large numbers": lambda whole: b"\x7b" * len(whole),
        "in another order": lambda whole: whole[len(whole) // 2 :] + whole[: len(whole) // 2],
    }
    for name, change in changes.items():
        yield _spoilt(of, f"vectors {name}", _changed(VECTORS, change), harmless=False)
    for storage in ("float32", "float16" if "int8" in of else "int8", None):
        yield _spoilt(of, f"vectors said to be {storage}", _settings(storage=storage), harmless=False)
    yield _spoilt(of, "vectors not named", _unnamed, harmless=False)
    random_bits = random.Random(of)
    for flip in range(10):
        change = _flipped(random_bits.randrange(10**6), random_bits.randrange(8))
        yield _spoilt(of, f"bit flip {flip} in the vectors", _changed(VECTORS, change))


def _spoilt(of: str, what: str, spoil: Spoil, *, harmless: bool = True) -> SpoiltDatastore:
    return SpoiltDatastore(f"{of}: {what}, sealed", spoil, harmless, of)


def _changed(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(version: Path) -> None:
        (version / name).write_bytes(change((version / name).read_bytes()))
        seal(version)

    return spoil


def _cut(share: float) -> Callable[[bytes], bytes]:
    return lambda whole: whole[: int(len(whole) * share)]


def _replaced(content: bytes) -> Callable[[bytes], bytes]:
    return lambda whole: content


def _flipped(position: int, bit: int) -> Callable[[bytes], bytes]:
    def change(whole: bytes) -> bytes:
        content = bytearray(whole)
        content[position % len(content)] ^= 1 << bit
        return bytes(content)

    return change


def _word(position: int, value: int) -> Callable[[bytes], bytes]:
    word = struct.pack("<Q", value) if value >= 2**32 else struct.pack("<I", value)
    return lambda whole: whole[:position] + word + whole[position + len(word) :]


def _settings(**changes: Any) -> Spoil:
    """Other settings of the index in the manifest."""

    def spoil(version: Path) -> None:
        manifest = json.loads((version / "manifest.json").read_text())
        seal(version, index=manifest["index"] | changes)

    return spoil


def _unnamed(version: Path) -> None:
    """The manifest does not list vectors.bin."""
    files = json.loads((version / "manifest.json").read_text())["files"]
    seal(version, files={name: record for name, record in files.items() if name != VECTORS})
