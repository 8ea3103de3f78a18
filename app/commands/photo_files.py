"""Photos from files, captioned in batches: the work behind `paellera caption`.

Reads, decodes and captions; a photo that cannot be read becomes an item that says why. Prints nothing.
"""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from app.images import DecodedImage, ImageLimits, decode_image
from app.model import CaptionModel
from app.negotiation import default_language, locale_language, named_languages
from app.reply import describe_image, to_settings
from app.schemas import MAX_CAPTIONS, CaptionParameters, ErrorItem, FailedImage, SourcedImage
from app.settings import Settings
from retrieval.errors import ImageTooLargeError, InvalidImageError

STANDARD_INPUT = Path("-")


class PhotoRun:
    """One run over any number of photos. `load` is called when the first photo is ready for the model."""

    def __init__(
        self, load: Callable[[], CaptionModel], parameters: CaptionParameters, settings: Settings
    ) -> None:
        self.timings_ms: dict[str, float] = {}
        self.pictures: list[Image.Image] = []  # the captioned photos as decoded, kept only with `explain`
        self._load = load
        self._parameters = parameters
        self._settings = settings
        self._model: CaptionModel | None = None

    @property
    def model(self) -> CaptionModel:
        """Loads it when there is none yet. Raises BundleError or DatastoreError."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def images(self, paths: Sequence[Path]) -> Iterator[SourcedImage | FailedImage]:
        """An item per photo, in order. Raises InvalidRequestError, such as for an unknown language."""
        for start in range(0, len(paths), self._settings.max_images):
            batch = paths[start : start + self._settings.max_images]
            decoded = [self._decode(path) for path in batch]
            captioned = iter(self._caption([item for item in decoded if isinstance(item, DecodedImage)]))
            for path, item in zip(batch, decoded, strict=True):
                if isinstance(item, DecodedImage):
                    yield next(captioned).model_copy(update={"source": source_name(path)})
                else:
                    error = ErrorItem(code=item.code, detail=str(item))
                    yield FailedImage(source=source_name(path), error=error)

    def _decode(self, path: Path) -> DecodedImage | InvalidImageError:
        limits = self._settings.image_limits
        started = time.perf_counter()
        try:
            return decode_image(read_photo(path, limits), limits)
        except InvalidImageError as error:
            return error
        finally:
            self._add_time("decode", 1000 * (time.perf_counter() - started))

    def _caption(self, decoded: Sequence[DecodedImage]) -> list[SourcedImage]:
        if not decoded:
            return []
        languages = self._languages()
        # As many photos at once as the limit on captions leaves room for.
        at_once = max(1, MAX_CAPTIONS // (len(languages) * self._parameters.num_captions))
        items = []
        for start in range(0, len(decoded), at_once):
            batch = decoded[start : start + at_once]
            settings = to_settings(self._parameters, languages, len(batch))
            result = self.model.caption([item.image for item in batch], settings)
            for stage, milliseconds in result.timings_ms.items():
                self._add_time(stage, milliseconds)
            if self._parameters.explain:
                self.pictures += [item.image for item in batch]
            for item, captions in zip(batch, result.images, strict=True):
                items.append(SourcedImage(source="", **dict(describe_image(item, captions))))
        return items

    def _languages(self) -> tuple[str, ...]:
        supported = self.model.languages
        default = default_language(self._settings.default_language, supported)
        named = named_languages(self._parameters.languages, supported)
        return named or (locale_language(os.environ, supported, default),)

    def _add_time(self, stage: str, milliseconds: float) -> None:
        self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + milliseconds


def read_photo(path: Path, limits: ImageLimits) -> bytes:
    """The bytes of a file, or of standard input for `-`, up to the limit. Raises InvalidImageError."""
    if path == STANDARD_INPUT:
        return _read(sys.stdin.buffer, limits)
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise InvalidImageError("this is a folder; name the photos in it")
        with path.open("rb") as file:
            return _read(file, limits)
    except FileNotFoundError:
        if str(path).startswith(("http:/", "https:/")):
            raise InvalidImageError("addresses are not fetched; download the photo first") from None
        raise InvalidImageError("there is no such file") from None
    except OSError as error:
        raise InvalidImageError(f"it cannot be read: {(error.strerror or str(error)).lower()}") from None
    except ValueError:  # a null character in the name
        raise InvalidImageError("there is no such file") from None


def source_name(path: Path) -> str:
    """The path as text that can always be printed; names on disk need not be valid Unicode."""
    return os.fsencode(path).decode("utf-8", "replace")


def _read(file: BinaryIO, limits: ImageLimits) -> bytes:
    data = file.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(f"it has more than the {limits.max_bytes:,} bytes that are accepted")
    return data
