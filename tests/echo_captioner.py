"""A captioner without a model: what it says follows from the pixels, the language and the settings alone.

It stands where the real one would, so that HTTP and the command line are tested end to end in milliseconds.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.captions import (
    Alternative,
    Caption,
    CaptionResult,
    CaptionSettings,
    ImageCaptions,
    WordAttention,
)
from models.lengths import choose
from retrieval.datastore import Neighbour
from retrieval.manifest import Counts, IndexSettings, Manifest

GRID = ((0.5, 0.25, 0.0), (0.123456, 0.0, 0.126544))
WORDS = {"ar": "صورة", "de": "Bild", "en": "picture", "es": "imagen", "pt": "foto", "zh": "图片"}


MANIFEST = Manifest(
    format_version=1,
    version="v-test",
    embedder="echo-embedder",
    dimension=2,
    metric="inner_product",
    counts=Counts(entries=7, texts=9, repeated_texts=0, languages={"en": 7, "es": 2}),
    index=IndexSettings(kind="flat"),
    faiss_version="0",
    created="2026-11-22T00:00:00Z",
    tool_version="0",
    sources=(),
    files={},
    content_sha256="0" * 64,
    complete=True,
)


def _count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


@dataclass(frozen=True)
class EchoDatastore:
    """Its neighbours say what the query was."""

    version: str = "v-test"
    root: Path | None = None

    def check(self) -> None:
        """There is nothing to find."""

    @property
    def manifest(self) -> Manifest:
        return MANIFEST.model_copy(update={"version": self.version})

    def neighbours(
        self, queries: NDArray[np.float32], languages: Sequence[Sequence[str]], k: int
    ) -> list[list[list[Neighbour]]]:
        return [
            [
                [
                    Neighbour(f"n{number}", str(query.tolist()), language, 0.12345 - number)
                    for number in range(k)
                ]
                for language in asked
            ]
            for query, asked in zip(queries, languages, strict=True)
        ]


@dataclass
class EchoCaptioner:
    languages: tuple[str, ...] = tuple(WORDS)
    bundle_name: str = "echo"
    revision: str = "r1"
    datastore: EchoDatastore = field(default_factory=EchoDatastore)
    calls: list[tuple[int, CaptionSettings]] = field(default_factory=list)
    gate: threading.Event | None = None  # when set, captioning waits for it
    fail: Exception | None = None
    entered: int = 0  # batches begun

    def on_version(self, version: str) -> "EchoCaptioner":
        return replace(self, datastore=replace(self.datastore, version=version))

    def caption(self, images: Sequence[Image.Image], settings: CaptionSettings) -> CaptionResult:
        return self.caption_each(images, [settings.languages] * len(images), settings)

    def caption_each(
        self, images: Sequence[Image.Image], languages: Sequence[Sequence[str]], settings: CaptionSettings
    ) -> CaptionResult:
        self.entered += 1
        if self.gate is not None:
            assert self.gate.wait(timeout=120)
        if self.fail is not None:
            raise self.fail
        self.calls.append((len(images), replace(settings, languages=tuple(languages[0]))))
        return CaptionResult(
            tuple(self._captions(image, own, settings) for image, own in zip(images, languages, strict=True)),
            {"encode": 1.0, "retrieve": 2.0, "generate": 3.0},
        )

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        return np.array([image.size for image in images], np.float32)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([(len(text), 0) for text in texts], np.float32)

    @property
    def count_tokens(self) -> Callable[[Sequence[str]], list[int]]:
        return _count_words

    def _captions(
        self, image: Image.Image, languages: Sequence[str], settings: CaptionSettings
    ) -> ImageCaptions:
        red, green, blue = image.resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
        captions = []
        for language in languages:
            texts = [
                f"{WORDS[language]} {red},{green},{blue}" + (f" #{number}" if number else "")
                for number in range(settings.num_captions)
            ]
            if settings.max_length is not None:
                texts = [text for _, text in choose(texts, settings.max_length, language)]
            neighbours = [
                Neighbour(f"n{number}", f"{WORDS[language]} {number}", language, 0.9 - 0.1 * number)
                for number in range(4 if settings.neighbours is None else settings.neighbours)
            ]
            captions.append(
                Caption(
                    language,
                    texts[0],
                    0.75,
                    tuple(Alternative(text, 0.5) for text in texts[1:]),
                    tuple(neighbours),
                    tuple(WordAttention(word, GRID) for word in texts[0].split()) if settings.explain else (),
                    tokens=5 * len(texts),
                )
            )
        return ImageCaptions(tuple(captions))
