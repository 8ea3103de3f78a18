"""Karpathy's splits (CVPR 2015) of COCO, Flickr8k and Flickr30k: one JSON document, captions in English."""

import json
from pathlib import Path

from evaluation.readers.dataset import Dataset, DatasetBuilder, text_of
from retrieval.errors import InvalidRequestError


def read_karpathy(captions: Path, images: Path, split: str, limit: int | None = None) -> Dataset:
    """`images` of the document: `filename` (under `filepath`), `split`, and `sentences` with `raw` texts.

    Raises:
        InvalidRequestError: the file cannot be read or is no such document, or nothing of it can be used.
    """
    try:
        document = json.loads(captions.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequestError(f"cannot read {captions}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidRequestError(f"{captions}: not JSON ({error})") from error
    rows = document.get("images") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise InvalidRequestError(f"{captions}: a Karpathy split has a list 'images'")
    builder, splits = DatasetBuilder(), set[str]()
    for number, row in enumerate(rows):
        where = f"{captions.name}, images[{number}]"
        if not isinstance(row, dict) or not isinstance(row.get("filename"), str):
            builder.reject(where, "the row has no 'filename'")
            continue
        splits.add(str(row.get("split")))
        if row.get("split") != split:
            continue
        sentences = row.get("sentences")
        texts = (
            [sentence.get("raw") for sentence in sentences if isinstance(sentence, dict)]
            if isinstance(sentences, list)
            else None
        )
        photo = images / str(row.get("filepath", "")) / row["filename"]
        image_id = next(text_of(row, "cocoid", "imgid"), row["filename"])
        builder.add(where, image_id, photo if photo.is_file() else images / row["filename"], "en", texts)
    if rows and split not in splits:
        raise InvalidRequestError(f"{captions} has no split '{split}' (splits: {', '.join(sorted(splits))})")
    return builder.finish(captions, limit)
