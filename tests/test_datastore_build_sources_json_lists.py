import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore_build.sources import json_lists
from datastore_build.sources.json_lists import read_lists

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


class OneByOne(io.BytesIO):
    """A file that gives a byte at a time: every place is the end of what is there."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1)


def _read(content: bytes) -> list[tuple[str, object | None, bool]]:
    return list(read_lists(OneByOne(content)))


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=5), _VALUES, max_size=5), st.sampled_from([None, 2]))
def test_it_reads_what_the_decoder_reads(document: dict[str, Any], indent: int | None) -> None:
    expected: list[tuple[str, object | None, bool]] = []
    for key, value in document.items():
        expected += [(key, one, True) for one in value] if isinstance(value, list) else [(key, None, False)]
    for ascii_only in (True, False):
        content = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
        assert _read(content.encode("utf-8", "surrogatepass" if ascii_only else "replace")) == [
            (key, element, listed) for key, element, listed in _as_written(expected, ascii_only=ascii_only)
        ]


def _as_written(
    expected: list[tuple[str, object | None, bool]], *, ascii_only: bool
) -> list[tuple[str, object | None, bool]]:
    """Half of a character has no UTF-8; written as such it is a question mark."""
    if ascii_only:
        return expected
    written = json.dumps(expected, ensure_ascii=False).encode("utf-8", "replace")
    return [(key, element, listed) for key, element, listed in json.loads(written)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not an object"),
        ("[1]", "not an object"),
        ('{"a" 1}', "no value"),
        ("{1: 2}", "not a string"),
        ('{"a": [1 2]}', "no end"),
        ('{"a": [1, 2', "the file ends"),
        ('{"a": [1, {"b": ', "Expecting value"),
        ('{"a": nul}', "Expecting value"),
        ('{"a": 1} {"b": 2}', "something follows"),
        ('{"a": ' + "[" * 10**5, "nested too deeply"),
    ],
)
def test_what_is_no_object_of_lists_is_told(content: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(read_lists(io.BytesIO(content.encode())))


def test_an_element_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lists, "_LONGEST", 1000)
    file = io.BytesIO(b'{"annotations": ["' + b"a" * 10**6)
    with pytest.raises(ValueError, match="longer than 1,000"):
        list(read_lists(file))
    assert file.tell() < 200_000


def test_bytes_that_are_not_utf_8_spoil_their_element_only() -> None:
    (first, second) = read_lists(io.BytesIO(b'{"a": ["caf\xe9", "tea"]}'))
    assert first[1] == "caf\udce9"
    assert second[1] == "tea"
