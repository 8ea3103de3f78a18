"""A picture of what a caption's words looked at: the photo, then for each word the photo with a heatmap.

One row for each caption, in its direction of reading. Takes reply items and pixels; loads no model.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from app.commands.fonts import (
    SHAPING_PACKAGE,
    FontFile,
    can_shape,
    find_font,
    font_package,
    is_right_to_left,
    needs_shaping,
)
from app.schemas import CaptionItem
from retrieval.errors import InvalidRequestError
from retrieval.files import replacing
from retrieval.languages import display_name

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_SIDE = 208  # pixels, the longer side of a panel
_GAP = 12
_TITLE, _LABEL = 22, 18  # sizes of letters, in pixels
_SMALLEST = 9  # a long word is written smaller, down to this
_PAPER, _INK = (255, 255, 255), (24, 24, 27)
# Black, violet, red, orange, pale yellow: lightness rises evenly, so that it can be read in grey, too.
_COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
_OPAQUE = 0.8  # of the hottest place: something of the photo is always seen
# A word that looks everywhere alike has 1 / N at its hottest place, and must not be shown as hot: the
# brightest colour stands for this many times as much, or for the word's own maximum where that is more.
_HOT = 4


@dataclass(frozen=True)
class _Lettering:
    """How the texts of one caption are written."""

    file: FontFile | None  # None: the one inside Pillow, which has ASCII
    right_to_left: bool
    in_numbers: bool = False  # for lack of letters, instead of words

    def font(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        if self.file is None:
            return ImageFont.load_default(size)
        return self.file.at(size, shaped=can_shape())

    def fitting(self, text: str, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        """A font in which the text is not wider, unless it would be too small to read."""
        font = self.font(_LABEL)
        size = min(_LABEL, int(_LABEL * width / max(self.width(text, font), 1)))
        return self.font(max(size, _SMALLEST))

    def width(self, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
        return math.ceil(font.getlength(text, direction=self._direction))

    def write(
        self,
        draw: ImageDraw.ImageDraw,
        place: tuple[int, int],
        text: str,
        font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
        anchor: str,
    ) -> None:
        draw.text(place, text, _INK, font, anchor, direction=self._direction)

    @property
    def _direction(self) -> str | None:
        if self.file is None or not can_shape():
            return None  # Pillow refuses a direction then
        return "rtl" if self.right_to_left else "ltr"


def check_destination(path: Path, photos: Sequence[Path]) -> None:
    """Raises InvalidRequestError where such a picture could not be written, before any work is done."""
    if len(photos) != 1:
        raise InvalidRequestError(f"--explain draws one photo, not {len(photos)}: name a single one")
    if path.suffix.lower() not in _FORMATS:
        raise InvalidRequestError(f"--explain: {path} must end in .png or .jpg")
    if not path.parent.is_dir():
        raise InvalidRequestError(f"--explain: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise InvalidRequestError(f"--explain: {path} is a folder; name a file in it")
    if path.exists() and photos[0].exists() and path.samefile(photos[0]):
        raise InvalidRequestError("--explain would overwrite the photo itself: name another file")


def explanation_picture(photo: Image.Image, captions: Sequence[CaptionItem]) -> tuple[Image.Image, list[str]]:
    """The picture, and warnings: one line for each caption that cannot be written in letters here."""
    scale = _SIDE / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    small = photo.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    rows, warnings = [], []
    for caption in captions:
        lettering, warning = _lettering(caption)
        warnings += [warning] if warning else []
        rows.append(_row(small, caption, lettering))
    picture = Image.new(
        "RGB", (max(row.width for row in rows), sum(row.height for row in rows) + _GAP), _PAPER
    )
    top = 0
    for row, caption in zip(rows, captions, strict=True):
        left = picture.width - row.width if is_right_to_left(caption.text) else 0
        picture.paste(row, (left, top))
        top += row.height
    return picture, warnings


def write_picture(picture: Image.Image, path: Path) -> None:
    """Whole or not at all; PNG or JPEG by the name. Raises OSError."""
    encoded = io.BytesIO()
    picture.save(encoded, _FORMATS[path.suffix.lower()], optimize=True, quality=90)
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


def heatmap(weights: Sequence[Sequence[float]], size: tuple[int, int]) -> NDArray[np.float32]:
    """Rows of weights with a sum of 1, made smooth: (height, width) of `size`, from 0 to 1."""
    grid = np.asarray(weights, dtype=np.float32)
    hottest = max(float(grid.max()), _HOT / grid.size)
    smooth = Image.fromarray(grid / hottest).resize(size, Image.Resampling.BICUBIC)
    clipped: NDArray[np.float32] = np.asarray(smooth).clip(0, 1)
    return clipped


def _overlay(photo: Image.Image, weights: Sequence[Sequence[float]]) -> Image.Image:
    heat = heatmap(weights, photo.size)[:, :, None]  # (H, W, 1)
    stops = np.linspace(0, 1, len(_COLOURS))
    colours = np.concatenate(
        [np.interp(heat, stops, [colour[channel] for colour in _COLOURS]) for channel in range(3)], axis=2
    )
    grey = np.asarray(photo.convert("L"), dtype=np.float32)[:, :, None]
    mixed = grey * (1 - _OPAQUE * heat) + colours * _OPAQUE * heat
    return Image.fromarray(mixed.round().astype(np.uint8))


def _lettering(caption: CaptionItem) -> tuple[_Lettering, str | None]:
    """How to write a caption, and why in numbers if so."""
    right_to_left = is_right_to_left(caption.text)
    language = f"{display_name(caption.language)} ({caption.language})"
    if needs_shaping(caption.text) and not can_shape():
        reason = f"the letters of {language} cannot be joined without the library FriBidi"
        package = SHAPING_PACKAGE
    else:
        file = find_font(caption.text)
        if file is not None or caption.text.isascii():
            return _Lettering(file, right_to_left), None
        reason = f"no font here has all letters of the caption in {language}"
        package = font_package(caption.text)
    warning = (
        f"{reason}, so its words have numbers in the picture; on Debian and Ubuntu: apt-get install {package}"
    )
    return _Lettering(None, right_to_left, in_numbers=True), warning


def _row(photo: Image.Image, caption: CaptionItem, lettering: _Lettering) -> Image.Image:
    """Title, photo and panels of a caption."""
    words = [] if caption.attention is None else caption.attention.words
    title, labels = caption.text, [word.text for word in words]
    if lettering.in_numbers:
        title, labels = f"{caption.language}: 1-{len(words)}", [str(i) for i in range(1, len(words) + 1)]
    panels = [photo, *(_overlay(photo, word.weights) for word in words)]
    title_font = lettering.font(_TITLE)
    width = _GAP + max(len(panels) * (photo.width + _GAP), lettering.width(title, title_font) + _GAP)
    top = _GAP + 2 * _TITLE
    row = Image.new("RGB", (width, top + photo.height + 2 * _LABEL), _PAPER)
    draw = ImageDraw.Draw(row)
    if lettering.right_to_left:
        lettering.write(draw, (width - _GAP, _GAP + _TITLE), title, title_font, "rm")
    else:
        lettering.write(draw, (_GAP, _GAP + _TITLE), title, title_font, "lm")
    for number, (panel, label) in enumerate(zip(panels, ["", *labels], strict=True)):
        left = _GAP + number * (photo.width + _GAP)
        if lettering.right_to_left:
            left = width - left - photo.width
        row.paste(panel, (left, top))
        middle = (left + photo.width // 2, top + photo.height + _LABEL)
        lettering.write(draw, middle, label, lettering.fitting(label, photo.width), "mm")
    return row
