"""What every reader gives: photos, references by language, and the rows that could not be taken."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.references import HUMAN_KINDS, Photo, References
from retrieval.errors import InvalidRequestError, UnknownLanguageError
from retrieval.languages import normalise


@dataclass(frozen=True)
class Dataset:
    """Photos in the order of the files. `rejected` names each row that was left out, and why."""

    photos: list[Photo]
    references: Mapping[str, References]
    rejected: tuple[str, ...] = ()


@dataclass
class DatasetBuilder:
    """Takes rows as they come. A photo or caption that is not usable is counted and named."""

    kind: str = HUMAN_KINDS[0]
    _photos: dict[str, Photo] = field(default_factory=dict)
    _texts: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # language → image id → captions
    _rejected: list[str] = field(default_factory=list)

    def add(self, where: str, image_id: str, photo: Path, language: str, captions: Any) -> None:
        """One photo's captions in one language (any tag); `where` is the file and line of the row."""
        texts = [captions] if isinstance(captions, str) else captions
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            self.reject(where, "the captions are not texts")
            return
        texts = [" ".join(text.split()) for text in texts if text.strip()]
        if not texts:
            self.reject(where, "there is no caption")
            return
        try:
            code = normalise(language)
        except UnknownLanguageError as error:
            self.reject(where, str(error))
            return
        if not photo.is_file():
            self.reject(where, f"the photo is not at {photo}")
            return
        self._photos.setdefault(image_id, Photo(image_id, photo))
        self._texts.setdefault(code, {}).setdefault(image_id, []).extend(texts)

    def reject(self, where: str, reason: str) -> None:
        self._rejected.append(f"{where}: {reason}")

    def finish(self, what: Path, limit: int | None) -> Dataset:
        """At most the first `limit` photos.

        Raises:
            InvalidRequestError: nothing is left, with the first reason.
        """
        photos = list(self._photos.values())[:limit]
        if not photos:
            reason = f" ({self._rejected[0]})" if self._rejected else ""
            raise InvalidRequestError(f"{what} has no photo with captions{reason}")
        kept = {photo.image_id for photo in photos}
        references = {}
        for language in sorted(self._texts):
            texts = {key: own for key, own in self._texts[language].items() if key in kept}
            if texts:
                references[language] = References(language, (self.kind,), texts)
        return Dataset(photos, references, tuple(self._rejected))


def text_of(row: Mapping[str, Any], *names: str) -> Iterator[str]:
    """The members of a row of those names that are texts or whole numbers."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            yield str(value)
