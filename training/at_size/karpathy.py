"""Karpathy's split of COCO (CVPR 2015), `dataset_coco.json`: photos and their English captions.

`images` is a list of `{"cocoid", "filepath", "filename", "split", "sentences": [{"sentid", "raw"}]}`. As is
usual, `restval` belongs to the training photos. The evaluation's reader of the same file is another
(evaluation/readers/karpathy.py): it wants photos on the disk and no ids of captions.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import InvalidRequestError
from training.at_size.rejects import Rejects
from training.photo_index import Photo

TRAIN_SPLITS = ("train", "restval")


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo of the file; `captions` are pairs of `sentid` and text."""

    image_id: str
    folder: str
    filename: str
    split: str
    captions: list[tuple[int, str]]


def read_captioned_photos(path: Path, rejects: Rejects) -> Iterator[CaptionedPhoto]:
    """All photos of all splits, in the order of the file; what cannot be used goes to `rejects`.

    Raises:
        InvalidRequestError: the file cannot be read, or is no such document.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidRequestError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{path}: not JSON ({error})") from error
    rows = document.get("images") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise InvalidRequestError(f"{path}: a Karpathy split has a list 'images'")
    del document
    photos, captions = set[str](), set[int]()
    for number, row in enumerate(rows):
        place = f"images[{number}]"
        reason, photo = _photo(row)
        if photo is None or photo.image_id in photos:
            rejects.add(path, place, reason or "the photo comes twice")
            continue
        photos.add(photo.image_id)
        for index, sentence in enumerate(row.get("sentences") or ()):
            reason, caption = _caption(sentence)
            if caption is None or caption[0] in captions:
                rejects.add(path, f"{place}.sentences[{index}]", reason or "the sentid comes twice")
                continue
            captions.add(caption[0])
            photo.captions.append(caption)
        rows[number] = None  # of a document of a gigabyte in memory, what was read is not needed any more
        yield photo


def read_karpathy_photos(path: Path, images: Path, rejects: Rejects) -> list[Photo]:
    """The training photos as a photo index, files relative to the folder `images`.

    Files are looked for in `filepath` under the folder, as COCO unpacks, and in the folder itself.

    Raises:
        InvalidRequestError: as `read_captioned_photos`, or there is no training photo.
    """
    photos = []
    for row in read_captioned_photos(path, rejects):
        if row.split in TRAIN_SPLITS:
            file = str(Path(row.folder) / row.filename)
            if not (images / file).is_file() and (images / row.filename).is_file():
                file = row.filename
            photos.append(Photo(row.image_id, file, row.split))
    if not photos:
        raise InvalidRequestError(f"{path} has no photo in the splits {' and '.join(TRAIN_SPLITS)}")
    return photos


def _photo(row: Any) -> tuple[str, CaptionedPhoto | None]:
    if not isinstance(row, dict):
        return "the photo is not a JSON object", None
    filename, split = row.get("filename"), row.get("split")
    if not isinstance(filename, str) or not filename or Path(filename).name != filename:
        return "the photo has no usable 'filename'", None
    folder = row.get("filepath", "")
    if not isinstance(folder, str) or Path(folder).is_absolute() or ".." in Path(folder).parts:
        return "the photo's 'filepath' is not a folder below the images", None
    if not isinstance(split, str):
        return "the photo has no 'split'", None
    if not isinstance(row.get("sentences"), list):
        return "the photo has no list 'sentences'", None
    image_id = next((row[key] for key in ("cocoid", "imgid") if _is_id(row.get(key))), filename)
    return "", CaptionedPhoto(str(image_id), folder, filename, split, [])


def _caption(sentence: Any) -> tuple[str, tuple[int, str] | None]:
    if not isinstance(sentence, dict) or not _is_id(sentence.get("sentid")):
        return "the caption has no whole number 'sentid'", None
    text = sentence.get("raw")
    if not isinstance(text, str) or not text.strip():
        return "the caption has no text 'raw'", None
    return "", (sentence["sentid"], text)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
