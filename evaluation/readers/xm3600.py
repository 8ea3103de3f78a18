"""Crossmodal-3600 (Thapliyal et al., EMNLP 2022): `captions.jsonl` and photos named by their keys."""

from pathlib import Path

from evaluation.readers.dataset import Dataset, DatasetBuilder
from evaluation.readers.lines import rows_of
from retrieval.languages import XM3600_LANGUAGES


def read_xm3600(captions: Path, images: Path, limit: int | None = None) -> Dataset:
    """A line a photo: `image/key`, and an object with a list `caption` under the code of each language.

    Raises:
        InvalidRequestError: the file cannot be read, or nothing of it can be used.
    """
    builder = DatasetBuilder()
    for where, row in rows_of(captions, builder):
        key = row.get("image/key")
        if not isinstance(key, str) or not key or "/" in key:
            builder.reject(where, "the row has no 'image/key'")
            continue
        found = [code for code in XM3600_LANGUAGES if isinstance(row.get(code), dict)]
        if not found:
            builder.reject(where, "the row has no captions in any language")
        for code in found:
            builder.add(f"{where} ({code})", key, images / f"{key}.jpg", code, row[code].get("caption"))
    return builder.finish(captions, limit)
