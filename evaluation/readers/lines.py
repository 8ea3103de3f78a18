"""Any JSON Lines file of photos with reference captions: `image`, `references`, `language` a line."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.readers.dataset import Dataset, DatasetBuilder, text_of
from retrieval.errors import InvalidRequestError


def read_lines(captions: Path, images: Path, limit: int | None = None) -> Dataset:
    """A line a photo and language: `image` is a path under the folder, `references` a text or a list of them.

    Raises:
        InvalidRequestError: the file cannot be read, or nothing of it can be used.
    """
    builder = DatasetBuilder()
    for where, row in rows_of(captions, builder):
        image, language = next(text_of(row, "image"), ""), next(text_of(row, "language", "lang"), "")
        if image and language:
            image_id = next(text_of(row, "image_id"), image)
            builder.add(where, image_id, images / image, language, row.get("references"))
        else:
            builder.reject(where, f"the row has no '{'image' if not image else 'language'}'")
    return builder.finish(captions, limit)


def rows_of(path: Path, builder: DatasetBuilder) -> Iterator[tuple[str, dict[str, Any]]]:
    """File and line, and the object, of each line that has one; other lines are rejected.

    Raises:
        InvalidRequestError: the file cannot be read.
    """
    for where, line in lines_of(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            builder.reject(where, f"not JSON ({error})")
            continue
        if isinstance(row, dict):
            yield where, row
        else:
            builder.reject(where, "not a JSON object")


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """File and number of each line, and the line without its end; `.gz` is read too.

    Raises:
        InvalidRequestError: the file cannot be read.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                yield f"{path.name}:{number}", line.rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidRequestError(f"cannot read {path}: {reason}") from error
