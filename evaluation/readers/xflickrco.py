"""xFlickr&CO of IGLUE (Bugliarello et al., ICML 2022): a folder for each language with `test.jsonl` in it."""

from pathlib import Path

from evaluation.readers.dataset import Dataset, DatasetBuilder, text_of
from evaluation.readers.lines import rows_of
from retrieval.errors import InvalidRequestError


def read_xflickrco(captions: Path, images: Path, split: str, limit: int | None = None) -> Dataset:
    """A line a photo: `img_path` and a list `sentences`; the folder's name is the language.

    Raises:
        InvalidRequestError: there is no such file under `captions`, one cannot be read, or none can be used.
    """
    files = sorted(captions.glob(f"*/{split}.jsonl"))
    if not files:
        raise InvalidRequestError(
            f"{captions} has no file LANGUAGE/{split}.jsonl, which xFlickrCO would have"
        )
    builder = DatasetBuilder()
    for path in files:
        for where, row in rows_of(path, builder):
            where = f"{path.parent.name}/{where}"
            name = next(text_of(row, "img_path"), "")
            if not name:
                builder.reject(where, "the row has no 'img_path'")
                continue
            image_id = next(text_of(row, "id"), name)
            builder.add(where, image_id, images / name, path.parent.name, row.get("sentences"))
    return builder.finish(captions, limit)
