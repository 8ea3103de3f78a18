"""Which reader reads which data set."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from evaluation.readers.dataset import Dataset
from evaluation.readers.karpathy import read_karpathy
from evaluation.readers.lines import read_lines
from evaluation.readers.multi30k import read_multi30k
from evaluation.readers.xflickrco import read_xflickrco
from evaluation.readers.xm3600 import read_xm3600
from evaluation.references import read_photos, read_references
from retrieval.errors import InvalidRequestError


class DataFormat(StrEnum):
    """How a data set is laid out."""

    INDEX = "index"  # two JSON Lines files: docs/evaluation.md
    LINES = "lines"
    XM3600 = "xm3600"
    KARPATHY = "karpathy"
    MULTI30K = "multi30k"
    XFLICKRCO = "xflickrco"


_SPLITS = {
    DataFormat.INDEX: "dev",
    DataFormat.KARPATHY: "test",
    DataFormat.MULTI30K: "test_2016_flickr",
    DataFormat.XFLICKRCO: "test",
}


def default_split(layout: DataFormat) -> str:
    """The split that is evaluated if none is named; "all" where the data set has none."""
    return _SPLITS.get(layout, "all")


def read_dataset(
    layout: DataFormat,
    captions: Path,
    images: Path,
    *,
    index: Path | None,
    split: str,
    kinds: Sequence[str] | None,
    limit: int | None,
) -> Dataset:
    """Photos and references of a data set.

    Args:
        index, kinds: of the layout `index` alone.

    Raises:
        InvalidRequestError: a file is missing or is not of this layout, or nothing of it can be used.
    """
    if layout is DataFormat.INDEX:
        if index is None:
            raise InvalidRequestError("name the photos with --index, or the data set's layout with --format")
        photos = read_photos(index, images, split, limit)
        return Dataset(photos, read_references(captions, [photo.image_id for photo in photos], kinds))
    if layout is DataFormat.LINES:
        return read_lines(captions, images, limit)
    if layout is DataFormat.XM3600:
        return read_xm3600(captions, images, limit)
    readers = {
        DataFormat.KARPATHY: read_karpathy,
        DataFormat.MULTI30K: read_multi30k,
        DataFormat.XFLICKRCO: read_xflickrco,
    }
    return readers[layout](captions, images, split, limit)
