import hashlib
import random
from pathlib import Path

import pytest

from datastore_build import digests as module
from datastore_build.digests import DigestSet


def test_it_tells_parts_from_their_concatenation() -> None:
    digests = DigestSet()
    assert digests.add("en", "a cat")
    assert not digests.add("en", "a cat")
    assert digests.add("en", "a ca", "t")
    assert digests.add("de", "a cat")


@pytest.mark.parametrize("held", [1, 100, 2**15])
def test_it_answers_as_a_set_of_strings_does(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HELD", held)  # so that there is a file soon, and it grows often
    monkeypatch.setattr(module, "_BLOCK", 1000)
    draw = random.Random(3)
    digests, strings = DigestSet(tmp_path), set[str]()
    for _ in range(60_000):
        text = str(draw.randrange(30_000))
        assert digests.add(text) == (text not in strings)
        strings.add(text)
    assert len(digests) == len(strings)


def test_digests_that_crowd_at_the_end_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Last:
        """The digest of a number is the number from the end of all digests."""

        def __init__(self, key: bytes, digest_size: int) -> None:
            self.number = int(key)

        def digest(self) -> bytes:
            return (2**64 - 1 - self.number).to_bytes(8)

    monkeypatch.setattr(module, "_HELD", 16)
    monkeypatch.setattr(hashlib, "blake2b", Last)
    digests = DigestSet(tmp_path)
    numbers = random.Random(1).sample(range(3000), 1000)
    assert all(digests.add(str(number)) for number in numbers)
    assert not any(digests.add(str(number)) for number in numbers)
    assert digests.add("3001")


def test_its_file_goes_with_it(tmp_path: Path) -> None:
    digests = DigestSet(tmp_path)
    for number in range(40_000):
        digests.add(str(number))
    assert list(tmp_path.iterdir()) == []  # what is killed leaves nothing behind
    opened = _descriptors()
    del digests
    assert _descriptors() == opened - 1


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
