"""Files of lines, and of JSON objects a line. `.gz` is read too."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval.errors import InvalidRequestError


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line's number, and the line without its end.

    Raises:
        InvalidRequestError: the file cannot be read.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                yield number, line.rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidRequestError(f"cannot read {path}: {reason}") from error


def parse_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The number of each line that is not empty, and its object, or what is wrong with it.

    Raises:
        InvalidRequestError: the file cannot be read.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            yield number, f"not JSON ({error})"
        else:
            yield number, row if isinstance(row, dict) else "not a JSON object"


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line that is not empty.

    Raises:
        InvalidRequestError: the file cannot be read, or a line is no JSON object.
    """
    for number, row in parse_rows(path):
        if isinstance(row, str):
            raise InvalidRequestError(f"{path}:{number}: {row}")
        yield number, row
