"""The index of the training photos: JSON Lines with `image_id`, `file` and `split`."""

import json
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import InvalidRequestError


@dataclass(frozen=True)
class Photo:
    """A line of the photo index; `file` is relative to the image folder."""

    image_id: str
    file: str
    split: str


def read_photos(path: Path) -> list[Photo]:
    """Read a JSON Lines photo index (`image_id`, `file`, `split` a line).

    Raises:
        InvalidRequestError: the file is missing, a line is not of that form, or an id comes twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InvalidRequestError(f"cannot read the photo index {path}: {error.strerror}") from error
    photos = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            photos.append(Photo(str(row["image_id"]), str(row["file"]), str(row["split"])))
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidRequestError(
                f"{path}:{number}: expected a JSON object with image_id, file and split"
            ) from error
    if len({photo.image_id for photo in photos}) != len(photos):
        raise InvalidRequestError(f"{path}: an image_id occurs twice")
    return photos


def read_splits(path: Path) -> dict[str, str]:
    """Image id → split, of the same file; raises as `read_photos` does."""
    return {photo.image_id: photo.split for photo in read_photos(path)}
