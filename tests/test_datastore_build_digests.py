import random

from datastore_build.digests import DigestSet


def test_it_tells_parts_from_their_concatenation() -> None:
    digests = DigestSet()
    assert digests.add("en", "a cat")
    assert not digests.add("en", "a cat")
    assert digests.add("en", "a ca", "t")
    assert digests.add("de", "a cat")


def test_it_answers_as_a_set_of_strings_does() -> None:
    draw = random.Random(3)
    digests, strings = DigestSet(), set[str]()
    for _ in range(60_000):
        text = str(draw.randrange(30_000))
        assert digests.add(text) == (text not in strings)
        strings.add(text)


def test_a_string_takes_few_bytes_however_many_there_are() -> None:
    digests = DigestSet()
    for number in range(200_000):
        digests.add(str(number))
    assert digests.bytes / 200_000 < 14
