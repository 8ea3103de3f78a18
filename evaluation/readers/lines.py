"""Any JSON Lines file of photos with reference captions: `image`, `references`, `language` a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.json_lines import parse_rows
from evaluation.readers.dataset import Dataset, DatasetBuilder, text_of


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
    for number, row in parse_rows(path):
        where = f"{path.name}:{number}"
        if isinstance(row, str):
            builder.reject(where, row)
        else:
            yield where, row
