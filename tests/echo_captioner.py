"""A captioner without a model: what it says follows from the pixels, the language and the settings alone.

It stands where the real one would, so that HTTP and the command line are tested end to end in milliseconds.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from models.captioner import (
    Alternative,
    Caption,
    CaptionResult,
    CaptionSettings,
    ImageCaptions,
)
from models.explanation import WordAttention
from retrieval.datastore import Neighbour

GRID = ((0.5, 0.25, 0.0), (0.123456, 0.0, 0.126544))
WORDS = {"ar": "صورة", "de": "Bild", "en": "picture", "es": "imagen", "pt": "foto", "zh": "图片"}


@dataclass(frozen=True)
class EchoDatastore:
    version: str = "v-test"


@dataclass
class EchoCaptioner:
    languages: tuple[str, ...] = tuple(WORDS)
    bundle_name: str = "echo"
    revision: str = "r1"
    datastore: EchoDatastore | None = field(default_factory=EchoDatastore)
    calls: list[tuple[int, CaptionSettings]] = field(default_factory=list)
    gate: threading.Event | None = None  # when set, captioning waits for it
    fail: Exception | None = None
    entered: int = 0  # batches begun

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
