"""The first inputs of a fuzz target, taken from the hostile corpus.

PYTHONPATH=tests python -m fuzz.seeds images build/fuzz/images
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from hostile.corpus import GROUPS
from hostile.inputs import CAPTIONS, HostileInput
from hostile.photos import FORMATS, photo

_LARGEST = 40_000  # bytes: small inputs are what a fuzzer makes progress with
_EVERY = 4  # of the corpus; neighbours in a class are alike


def images() -> Iterator[bytes]:
    """Whole, damaged and lying photos."""
    for format in FORMATS:
        yield photo(format, 48)
        yield photo(format, 96)
    for group in ("Damaged photos", "Photos that lie", "Photos that grow", "What is not a photo"):
        for number, request in enumerate(_of(group)):
            if number % _EVERY == 0:
                yield request.body


def forms() -> Iterator[bytes]:
    """A line with the Content-Type, then the body."""
    for request in _of("Forms"):
        yield (request.content_type or b"").replace(b"\n", b"") + b"\n" + request.body


def _of(group: str) -> Iterator[HostileInput]:
    for declared in GROUPS[group]:
        for request in declared.make():
            if request.path == CAPTIONS and len(request.body) <= _LARGEST:
                yield request


def write(seeds: Iterator[bytes], folder: Path) -> int:
    """Each under its hash. Returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    return sum(1 for _ in folder.iterdir())


if __name__ == "__main__":
    kind, folder = sys.argv[1:]
    count = write({"images": images, "forms": forms}[kind](), Path(folder))
    print(f"{count} seeds in {folder}")  # noqa: T201
