"""Which photos are evaluated, and the captions they are held against.

The layout is two JSON Lines files (`.gz` allowed): an index with `image_id`, `file`, `split` a line, and
captions with `image_id`, `lang`, `caption` and, if known, `kind` a line. References are kept as people wrote
them; only English is put back from tokens ("a dog 's ball .") to running text.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from evaluation.json_lines import read_rows
from retrieval.errors import InvalidImageError, InvalidRequestError

HUMAN_KINDS = ("human", "human-translation")

_BEFORE_PUNCTUATION = re.compile(r"\s+(?=[.,;:!?%)]|'(?:s|re|ve|ll|d|m)\b|n't\b)", re.IGNORECASE)


@dataclass(frozen=True)
class Photo:
    image_id: str
    path: Path


# A bar over photos with a title; it gives what to call with the number of photos just done.
Progress = Callable[[str, Sequence[Photo]], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class References:
    """The reference captions of one language."""

    language: str
    kinds: tuple[str, ...]  # how they came about: human, human-translation, MT-postedited, MT
    texts: Mapping[str, Sequence[str]]  # image id → captions; photos without one are absent

    @property
    def by_people(self) -> bool:
        """Did people write at least some of them? Scores on the others are not comparable with those."""
        return any(kind in HUMAN_KINDS for kind in self.kinds)


def read_photos(index: Path, folder: Path, split: str, limit: int | None = None) -> list[Photo]:
    """The photos of a split in the order of the index, at most `limit` of them.

    A `file` of the index is looked for under `folder` by its whole relative path, else by its name alone.

    Raises:
        InvalidRequestError: the index is missing or malformed, or has no photo of that split.
    """
    photos: list[Photo] = []
    splits: set[str] = set()
    for number, row in read_rows(index):
        try:
            image_id, file, photo_split = str(row["image_id"]), str(row["file"]), str(row["split"])
        except KeyError as error:
            raise InvalidRequestError(f"{index}:{number}: the row has no {error}") from error
        splits.add(photo_split)
        if photo_split == split:
            path = folder / file
            photos.append(Photo(image_id, path if path.is_file() else folder / Path(file).name))
    if not photos:
        known = ", ".join(sorted(splits)) or "none"
        raise InvalidRequestError(f"{index} has no photo in split '{split}' (splits: {known})")
    return photos[:limit]


def open_photo(photo: Photo) -> Image.Image:
    """Decode a photo of the user's own data set to RGB, upright.

    Raises:
        InvalidImageError: it is missing or cannot be decoded.
    """
    try:
        with Image.open(photo.path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise InvalidImageError(f"photo {photo.image_id} is not at {photo.path}: check --images") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidImageError(f"{photo.path} cannot be decoded: {error}") from error


def read_references(
    path: Path, image_ids: Sequence[str], kinds: Sequence[str] | None = HUMAN_KINDS
) -> dict[str, References]:
    """The references of some photos, by language in alphabetical order.

    A language that has none of the kinds asked for is given with all it has, so that it can at least be
    reported; `References.kinds` and `by_people` tell.

    Args:
        kinds: kinds of caption wanted; None for all.

    Raises:
        InvalidRequestError: the file is missing or malformed, has no caption of these photos, or none of
            any kind asked for.
    """
    wanted = set(image_ids)
    rows: dict[str, list[tuple[str, str, str]]] = {}  # language → (image id, text, kind)
    for number, row in read_rows(path):
        try:
            image_id, language, text = str(row["image_id"]), str(row["lang"]), str(row["caption"]).strip()
        except KeyError as error:
            raise InvalidRequestError(f"{path}:{number}: the row has no {error}") from error
        if image_id in wanted and text:
            if language == "en":
                text = _BEFORE_PUNCTUATION.sub("", text)
            rows.setdefault(language, []).append((image_id, text, str(row.get("kind", "human"))))
    found = {kind for captions in rows.values() for _, _, kind in captions}
    if not found:
        raise InvalidRequestError(f"{path} has no caption of the {len(wanted)} photos to evaluate")
    if kinds is not None and found.isdisjoint(kinds):
        raise InvalidRequestError(
            f"{path} has no caption of kind {' or '.join(kinds)} (kinds: {', '.join(sorted(found))})"
        )
    return {language: _select(language, rows[language], kinds) for language in sorted(rows)}


def _select(language: str, rows: Sequence[tuple[str, str, str]], kinds: Sequence[str] | None) -> References:
    chosen = [row for row in rows if kinds is None or row[2] in kinds] or rows
    texts: dict[str, list[str]] = {}
    for image_id, text, _ in chosen:
        texts.setdefault(image_id, []).append(text)
    return References(language, tuple(sorted({kind for _, _, kind in chosen})), texts)
