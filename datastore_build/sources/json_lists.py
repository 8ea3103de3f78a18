"""The lists of a JSON object, element by element: a file of any size in the memory of one element.

Python's own decoder reads each element; what is done here is to give it enough of the file, and no more.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

_CHUNK = 2**16  # bytes
_LONGEST = 2**24  # characters of an element; an annotation has a few hundred
_SPACE = re.compile(r"[ \t\n\r]*")
_DELIMITERS = ",]}"


def read_lists(file: BinaryIO) -> Iterator[tuple[str, object | None, bool]]:
    """(key, element, True) of each list in the object that the file holds, and (key, None, False) for what
    is no list.

    Bytes that are not UTF-8 become surrogates. Raises ValueError: it is not JSON, not an object, or an
    element is over 16 million characters long.
    """
    text = _Text(file)
    text.expect("{", "it is not an object")
    if text.next_is("}"):
        return
    while True:
        key = text.value()
        if not isinstance(key, str):
            raise ValueError("a key is not a string")
        text.expect(":", "a key has no value")
        if text.next_is("["):
            if not text.next_is("]"):
                yield key, text.value(), True
                while text.next_is(","):
                    yield key, text.value(), True
                text.expect("]", "a list has no end")
        else:
            text.value()
            yield key, None, False
        if not text.next_is(","):
            break
    text.expect("}", "the object has no end")
    text.expect("", "something follows the object")


class _Text:
    """The file's text, of which only what is not read yet is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._json = json.JSONDecoder()
        self._held, self._place = "", 0
        self._ended = False

    def next_is(self, character: str) -> bool:
        """Is that next? It is read then."""
        if self._peek() != character:
            return False
        self._place += 1
        return True

    def expect(self, character: str, otherwise: str) -> None:
        """Reads it. Raises ValueError; the empty string is the end of the file."""
        found = self._peek()
        if found != character:
            raise ValueError(f"{otherwise}, found {found!r}" if found else f"{otherwise}: the file ends")
        self._place += len(character)

    def value(self) -> object:
        """The JSON value that comes next. Raises ValueError."""
        self._peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._held, self._place)
            except RecursionError:
                raise ValueError("nested too deeply") from None
            except json.JSONDecodeError as error:
                if self._ended:
                    raise ValueError(error.msg) from None
            else:
                # A number goes on as long as there are digits: only what follows tells that it is whole.
                if self._ended or (end < len(self._held) and self._held[end] in _DELIMITERS + " \t\r\n:"):
                    self._place = end
                    return value
            if len(self._held) - self._place > _LONGEST:
                raise ValueError(f"an element is longer than {_LONGEST:,} characters, or is not JSON")
            self._read(max(_CHUNK, len(self._held) - self._place))  # at least twice as much as before

    def _peek(self) -> str:
        """The next character that is no space, "" at the end of the file."""
        while True:
            found = _SPACE.match(self._held, self._place)
            self._place = found.end() if found else self._place
            if self._place < len(self._held) or self._ended:
                return self._held[self._place : self._place + 1]
            self._read(_CHUNK)

    def _read(self, size: int) -> None:
        content = self._file.read(size)
        self._ended = not content
        self._held = self._held[self._place :] + self._decoder.decode(content, final=self._ended)
        self._place = 0
