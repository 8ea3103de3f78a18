"""One captioner behind many requests: loaded once, warmed up, used by one thread.

A request is let in or refused before it costs anything, its images are decoded in a pool of processes, and
then they wait to be captioned in batches, together with those of others. Knows nothing of HTTP; errors are
PaelleraErrors.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from anyio import to_thread
from PIL import Image

from app.batching import Batcher, BatchLimits, Part
from app.datastore_swap import DatastoreSwap
from app.decoding import DecodePool
from app.errors import NotReadyError
from app.model import CaptionModel
from app.model_holder import ModelFacts, ModelHolder
from app.negotiation import default_language
from app.operations.metrics import Metrics
from app.operations.tracing import Tracing
from app.reply import describe_reply, to_settings
from app.schemas import CaptionParameters, CaptionReply
from app.settings import Settings
from models.captions import CaptionSettings, ImageCaptions
from retrieval.manifest import Manifest

if TYPE_CHECKING:
    from retrieval.datastore import Neighbour


@dataclass(frozen=True)
class _Kind:
    """What photos must have in common to be captioned together."""

    model: CaptionModel
    settings: CaptionSettings  # their languages may differ


class _Photo(NamedTuple):
    """What is captioned in one piece."""

    image: Image.Image
    languages: tuple[str, ...]


class _Captioned(NamedTuple):
    captions: ImageCaptions
    timings_ms: dict[str, float]  # of the batch it was in: all of a batch have the same object


class CaptionService:
    """Create it inside the event loop that will use it."""

    def __init__(
        self,
        load: Callable[[], CaptionModel],
        settings: Settings,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self._tracing = tracing or Tracing(None)
        self._load = load
        self._batcher: Batcher[_Kind, _Photo, _Captioned] = Batcher(
            _caption_batch,
            BatchLimits(settings.max_waiting, settings.queue_seconds, settings.batch_rows),
            on_batch=lambda photos, _: self.metrics.observe_batch(photos),
        )
        self.holder = ModelHolder(self._load_warm, settings.unload_after_seconds, self._batcher.call)
        self.swap = DatastoreSwap(self.holder, self._probe, self._describe, self.metrics.count_swap)
        self._watch: asyncio.Task[None] | None = None
        self._decoder = DecodePool(
            settings.image_limits,
            settings.decode_workers,
            settings.decode_seconds,
            settings.decode_memory_bytes,
        )
        self.metrics.watch_queue(lambda: self._batcher.depth, lambda: self._batcher.oldest_age)
        self.metrics.watch_model(lambda: self.holder.loaded)
        self.metrics.watch_decoding(lambda: self._decoder.statistics)

    async def start(self) -> None:
        """Loads the model and captions a warm-up image with it; then the status is `ready`.

        Raises what loading raises; the status is `failed` then.
        """
        if self.settings.datastore_poll_seconds:
            watch = self.swap.watch(self.settings.datastore_poll_seconds)
            self._watch = asyncio.create_task(watch, context=Context())
        async with self.holder.model():
            pass

    async def start_decoder(self) -> None:
        """Spare the first request the start of a process that decodes."""
        await self._decoder.start()

    async def close(self) -> None:
        """Let go of threads and processes; the batch that runs is finished."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        await self._batcher.close()
        await self._decoder.close()

    @property
    def status(self) -> Literal["loading", "ready", "failed"]:
        if self.holder.failed:
            return "failed"
        return "loading" if self.holder.facts is None else "ready"

    @property
    def model(self) -> ModelFacts:
        """What is known of the model, which may be away. Raises NotReadyError if it was never loaded."""
        if self.holder.facts is None:
            self.check_ready()
        assert self.holder.facts is not None
        return self.holder.facts

    @property
    def default_language(self) -> str:
        return self._default_of(self.model.languages)

    @property
    def depth(self) -> int:
        """Requests that were let in and wait for the model."""
        return self._batcher.depth

    def check_ready(self) -> None:
        """Raises NotReadyError if the model was not loaded yet, or if the last attempt at it failed."""
        if self.holder.failed:
            raise NotReadyError("the model could not be loaded; the service's log says why", 30)
        if self.holder.facts is None:
            raise NotReadyError("the model is being loaded", 2)

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
        settings = to_settings(parameters, languages, len(images))
        with self._batcher.place(len(images) * len(languages)) as place:
            arrived = time.perf_counter()
            decoded = await self._decoder.decode(images)
            decode_ms = 1000 * (time.perf_counter() - arrived)
            images.clear()
            async with self.holder.model() as model:
                # Photos with the same settings are captioned together, whatever their languages.
                kind = _Kind(model, replace(settings, languages=()))
                parts = [Part(_Photo(item.image, languages), len(languages)) for item in decoded]
                captioned = await self._batcher.submit(place, kind, parts)
            total_ms = 1000 * (time.perf_counter() - arrived)
        timings_ms = _sum_of_batches(captioned)
        timings_ms["queue"] = max(total_ms - decode_ms - sum(timings_ms.values()), 0.0)
        timings_ms["decode"] = decode_ms
        captions = [one.captions for one in captioned]
        self._measure(captions, timings_ms)
        return describe_reply(model, decoded, captions, timings_ms)

    async def search(self, query: str | bytes, language: str, k: int) -> "list[Neighbour]":
        """Up to k captions of the datastore near a text or a photo, best first.

        Waits for the model as captions do.

        Raises:
            InvalidImageError: the photo cannot be decoded.
            RetryLaterError: NotReadyError or QueueFullError.
        """
        _ = self.model
        with self._batcher.place():
            pictures = [] if isinstance(query, str) else await self._decoder.decode([query])
            async with self.holder.model() as model:

                def run() -> "list[Neighbour]":
                    if isinstance(query, str):
                        vectors = model.embed_texts([query])
                    else:
                        vectors = model.embed_images([picture.image for picture in pictures])
                    return model.datastore.neighbours(vectors, [[language]], k)[0][0]

                return await self._batcher.call(run)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has in the model's vocabulary; needs no model. Raises NotReadyError."""
        return await to_thread.run_sync(self.model.count_tokens, texts)

    @property
    def datastore(self) -> Manifest:
        """What is known of the datastore. Raises NotReadyError."""
        return self.model.datastore

    def _load_warm(self) -> CaptionModel:
        """Loads the model and captions a warm-up image, so that a request finds everything in place."""
        model = self._load()
        warm_up(model, self._default_of(model.languages))
        self._describe(model)
        return model

    async def _probe(self, model: CaptionModel) -> None:
        """Captions with a model that is to replace the present one, between two batches.

        Raises whatever captioning raises.
        """
        await self._batcher.call(lambda: warm_up(model, self._default_of(model.languages)))

    def _describe(self, model: CaptionModel) -> None:
        self.metrics.describe_model(model.bundle_name, model.revision, model.datastore.version)

    def _measure(self, images: Sequence[ImageCaptions], timings_ms: Mapping[str, float]) -> None:
        captions = [caption for image in images for caption in image.captions]
        self.metrics.observe_stages(timings_ms)
        self.metrics.count_captions(
            sum(1 + len(caption.alternatives) for caption in captions),
            sum(caption.tokens for caption in captions),
        )
        self._tracing.record_stages(timings_ms)

    def _default_of(self, languages: Sequence[str]) -> str:
        return default_language(self.settings.default_language, languages)


def warm_up(model: CaptionModel, language: str) -> str:
    """The caption of a drawn picture: shows that the model works, and pays for what is made only once."""
    picture = Image.linear_gradient("L").convert("RGB")
    result = model.caption([picture], to_settings(CaptionParameters(), (language,), 1))
    return result.images[0].captions[0].text


def _caption_batch(kind: _Kind, photos: Sequence[_Photo]) -> list[_Captioned]:
    result = kind.model.caption_each(
        [photo.image for photo in photos], [photo.languages for photo in photos], kind.settings
    )
    return [_Captioned(captions, result.timings_ms) for captions in result.images]


def _sum_of_batches(captioned: Sequence[_Captioned]) -> dict[str, float]:
    """Milliseconds of each stage in all the batches that a request's photos were in."""
    total: dict[str, float] = {}
    for batch in {id(one.timings_ms): one.timings_ms for one in captioned}.values():
        for stage, milliseconds in batch.items():
            total[stage] = total.get(stage, 0.0) + milliseconds
    return total
