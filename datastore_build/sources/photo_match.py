"""Does a text fit the photo that its row names? Texts that plainly do not are left out.

The bundle's matcher judges. Rows that name no photo pass: there is nothing to judge them by.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageOps

from datastore_build.sources.rows import Reject, Row, without

_ROWS = 16  # judged at once
_MOST_PIXELS = 50_000_000
_LONGEST_SIDE = 1024  # no encoder looks at more
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


class Matches(Protocol):
    """What is needed of models.photo_matching.PhotoMatcher."""

    def match(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Logit of each image with each of its own texts."""


class PhotoMatch:
    """Args:
    load: gives the matcher, at the first photo.
    folder: where the photos are; None: each beside the source that names it.
    """

    def __init__(self, load: Callable[[], Matches], folder: Path | None = None) -> None:
        self._load = load
        self._folder = folder
        self._matcher: Matches | None = None

    def filter(
        self, items: Iterable[Row | Reject], sources: Sequence[Path], least: float
    ) -> Iterator[Row | Reject]:
        """The rows with the texts that fit their photo with a confidence of `least`; Rejects pass through.

        A row whose photo cannot be read is left out. Raises InvalidRequestError if the bundle has no matcher.
        """
        waiting = iter(items)
        while window := list(islice(waiting, _ROWS)):
            judged = self._judge(window, sources)
            for number, item in enumerate(window):
                result = judged.get(number)
                if isinstance(item, Reject) or result is None:
                    yield item
                elif isinstance(result, str):
                    yield Reject(item.source, item.line, result, kind="unreadable_photo")
                else:
                    yield from _passed(item, result, least)

    def _judge(self, window: Sequence[Row | Reject], sources: Sequence[Path]) -> dict[int, list[float] | str]:
        """For each row that names a photo the confidence of its texts, or why the photo cannot be read."""
        judged: dict[int, list[float] | str] = {}
        rows, photos = [], []
        for number, item in enumerate(window):
            if isinstance(item, Row) and item.image is not None:
                folder = self._folder or sources[item.source].parent
                try:
                    photos.append(open_photo(folder, item.image))
                    rows.append((number, item))
                except ValueError as error:
                    judged[number] = str(error)
        if rows:
            if self._matcher is None:
                self._matcher = self._load()
            texts = [[text for _, text in row.texts] for _, row in rows]
            for (number, _), logits in zip(rows, self._matcher.match(photos, texts), strict=True):
                judged[number] = [1 / (1 + math.exp(-max(logit, -700.0))) for logit in logits]
        return judged


def open_photo(folder: Path, name: str) -> Image.Image:
    """A photo in the folder, upright, RGB. Raises ValueError that says why it cannot be read."""
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ValueError(f"the photo {name!r} is not in {folder}")
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"the photo {name!r} has more than {_MOST_PIXELS:,} pixels")
            image.draft("RGB", (_LONGEST_SIDE, _LONGEST_SIDE))
            image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise ValueError(f"there is no photo {name!r} in {folder}") from None
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the photo {name!r} cannot be read: {reason}") from None


def _passed(row: Row, confidences: Sequence[float], least: float) -> Iterator[Row | Reject]:
    """The row with the texts that fit, behind a Reject for each that does not."""
    kept, faults = [], []
    for (language, text), confidence in zip(row.texts, confidences, strict=True):
        if confidence >= least:
            kept.append((language, text))
        else:
            reason = (
                f"the text in {language} fits the photo {row.image!r} with a confidence of {confidence:.3f}, "
                f"less than {least:g}"
            )
            faults.append(("poor_match", reason))
    yield from without(row, kept, faults)
