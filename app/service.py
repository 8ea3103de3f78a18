"""One captioner behind many requests: loaded once, warmed up, used by one thread.

A request is let in or refused before it costs anything, its images are decoded in a pool of processes, and
then they wait to be captioned in batches, together with those of others. Knows nothing of HTTP; errors are
PaelleraErrors.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import structlog
from PIL import Image

from app.batching import Batcher, BatchLimits, Part
from app.decoding import DecodePool
from app.errors import NotReadyError
from app.model import CaptionModel
from app.negotiation import default_language
from app.reply import describe_reply, to_settings
from app.schemas import CaptionParameters, CaptionReply
from app.settings import Settings

if TYPE_CHECKING:
    from models.captioner import CaptionSettings, ImageCaptions

_log = structlog.get_logger("paellera.service")


class _Photo(NamedTuple):
    """What is captioned in one piece."""

    image: Image.Image
    languages: tuple[str, ...]


class _Captioned(NamedTuple):
    captions: "ImageCaptions"
    timings_ms: dict[str, float]  # of the batch it was in: all of a batch have the same object


class CaptionService:
    """Create it inside the event loop that will use it."""

    def __init__(self, load: Callable[[], CaptionModel], settings: Settings) -> None:
        self.status: Literal["loading", "ready", "failed"] = "loading"
        self.settings = settings
        self._load = load
        self._model: CaptionModel | None = None
        self._batcher: Batcher[CaptionSettings, _Photo, _Captioned] = Batcher(
            self._caption_batch,
            BatchLimits(settings.max_waiting, settings.queue_seconds, settings.batch_rows),
        )
        self._decoder = DecodePool(
            settings.image_limits,
            settings.decode_workers,
            settings.decode_seconds,
            settings.decode_memory_bytes,
        )

    async def start(self) -> None:
        """Loads the model and captions a warm-up image with it; then the status is `ready`.

        Raises what loading raises; the status is `failed` then.
        """
        started = time.perf_counter()
        try:
            model = await self._batcher.call(self._load)
            picture = Image.linear_gradient("L").convert("RGB")
            settings = to_settings(CaptionParameters(), (self._default_of(model),), 1)
            await self._batcher.call(lambda: model.caption([picture], settings))
        except Exception:
            self.status = "failed"
            raise
        self._model = model
        self.status = "ready"
        _log.info(
            "model_ready",
            bundle=model.bundle_name,
            revision=model.revision,
            languages=len(model.languages),
            seconds=round(time.perf_counter() - started, 1),
        )

    @property
    def model(self) -> CaptionModel:
        """Raises NotReadyError while there is none."""
        if self._model is None:
            if self.status == "failed":
                raise NotReadyError("the model could not be loaded; the service's log says why", 30)
            raise NotReadyError("the model is being loaded", 2)
        return self._model

    @property
    def default_language(self) -> str:
        return self._default_of(self.model)

    @property
    def depth(self) -> int:
        """Requests that were let in and wait for the model."""
        return self._batcher.depth

    def check_room(self) -> None:
        """Raises NotReadyError or QueueFullError: asked before a body is read, to refuse cheaply."""
        _ = self.model
        self._batcher.check_room()

    async def caption(
        self, images: list[bytes], parameters: CaptionParameters, languages: tuple[str, ...]
    ) -> CaptionReply:
        """Caption every image in every language.

        `images` is emptied once decoded: a waiting request holds small pictures, not the files sent. When
        cancelled, what is not started is not captioned.

        Raises:
            InvalidImageError: which image, if there are several.
            InvalidRequestError: too many captions at once, or a setting that the bundle has no part for.
            RetryLaterError: NotReadyError, QueueFullError or QueueTimeoutError.
        """
        model = self.model
        settings = to_settings(parameters, languages, len(images))
        with self._batcher.place(len(images) * len(languages)) as place:
            arrived = time.perf_counter()
            decoded = await self._decoder.decode(images)
            decode_ms = 1000 * (time.perf_counter() - arrived)
            images.clear()
            # Photos with the same settings are captioned together, whatever their languages.
            kind = replace(settings, languages=())
            parts = [Part(_Photo(item.image, languages), len(languages)) for item in decoded]
            captioned = await self._batcher.submit(place, kind, parts)
            total_ms = 1000 * (time.perf_counter() - arrived)
        timings: dict[str, float] = {}
        for batch in {id(one.timings_ms): one.timings_ms for one in captioned}.values():
            for stage, milliseconds in batch.items():
                timings[stage] = timings.get(stage, 0.0) + milliseconds
        queue_ms = max(total_ms - decode_ms - sum(timings.values()), 0.0)
        captions = [one.captions for one in captioned]
        return describe_reply(model, decoded, captions, {"queue": queue_ms, "decode": decode_ms, **timings})

    async def close(self) -> None:
        """Let go of threads and processes; the batch that runs is finished."""
        await self._batcher.close()
        await self._decoder.close()

    def _caption_batch(self, settings: "CaptionSettings", photos: Sequence[_Photo]) -> list[_Captioned]:
        result = self.model.caption_each(
            [photo.image for photo in photos], [photo.languages for photo in photos], settings
        )
        return [_Captioned(captions, result.timings_ms) for captions in result.images]

    def _default_of(self, model: CaptionModel) -> str:
        return default_language(self.settings.default_language, model.languages)
